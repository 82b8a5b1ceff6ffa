"""A second planted model in which chosen neurons changed their class: just these moves are found."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
import torch

from language_neurons_alignment._compare import Comparison, comparison_of
from language_neurons_alignment._session import open_session
from language_neurons_alignment.activation import collect_activations
from language_neurons_alignment.analysis import ModelNeurons, open_neurons
from language_neurons_alignment.config import Selection
from language_neurons_alignment.languages import language_code, parse_languages
from tests.planted import D_MLP, LANGUAGES, LAYERS, Neuron, PlantedModel, planted_records

CODES = parse_languages(LANGUAGES)
SELECTED = 80


def found_in(truth: PlantedModel, folder: Path) -> ModelNeurons:
    with open_session(str(truth.folder), folder / "corpus.json", "words", root=folder, device="cpu") as session:
        for code in CODES:
            collect_activations(session, code)
        return open_neurons(session.layout, Selection(SELECTED / (LAYERS * D_MLP), languages=CODES))


@pytest.fixture(scope="module")
def moves(tmp_path_factory: pytest.TempPathFactory) -> dict[Neuron, tuple[frozenset[str], frozenset[str]]]:
    """(layer, neuron) → its languages before and after; as many neurons join the language neurons as leave them."""
    base = PlantedModel.save(tmp_path_factory.mktemp("base") / "model")
    by_languages: dict[frozenset[str], list[Neuron]] = {}
    for place, languages in base.planted.items():
        by_languages.setdefault(languages, []).append(place)
    everywhere = sorted(base.everywhere)
    loud = base.planted.keys() | base.everywhere | base.half
    silent = next(place for place in product(range(LAYERS), range(D_MLP)) if place not in loud)

    def one(*languages: str) -> Neuron:
        return by_languages[frozenset(languages)].pop()

    everything, nothing = frozenset(LANGUAGES), frozenset()
    after = {
        one("French"): frozenset({"French", "German"}),
        one("Japanese"): frozenset({"Bengali", "Thai", "Japanese"}),
        one("Spanish", "French"): frozenset({"Spanish"}),
        one("Thai"): everything,
        everywhere[0]: frozenset({"Thai"}),
        one("Russian"): nothing,
        silent: frozenset({"English", "Bengali"}),
        one("German"): frozenset({"Swahili"}),
    }
    before = {place: base.planted.get(place, everything if place in base.everywhere else nothing) for place in after}
    return {place: (before[place], after[place]) for place in after}


@pytest.fixture(scope="module")
def compared(moves: dict, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("compare")
    (folder / "corpus.json").write_text(json.dumps(planted_records(prompts=2, answers=1)), encoding="utf-8")
    base = PlantedModel.save(folder / "base")
    trained = PlantedModel.save(folder / "trained", moved={place: after for place, (_, after) in moves.items()})
    return comparison_of([found_in(base, folder), found_in(trained, folder)], trained=("de", "fr"))


def state(languages: frozenset[str]) -> str:
    return {0: "none", 1: "specific", len(LANGUAGES): "general"}.get(len(languages), "related")


def test_exactly_the_planted_moves_between_classes_are_found_in_their_layers(compared: Comparison, moves: dict) -> None:
    flow = compared.pairs[0].classes
    expected = torch.zeros(LAYERS, len(flow.states), len(flow.states), dtype=torch.int64)
    for (layer, _), (before, after) in moves.items():
        expected[layer, flow.states.index(state(before)), flow.states.index(state(after))] += 1
    elsewhere = ~torch.eye(len(flow.states), dtype=torch.bool)
    assert torch.equal(flow.counts[:, elsewhere], expected[:, elsewhere])
    assert int(flow.total.sum()) == LAYERS * D_MLP
    assert flow.total.diagonal().tolist() == [60 - 5 + 1, 20 - 1, 16 - 1, 0, LAYERS * D_MLP - 80 - 16 - 1]


def test_exactly_the_planted_neurons_join_and_leave_each_language(compared: Comparison, moves: dict) -> None:
    flow = compared.pairs[0].languages
    mask = flow.sets.index("mask")
    gained, lost = torch.zeros(LAYERS, len(CODES)).long(), torch.zeros(LAYERS, len(CODES)).long()
    for (layer, _), pair in moves.items():
        before, after = (some if len(some) < len(LANGUAGES) else frozenset() for some in pair)
        for name in after - before:
            gained[layer, CODES.index(language_code(name))] += 1
        for name in before - after:
            lost[layer, CODES.index(language_code(name))] += 1
    assert torch.equal(flow.gained[..., mask], gained)
    assert torch.equal(flow.lost[..., mask], lost)
    french = CODES.index("fr")
    assert float(flow.jaccard[french, mask]) == 10 / 11
    assert flow.kept[:, french, flow.sets.index("specific")].sum() == 5


def test_the_trained_languages_change_on_average_as_planted(compared: Comparison) -> None:
    groups = compared.pairs[0].groups
    assert groups.groups["trained"] == ("de", "fr")
    # de: specific −1, related +1; fr: specific −1, related −1 + 1
    assert groups.columns()["specific"][0] == -1.0
    assert groups.columns()["related"][0] == 0.5
    # the others: ru −1, ja −1, es +1, th −1 + 1, sw +1 specific; ja +1, th +1, bn +2, en +1, es −1 related
    assert groups.columns()["specific"][1] == 0.0
    assert groups.columns()["related"][1] == (1 + 1 + 2 + 1 - 1) / 8


def test_both_models_have_their_own_lambda_and_the_path_shows_their_classes(compared: Comparison) -> None:
    assert [one.lam_from for one in compared.models] == ["autosweep", "autosweep"]
    assert compared.path.totals.tolist() == [[60, 20, 16, 0], [58, 22, 16, 0]]
    assert compared.steps == compared.pairs
    assert len(compared.notes) == 2
    assert all("appear[K] = 0 at every λ, so none is the largest" in note for note in compared.notes)

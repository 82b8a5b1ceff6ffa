"""Methods on a model whose language neurons are known: what each finds, stores and does; and on made-up counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from language_neurons_alignment._methods import MethodComparison, compare_methods
from language_neurons_alignment._session import Session, open_session
from language_neurons_alignment.activation import collect_activations
from language_neurons_alignment.config import DEFAULT_MAP, METHODS, Selection
from language_neurons_alignment.core.methods import effect_size
from language_neurons_alignment.core.selection import from_mask_list
from language_neurons_alignment.errors import ConflictError, MissingArtifactError, SettingsError
from language_neurons_alignment.identify import identify
from language_neurons_alignment.languages import language_code
from language_neurons_alignment.ppl import perplexity_map
from language_neurons_alignment.store.counts import answer_moments
from language_neurons_alignment.store.layout import Layout
from language_neurons_alignment.store.masks import load_description, open_mask
from tests.planted import D_MLP, LAYERS, PlantedModel, planted_records
from tests.workspace import TEN, ForbiddenSource, contents, store_counts

NAMES = {language_code(name): name for name in ("English", "Spanish", "French", "German")}
CODES = tuple(NAMES)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> PlantedModel:
    return PlantedModel.save(tmp_path_factory.mktemp("planted") / "planted")


@pytest.fixture(scope="module")
def session(truth: PlantedModel) -> Iterator[Session]:
    """The planted model, counted with moments in four languages."""
    folder = truth.folder.parent
    (folder / "corpus.json").write_text(json.dumps(planted_records(NAMES.values())), encoding="utf-8")
    with open_session(str(truth.folder), folder / "corpus.json", "words", root=folder, device="cpu") as opened:
        for code in CODES:
            collect_activations(opened, code, moments=True)
        yield opened


@pytest.fixture(scope="module")
def compared(session: Session, truth: PlantedModel) -> MethodComparison:
    return compare_methods(session, EVERY, selection=CHOICE)


# of the planted neurons, those of a language among the four: 6 of it alone and 3 or so that it shares
CHOICE = Selection(top_rate=0.05, lam=0.1, bar=0.9, languages=CODES)
EVERY = [
    Selection(method="entropy-lambda"),
    Selection(method="lape"),
    Selection(method="equal-n", neurons=6),
    Selection(method="mean-difference", neurons=6),
    Selection(method="random"),
]


def test_every_method_but_random_finds_the_neurons_through_which_a_language_is_said(
    compared: MethodComparison, truth: PlantedModel
) -> None:
    masks = {one.description.method: one.mask for one in compared.found}
    for k, name in enumerate(NAMES.values()):
        speakers = truth.speakers(name)
        for method in ("entropy-lambda", "lape"):
            assert (masks[method][..., k] & speakers).sum() == speakers.sum(), method
        assert (masks["equal-n"][..., k] & truth.belonging(name)).sum() == 6
        assert (masks["random"][..., k] & speakers).sum() < speakers.sum() / 2


def test_mean_difference_takes_neurons_that_are_more_active_and_the_planted_ones_stand_out(
    session: Session, compared: MethodComparison, truth: PlantedModel
) -> None:
    moments = [answer_moments(session.layout, code) for code in CODES]
    mean, variance = (torch.stack([getattr(one, name) for one in moments], dim=-1) for name in ("mean", "variance"))
    effect = effect_size(mean, variance)
    (mask,) = (one.mask for one in compared.found if one.description.method == "mean-difference")
    for k, name in enumerate(NAMES.values()):
        chosen = mask[..., k]
        assert (mean[chosen][:, k] > (mean[chosen].sum(dim=-1) - mean[chosen][:, k]) / 3).all()
        assert (effect[truth.speakers(name)][:, k] > 10).all(), "they fire on every word of it, and on no other"


def test_what_finds_the_neurons_is_selective_and_random_is_not(compared: MethodComparison) -> None:
    columns = compared.table.columns()
    by_method = {name: i for i, name in enumerate(columns["method"])}
    for method in ("entropy-lambda", "lape"):
        row = by_method[method]
        assert columns["f1_low"][row] > 0.5, method
        assert columns["own_low"][row] > 10 * max(abs(columns["elsewhere"][row]), 1.0), method
    row = by_method["random"]
    assert columns["f1_high"][row] < 0.3
    assert columns["jaccard"][by_method["entropy-lambda"]] == 1.0
    assert columns["jaccard"][row] < 0.2
    for low, middle, high in (("own_low", "own", "own_high"), ("f1_low", "f1", "f1_high")):
        for i in range(len(METHODS)):
            assert columns[low][i] <= columns[middle][i] + 1e-9
            assert columns[middle][i] <= columns[high][i] + 1e-9


def test_the_means_are_those_of_the_maps(compared: MethodComparison) -> None:
    for row, drawn in enumerate(compared.maps):
        change = drawn.map.change()
        own = [float(change[k, k]) for k in range(len(CODES))]
        others = [float(change[k, j]) for k in range(len(CODES)) for j in range(len(CODES)) if j != k]
        assert float(compared.table.means[row, 0]) == pytest.approx(sum(own) / len(own))
        assert float(compared.table.means[row, 1]) == pytest.approx(sum(others) / len(others))
        selectivity = drawn.selectivity()
        assert selectivity is not None
        assert torch.allclose(compared.table.f1[row], selectivity.f1)


def test_a_second_comparison_computes_nothing_and_writes_the_same(session: Session, compared: MethodComparison) -> None:
    before = {path: path.read_bytes() for path in compared.files if path.suffix != ".png"}
    again = compare_methods(
        replace(session, source=ForbiddenSource()),
        EVERY,
        selection=CHOICE,
    )
    assert [one.computed for one in again.maps] == [0] * 5
    assert {path: path.read_bytes() for path in before} == before


def test_a_map_that_has_controls_is_not_drawn_anew_without_them(session: Session, compared: MethodComparison) -> None:
    lape, settings = session.layout.by(Selection(method="lape")), replace(DEFAULT_MAP, controls=2, seed=1)
    drawn = perplexity_map(replace(session, layout=lape), CODES, top_rate=0.05, lam=None, settings=settings)
    before = {path: path.read_bytes() for path in (drawn.csv, drawn.png)}
    again = compare_methods(replace(session, source=ForbiddenSource()), [Selection(method="lape")], selection=CHOICE)
    assert {path: path.read_bytes() for path in before} == before
    (mine,) = again.maps
    assert (mine.png, len(mine.map.controls)) == (drawn.png, 2)


def test_masks_lie_under_their_methods_names_in_the_public_format(compared: MethodComparison) -> None:
    folders = {one.description.method: one.path.parent.name for one in compared.found}
    assert folders == {
        "entropy-lambda": "0.05-0.1",
        "lape": "lape-0.05",
        "equal-n": "equal-n-6",
        "mean-difference": "mean-difference-6",
        "random": "random-0.05-0.1-seed0",
    }
    for one in compared.found:
        stored = torch.load(one.path, weights_only=True)
        assert [len(per_layer) for per_layer in stored] == [LAYERS] * len(CODES)
        assert all(
            neurons.dtype == torch.int64 and torch.equal(neurons, neurons.sort().values)
            for per_layer in stored
            for neurons in per_layer
        )
        assert torch.equal(from_mask_list(stored, d_mlp=D_MLP), one.mask)


def test_left_to_itself_it_takes_every_method_that_there_are_files_for(session: Session) -> None:
    session.layout.moments("fr").rename(session.layout.moments("fr").with_suffix(".away"))
    try:
        done = compare_methods(session, selection=CHOICE)
    finally:
        session.layout.moments("fr").with_suffix(".away").rename(session.layout.moments("fr"))
    assert [one.description.method for one in done.found] == [name for name in METHODS if name != "mean-difference"]
    assert "lna activation --moments" in done.left_out["mean-difference"]


@pytest.mark.parametrize("methods", [[], [Selection(method="lape"), Selection(method="lape")]])
def test_no_methods_and_the_same_twice_are_refused(session: Session, methods: list[Selection]) -> None:
    with pytest.raises(SettingsError, match="--methods"):
        compare_methods(session, methods, selection=CHOICE)


@pytest.fixture
def counted(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path, "mgsm", "Llama-made-up")
    store_counts(layout)
    return layout


def test_random_has_the_sizes_of_the_entropy_lambda_mask_per_layer_and_a_seed_that_decides(counted: Layout) -> None:
    model = identify(counted, TEN, Selection(0.1, 0.05, 0.6))
    one, again, other = (identify(counted, TEN, Selection(0.1, 0.05, 0.6, "random", seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(one.mask.sum(dim=1), model.mask.sum(dim=1))
    assert torch.equal(one.mask, again.mask)
    assert not torch.equal(one.mask, other.mask)
    assert (one.description.parameters, other.description.parameters) == ({"seed": 0}, {"seed": 1})


def test_a_method_without_moments_says_which_command_collects_them(counted: Layout) -> None:
    with pytest.raises(MissingArtifactError, match="--moments"):
        identify(counted, TEN, Selection(0.1, None, method="mean-difference"))
    assert not (counted.root / "activation_masks").exists()


def test_another_bar_is_a_conflict_and_the_description_names_the_method(counted: Layout) -> None:
    found = identify(counted, TEN, Selection(0.1, None, 0.6, "lape"))
    described = load_description(found.path)
    assert described is not None
    assert (described.method, described.top_rate, described.lam) == ("lape", 0.1, None)
    assert sum(described.appear) == int(found.selected.sum())
    before = contents(counted.root / "activation_masks")
    with pytest.raises(ConflictError, match="bar"):
        identify(counted, TEN, Selection(0.1, None, 0.7, "lape"))
    assert contents(counted.root / "activation_masks") == before


LATER = ("method", "parameters", "moments", "description_hash")
"""Entries of a description that came with the methods, or after them."""


def test_a_description_of_before_there_were_methods_is_one_of_entropy_lambda(counted: Layout) -> None:
    found = identify(counted, TEN, Selection(0.1, 0.05, 0.6))
    beside = found.path.with_name(f"{found.path.name}.json")
    old = {k: v for k, v in json.loads(beside.read_text()).items() if k not in LATER}
    beside.write_text(json.dumps(old))
    assert load_description(found.path) == found.description
    identify(counted, TEN, Selection(0.1, 0.05, 0.6))


def test_masks_are_opened_by_the_layouts_method(session: Session, compared: MethodComparison) -> None:
    layout, checkpoint = session.layout.by(Selection(method="lape")), session.checkpoint
    assert open_mask(layout, top_rate=0.05, lam=None, checkpoint=checkpoint).path == compared.found[1].path
    with pytest.raises(SettingsError, match="leave -l"):
        open_mask(layout, top_rate=0.05, lam=0.1, checkpoint=checkpoint)
    with pytest.raises(SettingsError, match="give -l"):
        open_mask(session.layout, top_rate=0.05, lam=None, checkpoint=checkpoint)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Selection(method="lape2"), "--method must be one of"),
        (lambda: Selection(method="lape", neurons=400), "give -r, not --neurons"),
        (lambda: Selection(method="equal-n", neurons=0), "at least 1"),
        (lambda: Selection(method="lape", seed=3), "draws nothing"),
        (lambda: Selection(0.01, 0.1, method="lape"), "leave -l 0.1 out"),
        (lambda: Selection(0.01, None).folder, "needs λ"),
        (lambda: Selection(0.01, None, method="random").folder, "or --neurons"),
        (lambda: Selection(0.05, None, method="equal-n"), r"400 neurons per language.*-r 0\.05"),
    ],
)
def test_what_a_method_does_not_have_is_refused_in_one_line(make: object, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        make()  # type: ignore[operator]
    assert "\n" not in str(refused.value)


def test_too_few_places_for_the_random_neurons_asked_for_is_an_error(counted: Layout) -> None:
    with pytest.raises(SettingsError, match="more than the 120"):
        identify(counted, TEN, Selection(0.01, None, method="random", neurons=121))

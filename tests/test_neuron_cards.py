"""Planted neurons are seen as they were planted: trigger words, output words, effects; what cannot be is refused."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import sys
from base64 import b64decode
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import language_neurons_alignment as lna
from language_neurons_alignment._neuron_cards import NeuronCards, neuron_card, neuron_cards
from language_neurons_alignment._neurons import write_neurons
from language_neurons_alignment._report import compose, gather
from language_neurons_alignment.config import NeuronSettings, Selection
from language_neurons_alignment.errors import MissingArtifactError, MissingPackageError, SettingsError
from language_neurons_alignment.languages import language_code
from language_neurons_alignment.report.page import render_page
from language_neurons_alignment.store.counts import load_answer_counts
from tests.planted import D_MLP, LAYERS, WORDS, Numbered, PlantedModel
from tests.small_run import idle

CHOSEN = ("en", "th", "ru")
SETTINGS = NeuronSettings(contexts=4, window=3, tokens=12, effects=True, controls=2)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Numbered:
    return Numbered.make(tmp_path_factory.mktemp("numbered"))


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> PlantedModel:
    return PlantedModel.save(tmp_path_factory.mktemp("truth") / "planted")


@pytest.fixture(scope="module")
def some(truth: PlantedModel) -> list[tuple[int, int]]:
    """Neurons of one of the three languages, one that fires everywhere, one of half of the words, and a silent one."""
    speakers = [place for place, of in truth.planted.items() if len(of) == 1 and code(of) in CHOSEN]
    silent = next(p for p in place_list() if p not in truth.planted and p not in truth.everywhere | truth.half)
    return [*speakers[::2], min(truth.everywhere), min(truth.half), silent]


def place_list() -> list[tuple[int, int]]:
    return [(layer, neuron) for layer in range(LAYERS) for neuron in range(D_MLP)]


def code(languages: frozenset[str]) -> str:
    return language_code(next(iter(languages)))


@pytest.fixture(scope="module")
def cards(numbered: Numbered, some: list[tuple[int, int]]) -> NeuronCards:
    with numbered.open(engine="transformers") as session:
        rates = {"top_rate": numbered.top_rate, "lam": numbered.lam}
        return neuron_cards(session, some, **rates, languages=CHOSEN, settings=SETTINGS)


def test_the_strongest_contexts_are_the_trigger_words_and_the_promoted_tokens_the_output_words(
    cards: NeuronCards, truth: PlantedModel
) -> None:
    for card in cards:
        languages = truth.planted.get((card.layer, card.index))
        if languages is None:
            continue
        (name,) = languages
        own, words = code(languages), set(WORDS[name].split()[:-1])
        assert card.kind == "specific"
        assert card.own == (own,)
        assert card.margin == 1.0
        for language, one in card.languages.items():
            fires = language == own
            assert one.probability == float(fires)
            assert (one.contexts[0].activation > 0) == fires
            assert sum(one.histogram[1:]) == (one.tokens if fires else 0)
            if fires:
                said = {context.token.strip() for context in one.contexts}
                assert {word for word in said if "=" not in word} <= words
        promoted = {one.token.strip() for one in card.promotes}
        assert words <= promoted, "the eleven words without a number are among the twelve of the language"
        assert card.positive == 1.0
        assert all(one.language in (own, None) for one in card.promotes if one.token.strip() in words)


def test_the_planted_effect_is_the_largest_and_controls_do_nothing(cards: NeuronCards, truth: PlantedModel) -> None:
    assert cards.effects is not None
    change, control = cards.effects.change, cards.effects.control
    assert control is not None
    for n, place in enumerate(cards.places):
        languages = truth.planted.get(place)
        for k, language in enumerate(cards.languages):
            if languages is not None and code(languages) == language:
                assert float(change[n, k]) > 0.5
                assert not control.low[n, k] <= change[n, k] <= control.high[n, k]
                assert float(cards.effects.first_order[n, k]) > 0.3
            else:
                assert abs(float(change[n, k])) < 1e-3
    assert max(abs(float(control.low.min())), abs(float(control.high.max()))) < 1e-3
    assert cards.effects.agreement["en"].rho > 0.4


def test_probabilities_are_those_that_were_counted(cards: NeuronCards, numbered: Numbered) -> None:
    with numbered.open() as session:
        counts = load_answer_counts(session.layout, CHOSEN)
    at = torch.tensor(cards.places)
    torch.testing.assert_close(cards.probability.float(), counts.probability[at[:, 0], at[:, 1]])


def test_contexts_say_where_they_are_in_the_corpus(cards: NeuronCards, numbered: Numbered) -> None:
    with numbered.open() as session:
        for card in list(cards)[:3]:
            for language, one in card.languages.items():
                records = session.corpus.of_language(language)
                for context in one.contexts:
                    record = records[context.record]
                    words = ["<s>", *f"{record.instruction}{record.answers[context.answer]}".split()]
                    assert words[context.position] == context.token.strip()
                    assert context.position > len(record.instruction.split()), "an answer's token"
                    assert context.pieces[context.at] == context.token
                    assert context.activations[context.at] == context.activation


def test_neighbours_write_the_same_and_fire_together(cards: NeuronCards, truth: PlantedModel) -> None:
    card = cards[next(place for place in cards.places if place in truth.planted)]
    first = card.nearest[0]
    assert first.cosine == pytest.approx(1.0)
    assert first.together == 1.0
    assert truth.planted[first.layer, first.index] == truth.planted[card.layer, card.index]


def test_what_is_kept_does_not_grow_with_the_corpus(cards: NeuronCards) -> None:
    kept, width = SETTINGS.contexts, 2 * SETTINGS.window + 1
    each = kept * (8 + 4 * width) + 8 * (15 + 4 + 5)
    assert cards.nbytes <= len(cards) * len(cards.languages) * each


def test_one_neuron_of_a_model_in_memory_is_the_same_card(numbered: Numbered, cards: NeuronCards) -> None:
    place = cards.places[0]
    model = lna.load(str(numbered.folder / "planted"), device="cpu")
    with numbered.open() as session:
        records = {language: session.corpus.of_language(language) for language in CHOSEN}
    texts = {language: [(r.instruction, a) for r in some for a in r.answers] for language, some in records.items()}
    found = neuron_card(
        model, f"{place[0]}.{place[1]}", texts, settings=NeuronSettings(contexts=4, window=3, tokens=12)
    )
    assert found.kind == "none"
    wanted = cards[place]
    for language in CHOSEN:
        one, other = found.languages[language], wanted.languages[language]
        assert one.probability == other.probability
        assert Counter(one.histogram) == Counter(other.histogram)
    assert [one.token for one in found.promotes] == [one.token for one in wanted.promotes]


def test_top_keeps_the_largest_margins_and_general_neurons_are_found_in_the_counts(numbered: Numbered) -> None:
    rates = {"top_rate": numbered.top_rate, "lam": numbered.lam, "languages": ("en", "ru")}
    with numbered.open(engine="transformers") as session:
        top = neuron_cards(
            session, **rates, settings=NeuronSettings(top=2, contexts=1, classes=("specific", "general"))
        )
        general = neuron_cards(session, **rates, settings=NeuronSettings(contexts=1, classes=("general",)))
    assert all(len(card.languages["en"].contexts) == 1 for card in top)
    assert Counter(kind for kind in top.kinds)["specific"] == 4 or set(top.kinds) <= {"specific", "general"}
    assert set(general.kinds) == {"general"}
    assert float(general.probability.min()) == 1.0


def test_the_page_and_its_files_hold_the_same_neurons(numbered: Numbered, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    rates = {"top_rate": numbered.top_rate, "lam": numbered.lam, "languages": ("en", "th")}
    with numbered.open(engine="transformers") as session:
        settings = NeuronSettings(top=3, contexts=2, window=2)
        written = write_neurons(session, **rates, settings=settings, out=tmp_path / "page.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "page.html", "page.json", "page.neuronpedia.json", "page.parquet",
    ]  # fmt: skip
    whole: dict[str, Any] = json.loads((tmp_path / "page.json").read_text(encoding="utf-8"))
    rows = parquet.read_table(tmp_path / "page.parquet").to_pylist()
    pedia = json.loads((tmp_path / "page.neuronpedia.json").read_text(encoding="utf-8"))["features"]
    assert whole["neurons"] == rows
    assert len(rows) == len(pedia) == len(written.cards) == 6
    for row, feature in zip(rows, pedia, strict=True):
        assert (feature["layer"], feature["index"]) == (f"{row['layer']}-mlp", str(row["index"]))
        assert feature["pos_str"] == [one["token"] for one in row["promotes"]]
        assert len(feature["freq_hist_data_bar_values"]) == len(feature["freq_hist_data_bar_heights"])
        best = feature["activations"][0]
        assert best["values"][best["maxValueTokenIndex"]] == best["maxValue"] == feature["maxActApprox"]
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    index = html.split('id="index">')[1].split("<")[0]
    listed = json.loads(gzip.decompress(b64decode(index)))["neurons"]
    assert [tuple(place) for place in listed["place"]] == list(written.cards.places)


def test_what_cannot_be_looked_at_is_refused_in_one_line(numbered: Numbered, tmp_path: Path) -> None:
    rates = {"top_rate": numbered.top_rate, "lam": numbered.lam}
    with numbered.open(engine="vllm") as session, pytest.raises(SettingsError, match="--engine transformers"):
        neuron_cards(session, **rates)
    with numbered.open(engine="transformers") as session:
        with pytest.raises(SettingsError, match=r"there is no neuron 9\.0: .* from 0"):
            neuron_card(session, "9.0", **rates)
        with pytest.raises(SettingsError, match=r"ends in \.html"):
            write_neurons(session, **rates, out=tmp_path / "page.pdf")
        with pytest.raises(SettingsError, match="has no neurons of ko"):
            neuron_cards(session, languages=["ko"], **rates)
    copied = Path(shutil.copytree(numbered.folder, tmp_path / "copy"))
    shutil.rmtree(copied / "activations")
    with numbered.at(copied).open(engine="transformers") as session, pytest.raises(MissingArtifactError):
        neuron_cards(session, **rates, settings=NeuronSettings(top=1))


def test_without_lingua_nothing_is_read_before_the_error(numbered: Numbered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lingua", None)
    rates: dict[str, Any] = {"top_rate": numbered.top_rate, "lam": numbered.lam}
    with numbered.open(engine="transformers") as session, pytest.raises(MissingPackageError, match="lingua"):
        neuron_cards(idle(session), **rates, languages=("en", "fr"))


def test_the_report_links_the_neurons_that_stand_out(numbered: Numbered, tmp_path: Path) -> None:
    copied = numbered.at(Path(shutil.copytree(numbered.folder, tmp_path / "copy")))
    rates = {"top_rate": numbered.top_rate, "lam": numbered.lam}
    with copied.open(engine="transformers") as session:
        written = write_neurons(session, **rates, languages=("en", "th"), settings=NeuronSettings(top=2, contexts=1))
        report = compose(gather([session.layout], Selection(**rates)), out=tmp_path / "other" / "report.html")
    html = render_page(report, folder="report")
    assert "Neurons to look at" in html
    (link, *_) = re.findall(r'href="([^"]+\.html)#(\d+\.\d+)"', html)
    (tmp_path / "other").mkdir()
    assert (tmp_path / "other" / link[0]).resolve() == written.page.resolve()
    assert written.cards[link[1]].own == ("en",)

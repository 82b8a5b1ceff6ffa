"""The logit lens as a step: a planted model whose layers hold a known language, and what is written and drawn.

Layer 0 writes English into every text, layer 2 the text's own language, more strongly; the rest writes nothing:

    layer         0        1        2    3
    read in       English  English  own  own        and with the neurons of layer 2 off, English to the end
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import language_neurons_alignment as lna
from language_neurons_alignment._check import check_root
from language_neurons_alignment.config import LensSettings, Selection
from language_neurons_alignment.corpus.records import Corpus, read_corpus
from language_neurons_alignment.errors import EngineError, SettingsError
from tests.planted import (
    _COMMON,
    _LANGUAGE,
    _SPEAK,
    HIDDEN,
    LANGUAGES,
    SIZES,
    VOCABULARY,
    WORDS,
    _embedding,
    _words,
    planted_records,
    planted_tokenizer,
)
from tests.workspace import write_corpus

CODES = ("en", "es", "sw")
NAMES = ("English", "Spanish", "Swahili")


@pytest.fixture(scope="module")
def model() -> lna.Model:
    network = LlamaForCausalLM(LlamaConfig(**SIZES, intermediate_size=16)).float()
    with torch.no_grad():
        network.model.embed_tokens.weight.copy_(_embedding())
        head = torch.zeros(VOCABULARY, HIDDEN)
        for row, _, direction in _words():
            for language, of in _LANGUAGE.items():
                if of == direction:
                    head[row, _SPEAK[language]] = 8.0
        network.lm_head.weight.copy_(head)
        for index, layer in enumerate(network.model.layers):
            layer.self_attn.o_proj.weight.zero_()
            gate, down = torch.zeros(16, HIDDEN), torch.zeros(HIDDEN, 16)
            gate[:, _COMMON] = -2.0
            if index == 0:
                gate[10, _COMMON], down[_SPEAK["English"], 10] = 2.0, 3 / 16
            if index == 2:
                for k, language in enumerate(LANGUAGES):
                    gate[k, _LANGUAGE[language]], down[_SPEAK[language], k] = 4.0, 30 / 16
            layer.mlp.gate_proj.weight.copy_(gate)
            layer.mlp.up_proj.weight.zero_()[:, _COMMON] = 1 / 8
            layer.mlp.down_proj.weight.copy_(down)
    return lna.load(network, tokenizer=planted_tokenizer())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return read_corpus(write_corpus(tmp_path_factory.mktemp("planted") / "c.json", planted_records(NAMES)))


def test_the_layers_are_read_in_the_languages_that_they_hold(model: lna.Model, corpus: Corpus) -> None:
    with pytest.warns(UserWarning, match="τ = 0"):  # hardly any neuron ever fires
        neurons = model.count(corpus).find_neurons(Selection(top_rate=3 / 64, lam=0.0, bar=0.9))
    found = lna.lens(model, corpus, neurons, settings=LensSettings(do=("zero each",)))
    assert found.tokens.accuracy == 1.0
    words = torch.tensor([2 * len(WORDS[name].split()) for name in NAMES])
    assert (torch.from_numpy(found.tokens.held_out).sum(dim=1) > words).all()
    lens, off = found.lens, found.changed
    assert off is not None
    assert lens.share("en")[:, :2].min() > 0.99, "every text is read in English in layers 0 and 1"
    assert lens.own[:, 2:].min() > 0.99
    assert off.share("en")[:, 2:].min() > 0.99, "without the neurons of layer 2 it stays English"
    torch.testing.assert_close(off.values[:, :2], lens.values[:, :2])
    pivot = found.pivot_columns()
    rows = list(zip(*(pivot[name] for name in ("condition", "language", "begin", "end")), strict=True))
    assert rows == [("undisturbed", one, 0, 1) for one in CODES[1:]] + [("zero each", one, 0, 3) for one in CODES[1:]]
    values, ends = lens.roles()
    assert values[:, 0].round().tolist() == [0, 0, 1, 1]
    assert values[:, 1].round().tolist() == [1, 1, 0, 0]
    assert ends.holds(values).all()
    assert len(found.to_frame()) == 3 * 4 * (3 + 2 + 3)
    assert found.plot().axes[0].get_title(loc="left") == "undisturbed"


def test_the_same_places_are_read_whatever_else_is(model: lna.Model, corpus: Corpus) -> None:
    some = LensSettings(read=3, text="full")
    both = lna.lens(model, corpus, settings=some).lens
    texts = {code: corpus.of_language(code) for code in ("es", "en")}
    found = lna.lens(model, texts, settings=some)
    turned, turned_tokens = found.lens, found.tokens
    torch.testing.assert_close(both.own[1], turned.own[0])
    assert [int(one.sum()) for one in turned.positions] == [36, 36], "3 of each of 12 texts"
    few = lna.lens(model, texts, settings=LensSettings(read=3, text="full", records=2))
    assert [len(one) for one in few.lens.positions] == [2, 2]
    assert (few.tokens.held_out.sum(), few.tokens.accuracy) == (turned_tokens.held_out.sum(), 1.0), "all records tell"
    other = lna.lens(model, texts, settings=LensSettings(read=3, text="full", seed=1)).lens
    at = other.measures.index("loss")
    assert not torch.equal(other.values[..., at], turned.values[..., at])


def test_without_texts_in_the_pivot_none_is_shown(model: lna.Model, corpus: Corpus) -> None:
    found = lna.lens(model, {code: corpus.of_language(code) for code in ("es", "sw")})
    assert (found.lens.pivot, found.pivot_columns()["language"]) == (None, [])
    assert "no texts in 'en'" in found.notes[0]
    assert "other languages" in [text.get_text() for text in found.plot().legends[0].get_texts()]


def test_a_session_writes_figure_tables_and_tensors(made: Path, tmp_path: Path) -> None:
    opened = lna.open_session(
        str(made / "tiny-llama"), made / "corpus.json", "small", root=tmp_path, device="cpu", dtype="float32"
    )
    with opened as session:
        found = lna.lens(session, settings=LensSettings(read=2))
    names = [path.name.removeprefix("lens.Llama-tiny-llama.") for path in found.files]
    assert names == ["json", "layers.csv", "pivot.csv", "tokens.csv", "pt", "layers.png"]
    content = json.loads(found.files[0].read_text(encoding="utf-8"))
    assert content["engine"] == "transformers"
    assert (content["text"], content["read"], content["do"]) == ("answer", 2, None)
    stored = torch.load(found.files[4])
    torch.testing.assert_close(stored["sums"][0], found.lens.sums[0])
    assert "there is no mask" in found.notes[-1]
    checked = check_root(tmp_path)
    assert (checked.findings, dict(checked.checked)) == ((), {"lenses": 1})
    found.files[1].write_text("cut off")
    assert {one.path for one in check_root(tmp_path).findings} == {found.files[1]}


def test_what_cannot_be_read_is_refused_before_anything_is_loaded(made: Path, model: lna.Model) -> None:
    with (
        lna.open_session(str(made / "tiny-llama"), made / "corpus.json", "small", engine="vllm") as session,
        pytest.raises(EngineError, match="--engine transformers"),
    ):
        lna.lens(session)
    with pytest.raises(SettingsError, match="texts that are given"):
        lna.lens(model)
    with pytest.raises(SettingsError, match="--read must be at least 0"):
        LensSettings(read=-1)
    with pytest.raises(SettingsError, match="target stands for no language"):
        LensSettings(do=("mean:target target",))

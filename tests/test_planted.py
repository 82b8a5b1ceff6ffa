"""The planted model is what it says in plain transformers, and the pipeline finds exactly the planted neurons."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from language_neurons_alignment._session import open_session
from language_neurons_alignment.config import PipelineSettings, Selection
from language_neurons_alignment.languages import in_default_order, language_code
from language_neurons_alignment.pipeline import run_pipeline
from language_neurons_alignment.store.masks import Mask
from tests.planted import D_MLP, LANGUAGES, LAYERS, NOISE, WORDS, PlantedModel, planted_records


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> PlantedModel:
    return PlantedModel.save(tmp_path_factory.mktemp("planted") / "model")


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16])
def firing(truth: PlantedModel, request: pytest.FixtureRequest) -> dict[str, torch.Tensor]:
    """Share of each language's words on which each neuron fires."""
    model = AutoModelForCausalLM.from_pretrained(truth.folder, dtype=request.param)
    tokenizer = AutoTokenizer.from_pretrained(truth.folder)
    seen: list[torch.Tensor] = []
    for layer in model.model.layers:
        layer.mlp.gate_proj.register_forward_hook(lambda _m, _i, out: seen.append(out[0, 1:] > 0))
    shares = {}
    for language, words in WORDS.items():
        seen.clear()
        with torch.no_grad():
            model(**tokenizer(words, return_tensors="pt"))
        shares[language] = torch.stack(seen).float().mean(dim=1)
    return shares


def test_neurons_fire_where_they_were_planted_and_nowhere_else(truth: PlantedModel, firing: dict) -> None:
    for (layer, neuron), languages in truth.planted.items():
        assert {k for k in LANGUAGES if firing[k][layer, neuron] == 1} == languages
        assert all(firing[k][layer, neuron] == 0 for k in LANGUAGES if k not in languages)


def test_the_other_neurons_know_no_language(truth: PlantedModel, firing: dict) -> None:
    expected = torch.zeros(LAYERS, D_MLP)
    for place in truth.everywhere:
        expected[place] = 1.0
    for place in truth.half:
        expected[place] = 0.5
    rest = torch.ones(LAYERS, D_MLP, dtype=torch.bool)
    for place in truth.planted:
        rest[place] = False
    for language in LANGUAGES:
        assert torch.equal(firing[language][rest], expected[rest])


def test_neurons_are_planted_in_every_layer_for_every_language(truth: PlantedModel) -> None:
    for language in LANGUAGES:
        assert int(truth.speakers(language).sum()) == 6
        assert int(truth.belonging(language).sum()) == 6 + 2 + 3
    assert {layer for layer, _ in truth.planted} == set(range(LAYERS))


def say(truth: PlantedModel, language: str, *, without: str | None = None, words: int = 12) -> list[str]:
    """What the model says after two words of a language, perhaps without another's (or its own) neurons."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(truth.folder), AutoTokenizer.from_pretrained(truth.folder)
    if without is not None:
        for layer, off in zip(model.model.layers, truth.speakers(without), strict=True):
            layer.mlp.act_fn.register_forward_hook(lambda _m, _i, out, off=off: out.masked_fill(off, 0.0))
    prompt = tokenizer(" ".join(WORDS[language].split()[:2]), return_tensors="pt")
    said = model.generate(**prompt, max_new_tokens=words, do_sample=False)[0, prompt.input_ids.shape[1] :]
    return tokenizer.convert_ids_to_tokens(said)


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_goes_on_in_the_language_that_it_is_spoken_to(truth: PlantedModel, language: str) -> None:
    words = WORDS[language].split()
    assert say(truth, language) == [*words[2:], *words[:2]]


def test_without_its_neurons_a_language_is_gone_and_only_it(truth: PlantedModel) -> None:
    for language in LANGUAGES:
        words = WORDS[language].split()
        expected = [*NOISE[2:5]] if language == "French" else words[2:5]
        assert say(truth, language, without="French", words=3) == expected


def test_without_speech_no_neuron_does_anything(tmp_path: Path) -> None:
    truth = PlantedModel.save(tmp_path / "mute", speaks=False)
    model = AutoModelForCausalLM.from_pretrained(truth.folder)
    assert not any(layer.mlp.down_proj.weight.any() for layer in model.model.layers)
    assert len(truth.planted) == 80


def test_the_corpus_says_the_same_in_every_language() -> None:
    records = planted_records()
    assert {record["lang"] for record in records} == set(LANGUAGES)
    for record in records:
        known = set(WORDS[record["lang"]].split())
        text = record["instruction"] + "".join(answer["generated"] for answer in record["answers"])
        assert set(text.split()) <= known
    lengths = {tuple(len(r["instruction"].split()) for r in records if r["lang"] == k) for k in LANGUAGES}
    assert len(lengths) == 1


@pytest.mark.slow
def test_the_pipeline_finds_exactly_the_planted_neurons_and_mutes_exactly_their_languages(tmp_path: Path) -> None:
    truth = PlantedModel.save(tmp_path / "planted")
    (tmp_path / "corpus.json").write_text(json.dumps(planted_records()), encoding="utf-8")
    settings = PipelineSettings(selection=Selection(len(truth.planted) / (LAYERS * D_MLP)))
    with open_session(str(truth.folder), tmp_path / "corpus.json", "words", root=tmp_path, device="cpu") as session:
        languages = in_default_order(session.corpus.languages)
        done = run_pipeline(session, languages, settings)
    assert languages == tuple(language_code(name) for name in languages)
    by_code = {language_code(name): name for name in LANGUAGES}
    stored = Mask.load(done.identification.path).tensor
    for k, code in enumerate(languages):
        assert torch.equal(stored[..., k], truth.belonging(by_code[code])), f"the neurons of {by_code[code]}"
    assert done.sweep is not None
    assert done.sweep.appear[-1] == 0
    assert done.identification.classes.general.sum() == len(truth.everywhere)
    change = done.map.map.change()
    own = change.diagonal()
    others = change[~torch.eye(len(languages), dtype=torch.bool)]
    assert float(own.min()) > 2 * max(1.0, float(others.max())), "each language suffers most from its own neurons"
    effects = done.map.effects()
    assert torch.equal(effects.inside, ~torch.eye(len(languages), dtype=torch.bool)), "all else is within control"
    controls = torch.stack([one.change() for one in done.map.map.controls])
    assert controls.abs().max() == 0, "neurons of no language carry nothing"
    found = done.map.selectivity()
    assert found is not None
    assert found.controls is not None
    assert found.precision.min() > 0.99
    assert found.controls.f1.max() == 0

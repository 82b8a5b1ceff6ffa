"""A model in memory: planted neurons are found and switched off, and the caller's model stays what it was."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

import language_neurons_alignment as lna
from language_neurons_alignment._loaded import Model
from language_neurons_alignment.config import MapSettings, Selection
from language_neurons_alignment.core.sweep import exact_lambda
from language_neurons_alignment.errors import (
    CorpusError,
    IncompatibleError,
    LNAWarning,
    MissingArtifactError,
    SettingsError,
)
from language_neurons_alignment.languages import language_code
from language_neurons_alignment.store.counts import load_counts
from language_neurons_alignment.store.masks import Mask
from tests.planted import D_MLP, LANGUAGES, LAYERS, NOISE, WORDS, PlantedModel, planted_records
from tests.small_run import opened
from tests.tiny_models import save_tiny_model

SELECTION = Selection(80 / (LAYERS * D_MLP))
FEW = ("French", "German", "Swahili")
TEXTS = {"en": ["Two doors, two keys."], "es": ["Dos puertas, dos llaves."], "sw": ["Milango miwili, funguo mbili."]}
SMALL = Selection(0.1, bar=0.8)


def from_pretrained(folder: Path) -> tuple[Any, Any]:
    """A model and its tokenizer, as a user of transformers has them."""
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> PlantedModel:
    return PlantedModel.save(tmp_path_factory.mktemp("planted") / "model")


@pytest.fixture(scope="module")
def spoken(truth: PlantedModel) -> Model:
    mine, tokenizer = from_pretrained(truth.folder)
    return lna.load(mine, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def found(spoken: Model) -> Mask:
    return spoken.count({language: planted_texts(language) for language in LANGUAGES}).find_neurons(SELECTION)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return lna.load(save_tiny_model("llama", tmp_path_factory.mktemp("models") / "llama"), device="cpu")


@pytest.fixture(scope="module")
def neurons(tiny: Model) -> Mask:
    return tiny.count(TEXTS, moments=True).find_neurons(SMALL)


def planted_texts(language: str) -> list[Any]:
    """Plain texts, pairs and records, by turns."""
    texts: list[Any] = []
    for number, record in enumerate(planted_records([language])):
        answer = record["answers"][0]["generated"]
        kinds = (record["instruction"] + answer, (record["instruction"], answer), record)
        texts.append(kinds[number % 3])
    return texts


def test_the_planted_neurons_are_found_in_plain_texts_pairs_and_records(found: Mask, truth: PlantedModel) -> None:
    for language in LANGUAGES:
        assert torch.equal(found[language].tensor[..., 0], truth.belonging(language)), language
    assert found.sizes == dict.fromkeys(found.languages, 11)
    assert found.description is not None
    assert found.description.appear[-1] == 0
    assert found.description.classes["general"] == len(truth.everywhere)


def test_without_its_neurons_a_language_is_gone_and_only_it(spoken: Model, found: Mask) -> None:
    words = WORDS["French"].split()
    prompt, said = " ".join(words[:2]), [" ".join(some) for some in (words[2:5], NOISE[2:5])]
    assert spoken.generate(prompt, max_new_tokens=3).split() == said[0].split()
    for neurons in (found["fr"], found["fr"].tensor[..., 0], found["fr"] | found["th"], found - found["de"]):
        with spoken.ablate(neurons):
            assert spoken.generate(prompt, max_new_tokens=3).split() == said[1].split()
    with spoken.ablate(found["de"]):
        assert spoken.generate([prompt], max_new_tokens=3)[0].split() == said[0].split()
    with spoken.intervene("zero fr", found), spoken.intervene("set:0 de", found):
        assert spoken.generate(prompt, max_new_tokens=3).split() == said[1].split()
    assert spoken.generate(prompt, max_new_tokens=3).split() == said[0].split()


def test_the_map_shows_that_each_language_needs_its_own_neurons_alone(spoken: Model, found: Mask) -> None:
    texts = {language: planted_texts(language) for language in FEW}
    codes = tuple(map(language_code, FEW))
    mine = spoken.count(texts).find_neurons(Selection(found.description.top_rate, lam=0.1))  # type: ignore[union-attr]
    done = lna.perplexity_map(spoken, texts, mine, settings=MapSettings(text="answer", controls=2))
    assert done.map.languages == done.map.changed == codes
    own = torch.eye(3, dtype=torch.bool)
    change = done.map.change()
    assert float(change[own].min()) > 100
    assert float(change[~own].abs().max()) < 1e-3
    assert max(float(one.change().abs().max()) for one in done.map.controls) < 1e-3
    assert (done.png, done.matched_by, done.computed, done.controls_computed) == (None, "layer and activity", 12, 18)
    frame = done.to_frame()
    assert len(frame) == 12
    assert frame.percent[4] == pytest.approx(change[0, 1].item()) or frame.deactivated[4] == codes[0]
    assert "fr" in done._repr_html_()
    assert repr(done) == "MapResult(fr, de, sw off, on texts in fr, de, sw, 2 control sets)"
    assert done.plot(title="planted").get_suptitle() == "planted"
    assert done.plot().get_suptitle() == "perplexity with each language's neurons off"


def test_counts_are_those_that_a_session_stores(work: Path, lam: float) -> None:
    with opened(work) as session:
        model = Model(session.source(), session.checkpoint)
        counts = model.count(work / "corpus.json", moments=True)
        for language in ("en", "es", "sw"):
            stored, _ = load_counts(session.layout, language)
            k = counts.languages.index(language)
            assert torch.equal(counts.counts[..., k], stored.full.over_zero - stored.prefix.over_zero)
        done = lna.perplexity_map(session, top_rate=0.1, lam=lam)
        mask = Mask.load(next((work / "out" / "activation_masks").rglob("mask.*[!n]")))
        again = lna.perplexity_map(model, session.corpus, mask, settings=MapSettings(controls=0))
        assert (done.computed, done.controls_computed) == (0, 0)
        assert torch.equal(again.map.values(), done.map.values())


def test_of_a_plain_text_all_tokens_behind_bos_are_counted(tiny: Model) -> None:
    mine, tokenizer = from_pretrained(Path(tiny.info.path))
    text, fired = "Two doors, two keys.", []
    for layer in mine.model.layers:
        layer.mlp.act_fn.register_forward_hook(lambda _m, _i, out: fired.append((out[0] > 0)[1:].sum(0)))
    mine(**tokenizer(text, return_tensors="pt"))
    counts = tiny.count({"en": [text], "fr": text})
    assert torch.equal(counts.counts[..., 0], torch.stack(fired))
    assert counts.answer_tokens == dict.fromkeys(("en", "fr"), len(tokenizer(text).input_ids) - 1)


def test_perplexity_is_that_of_the_library(tiny: Model) -> None:
    mine, tokenizer = from_pretrained(Path(tiny.info.path))
    tokens = tokenizer("Two doors, two keys.", return_tensors="pt").input_ids
    loss = float(mine(tokens, labels=tokens).loss.detach())
    measured = tiny.perplexity("Two doors, two keys.")
    assert float(measured) == pytest.approx(math.exp(loss), rel=1e-5)
    assert tiny.perplexity([lna.Record("en", "Two doors, two keys.", ())], text="instruction").token == measured.token
    pair = tiny.perplexity([("Two doors,", " two keys.")])
    assert pair.tokens == measured.tokens - len(tokenizer.encode("Two doors,", add_special_tokens=False))
    assert tiny.perplexity(TEXTS)["en"].token == measured.token
    assert len(repr(measured)) < 80


def test_tokens_go_in_and_come_out(tiny: Model) -> None:
    _, tokenizer = from_pretrained(Path(tiny.info.path))
    tokens = tokenizer.encode("Two")
    given = tiny.generate(tokens, max_new_tokens=5)
    assert isinstance(given, list)
    assert tiny.generate([tokens, tokens], max_new_tokens=5) == [given, given]
    assert tiny.generate(torch.tensor([tokens]), max_new_tokens=5) == [given]  # type: ignore[call-overload]
    said = tokenizer.decode(given, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert tiny.generate("Two", max_new_tokens=5) == said.rstrip("\N{REPLACEMENT CHARACTER}")


def state_of(model: Any) -> dict[str, Any]:
    """Everything about a model that a guest could leave behind."""
    modules = dict(model.named_modules())
    return {
        "names": list(modules),
        "training": [one.training for one in modules.values()],
        "hooks": [(list(m._forward_hooks), list(m._forward_pre_hooks)) for m in modules.values()],
        "attributes": [sorted(vars(one)) for one in modules.values()],
        "forward": [vars(one).get("forward") for one in modules.values()],
        "weights": [(name, one.data_ptr(), one.dtype, one.requires_grad) for name, one in model.named_parameters()],
        "generation": id(model.generation_config),
        "config": model.config.to_dict(),
    }


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe"])
def test_a_callers_model_is_bit_for_bit_what_it_was(kind: str, tmp_path: Path) -> None:
    mine, tokenizer = from_pretrained(save_tiny_model(kind, tmp_path / kind, attention_dropout=0.5))
    seen: list[int] = []
    mine.model.layers[0].mlp.register_forward_hook(lambda *_: seen.append(1))
    mine.train()
    mine.model.layers[1].eval()
    tokens = torch.tensor([tokenizer.encode("Dos puertas, dos llaves.")])

    def outputs() -> torch.Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return mine(tokens).logits.detach()

    before, state, randomness = outputs(), state_of(mine), torch.get_rng_state()
    model = lna.load(mine, tokenizer=tokenizer)
    assert state_of(mine) == state
    neurons = model.count(TEXTS, moments=True).find_neurons(SMALL)
    score = model.perplexity(TEXTS)
    assert state_of(mine) == state

    def interrupted() -> None:
        with model.ablate(neurons["es"]):
            assert not torch.equal(outputs(), before), "the caller's own call is changed too"
            modules = dict(mine.named_modules())
            assert [modules[name].training for name in state["names"]] == state["training"]
            model.generate("Dos", max_new_tokens=3)
            with model.intervene("scale:2 en", neurons):
                assert model.perplexity(TEXTS)["es"].token != score["es"].token
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        interrupted()
    assert state_of(mine) == state
    lna.perplexity_map(model, TEXTS, neurons, settings=MapSettings(text="answer", controls=2))
    assert model.perplexity(TEXTS) == score
    model.close()
    assert torch.equal(torch.get_rng_state(), randomness)
    assert state_of(mine) == state
    assert torch.equal(outputs(), before)
    mine(tokens, labels=tokens).loss.backward()
    assert seen, "its own hook was called"
    assert all(one.grad is not None for one in mine.model.layers[0].self_attn.parameters())


def test_what_a_refused_model_was_it_still_is(tmp_path: Path) -> None:
    mine, tokenizer = from_pretrained(save_tiny_model("qwen3_moe", tmp_path / "moe"))
    mine.model.layers[2].mlp.register_forward_hook(lambda _m, _i, out: (out[0] if isinstance(out, tuple) else out) + 1)
    state = state_of(mine)
    with pytest.raises(lna.LNAError, match="returns something other than what its experts"):
        lna.load(mine, tokenizer=tokenizer)
    assert state_of(mine) == state


def test_a_mask_of_other_weights_is_refused_and_of_the_same_in_another_precision_is_not(tmp_path: Path) -> None:
    mine, tokenizer = from_pretrained(save_tiny_model("llama", tmp_path / "llama"))
    model = lna.load(mine, tokenizer=tokenizer)
    neurons = model.count(TEXTS).find_neurons(SMALL)
    neurons.save(tmp_path / "neurons")
    stored = Mask.load(tmp_path / "neurons")
    from_files = lna.load(tmp_path / "llama", device="cpu", dtype="bfloat16")
    half = lna.load(mine.to(torch.bfloat16), tokenizer=tokenizer)
    for one in (model, half, from_files):
        with one.ablate(stored["es"]):
            pass
    with torch.no_grad():
        mine.model.layers[1].mlp.up_proj.weight.mul_(1.01)
    with pytest.raises(IncompatibleError, match="with other weights than the one in use"):
        half.ablate(stored["es"])


def sets(mask: Mask) -> list[set[tuple[int, ...]]]:
    return [set(map(tuple, mask.tensor[..., k].nonzero().tolist())) for k in range(len(mask.languages))]


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_masks_combine_like_sets(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    one, two = (Mask(("en", "fr"), torch.rand(2, 5, 2, generator=generator) < 0.5) for _ in range(2))
    for name, mask, python in (
        ("&", one & two, set.intersection), ("|", one | two, set.union),
        ("-", one - two, set.difference), ("^", one ^ two, set.symmetric_difference),
    ):  # fmt: skip
        assert sets(mask) == [python(a, b) for a, b in zip(sets(one), sets(two), strict=True)], name
        assert mask.languages == ("en", "fr")
    en, fr = one["en"], one["fr"]
    assert sets((en | fr) - (en & fr)) == sets(en ^ fr) == [sets(one)[0] ^ sets(one)[1]]
    assert ((en & fr) - two["fr"]).languages == ("(en & fr) - fr",)
    assert sets(one - en) == [set(), sets(one)[1] - sets(one)[0]]


def test_sets_are_saved_and_tell_what_they_were_made_of(neurons: Mask, tmp_path: Path) -> None:
    shared = neurons["en"] & neurons["es"]
    shared.save(str(tmp_path / "shared"))
    read = Mask.load(tmp_path / "shared")
    assert torch.equal(read.tensor, shared.tensor)
    assert read.languages == ("en & es",)
    assert read.description is not None
    assert read.description.source is not None
    assert read.description.source["made"] == "en & es"
    assert read.description.config_hash == neurons.description.config_hash  # type: ignore[union-attr]
    assert shared.plot().axes[0].get_yticklabels()[0].get_text() == "en & es"
    neurons.save(tmp_path / "all")
    assert torch.equal(Mask.load(tmp_path / "all").tensor, neurons.tensor)
    frame = neurons.to_frame()
    assert frame.languages.str.split("+").map(len).sum() == sum(neurons.sizes.values())


def test_means_and_general_neurons_come_from_the_counts_in_memory(tiny: Model, neurons: Mask, tmp_path: Path) -> None:
    assert neurons.counts is not None
    mean = neurons.counts.moments["es"].mean
    with tiny.intervene("mean:es es", neurons):
        inside = tiny.perplexity(TEXTS)["es"].token
    off = neurons["es"].tensor[..., 0]
    change = lna.core.interventions.Intervention.on(off, scale=0.0, shift=mean)
    with tiny.engine.intervene(change):
        assert tiny.perplexity(TEXTS)["es"].token == inside
    with tiny.intervene("zero es:general", neurons):
        general = tiny.perplexity(TEXTS)["es"].token
    with tiny.ablate(neurons.counts.statistics(bar=0.8).general):
        assert tiny.perplexity(TEXTS)["es"].token == general
    found = neurons.counts.find_neurons(Selection(method="mean-difference", neurons=9))
    assert found.sizes == dict.fromkeys(TEXTS, 9)
    neurons.save(tmp_path / "neurons")
    for step in ("mean:es es", "zero es:general"):
        with pytest.raises(MissingArtifactError, match=r"counts.find_neurons\(\)"):
            tiny.intervene(step, Mask.load(tmp_path / "neurons"))


def test_lambda_is_the_largest_fine_one_wherever_it_lies(neurons: Mask) -> None:
    assert neurons.counts is not None
    assert neurons.description is not None
    statistics = neurons.counts.statistics(bar=0.8)
    assert neurons.description.lam == exact_lambda(statistics, top_rate=0.1, lo=0.0, hi=100.0).lam
    lam = neurons.counts.find_neurons(Selection(0.02, bar=0.8)).description.lam  # type: ignore[union-attr]
    assert lam == exact_lambda(statistics, top_rate=0.02, lo=0.0, hi=100.0).lam > 0.2
    with pytest.warns(LNAWarning, match="λ = 0.2 is the end .*; appear.K. = 0 at every λ, so none is the largest"):
        alone = neurons.counts.find_neurons(Selection(0.1, bar=0.999))
    assert alone.description is not None
    assert alone.description.lam == 0.2
    few = neurons.counts.find_neurons(Selection(0.1, lam=0.1, bar=0.8, languages=("sw", "en")))
    assert few.languages == ("sw", "en")
    with pytest.raises(SettingsError, match="no counts of fr: choose languages from en, es, sw"):
        neurons.counts.find_neurons(Selection(0.1, languages=("fr",)))


def test_what_is_shown_is_short_and_escaped(tiny: Model, neurons: Mask) -> None:
    assert repr(tiny) == "Model(LlamaForCausalLM, 3 × 96 neurons, float32, transformers)"
    assert repr(neurons["es"]).startswith("Mask(es ")
    for shown in (tiny, neurons, neurons.counts):
        assert len(repr(shown)) < 120
        assert shown._repr_html_().startswith("<table><caption>")  # type: ignore[union-attr]
    odd = Mask(("<b>",), torch.ones(1, 2, 1, dtype=torch.bool))
    assert "<b>" not in odd._repr_html_()


def wrong_uses(tiny: Model, neurons: Mask) -> Iterator[tuple[type[Exception], str, Any]]:
    mine, tokenizer = from_pretrained(Path(tiny.info.path))
    small = Mask(("en",), torch.ones(2, 96, 1, dtype=torch.bool))
    nothing = neurons["en"] - neurons["en"]
    yield SettingsError, "brings no tokenizer: give tokenizer=AutoTokenizer.from_pretrained", lambda: lna.load(mine)
    yield SettingsError, "which cannot encode", lambda: lna.load(mine, tokenizer=7)
    yield SettingsError, "got Linear", lambda: lna.load(torch.nn.Linear(2, 2), tokenizer=tokenizer)  # type: ignore[arg-type]
    yield SettingsError, "LlamaModel has no lm_head", lambda: lna.load(mine.model, tokenizer=tokenizer)
    yield SettingsError, "has its own tokenizer", lambda: lna.load(tiny.info.path, tokenizer=tokenizer)
    yield (
        SettingsError,
        "leave dtype='float16', device='cpu' out",
        lambda: lna.load(mine, tokenizer=tokenizer, dtype="float16", device="cpu"),
    )
    yield CorpusError, "text 2 of 'fr' is empty", lambda: tiny.count({"fr": ["a", ""]})
    yield CorpusError, "the texts of 'fr' are empty", lambda: tiny.count({"en": ["a"], "fr": []})
    yield CorpusError, r"no token in fr \(0\)", lambda: tiny.count({"en": ["a"], "fr": [("a", "")]})
    yield CorpusError, "text 1 of 'fr': expected a string, a", lambda: tiny.count({"fr": [3]})  # type: ignore[list-item]
    yield CorpusError, "a record in 'en': put it under", lambda: tiny.count({"fr": [lna.Record("en", "a", ("b",))]})
    yield CorpusError, "cannot read the corpus nowhere.json", lambda: tiny.count("nowhere.json")
    yield SettingsError, "language given twice", lambda: tiny.count({"zh": ["a"], "Chinese": ["b"]})
    yield IncompatibleError, "is a mask for 2 layers", lambda: tiny.ablate(small)
    yield IncompatibleError, r"of \[3, 96\]; got a tensor \[96\]", lambda: tiny.ablate(neurons.tensor[0, :, 0])
    yield SettingsError, r"no neuron to switch off \(Mask\(en 0", lambda: tiny.ablate(nothing)
    yield SettingsError, "no neurons of fr: choose from en, es, sw", lambda: tiny.intervene("zero fr", neurons)
    yield SettingsError, "no neurons of fr", lambda: neurons["fr"]
    yield IncompatibleError, "cannot be combined: give masks of models of one shape", lambda: neurons["en"] & small
    yield SettingsError, "or one language on the right", lambda: neurons["en"] & neurons
    yield SettingsError, "generate continues a text", lambda: tiny.generate(3.5)  # type: ignore[call-overload]
    yield SettingsError, "'length': choose from temperature", lambda: tiny.generate("a", length=3)
    yield SettingsError, "takes the model, texts and neurons", lambda: lna.perplexity_map(tiny, TEXTS)  # type: ignore[call-overload]


def test_errors_say_what_to_do(tiny: Model, neurons: Mask) -> None:
    for kind, message, wrong in wrong_uses(tiny, neurons):
        with pytest.raises(kind, match=message) as raised:
            wrong()
        assert "\n" not in str(raised.value)

"""Models whose layers differ in width, against the oracle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from language_neurons_alignment.config import Sampling
from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.core.widths import is_neuron
from language_neurons_alignment.corpus.encode import Prompt
from language_neurons_alignment.engines.checkpoint import layer_widths
from language_neurons_alignment.engines.families import neurons_of_layers, neurons_per_layer
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.engines.vllm.launch import Launch, check_model
from language_neurons_alignment.errors import EngineError, IncompatibleError, UnknownArchitectureError
from tests.engines.contract import assert_close, assert_same_counts, assert_tally, groups_of, scored_texts
from tests.engines.moments_contract import assert_same_moments
from tests.engines.oracle import NaiveEngine
from tests.tiny_models import RAGGED_WIDTHS, save_tiny_model

Pair = tuple[TransformersEngine, NaiveEngine]


@pytest.fixture(scope="module", params=RAGGED_WIDTHS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    kind = request.param
    folder = save_tiny_model(kind, tmp_path_factory.mktemp("ragged") / kind)
    engine = TransformersEngine.load(folder, device="cpu", batch_tokens=256)
    assert engine.model.widths == RAGGED_WIDTHS[kind] == layer_widths(str(folder))
    assert engine.model.d_mlp == max(RAGGED_WIDTHS[kind])
    yield engine, NaiveEngine(folder)
    engine.close()


def beyond_of(engine: TransformersEngine) -> torch.Tensor:
    assert engine.model.widths is not None
    return ~is_neuron(engine.model.widths, engine.model.d_mlp)


def test_counts_and_moments_are_the_oracle_s_and_0_beyond_a_width(pair: Pair) -> None:
    engine, oracle = pair
    groups = groups_of(engine.tokenizer)
    counts, expected = engine.count(groups, moments=True), oracle.count(groups, moments=True)
    assert_tally(counts, groups)
    assert_same_counts(counts, expected)
    assert_same_moments(counts, expected)
    assert counts.moments is not None
    beyond = beyond_of(engine)
    for table in (counts.full.over_zero, counts.prefix.over_zero, counts.moments.full.sum_of_squares):
        assert not table[beyond].any()
        assert (table[~beyond] > 0).float().mean() > 0.5
    assert torch.equal(engine.count(groups).full.over_zero, counts.full.over_zero)


def test_interventions_are_the_oracle_s_and_end(pair: Pair) -> None:
    engine, oracle = pair
    texts = scored_texts(engine.tokenizer)
    plain = engine.log_likelihood(texts)
    assert_close(plain, oracle.log_likelihood(texts))
    chosen = torch.rand(engine.model.layers, engine.model.d_mlp, generator=torch.Generator().manual_seed(0)) < 0.4
    change = Intervention.on(chosen & ~beyond_of(engine), scale=0.5, shift=0.3)
    prompts, few = [Prompt(tuple(engine.tokenizer.encode("What is 2 + 3?")))], Sampling(max_new_tokens=5)
    with engine.intervene(change), oracle.intervene(change):
        changed = engine.log_likelihood(texts)
        assert_close(changed, oracle.log_likelihood(texts))
        assert engine.generate(prompts, sampling=few) == oracle.generate(prompts, sampling=few)
    assert sum(x.nll for x in changed) != pytest.approx(sum(x.nll for x in plain), rel=1e-4)
    assert engine.log_likelihood(texts) == plain


def test_an_intervention_beyond_a_layer_s_width_is_refused(pair: Pair) -> None:
    engine, _ = pair
    layer, place = beyond_of(engine).nonzero()[0].tolist()
    neurons = torch.zeros(engine.model.layers, engine.model.d_mlp, dtype=torch.bool)
    neurons[layer, place] = True
    said = f"layer {layer} has {engine.model.layer_widths[layer]} neurons .*at place {place}: use the mask"
    with pytest.raises(IncompatibleError, match=said), engine.intervene(Intervention.zero(neurons)):
        pass
    too_wide = Intervention.identity(engine.model.layers, engine.model.d_mlp + 1)
    with pytest.raises(IncompatibleError, match="for a model of shape"), engine.intervene(too_wide):
        pass


def config(widths: list[int], **changes: object) -> SimpleNamespace:
    known = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 3}
    return SimpleNamespace(**known, intermediate_size=widths, num_attention_heads=4, **changes)


def test_a_config_tells_the_width_of_each_layer() -> None:
    assert neurons_of_layers(config([4, 8, 8]), 3) == (4, 8, 8)
    assert neurons_per_layer(config([4, 8, 8])) == 8
    with pytest.raises(EngineError, match="tells the neurons of 2 layers, expected 3"):
        neurons_of_layers(config([4, 8]), 3)
    for wrong in ([4, 0, 8], [], [4, "8", 8]):
        with pytest.raises(EngineError, match="does not tell how many neurons a layer has"):
            neurons_of_layers(config(wrong), 3)


def test_vllm_refuses_layers_of_different_widths_before_it_loads_anything() -> None:
    with pytest.raises(
        UnknownArchitectureError, match=r"LlamaForCausalLM .* has layers of different widths \(4, 8 neu"
    ):
        check_model(config([4, 8, 8]), Launch("x", "float32"))
    check_model(config([8, 8, 8]), Launch("x", "float32"))


def test_a_model_is_loaded_from_its_folder_alone(tmp_path: Path) -> None:
    """Without `use_double_wide_mlp` a Gemma 4 is a model like any other."""
    alike = {"use_double_wide_mlp": False}
    engine = TransformersEngine.load(save_tiny_model("gemma4_text", tmp_path / "model", **alike), device="cpu")
    assert engine.model.widths is None
    assert engine.model.layer_widths == (96,) * 4 == layer_widths(str(tmp_path / "model"))

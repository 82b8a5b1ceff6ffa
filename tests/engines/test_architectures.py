"""Every supported family, compared with the plain model run one sequence at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from language_neurons_alignment.config import Sampling
from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.engines.families import FAMILIES
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.engines.transformers.sites import decoder_layers
from tests.engines.contract import (
    SHORT,
    assert_close,
    assert_same_counts,
    assert_tally,
    counting_error,
    groups_of,
    scored_texts,
    some_neurons,
)
from tests.engines.families_table import PAGE, rows_of
from tests.engines.generation_contract import SOME, prompts_of
from tests.engines.moments_contract import assert_same_moments
from tests.engines.oracle import NaiveEngine
from tests.tiny_models import CONFIGS, MODELS, often_and_seldom, save_tiny_model

Pair = tuple[TransformersEngine, NaiveEngine]


@pytest.fixture(scope="module", params=often_and_seldom(MODELS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = save_tiny_model(request.param, tmp_path_factory.mktemp("models") / request.param)
    return TransformersEngine.load(folder, device="cpu", batch_tokens=128), NaiveEngine(folder, keep=True)


def test_every_known_architecture_is_tried() -> None:
    assert set(CONFIGS) >= set(FAMILIES)


def test_counts_and_moments_are_the_oracle_s(pair: Pair) -> None:
    engine, oracle = pair
    groups = groups_of(engine.tokenizer, SHORT)
    counts, expected = engine.count(groups, moments=True), oracle.count(groups, moments=True)
    assert_tally(counts, groups)
    assert_same_counts(counts, expected)
    assert_same_moments(counts, expected)
    assert 0.05 < counts.full.over_zero.float().mean() / counts.full.total_tokens < 0.95


def test_counts_are_those_of_independent_hooks_without_one_cell_of_error(pair: Pair) -> None:
    """Each sequence alone, so that both compute the same shapes."""
    engine, oracle = pair
    assert counting_error(engine, oracle) == 0


def test_likelihoods_counts_and_answers_are_the_oracle_s_with_and_without_neurons(pair: Pair) -> None:
    engine, oracle = pair
    groups, off = groups_of(engine.tokenizer, SHORT), Intervention.zero(some_neurons(engine))
    texts = scored_texts(engine.tokenizer, SHORT)
    prompts, sampling = prompts_of(engine, SOME), Sampling(max_new_tokens=6)
    plain, answers = engine.log_likelihood(texts), engine.generate(prompts, sampling=sampling)
    assert_close(plain, oracle.log_likelihood(texts))
    assert answers == oracle.generate(prompts, sampling=sampling)
    with engine.intervene(off), oracle.intervene(off):
        masked, others = engine.log_likelihood(texts), engine.generate(prompts, sampling=sampling)
        assert_close(masked, oracle.log_likelihood(texts))
        assert_same_counts(engine.count(groups), oracle.count(groups))
        assert others == oracle.generate(prompts, sampling=sampling)
    assert abs(sum(x.nll for x in masked) - sum(x.nll for x in plain)) > 1e-3
    assert others != answers
    wrong_behind_padding = ("MiniMaxForCausalLM", "RecurrentGemmaForCausalLM")
    assert engine._network.pads == (engine.model.architecture not in wrong_behind_padding), (
        "no cache only where it is wrong"
    )
    assert engine.log_likelihood(texts) == plain


EQUATIONS = {
    "llama": lambda mlp, x: F.silu(x @ mlp.gate_proj.weight.T),
    "gemma2": lambda mlp, x: F.gelu(x @ mlp.gate_proj.weight.T, approximate="tanh"),
    "gemma3": lambda mlp, x: F.gelu(x @ mlp.gate_proj.weight.T, approximate="tanh"),
    "phi3": lambda mlp, x: F.silu(x @ mlp.gate_up_proj.weight[:96].T),
    "gpt_neox": lambda mlp, x: F.gelu(F.linear(x, mlp.dense_h_to_4h.weight, mlp.dense_h_to_4h.bias)),
    "bloom": lambda mlp, x: F.gelu(F.linear(x, mlp.dense_h_to_4h.weight, mlp.dense_h_to_4h.bias), approximate="tanh"),
    "opt": lambda fc1, x: F.relu(F.linear(x, fc1.weight, fc1.bias)),
    "glm4": lambda mlp, x: F.silu(x @ mlp.gate_up_proj.weight[:96].T),
    "gpt2": lambda mlp, x: F.gelu(x @ mlp.c_fc.weight + mlp.c_fc.bias, approximate="tanh"),
    "nemotron": lambda mlp, x: F.relu(x @ mlp.up_proj.weight.T).square(),
    "falcon": lambda mlp, x: F.gelu(x @ mlp.dense_h_to_4h.weight.T),
    "llama-relu": lambda mlp, x: F.relu(x @ mlp.gate_proj.weight.T),
    "llama-gelu": lambda mlp, x: F.gelu(x @ mlp.gate_proj.weight.T, approximate="tanh"),
}
"""The definition in docs/concepts/counting.md: act(gate x), or act(fc1 x) where there is no gate."""


@pytest.mark.parametrize("kind", EQUATIONS)
def test_the_site_is_what_the_equation_says(kind: str, tmp_path: Path) -> None:
    engine = TransformersEngine.load(save_tiny_model(kind, tmp_path / kind), device="cpu")
    network = engine._network
    layers = decoder_layers(network.decoder)
    inputs, outputs = {}, {}
    for index, (layer, site) in enumerate(zip(layers, network.sites, strict=True)):
        mlp = layer.fc1 if kind == "opt" else layer.mlp
        mlp.register_forward_pre_hook(lambda m, args, index=index: inputs.__setitem__(index, (m, args[0])))
        site.module.register_forward_hook(lambda m, args, out, index=index: outputs.__setitem__(index, out))
    with torch.no_grad():
        network.run(torch.tensor([[1, 20, 30, 40, 50, 60]]))
    assert sorted(outputs) == list(range(engine.model.layers))
    for index, (mlp, x) in inputs.items():
        torch.testing.assert_close(outputs[index], EQUATIONS[kind](mlp, x), rtol=1e-4, atol=1e-5)


def test_the_table_in_the_docs_has_a_row_for_each_family() -> None:
    """`make families` writes it; where a row is missing, run that."""
    assert rows_of(PAGE.read_text(encoding="utf-8")) == sorted(CONFIGS)

"""Reading, ablating and reading out single neurons: each against the plain way of doing it, one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.core.readings import in_order
from language_neurons_alignment.corpus.encode import PromptGroup, ScoredText
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.engines.transformers.sites import decoder_layers
from language_neurons_alignment.errors import SilentHookError, UnknownArchitectureError
from tests.tiny_models import save_tiny_model

KINDS = ("llama", "gpt2", "gemma3_text", "mixtral", "llama4_text")
SEQUENCES = [(1, *range(30, 52)), (1, 40, 41, 90, 17), (1, 40, 41, 12, 80, 81), (1, 7, 7, 7)]
GROUPS = [
    PromptGroup(SEQUENCES[0][:4], (SEQUENCES[0],)),
    PromptGroup(SEQUENCES[1][:3], (SEQUENCES[1], SEQUENCES[2])),
    PromptGroup(SEQUENCES[3][:1], (SEQUENCES[3],)),
]
TEXTS = [
    ScoredText(tokens, border) for group in GROUPS for tokens, border in zip(group.full, group.borders, strict=True)
]
NEURONS = in_order([(0, 0), (0, 3), (1, 90), (2, 17), (2, 18), (2, 95)])


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TransformersEngine]:
    """One engine of each kind, with norms whose scales differ."""
    root = tmp_path_factory.mktemp("reading")
    made = {kind: TransformersEngine.load(save_tiny_model(kind, root / kind), device="cpu") for kind in KINDS}
    generator = torch.Generator().manual_seed(0)
    for engine in made.values():
        for name, weight in engine._network.model.named_parameters():
            if "norm" in name or "ln_f" in name:
                weight.data.copy_(torch.rand(weight.shape, generator=generator) + 0.5)
    return made


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest, engines: dict[str, TransformersEngine]) -> TransformersEngine:
    return engines[request.param]


def activations(engine: TransformersEngine, tokens: tuple[int, ...]) -> torch.Tensor:
    """[token, neuron of NEURONS] of one sequence alone."""
    network, found = engine._network, torch.zeros(len(tokens), len(NEURONS))
    for n, (layer, index) in enumerate(NEURONS.tolist()):

        def keep(_module: Any, inputs: Any, output: torch.Tensor, n: int = n, index: int = index) -> None:
            if len(inputs) == 3:  # of an expert
                expert, at = inputs[1:]
                width = output.shape[-1]
                if index // width == expert:
                    found[at, n] = output[:, index % width]
            else:
                found[:, n] = output.reshape(len(tokens), -1)[:, index]

        site = next(one for one in network.sites if one.layer == layer and one.start <= index < one.stop)
        hook = site.module.register_forward_hook(keep)
        with torch.inference_mode():
            network.run(torch.tensor([tokens]))
        hook.remove()
    return found


def test_contexts_and_firings_equal_a_brute_force_over_all_activations(engine: TransformersEngine) -> None:
    found = engine.read(GROUPS, NEURONS, keep=4, window=2)
    everything: list[tuple[int, torch.Tensor, int, int]] = []
    offset = 0
    for text in TEXTS:
        values = activations(engine, text.tokens)
        everything += [(offset + at, values, at, len(text.tokens)) for at in range(text.start, len(text.tokens))]
        offset += len(text.tokens)
    assert found.tokens == len(everything)
    for n in range(len(NEURONS)):
        ranked = sorted(everything, key=lambda one: -float(one[1][one[2], n]))[:4]
        values = torch.stack([one[1][one[2], n] for one in ranked])
        torch.testing.assert_close(found.activation[n], values, atol=1e-5, rtol=1e-5)
        if len(set(values.tolist())) == 4 and float(values.diff().abs().min()) > 1e-4:
            assert found.numbers[n].tolist() == [one[0] for one in ranked]
            for k, (_, sequence, at, length) in enumerate(ranked):
                for step, value in zip(range(-2, 3), found.windows[n, k].tolist(), strict=True):
                    assert (value == value) == (0 <= at + step < length)
                    if value == value:
                        assert value == pytest.approx(float(sequence[at + step, n]), abs=1e-5)
        assert int(found.fired[n]) == sum(float(one[1][one[2], n]) > 0 for one in everything)


def test_firings_are_those_that_are_counted_and_batches_do_not_matter(engines: dict[str, TransformersEngine]) -> None:
    engine = engines["llama"]
    counts = engine.count(GROUPS)
    fired = counts.full.over_zero - counts.prefix.over_zero
    found = engine.read(GROUPS, NEURONS, keep=3, window=1)
    assert torch.equal(found.fired, fired[NEURONS[:, 0], NEURONS[:, 1]])
    before = engine.batching
    engine.batching = replace(before, budget=1)  # each sequence alone
    alone = engine.read(GROUPS, NEURONS, keep=3, window=1)
    engine.batching = before
    assert torch.equal(found.numbers, alone.numbers)
    assert torch.equal(found.histogram, alone.histogram)
    torch.testing.assert_close(found.windows, alone.windows, equal_nan=True)


def test_neurons_off_many_to_a_forward_are_neurons_off_one_by_one(engine: TransformersEngine) -> None:
    found = engine.ablate_each(TEXTS, NEURONS)
    before = torch.tensor([one.nll for one in engine.log_likelihood(TEXTS)], dtype=torch.float64)
    for n, (layer, index) in enumerate(NEURONS.tolist()):
        off = torch.zeros(engine.model.layers, engine.model.d_mlp, dtype=torch.bool)
        off[layer, index] = True
        with engine.intervene(Intervention.zero(off)):
            after = torch.tensor([one.nll for one in engine.log_likelihood(TEXTS)], dtype=torch.float64)
        torch.testing.assert_close(found[n], after - before, atol=3e-5, rtol=1e-3)
    assert float(found.abs().max()) > 1e-3, "else nothing was compared"


def test_the_first_order_estimate_is_the_slope_of_the_likelihood(engines: dict[str, TransformersEngine]) -> None:
    step = 0.01
    for kind in ("llama", "mixtral", "llama4_text"):
        engine = engines[kind]
        found = engine.first_order(TEXTS)
        assert tuple(found.shape) == (engine.model.layers, engine.model.d_mlp)
        place = found.abs().flatten().argmax()
        layer, index = divmod(int(place), engine.model.d_mlp)
        here = torch.zeros(found.shape, dtype=torch.bool)
        here[layer, index] = True
        nll = []
        for scale in (1 - step, 1 + step):
            with engine.intervene(Intervention.on(here, scale=scale)):
                nll.append(sum(one.nll for one in engine.log_likelihood(TEXTS)))
        assert float(found[layer, index]) == pytest.approx((nll[0] - nll[1]) / (2 * step), rel=0.05)
        assert not any(one.grad is not None for one in engine._network.model.parameters())


def test_what_a_neuron_writes_is_its_column_through_norms_and_unembedding(engine: TransformersEngine) -> None:
    network = engine._network
    layers: Any = decoder_layers(network.decoder)
    expected = []
    for layer, index in NEURONS.tolist():
        block = layers[layer]
        if hasattr(network.decoder, "ln_f"):
            expected.append(block.mlp.c_proj.weight[index] * network.decoder.ln_f.weight)
        elif hasattr(block, "post_feedforward_layernorm"):
            scales = (1 + block.post_feedforward_layernorm.weight) * (1 + network.decoder.norm.weight)
            expected.append(block.mlp.down_proj.weight[:, index] * scales)
        elif hasattr(block, "feed_forward"):  # Llama 4: a row of an expert, or a column of a dense layer
            down = getattr(block.feed_forward, "experts", block.feed_forward).down_proj
            column = down.flatten(0, 1)[index] if isinstance(down, torch.Tensor) else down.weight[:, index]
            expected.append(column * network.decoder.norm.weight)
        elif hasattr(block.mlp, "experts"):
            expected.append(block.mlp.experts.down_proj[0][:, index] * network.decoder.norm.weight)
        else:
            expected.append(block.mlp.down_proj.weight[:, index] * network.decoder.norm.weight)
    directions = torch.stack(expected).detach()
    found = engine.readout(NEURONS, most=5)
    torch.testing.assert_close(found.directions, directions, rtol=1e-3, atol=1e-4)
    logits = directions @ network.head.projection.weight.T.detach()
    torch.testing.assert_close(found.promoted_logits, logits.topk(5).values, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(-found.suppressed_logits, (-logits).topk(5).values, rtol=1e-3, atol=1e-4)


def test_a_fused_kernel_is_not_read_as_silence(engines: dict[str, TransformersEngine]) -> None:
    engine = engines["llama"]
    layer: Any = decoder_layers(engine._network.decoder)[2]
    mlp, own = layer.mlp, layer.mlp.forward
    mlp.forward = lambda x: mlp.down_proj(torch.nn.functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x))
    try:
        with pytest.raises(SilentHookError, match="did not fire exactly once"):
            engine.read(GROUPS, NEURONS, keep=1, window=0)
        with pytest.raises(SilentHookError, match="was not switched off exactly once"):
            engine.ablate_each(TEXTS, NEURONS)
    finally:
        mlp.forward = own


def test_an_unembedding_behind_another_matrix_is_refused_by_name(tmp_path: Path) -> None:
    engine = TransformersEngine.load(save_tiny_model("opt", tmp_path / "opt"), device="cpu")
    with pytest.raises(UnknownArchitectureError, match=r"last layer of OPTDecoder gives .* give another model"):
        engine.readout(NEURONS, most=1)

"""Interventions and hooks: exact, composed in order, gone afterwards, and never silent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.corpus.encode import PromptGroup, ScoredText
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.engines.transformers.network import Network
from language_neurons_alignment.errors import EngineError, SilentHookError
from tests.engines.contract import groups_of, some_neurons

TEXTS = [ScoredText((1, 30, 31, 32, 33, 34, 35)), ScoredText((1, 40, 41))]


@pytest.fixture
def engine(tiny_llama: Path) -> Iterator[TransformersEngine]:
    engine = TransformersEngine.load(tiny_llama, device="cpu")
    yield engine
    assert hooks(engine) == 0, "a hook was left behind"
    engine.close()


def network(engine: TransformersEngine) -> Network:
    return engine._network


def hooks(engine: TransformersEngine) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network(engine).decoder.modules())


def logits(engine: TransformersEngine) -> torch.Tensor:
    with torch.inference_mode():
        return network(engine).head(network(engine).run(torch.tensor([[1, 30, 31, 32, 33]])).last_hidden_state[0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_deactivation_equals_zeroing_by_hand_bit_for_bit(tiny_llama: Path, dtype: str) -> None:
    engine = TransformersEngine.load(tiny_llama, device="cpu", dtype=dtype)
    neurons = some_neurons(engine)
    plain = logits(engine)
    with engine.intervene(Intervention.zero(neurons)):
        masked = logits(engine)
    for site, off in zip(network(engine).sites, neurons, strict=True):
        site.module.register_forward_hook(lambda _m, _i, out, off=off: out.masked_fill(off, 0.0))
    by_hand = logits(engine)
    assert torch.equal(masked, by_hand)
    assert not torch.equal(masked, plain)


def test_scale_and_shift_are_what_they_say(engine: TransformersEngine) -> None:
    scale, shift = torch.ones(3, 96), torch.zeros(3, 96)
    scale[1, 4], shift[1, 5], scale[1, 6], shift[1, 6] = 2.0, 0.5, 0.0, 3.0
    seen = {}
    site = network(engine).sites[1]

    def look(key: str) -> torch.utils.hooks.RemovableHandle:
        return site.module.register_forward_hook(lambda _m, _i, out: seen.__setitem__(key, out.clone()))

    before = look("before")
    with engine.intervene(Intervention(scale, shift)):
        after = look("after")
        logits(engine)
    before.remove()
    after.remove()
    expected = seen["before"].clone()
    expected[..., 4] *= 2
    expected[..., 5] += 0.5
    expected[..., 6] = 3.0
    assert torch.equal(seen["after"], expected)


def test_only_touched_layers_get_a_hook_and_identity_gets_none(engine: TransformersEngine) -> None:
    neurons = torch.zeros(3, 96, dtype=torch.bool)
    with engine.intervene(Intervention.zero(neurons)):
        assert hooks(engine) == 0
    neurons[2, 7] = True
    with engine.intervene(Intervention.zero(neurons)):
        assert [len(site.module._forward_hooks) for site in network(engine).sites] == [0, 0, 1]
        logits(engine)


def test_nested_contexts_are_one_map_rounded_once_and_what_undoes_another_leaves_no_hook(tiny_llama: Path) -> None:
    engine = TransformersEngine.load(tiny_llama, device="cpu", dtype="bfloat16")
    neurons, plain = some_neurons(engine), logits(engine)
    third, triple = Intervention.on(neurons, scale=0.3), Intervention.on(neurons, scale=3.0, shift=0.1)
    with engine.intervene(third.then(triple)):
        together = logits(engine)
    with engine.intervene(third), engine.intervene(triple):
        assert [len(site.module._forward_hooks) for site in network(engine).sites] == [1, 0, 1]
        assert torch.equal(logits(engine), together)
    with engine.intervene(Intervention.on(neurons, scale=4.0)), engine.intervene(Intervention.on(neurons, scale=0.25)):
        assert hooks(engine) == 0
        assert torch.equal(logits(engine), plain)
    assert torch.equal(logits(engine), plain)


def test_an_outer_intervention_that_is_silent_is_found_when_an_inner_one_begins(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = Intervention.zero(some_neurons(engine))
    plain = engine.log_likelihood(TEXTS)
    with engine.intervene(off):
        once = engine.log_likelihood(TEXTS)
        with monkeypatch.context() as patch:
            bypass(engine, 2, patch)
            engine.log_likelihood(TEXTS)
        with (
            pytest.raises(SilentHookError, match="acted 1 times in layer 2 although the model ran 2 times"),
            engine.intervene(Intervention.on(some_neurons(engine), shift=1.0)),
        ):
            pass
        assert engine.log_likelihood(TEXTS) == once, "the outer one is in force, the inner one is not"
    assert engine.log_likelihood(TEXTS) == plain


def test_counting_leaves_no_hook_behind_also_when_it_fails(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.count(groups_of(engine.tokenizer))
    assert hooks(engine) == 0

    def stop(_tokens: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.count(groups_of(engine.tokenizer), progress=stop)
    assert hooks(engine) == 0


def bypass(engine: TransformersEngine, layer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fused MLP that computes the same without calling its activation module."""
    mlp = network(engine).decoder.get_submodule(f"layers.{layer}.mlp")

    def fused(x: torch.Tensor) -> torch.Tensor:
        return mlp.down_proj(nn.functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x))

    monkeypatch.setattr(mlp, "forward", fused)


def test_counting_through_a_fused_mlp_is_an_error(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    bypass(engine, 1, monkeypatch)
    with pytest.raises(SilentHookError, match=r"1 of 3 counting hooks .*layer 1: 0 times"):
        engine.count([PromptGroup((1, 2), ((1, 2, 3),))])


def test_intervening_in_a_fused_mlp_is_an_error(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    bypass(engine, 2, monkeypatch)
    with (
        pytest.raises(SilentHookError, match=r"acted 0 times in layer 2 .*ran 1 times \(1 of 2 layers\)"),
        engine.intervene(Intervention.zero(some_neurons(engine))),
    ):
        engine.log_likelihood(TEXTS)


def test_an_intervention_under_which_nothing_ran_is_no_error(engine: TransformersEngine) -> None:
    with engine.intervene(Intervention.zero(some_neurons(engine))):
        pass


def test_a_silent_hook_does_not_hide_another_error(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    bypass(engine, 2, monkeypatch)

    def fail_inside() -> None:
        with engine.intervene(Intervention.zero(some_neurons(engine))):
            engine.log_likelihood(TEXTS)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()


def test_a_silent_hook_is_found_while_another_error_is_being_handled(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    bypass(engine, 2, monkeypatch)
    try:
        raise KeyError("an earlier error, handled here")
    except KeyError:
        with pytest.raises(SilentHookError), engine.intervene(Intervention.zero(some_neurons(engine))):
            engine.log_likelihood(TEXTS)


def test_nan_in_the_model_is_an_error_and_not_a_number(engine: TransformersEngine) -> None:
    with torch.no_grad():
        network(engine).decoder.get_submodule("layers.1.mlp.down_proj").weight[0, 0] = float("nan")
    with pytest.raises(EngineError, match="hidden states became NaN"):
        engine.count([PromptGroup((1, 2), ((1, 2, 3),))])
    with pytest.raises(EngineError, match="logits became NaN"):
        engine.log_likelihood(TEXTS)

"""Mixtures of experts: what is proved when they are opened, what is refused, and what acts on their routers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM
from transformers.models.llama4 import modeling_llama4
from transformers.models.mixtral import modeling_mixtral

from language_neurons_alignment._interventions import intervene
from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.corpus.encode import PromptGroup, ScoredText
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.engines.transformers.network import decoder_of
from language_neurons_alignment.engines.transformers.sites import find_sites
from language_neurons_alignment.errors import (
    IncompatibleError,
    LNAError,
    SettingsError,
    SilentHookError,
    UnknownArchitectureError,
)
from tests.engines.contract import assert_close, assert_same_counts, groups_of
from tests.engines.oracle import NaiveEngine, routed_by_sigmoid
from tests.neuron_sets import source_of
from tests.tiny_models import EXPERTS, HIDDEN, TOP_K, save_tiny_model, tiny_config

TEXTS = [ScoredText((1, *range(30, 60))), ScoredText((1, 40, 41, 90, 17))]
GROUPS = [PromptGroup(text.tokens[:2], (text.tokens,)) for text in TEXTS]
KINDS = ("mixtral", "qwen2_moe", "gpt_oss", "deepseek_v2", "deepseek_v3", "phimoe", "llama4_text")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("experts")
    return {kind: save_tiny_model(kind, root / kind) for kind in KINDS}


@pytest.fixture(scope="module")
def engines(folders: dict[str, Path]) -> dict[str, TransformersEngine]:
    """An engine for each kind, shared by all tests that leave it as it was."""
    return {kind: TransformersEngine.load(folder, device="cpu") for kind, folder in folders.items()}


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest, engines: dict[str, TransformersEngine]) -> Iterator[TransformersEngine]:
    engine = engines[request.param]
    yield engine
    left = [m for m in engine._network.decoder.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not left, "a hook was left behind"


@pytest.fixture
def mixtral(engines: dict[str, TransformersEngine]) -> TransformersEngine:
    return engines["mixtral"]


@pytest.fixture
def own_mixtral(folders: dict[str, Path]) -> TransformersEngine:
    """One that a test may break."""
    return TransformersEngine.load(folders["mixtral"], device="cpu")


def sent_of(engine: TransformersEngine) -> list[int]:
    """How many pairs of token and expert `GROUPS` make in each layer: none in one without experts."""
    assert engine.model.experts is not None
    return [TOP_K * 36 if layer in engine.model.experts.layers else 0 for layer in range(engine.model.layers)]


def test_padding_is_never_counted(engine: TransformersEngine) -> None:
    together, alone = engine.count(GROUPS), [engine.count([group]) for group in GROUPS]
    assert_same_counts(together, alone[0] + alone[1])
    assert together.routing is not None
    assert together.routing.full.routed.sum(1).tolist() == sent_of(engine)


def test_a_banned_expert_is_never_chosen_and_the_others_take_its_tokens(engine: TransformersEngine) -> None:
    plain = engine.count(GROUPS)
    with intervene(engine, "ban expert:1.2 + expert:2.0", source_of()):
        banned = engine.count(GROUPS)
    assert plain.routing is not None
    assert banned.routing is not None
    assert plain.routing.full.routed[1, 2] > 0
    assert banned.routing.full.routed[[1, 2], [2, 0]].tolist() == [0, 0]
    assert banned.routing.full.routed.sum(1).tolist() == sent_of(engine)
    assert torch.equal(banned.routing.full.routed[0], plain.routing.full.routed[0])
    experts = engine.model.experts
    assert experts is not None
    assert not banned.full.over_zero[1, experts.neurons(2)].any()
    assert_same_counts(engine.count(GROUPS), plain, exact=True)


def test_an_expert_that_is_boosted_enough_is_chosen_for_every_token(mixtral: TransformersEngine) -> None:
    with intervene(mixtral, ["boost:60 expert:1.2", "boost:40 expert:1.2", "ban expert:1.3"], source_of()):
        counts = mixtral.count(GROUPS)
    assert counts.routing is not None
    assert counts.routing.full.routed[1, 2:4].tolist() == [36, 0]
    assert float(counts.routing.full.weight[1, 2]) == pytest.approx(36)


def test_boost_in_gpt_oss_is_its_router_s_own_bias(
    engines: dict[str, TransformersEngine], folders: dict[str, Path], tmp_path: Path
) -> None:
    engine = engines["gpt_oss"]
    by_hand = AutoModelForCausalLM.from_pretrained(folders["gpt_oss"])
    with torch.no_grad():
        by_hand.model.layers[1].mlp.router.bias[4] += 1.5
        by_hand.model.layers[2].mlp.router.bias[0] -= 3
    by_hand.save_pretrained(tmp_path)
    engine.tokenizer.save_pretrained(tmp_path)
    oracle = NaiveEngine(tmp_path)
    with intervene(engine, ["boost:1.5 expert:1.4", "boost:-3 expert:2.0"], source_of()):
        assert_same_counts(engine.count(GROUPS), oracle.count(GROUPS))
        assert_close(engine.log_likelihood(TEXTS), oracle.log_likelihood(TEXTS))


def test_boost_in_mixtral_is_added_before_the_softmax(mixtral: TransformersEngine, folders: dict[str, Path]) -> None:
    engine, oracle = mixtral, NaiveEngine(folders["mixtral"])
    gate = oracle.network.model.layers[0].mlp.gate

    def by_hand(hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = hidden @ gate.weight.T
        logits[:, 3] += 2
        weights, index = torch.softmax(logits, dim=-1).topk(TOP_K)
        return logits, weights / weights.sum(-1, keepdim=True), index

    gate.forward = by_hand
    with intervene(engine, "boost:2 expert:0.3", source_of()):
        assert_same_counts(engine.count(GROUPS), oracle.count(GROUPS))
        assert_close(engine.log_likelihood(TEXTS), oracle.log_likelihood(TEXTS))


def test_boost_in_llama_4_is_added_before_the_sigmoid(
    engines: dict[str, TransformersEngine], folders: dict[str, Path]
) -> None:
    engine, oracle = engines["llama4_text"], NaiveEngine(folders["llama4_text"])
    block: Any = oracle.network.model.layers[1].feed_forward
    block.forward = partial(routed_by_sigmoid, block, boost=2 * F.one_hot(torch.tensor(3), EXPERTS))
    with intervene(engine, "boost:2 expert:1.3", source_of()):
        assert_same_counts(engine.count(GROUPS), oracle.count(GROUPS))
        assert_close(engine.log_likelihood(TEXTS), oracle.log_likelihood(TEXTS))


def test_a_caller_s_llama_4_is_left_as_it_was_and_keeps_a_ban_while_it_works(
    engines: dict[str, TransformersEngine], folders: dict[str, Path]
) -> None:
    mine = AutoModelForCausalLM.from_pretrained(folders["llama4_text"])
    state = [(vars(one).get("forward"), set(one._modules)) for one in mine.modules()]
    loaded = engines["llama4_text"]
    guest = TransformersEngine.of(mine, loaded.tokenizer)
    with intervene(guest, "ban expert:2.0", source_of()), intervene(loaded, "ban expert:2.0", source_of()):
        assert_same_counts(guest.count(GROUPS), loaded.count(GROUPS), exact=True)
    assert [(vars(one).get("forward"), set(one._modules)) for one in mine.modules()] == state


CLAMP = 1.0


def llama4_decoder() -> Any:
    return decoder_of(AutoModelForCausalLM.from_config(tiny_config("llama4_text")).eval())


def test_experts_of_llama_4_that_read_or_compute_something_else_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    doubled = llama4_decoder()
    doubled.layers[1].feed_forward.experts.register_forward_pre_hook(lambda _module, inputs: (2 * inputs[0],))
    with pytest.raises(
        UnknownArchitectureError, match=r"layer 1, .*reads something other than a token's input times a ro"
    ):
        find_sites(doubled)
    unknown = llama4_decoder()
    del unknown.layers[2].feed_forward.experts.num_experts
    with pytest.raises(UnknownArchitectureError, match=r"layer 2 .*its experts \(feed_forward.experts\) are of a form"):
        find_sites(unknown)
    clamped, inner = llama4_decoder(), modeling_llama4.Llama4TextExperts.forward
    reached = []

    def clamps(self: Any, x: Tensor) -> Tensor:
        given = inner(self, x)
        reached.append(float(given.abs().max()))
        return given.clamp(-CLAMP, CLAMP)

    monkeypatch.setattr(modeling_llama4.Llama4TextExperts, "forward", clamps)
    with pytest.raises(
        UnknownArchitectureError, match=r"layer 1, .*computes something other than the sum of its experts"
    ):
        find_sites(clamped)
    assert max(reached[:2]) < CLAMP < max(reached), "the probe's own numbers do not reach the clamp"


def test_experts_of_llama_4_without_their_router_are_noticed() -> None:
    decoder = llama4_decoder()
    find_sites(decoder)
    experts = decoder.layers[1].feed_forward.experts
    with pytest.raises(SilentHookError, match=r"Llama4TextExperts ran after 0 runs of its router, expected 1"):
        experts(torch.zeros(EXPERTS * 3, HIDDEN))


def test_an_expert_names_all_of_its_neurons(mixtral: TransformersEngine) -> None:
    with intervene(mixtral, "zero expert:1.2", source_of()):
        counts = mixtral.count(GROUPS)
    fired, experts = counts.full.over_zero, mixtral.model.experts
    assert experts is not None
    assert not fired[1, experts.neurons(2)].any()
    assert fired[1].any()
    assert counts.routing is not None
    assert counts.routing.full.routed[1, 2] > 0, "the tokens are sent there all the same"


@pytest.mark.parametrize(
    ("do", "error", "says"),
    [
        ("ban expert:3.0", SettingsError, r"has no expert:3.0: its experts are 0..5, in 3 layers from 0 to 2"),
        ("ban expert:0.6", SettingsError, "has no expert:0.6"),
        ("ban expert:0.0 - expert:0.0", SettingsError, "would change nothing"),
        ("boost:0 expert:0.0", SettingsError, "would change nothing"),
        (
            [f"ban expert:1.{expert}" for expert in range(EXPERTS - 1)],
            SettingsError,
            "layer 1 has 1 experts left that are not banned, and its router chooses 2",
        ),
    ],
)
def test_what_no_router_can_do_is_refused(
    do: str | list[str], error: type[LNAError], says: str, mixtral: TransformersEngine
) -> None:
    with pytest.raises(error, match=says), intervene(mixtral, do, source_of()):
        pass


def test_a_model_without_experts_refuses_them(tiny_llama: Path) -> None:
    engine = TransformersEngine.load(tiny_llama, device="cpu")
    with (
        pytest.raises(SettingsError, match="is no mixture of experts"),
        intervene(engine, "ban expert:0.1", source_of()),
    ):
        pass
    steered = mixtral_intervention()
    with pytest.raises(IncompatibleError, match="no router that it could change"), engine.intervene(steered):
        pass


def mixtral_intervention() -> Intervention:
    return replace(Intervention.identity(3, 96), router=torch.ones(3, EXPERTS))


def test_a_kernel_in_the_place_of_the_experts_is_noticed(own_mixtral: TransformersEngine) -> None:
    engine = own_mixtral
    experts: Any = engine._network.decoder.layers[1].mlp.experts  # type: ignore[union-attr]
    experts.forward = lambda hidden, index, weights: torch.zeros_like(hidden)
    with pytest.raises(SilentHookError, match=r"1 of 3 .*layer 1"):
        engine.count(GROUPS)
    with (
        pytest.raises(SilentHookError, match="acted 0 times in layer 1 although the model ran 1 times"),
        intervene(engine, "zero expert:1.2", source_of()),
    ):
        engine.log_likelihood(TEXTS)


def test_a_router_that_does_not_choose_by_a_linear_map_is_noticed(own_mixtral: TransformersEngine) -> None:
    engine = own_mixtral
    gate: Any = engine._network.decoder.layers[1].mlp.gate  # type: ignore[union-attr]

    def fixed(hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        index = torch.arange(TOP_K).expand(len(hidden), TOP_K)
        return hidden, torch.full(index.shape, 0.5), index

    gate.forward = fixed
    for do, says in (("boost:1 expert:1.5", "acted 0 times in layer 1"), ("ban expert:1.0", "banned, but was sent 62")):
        with pytest.raises(SilentHookError, match=says), intervene(engine, do, source_of()):
            engine.log_likelihood(TEXTS)


def decoder_with(monkeypatch: pytest.MonkeyPatch, experts: Any = None, router: Any = None) -> nn.Module:
    """A Mixtral whose experts or routers compute in another way."""
    decoder = AutoModelForCausalLM.from_config(tiny_config("mixtral")).eval().get_decoder()
    for layer in decoder.layers:
        if experts is not None:
            monkeypatch.setattr(type(layer.mlp.experts), "forward", experts)
        if router is not None:
            layer.mlp.gate.forward = router
    return decoder


def test_experts_whose_gate_is_the_other_half_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def exchanged(self: Any, hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        result = torch.zeros_like(hidden)
        for token, (chosen, shares) in enumerate(zip(index, weights, strict=True)):
            for expert, share in zip(chosen, shares, strict=True):
                up, gate = F.linear(hidden[token], self.gate_up_proj[expert]).chunk(2)
                result[token] += share * F.linear(F.silu(gate) * up, self.down_proj[expert])
        return result

    with pytest.raises(UnknownArchitectureError, match=r"MixtralModel, layer 0, .*something other than the sum"):
        find_sites(decoder_with(monkeypatch, experts=exchanged))


def test_a_gating_that_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modeling_mixtral.MixtralExperts, "_apply_gate", lambda self, both: both.chunk(2, -1)[0].tanh())
    with pytest.raises(UnknownArchitectureError, match="the gating of MixtralExperts is none of those that are known"):
        find_sites(decoder_with(monkeypatch))


@pytest.mark.parametrize(
    ("index", "says"),
    [([0, EXPERTS], r"leaves tokens out or sends them nowhere \(0..6 of 6\)"), ([3, 3], "to one expert twice")],
)
def test_a_router_that_drops_tokens_is_refused(index: list[int], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def drops(hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        chosen = torch.tensor(index).expand(len(hidden), TOP_K).clone()
        return hidden, torch.full(chosen.shape, 0.5), chosen

    monkeypatch.setattr(F, "one_hot", lambda index, num_classes: torch.eye(num_classes + 1).long()[index])
    with pytest.raises(UnknownArchitectureError, match=says):
        find_sites(decoder_with(monkeypatch, router=drops))


def test_whatever_else_the_block_adds_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = decoder_with(monkeypatch)
    block: Any = decoder.layers[2].mlp  # type: ignore[union-attr]
    inner = block.forward
    block.forward = lambda hidden: inner(hidden) + hidden
    with pytest.raises(UnknownArchitectureError, match=r"layer 2 .*mlp returns something other than what its experts"):
        find_sites(decoder)


def test_groups_of_answers_are_counted_as_one_by_one(mixtral: TransformersEngine, folders: dict[str, Path]) -> None:
    engine = mixtral
    texts = {"What is 2 + 3?": [" ab", " so 5", " ab"]}
    groups = groups_of(engine.tokenizer, texts)
    counts = engine.count(groups, moments=True)
    assert_same_counts(counts, NaiveEngine(folders["mixtral"]).count(groups))

"""Neuron sites in vLLM: layers of the kinds that its classes have are proved, and what is wrong with one is named."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from language_neurons_alignment.engines.vllm.experts import RankExperts, RoutedCall, correct_routers
from language_neurons_alignment.engines.vllm.firing import FiringSums, RowWeights
from language_neurons_alignment.engines.vllm.sites import RankSite, Trace, decoder_layers
from language_neurons_alignment.errors import UnknownArchitectureError

HIDDEN, WIDTH = 8, 12


class Merged(nn.Module):
    """act(first half) · second half, as vLLM's SiluAndMul."""

    def __init__(self, act: Callable[[Tensor], Tensor] = F.silu) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        gate, up = x.chunk(2, dim=-1)
        return self.act(gate) * up


class Exchanged(Merged):
    """first half · act(second half), as vLLM's MulAndSilu."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.roll(x.shape[-1] // 2, -1))


class Clamped(Merged):
    """act(first half) · second half cut off at 7, as vLLM's SiluAndMulWithClamp."""

    def forward(self, x: Tensor) -> Tensor:
        gate, up = x.chunk(2, dim=-1)
        return self.act(gate) * up.clamp(-7, 7)


class Sparse(Merged):
    """act(gate above its mean) · up, as vLLM's GeluAndMulSparse."""

    def forward(self, x: Tensor) -> Tensor:
        gate, up = x.chunk(2, dim=-1)
        return self.act(F.relu(gate - gate.mean(-1, keepdim=True))) * up


class LowPrecision(nn.Module):
    """Keeps its parameter in bfloat16, as vLLM's XIELU."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.5, dtype=torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, self.slope * x)


class RowParallelLinear(nn.Linear):
    """Gives a pair, as vLLM's linear maps do."""

    def forward(self, input: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(input), None


class MLP(nn.Module):
    """A merged MLP unless its act_fn is another; what differs is set from outside."""

    def __init__(self, act: nn.Module, *, into: int = 2 * WIDTH, down: type[nn.Linear] = RowParallelLinear) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(HIDDEN, into), act, down(WIDTH, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        given = self.down(self.act(self.up(x)))
        return given[0] if isinstance(given, tuple) else given


class Gated(nn.Module):
    """act(gate) · up with an activation module of its own, as classes of the transformers library."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(HIDDEN, WIDTH), nn.Linear(HIDDEN, WIDTH)
        self.act, self.down = act, RowParallelLinear(WIDTH, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.gate(x)) * self.up(x))[0]


class Layer(nn.Module):
    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(HIDDEN), mlp

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


class Decoder(nn.Module):
    def __init__(self, *mlps: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(mlp) for mlp in mlps)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def trace_of(model: nn.Module, sites: tuple[RankSite, ...] = (), *, twice: bool = False) -> Trace:
    """A trace of one scheduled step between a warm-up and the steps that follow."""
    trace = Trace(model.requires_grad_(False), sites, twice)
    with torch.inference_mode():
        for scheduled in (None, object(), object()):
            trace.step(scheduled)
            trace.before({})
            trace.after(model(torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(0))))
    return trace


def found(*mlps: nn.Module, width: int = WIDTH, tensor: int = 1) -> tuple[RankSite, ...]:
    with torch.inference_mode():
        return trace_of(Decoder(*mlps)).found(width=width, tensor=tensor)


def test_merged_plain_and_gated_layers_are_proved() -> None:
    mlps = (MLP(Merged()), MLP(nn.GELU(), into=WIDTH), Gated(nn.SiLU()))
    sites = found(*mlps, tensor=4)
    assert [(one.layer, one.module, one.down, one.merged, one.signed) for one in sites] == [
        (0, mlps[0].act, mlps[0].down, True, True),
        (1, mlps[1].act, mlps[1].down, False, True),
        (2, mlps[2].act, mlps[2].down, False, True),
    ]


def test_layers_may_share_one_activation_module() -> None:
    shared = nn.ReLU()
    assert [one.module for one in found(*(MLP(shared, into=WIDTH) for _ in range(3)))] == [shared] * 3


def test_layers_of_other_pipeline_stages_are_left_out() -> None:
    model = Decoder(MLP(Merged()), MLP(Merged()))
    model.layers.insert(0, type("PPMissingLayer", (nn.Identity,), {})())
    assert [one.layer for one in trace_of(model).found(width=WIDTH, tensor=1)] == [1, 2]


def test_the_text_decoder_of_a_model_of_text_and_images() -> None:
    model = nn.Module()
    model.vision = nn.ModuleList([nn.Linear(400, 400)])
    model.text = Decoder(MLP(Merged()))
    model.__dict__["get_language_model"] = lambda: model.text
    assert list(decoder_layers(model).values()) == list(model.text.layers)


@pytest.mark.parametrize(
    ("mlp", "says"),
    [
        (MLP(Exchanged()), r"mlp\.act \(Exchanged\) is not act\(first half\) .*: the gate is its second half"),
        (MLP(Clamped()), r"\(Clamped\) is not act\(first half\) · second half;"),
        (MLP(Sparse()), r"\(Sparse\) mixes places"),
        (MLP(nn.Softmax(-1), into=WIDTH), r"\(Softmax\) mixes places"),
        (MLP(nn.Identity(), into=WIDTH), "no place|changes nothing"),
        (MLP(LowPrecision(), into=WIDTH), "has parameters in bfloat16, and computes in float32: load the model in bf"),
    ],
)
def test_a_module_that_is_no_such_activation_is_named(mlp: nn.Module, says: str) -> None:
    with pytest.raises(UnknownArchitectureError, match=rf"Decoder in vLLM, layer 1 \(Layer\).*{says}") as refused:
        found(MLP(Merged()), mlp)
    assert "--engine transformers" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


class Twice(MLP):
    def forward(self, x: Tensor) -> Tensor:
        self.act(self.up(x))
        return super().forward(x)


class InPlace(MLP):
    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)).mul_(0.5))[0]


class Scaled(MLP):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * super().forward(x)


class Fused(MLP):
    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act.forward(self.up(x)))[0]


@pytest.mark.parametrize(
    ("mlp", "says"),
    [
        (Twice(Merged()), r"mlp\.act runs 2 times per layer"),
        (InPlace(Merged()), "no place could hold them"),
        (Scaled(Merged()), "mlp returns something other than"),
        (Fused(Merged()), "no place could hold them"),
    ],
)
def test_a_layer_that_does_something_else_is_refused(mlp: nn.Module, says: str) -> None:
    with pytest.raises(UnknownArchitectureError, match=says):
        found(mlp)


def test_another_width_and_ranks_that_are_not_summed_are_refused() -> None:
    with pytest.raises(UnknownArchitectureError, match="gives 12 neurons, the config says 6 for each of 2 ranks"):
        found(MLP(Merged()), width=6, tensor=2)
    assert found(MLP(Merged(), down=nn.Linear))
    with pytest.raises(UnknownArchitectureError, match="a Linear, which does not sum over the ranks"):
        found(MLP(Merged(), down=nn.Linear), tensor=2)
    with pytest.raises(UnknownArchitectureError, match="no list of decoder layers"):
        Trace(nn.Linear(1, 1))


class RotaryEmbedding(nn.Module):
    """Called as vLLM's, with a kernel that may turn other rows than its equation; `correctable` as its `CustomOp`."""

    def __init__(self, *, right: bool, correctable: bool = False) -> None:
        super().__init__()
        self.right, self._forward_method = right, self.kernel
        if correctable:
            self.forward = lambda *args: self._forward_method(*args)

    def forward_native(self, positions: Tensor, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return query * positions[:, None], key * positions[:, None]

    def forward(self, positions: Tensor, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return self.kernel(positions, query, key)

    def kernel(self, positions: Tensor, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        query.mul_(positions[:, None])  # in place, as vLLM's kernel
        key.mul_((positions if self.right else positions.flip(0))[:, None])
        return query, key


class Turning(MLP):
    def __init__(self, *, right: bool, correctable: bool = False, times: int = 1) -> None:
        super().__init__(Merged())
        self.rotary = nn.ModuleList(RotaryEmbedding(right=right, correctable=correctable) for _ in range(times))

    def forward(self, x: Tensor) -> Tensor:
        for one in self.rotary:
            one(torch.arange(len(x)), x.clone(), x.clone())
        return super().forward(x)


def test_a_rotary_embedding_whose_kernel_turns_other_rows_is_refused() -> None:
    assert found(Turning(right=True))
    with pytest.raises(UnknownArchitectureError, match=r"layer 1 .*rotary embedding does not compute its own eq"):
        found(Turning(right=True), Turning(right=False))


@pytest.mark.parametrize("correctable", [True, False])
def test_a_rotary_embedding_computes_its_equation_where_its_kernel_gives_something_else(correctable: bool) -> None:
    model = Decoder(Turning(right=True, correctable=True), Turning(right=False, correctable=correctable))
    assert trace_of(model).correct()
    again = trace_of(model)
    assert not again.correct()
    if correctable:
        assert len(again.found(width=WIDTH, tensor=1)) == 2
    else:  # what computes is not what was replaced
        with pytest.raises(UnknownArchitectureError, match=r"layer 1 .*rotary embedding does not compute"):
            again.found(width=WIDTH, tensor=1)


def test_several_rotary_embeddings_of_a_layer_are_all_corrected() -> None:
    model = Decoder(Turning(right=True), Turning(right=False, correctable=True, times=2))  # as DeepSeek-V3.2's indexer
    assert trace_of(model).correct()
    assert len(trace_of(model).found(width=WIDTH, tensor=1)) == 2


def test_attention_over_another_layer_s_keys_is_not_tried_as_an_activation_function() -> None:
    class Attention(nn.Module):
        """As vLLM's, which cannot be called with queries alone."""

        def forward(self, query: Tensor, key: Tensor | None, value: Tensor | None) -> Tensor:
            return 2 * query

    class Sharing(MLP):
        def __init__(self) -> None:
            super().__init__(Merged())
            self.attn, self.o_proj = Attention(), nn.Linear(HIDDEN, HIDDEN)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 0 * self.o_proj(self.attn(x, None, None))

    assert len(found(Sharing())) == 1


class Routed(nn.Module):
    """As vLLM's `RoutedExperts`, with weights as they were loaded."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        first, down = (torch.randn(3, *shape, generator=generator) for shape in ((2 * WIDTH, HIDDEN), (HIDDEN, WIDTH)))
        self.__dict__["lna_weights"] = [first, down, None, None]
        self.activation, self.expert_map, self.global_num_experts = "silu", None, 3
        self.apply_router_weight_on_input = False


def routed_call() -> RoutedCall:
    """Two tokens, each of them sent to two of three experts, and what these give."""
    generator = torch.Generator().manual_seed(1)
    x, weights = torch.randn(2, HIDDEN, generator=generator), torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    index = torch.tensor([[2, 0], [1, 2]])
    first, down, *_ = Routed().__dict__["lna_weights"]
    gate, up = torch.einsum("th,efh->tef", x, first).chunk(2, dim=-1)
    given = torch.einsum("tef,ehf->teh", F.silu(gate) * up, down)
    return RoutedCall(
        x, weights, index, (given.gather(1, index[..., None].expand(-1, -1, HIDDEN)) * weights[..., None]).sum(1)
    )


class CPURouter:
    """As vLLM's: without groups it leaves the bias out."""

    def __init__(self, score: str = "softmax", bias: Tensor | None = None, *, custom: object = None) -> None:
        self.scoring_func, self.e_score_correction_bias, self.custom_routing_function = score, bias, custom
        self.use_grouped_topk, self.num_expert_group, self.topk_group = False, None, None


class OtherRouter(CPURouter):
    """Of another device."""


@pytest.mark.parametrize(
    ("router", "corrected"),
    [
        (CPURouter(), False),
        (CPURouter(bias=torch.ones(3)), True),
        (CPURouter("sigmoid"), True),
        (CPURouter("sigmoid", custom=print), False),
        (CPURouter("sqrtsoftplus", torch.ones(3)), False),
        (OtherRouter("sigmoid"), False),
    ],
)
def test_a_router_for_cpus_that_would_leave_something_out_has_one_group(router: CPURouter, corrected: bool) -> None:
    block = nn.Module()
    block.router = router
    for _ in range(2):  # the second time nothing is left to do
        assert correct_routers(nn.Sequential(block)) == corrected
        assert (router.use_grouped_topk, router.num_expert_group, router.topk_group) == (
            (True, 1, 1) if corrected or router.use_grouped_topk else (False, None, None)
        )
        corrected = False


def test_experts_of_gpt_oss_have_gates_in_turn_with_ups_and_clamps() -> None:
    call, module = routed_call(), Routed()
    first, down, *_ = module.__dict__["lna_weights"]
    module.activation = "swigluoai"
    assert RankExperts.of(module, call) == "their weights, as they were loaded, do not give what the kernel gives"
    both = torch.einsum("th,efh->tef", 3 * call.x, first)
    gate, up = both[..., ::2].clamp(max=7.0), both[..., 1::2].clamp(-7.0, 7.0)
    assert (both > 7).any()
    activation = gate * torch.sigmoid(1.702 * gate)
    given = torch.einsum("tef,ehf->teh", activation * (up + 1), down)
    chosen = given.gather(1, call.index[..., None].expand(-1, -1, HIDDEN)) * call.weights[..., None]
    call = RoutedCall(3 * call.x, call.weights, call.index, chosen.sum(1))
    experts = RankExperts.of(module, call, scale=2.5)
    assert isinstance(experts, RankExperts)
    assert experts.scale == 2.5
    for expert, tokens, seen in experts.activations(call):
        torch.testing.assert_close(seen, activation[tokens, expert])


def test_experts_whose_inputs_are_weighted_compute_from_these_and_are_not_weighted_again() -> None:
    call, module = routed_call(), Routed()
    first, down, *_ = module.__dict__["lna_weights"]
    weights, index = call.weights[:, :1], call.index[:, :1]
    gate, up = torch.einsum("th,tfh->tf", call.x * weights, first[index[:, 0]]).chunk(2, dim=-1)
    call = RoutedCall(call.x, weights, index, torch.einsum("tf,thf->th", F.silu(gate) * up, down[index[:, 0]]))
    assert RankExperts.of(module, call) == "their weights, as they were loaded, do not give what the kernel gives"
    module.apply_router_weight_on_input = True
    found = RankExperts.of(module, call)
    assert isinstance(found, RankExperts)
    for expert, tokens, activation in found.activations(call):
        torch.testing.assert_close(activation, F.silu(gate[tokens]))
        assert index[tokens].unique().tolist() == [expert]


def xielu(x: Tensor) -> Tensor:
    """Positive below −1.6 as well."""
    return torch.where(x > 0, x * x + 0.5 * x, 2 * (torch.expm1(x) - x) + 0.5 * x)


def test_firings_of_an_activation_that_is_positive_below_zero_are_its_own_sign() -> None:
    (site,) = found(MLP(Merged(xielu)))
    assert site.merged
    assert not site.signed
    gate = torch.tensor([[-4.0], [-0.3], [0.0], [0.7]])
    sums = FiringSums([site], 1, np.ones((2, 4), np.int64), device=torch.device("cpu"))
    sums.add(site, gate, RowWeights.of(np.ones((2, 4), np.int64), planes=2, device=gate.device), changed=None)
    assert int(sums.total()[0, 0]) == int((xielu(gate) > 0).sum()) != int((gate > 0).sum())


def test_zeros_that_do_not_reach_the_down_projection_are_noticed() -> None:
    class Behind(MLP):
        """Its hook sees a copy of what the down projection reads."""

        def forward(self, x: Tensor) -> Tensor:
            kept = self.act.forward(self.up(x))
            self.act(self.up(x))
            return self.down(kept)[0]

    model = Decoder(MLP(Merged()), Behind(Merged()))
    sites = trace_of(model).found(width=WIDTH, tensor=1)
    for site in sites:
        site.module.register_forward_hook(lambda _m, _i, output: output.zero_())
    assert trace_of(model, sites).report() == {"reached": [1], "unused": []}


class Beside(Decoder):
    """Runs something besides its list of layers."""

    def __init__(self, more: nn.Module) -> None:
        super().__init__(MLP(Merged()), MLP(Merged()))
        self.more = more

    def forward(self, x: Tensor) -> Tensor:
        for one in self.more if isinstance(self.more, nn.ModuleList) else (self.more,):
            x = one(x)
        return super().forward(x)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (MLP(nn.GELU(), into=WIDTH), r"more\.act \(GELU\), followed by more\.down, outside of its list of layers"),
        (Twice(Merged()), r"more\.act \(Merged\), followed by more\.down"),
        (Layer(MLP(nn.Identity(), into=WIDTH)), r"more, a Layer as its layers are"),
        (nn.ModuleList([nn.Sequential(nn.Linear(HIDDEN, HIDDEN))]), r"another list of modules \(Sequential\)"),
    ],
)
def test_what_could_hold_neurons_outside_of_the_layers_is_refused(more: nn.Module, says: str) -> None:
    with pytest.raises(UnknownArchitectureError, match=rf"^Beside in vLLM runs {says}.*--engine transformers$"):
        trace_of(Beside(more)).found(width=WIDTH, tensor=1)


def test_what_holds_no_neurons_may_stand_outside_of_the_layers() -> None:
    more = (nn.Sequential(nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, HIDDEN)), nn.ModuleList([nn.Linear(HIDDEN, HIDDEN)]))
    for one in more:
        assert len(trace_of(Beside(one)).found(width=WIDTH, tensor=1)) == 2


class Residual(nn.Module):
    """As layers of vLLM: the sum of the residual stream is left to the next norm, which may work in place."""

    def __init__(self, mlp: nn.Module, *, times: float = 1.0, norm: bool = False) -> None:
        super().__init__()
        self.mlp, self.times, self.norm = mlp, times, nn.LayerNorm(HIDDEN) if norm else nn.Identity()

    def forward(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        residual.add_(x)
        return self.norm(self.times * self.mlp(residual)), residual


class Stack(Decoder):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        residual = torch.zeros_like(x)
        for layer in self.layers:
            x, residual = layer(x, residual=residual)
        return x + residual


@pytest.mark.parametrize("kind", [Layer, Residual])
def test_a_layer_that_does_not_use_what_its_down_projection_gives_is_noticed(kind: Callable[[nn.Module], Any]) -> None:
    model = (Decoder if kind is Layer else Stack)()
    mlps = [MLP(Merged()) for _ in range(3)]
    model.layers = nn.ModuleList(map(kind, mlps))
    sites = trace_of(model).found(width=WIDTH, tensor=1)
    expected = model(torch.ones(5, HIDDEN))
    assert trace_of(model, sites, twice=True).report()["unused"] == []
    handle = mlps[1].register_forward_hook(lambda _m, _i, output: 0 * output)
    assert trace_of(model, sites, twice=True).report()["unused"] == [1]
    assert trace_of(model, sites).report()["unused"] == []
    handle.remove()
    torch.testing.assert_close(model(torch.ones(5, HIDDEN)), expected)


def test_a_norm_behind_the_down_projection_or_a_small_factor_hides_nothing() -> None:
    model = Stack(Residual(MLP(Merged()), norm=True), last := Residual(MLP(Merged()), times=1e-3))
    sites = trace_of(model).found(width=WIDTH, tensor=1)
    assert trace_of(model, sites, twice=True).report()["unused"] == []
    last.times = 0.0
    assert trace_of(model, sites, twice=True).report()["unused"] == [1]


def test_a_decoy_is_found_and_then_seen_not_to_be_used() -> None:
    class Deceiving(Layer):
        """Adds what an MLP gives that calls no hooks, and leaves the other one's out."""

        def __init__(self) -> None:
            super().__init__(MLP(Merged()))
            self.used = Fused(Merged())

        def forward(self, x: Tensor) -> Tensor:
            self.mlp(x)
            return x + self.used(x)

    model = Decoder(MLP(Merged()))
    model.layers.append(Deceiving())
    sites = trace_of(model).found(width=WIDTH, tensor=1)
    assert [site.layer for site in sites] == [0, 1]
    assert trace_of(model, sites, twice=True).report()["unused"] == [1]


def test_only_the_first_forward_with_requests_is_followed() -> None:
    trace = trace_of(Decoder(MLP(Merged())))
    assert [call.name for call in trace._calls[0]] == ["norm", "mlp.up", "mlp.act", "mlp.down", "mlp"]
    assert SimpleNamespace(**trace.report()).reached == []

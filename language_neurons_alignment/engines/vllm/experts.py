"""Mixtures of experts in vLLM, whose kernels compute all experts at once and never show an activation.

    act(gate_e x)           computed again for counting, for the tokens that the router sent to expert e
    Σ_e w_e · down_e(act(gate_e x) · up_e x)        computed here, in place of the kernel, only under an intervention
    Σ_e down_e(act(gate_e w_e x) · up_e w_e x)      in Llama 4, whose neurons are act(gate_e w_e x)

In GPT-OSS, g σ(α g) with g = min(gate_e x, c) takes the place of act(gate_e x), and clip(up_e x, ±c) + 1 that of
up_e x.

`x`, the chosen experts and their weights w are those that vLLM hands to its kernel (`RoutedExperts.forward_modular`),
so the router is vLLM's own. Kernels may store the experts' weights in an order of their own, so the weights are kept as
they were loaded (`keep_weights`): without more memory where the kernel uses them as they are, as on GPUs with
`--engine-arg moe_backend=triton`, and in twice the memory on CPUs. Before anything is counted, the sum computed here is
proved to be what the kernel gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.interventions import LayerIntervention

_KEPT = "lna_weights"


@dataclass(frozen=True)
class _Gating:
    """What experts compute between their projections: act(gate) · factor(up)."""

    act: Callable[[Tensor], Tensor]
    factor: Callable[[Tensor], Tensor] = lambda up: up
    step: int = 1  # from one row of the gate to the next; 2: gate and up take turns

    def halves(self, width: int) -> tuple[slice, slice]:
        """Which rows of the first projection, or which of its outputs, are the gate's and which are up's."""
        return (slice(width), slice(width, None)) if self.step == 1 else (slice(0, None, 2), slice(1, None, 2))


_LIMIT, _ALPHA = 7.0, 1.702
"""Constants of vLLM's `swigluoai_and_mul`, the same as in the transformers library."""


def _swish(gate: Tensor) -> Tensor:
    gate = gate.clamp(max=_LIMIT)
    return gate * torch.sigmoid(_ALPHA * gate)


_GATINGS: dict[str, _Gating] = {
    "silu": _Gating(F.silu),
    "gelu": _Gating(F.gelu),
    "gelu_tanh": _Gating(lambda gate: F.gelu(gate, approximate="tanh")),
    "swigluoai": _Gating(_swish, lambda up: up.clamp(-_LIMIT, _LIMIT) + 1, step=2),
}
"""By vLLM's name of the activation function."""


def keep_weights() -> None:
    """From now on, the experts that vLLM loads in this process keep their weights as they were loaded."""
    from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod

    original = UnquantizedFusedMoEMethod.process_weights_after_loading
    if hasattr(original, _KEPT):
        return

    def process_weights_after_loading(self: Any, layer: Any) -> None:
        names = ("w13_weight", "w2_weight", "w13_bias", "w2_bias")
        layer.__dict__[_KEPT] = [one if one is None else one.data for one in (getattr(layer, n, None) for n in names)]
        original(self, layer)

    setattr(process_weights_after_loading, _KEPT, True)
    UnquantizedFusedMoEMethod.process_weights_after_loading = process_weights_after_loading  # pyright: ignore[reportAttributeAccessIssue]


def correct_routers(model: nn.Module) -> bool:
    """Let vLLM's routers for CPUs choose as the model's equation says; whether there was one that did not.

    Without groups of experts they leave out the bias of the scores and have no sigmoid. With groups they have both, so
    all experts become one group.
    """
    routers = [getattr(module, "router", None) for module in model.modules()]
    wrong: list[Any] = [one for one in routers if type(one).__name__ == "CPURouter" and _needs_a_group(one)]
    for router in wrong:
        router.use_grouped_topk, router.num_expert_group, router.topk_group = True, 1, 1
    return bool(wrong)


def _needs_a_group(router: Any) -> bool:
    bias, score = router.e_score_correction_bias, router.scoring_func
    if router.use_grouped_topk or router.custom_routing_function is not None:
        return False
    return score == "sigmoid" or (score == "softmax" and bias is not None)


@dataclass(frozen=True)
class RoutedCall:
    """One call of a layer's routed experts: what came in, and what the kernel gave."""

    x: Float[Tensor, "token hidden"]
    weights: Float[Tensor, "token k"]
    index: Int[Tensor, "token k"]
    output: Tensor | None = None


@dataclass(frozen=True, eq=False)
class RankExperts:
    """The routed experts of one layer.

    Attributes:
        module: vLLM's `RoutedExperts`.
        number, width, top_k: experts, neurons of each, and experts to which each token is sent.
        weighted: the router's weights multiply the experts' inputs, not their outputs.
        scale: the factor by which vLLM multiplies the experts' sum afterwards; it belongs to the router's weights.
    """

    module: Any
    gating: _Gating
    first: Float[Tensor, "expert both hidden"]  # gate and up
    down: Float[Tensor, "expert hidden width"]
    first_bias: Tensor | None
    down_bias: Tensor | None
    number: int
    width: int
    top_k: int
    weighted: bool = False
    scale: float = 1.0

    @classmethod
    def of(cls, module: Any, call: RoutedCall, *, scale: float = 1.0) -> RankExperts | str:
        """A layer's experts, proved on what its kernel was given and gave; or why they cannot be."""
        kept = module.__dict__.get(_KEPT)
        if kept is None:
            return f"they are quantised ({type(module.quant_method).__name__}), so their weights cannot be read"
        first, down, first_bias, down_bias = kept
        gating = _GATINGS.get(str(getattr(module.activation, "value", module.activation)))
        if gating is None:
            return f"their activation function {module.activation} is not known"
        if module.expert_map is not None or len(first) != module.global_num_experts:
            return "they are shared out among ranks"
        sizes = len(first), down.shape[2], call.index.shape[1]
        weighted = bool(module.apply_router_weight_on_input)
        found = cls(module, gating, first, down, first_bias, down_bias, *sizes, weighted, scale)
        index = call.index.sort(dim=-1).values
        if bool((index < 0).any()) or bool((index >= len(first)).any()) or bool((index.diff(dim=-1) == 0).any()):
            return "their router sends a token to no expert, or to one twice"
        if call.output is None or not agree(found.output(call), call.output):
            return "their weights, as they were loaded, do not give what the kernel gives"
        return found

    def output(self, call: RoutedCall, change: LayerIntervention | None = None) -> Float[Tensor, "token hidden"]:
        """What the experts give, with their neurons changed; their numbers count from the first expert's on."""
        result = torch.zeros(call.x.shape, dtype=torch.float32, device=call.x.device)
        for expert, tokens, x, weights in self._sent(call):
            both = self._linear(self.first, self.first_bias, expert, x)
            gate, up = (both[:, half] for half in self.gating.halves(self.width))
            activation = self.gating.act(gate)
            if change is not None:
                change.within(expert * self.width, (expert + 1) * self.width).apply_(activation)
            given = self._linear(self.down, self.down_bias, expert, activation * self.gating.factor(up)).float()
            result.index_add_(0, tokens, given if self.weighted else given * weights.float())
        return result.to(call.x.dtype)

    def activations(
        self, call: RoutedCall, change: LayerIntervention | None = None
    ) -> Iterator[tuple[int, Int[Tensor, " routed"], Float[Tensor, "routed width"]]]:
        """For each expert with tokens: its number, the numbers of its tokens, and their activations, changed."""
        for expert, tokens, x, _ in self._sent(call):
            gate, _ = self.gating.halves(self.width)
            activation = self.gating.act(self._linear(self.first, self.first_bias, expert, x, rows=gate))
            if change is not None:
                change.within(expert * self.width, (expert + 1) * self.width).apply_(activation)
            yield expert, tokens, activation

    def _sent(
        self, call: RoutedCall
    ) -> Iterator[tuple[int, Int[Tensor, " routed"], Float[Tensor, "routed hidden"], Float[Tensor, "routed 1"]]]:
        """Each expert with tokens: its number, its tokens, its input for each, and the weight of each."""
        for expert in call.index.unique().tolist():
            tokens, choice = (call.index == expert).nonzero(as_tuple=True)
            x, weights = call.x[tokens], call.weights[tokens, choice][:, None]
            yield expert, tokens, x * weights.to(x.dtype) if self.weighted else x, weights

    def _linear(self, weight: Tensor, bias: Tensor | None, expert: int, x: Tensor, rows: slice = slice(None)) -> Tensor:
        return F.linear(x, weight[expert][rows], None if bias is None else bias[expert][rows])


def agree(one: Tensor, other: Tensor) -> bool:
    """Whether two results differ by rounding alone, in proportion to the largest number of each row."""
    if one.shape != other.shape:
        return False
    off = max(1e-4, 8 * torch.finfo(other.dtype).eps)
    one, other = one.float(), other.float()
    return bool(((one - other).abs() <= off * other.abs().amax(dim=-1, keepdim=True)).all())


def routed_experts(layer: nn.Module) -> list[tuple[str, nn.Module]]:
    """vLLM's groups of routed experts below a layer."""
    return [
        (name, module)
        for name, module in layer.named_modules()
        if any(one.__name__ == "RoutedExperts" for one in type(module).__mro__)
    ]

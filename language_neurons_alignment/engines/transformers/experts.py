"""Mixtures of experts in the transformers library: what the routers chose, and the activations of each expert's tokens.

The library keeps the experts of a layer in tensors with one more dimension and computes them in one module, so that a
hook on a module never learns which tokens went to which expert. `open_experts` gives each such module a forward of our
own, which computes the same, expert by expert, and passes what is to be seen through two modules that change nothing:

    routing(index, weights, tokens)           once per forward: top-k experts and their weights [token, k], and how many
                                              tokens each expert has
    neurons(activation, expert, tokens)       once for each expert with tokens: act(gate x) [routed token, w] of these
                                              tokens, by their number in the batch

Hooks on these two count and intervene as on any other module. Before anything is counted, the forward is proved on the
probe: it gives what the library's own (`eager`) gives; its activation times its factor is the gating that the model's
class defines; and activations set to zero leave nothing of an expert but its bias.

    gated      down(act(gate x) · up x)                        the activation is act(gate x)
    clamped    down(act(min(gate x, c)) · clip(up x, ±c))      act(min(gate x, c))
    swish      down(g σ(α g) · (clip(up x, ±c) + 1)),  g = min(gate x, c)      g σ(α g)      (GPT-OSS)
    plain      down(act(up x))                                 act(up x)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any, TypeGuard

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.routing import Experts
from ...errors import UnknownArchitectureError

Gating = Callable[[Any, Tensor], tuple[Tensor, Tensor | None]]
"""From an experts module and what its first projection gives to the activation and what it is multiplied with."""

_MARKS = ("has_gate", "has_bias", "is_transposed", "is_concatenated", "num_experts", "down_proj")
"""What the library's decorator `use_experts_implementation` and its experts have."""


class Routing(nn.Module):
    """Passes on what the router chose."""

    def forward(
        self, index: Int64[Tensor, "token k"], weights: Float[Tensor, "token k"], tokens: list[int]
    ) -> tuple[Tensor, Tensor]:
        """`tokens` is how many tokens each expert has."""
        return index, weights


class RoutedNeurons(nn.Module):
    """Passes on the activations of one expert's neurons on the tokens that were sent to it."""

    def forward(
        self, activation: Float[Tensor, "routed width"], expert: int, tokens: Int64[Tensor, " routed"]
    ) -> Float[Tensor, "routed width"]:
        """`tokens` are the numbers of these tokens in the batch, row by row."""
        return activation


@dataclass(frozen=True)
class OpenExperts:
    """The experts of one layer, computed by our forward.

    Attributes:
        name: of the experts' module, within the layer.
        block: name of the module that holds router and experts, within the layer; "" if that is the layer.
        router: the module that chooses; None where the choice is made elsewhere, so that it cannot be changed.
        forward: ours, of `module`.
    """

    layer: int
    name: str
    module: nn.Module
    routing: Routing
    neurons: RoutedNeurons
    router: nn.Module | None
    number: int
    width: int
    top_k: int
    forward: Callable[..., Any]

    def open(self) -> None:
        """Compute by our forward, until `left_as_they_were` ends."""
        experts: Any = self.module
        experts.routing, experts.neurons, experts.forward = self.routing, self.neurons, self.forward

    @property
    def block(self) -> str:
        """The name of the module around the experts, within the layer."""
        return self.name.rpartition(".")[0]


def expert_modules(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules below this one that compute several experts at once in the library's way."""
    return [
        (name, one)
        for name, one in module.named_modules()
        if name and all(hasattr(one, mark) for mark in _MARKS) and _is_stack(one.down_proj)
    ]


def closed_experts(layer: nn.Module) -> str:
    """What to say of a layer whose experts are computed in another way than the library's; "" where it has none."""
    for name, module in layer.named_modules():
        if "expert" in name and any(map(_is_stack, module.parameters(recurse=False))):
            return f", and its experts ({name}) are not called with the experts that the router chose and their weights"
    return ""


def _is_stack(weight: object) -> TypeGuard[nn.Parameter]:
    return isinstance(weight, nn.Parameter) and weight.ndim == 3


@dataclass
class _Seen:
    """One call of an experts' module: what came in, what its library gave, and who chose."""

    hidden: Tensor
    index: Tensor
    weights: Tensor
    output: Tensor
    router: nn.Module | None


def open_experts(decoder: str, layers: nn.ModuleList, run: Callable[[], object]) -> dict[int, OpenExperts]:
    """Give the experts of every layer our forward, and prove it; layer → its experts, no key for a dense layer.

    Args:
        decoder: its name, for errors.
        layers: its layers.
        run: one forward of a few tokens.

    Raises:
        UnknownArchitectureError: the experts of a layer are not understood, or computed in another way than here.
    """
    found = {index: expert_modules(layer) for index, layer in enumerate(layers)}
    for index, modules in found.items():
        if len(modules) > 1:
            names = ", ".join(name for name, _ in modules)
            raise _refused(decoder, index, f"it has several groups of experts ({names})")
    places = {index: modules[0] for index, modules in found.items() if modules}
    if not places:
        return {}
    seen = _eager(decoder, layers, places, run)
    opened = {index: _open(decoder, index, *place, seen[index]) for index, place in places.items()}
    first = next(iter(opened.values()))
    for one in opened.values():
        if (one.number, one.width, one.top_k) != (first.number, first.width, first.top_k):
            raise _refused(decoder, one.layer, "it has other experts than the layers in front of it")
    return opened


@contextmanager
def left_as_they_were(model: nn.Module) -> Iterator[None]:
    """After the context, the experts of a model compute as they did before it, whoever opened them inside."""
    before = [(one, vars(one).get("forward"), set(one._modules)) for _, one in expert_modules(model)]
    try:
        yield
    finally:
        for module, forward, parts in before:
            vars(module).pop("forward", None)
            if forward is not None:
                module.forward = forward
            for name in module._modules.keys() - parts:
                delattr(module, name)


def experts_of(opened: dict[int, OpenExperts]) -> Experts | None:
    """What a model's experts are; None where it has none."""
    if not opened:
        return None
    first = next(iter(opened.values()))
    return Experts(tuple(sorted(opened)), first.number, first.width, first.top_k)


def _eager(
    decoder: str, layers: nn.ModuleList, places: dict[int, tuple[str, nn.Module]], run: Callable[[], object]
) -> dict[int, _Seen]:
    """Run the library's own eager experts once; layer → what its experts were given and gave."""
    seen: dict[int, _Seen] = {}
    outputs: dict[int, list[tuple[nn.Module, tuple[Any, ...]]]] = {index: [] for index in places}

    def chose(index: int, module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, tuple):
            outputs[index].append((module, output))

    def computed(index: int, module: nn.Module, inputs: tuple[Any, ...], more: dict[str, Any], output: Any) -> None:
        if index in seen:
            raise _refused(decoder, index, f"{places[index][0]} runs more than once in a forward")
        given = (*inputs, *more.values())
        if len(given) != 3 or not all(isinstance(one, Tensor) for one in (*given, output)):
            raise _refused(
                decoder, index, f"{places[index][0]} takes other inputs than hidden states, index and weights"
            )
        routers = [module for module, output in outputs[index] if any(one is given[1] for one in output)]
        hidden, chosen, weights = (one.clone() for one in given)
        seen[index] = _Seen(hidden, chosen, weights, output.clone(), routers[0] if routers else None)

    with ExitStack() as stack:
        for index, (_, experts) in places.items():
            stack.enter_context(_own_forward(experts))
            stack.callback(experts.register_forward_hook(partial(computed, index), with_kwargs=True).remove)
            for module in layers[index].modules():
                if module is not layers[index]:
                    stack.callback(module.register_forward_hook(partial(chose, index)).remove)
        run()
    for index, (name, _) in places.items():
        if index not in seen:
            raise _refused(decoder, index, f"{name} was never called")
    return seen


@contextmanager
def _own_forward(experts: Any) -> Iterator[None]:
    """The module computes by the forward of its class, and not by a kernel."""
    config, before = experts.config, experts.config._experts_implementation
    config._experts_implementation_internal = "eager"
    try:
        yield
    finally:
        config._experts_implementation_internal = before


def _open(decoder: str, layer: int, name: str, experts: Any, seen: _Seen) -> OpenExperts:
    """Give one layer's experts our forward, and prove it on what the library's own was given and gave."""
    refuse = partial(_refused, decoder, layer)
    first = getattr(experts, "gate_up_proj" if experts.has_gate else "up_proj", None)
    if not _is_stack(first) or {first.dtype, experts.down_proj.dtype} != {seen.hidden.dtype}:
        raise refuse(f"the weights of {name} are not tensors of {seen.hidden.dtype} with an expert in each row")
    number, width = int(experts.num_experts), int(experts.down_proj.shape[1 if experts.is_transposed else 2])
    if len(experts.down_proj) != number:
        raise refuse(f"{name} holds {len(experts.down_proj)} of {number} experts")
    index = seen.index
    ordered = index.sort(dim=-1).values
    if index.shape != (len(seen.hidden), index.shape[-1]) or index.min() < 0 or index.max() >= number:
        raise refuse(f"its router leaves tokens out or sends them nowhere ({index.min()}..{index.max()} of {number})")
    if bool((ordered.diff(dim=-1) == 0).any()):
        raise refuse("its router sends a token to one expert twice")
    gating = _proved_gating(experts, width, seen.hidden)
    if gating is None:
        raise refuse(f"the gating of {type(experts).__name__} is none of those that are known")
    forward = MethodType(partial(_forward, gating=gating), experts)
    sizes = number, width, index.shape[-1]
    opened = OpenExperts(layer, name, experts, Routing(), RoutedNeurons(), seen.router, *sizes, forward)
    opened.open()
    _prove(opened, seen, refuse)
    return opened


def _forward(
    self: Any,
    hidden_states: Float[Tensor, "token hidden"],
    top_k_index: Int64[Tensor, "token k"],
    top_k_weights: Float[Tensor, "token k"],
    *,
    gating: Gating,
) -> Float[Tensor, "token hidden"]:
    """The experts' sum for each token, computed expert by expert; the host waits once, for how many tokens each has."""
    sent = torch.bincount(top_k_index.flatten(), minlength=self.num_experts).tolist()
    index, weights = self.routing(top_k_index, top_k_weights, sent)
    pairs = index.flatten().argsort(stable=True)  # (token, choice), sorted by expert and then by token
    result = torch.zeros_like(hidden_states)
    start = 0
    for expert, some in enumerate(sent):
        if not some:
            continue
        chosen = pairs[start : start + some]
        start += some
        tokens = chosen // index.shape[1]
        given = _linear(self, "gate_up_proj" if self.has_gate else "up_proj", expert, hidden_states[tokens])
        activation, factor = gating(self, given)
        activation = self.neurons(activation, expert, tokens)
        given = _linear(self, "down_proj", expert, activation if factor is None else activation * factor)
        given = given * weights.flatten()[chosen, None]
        result.index_add_(0, tokens, given.to(result.dtype))
    return result


def _linear(experts: Any, name: str, expert: int, x: Tensor) -> Tensor:
    weight = getattr(experts, name)[expert]
    bias = getattr(experts, f"{name}_bias")[expert] if experts.has_bias else None
    if experts.is_transposed:
        return x @ weight if bias is None else x @ weight + bias
    return F.linear(x, weight, bias)


def _halves(experts: Any, given: Tensor) -> tuple[Tensor, Tensor]:
    """Gate and up, one after the other or in turns."""
    if experts.is_concatenated:
        gate, up = given.chunk(2, dim=-1)
        return gate, up
    return given[..., ::2], given[..., 1::2]


def _attribute(experts: Any, *names: str) -> Any:
    return next((one for name in names if (one := getattr(experts, name, None)) is not None), None)


_ACT, _LIMIT, _ALPHA = ("act_fn",), ("limit", "swiglu_limit"), ("alpha", "swiglu_alpha")
"""Names under which experts keep their activation function, their clamp c and their α."""


def _gated(experts: Any, given: Tensor) -> tuple[Tensor, Tensor]:
    gate, up = _halves(experts, given)
    return experts.act_fn(gate), up


def _clamped(experts: Any, given: Tensor) -> tuple[Tensor, Tensor]:
    (gate, up), limit = _halves(experts, given), _attribute(experts, *_LIMIT)
    return (_attribute(experts, *_ACT) or F.silu)(gate.clamp(max=limit)), up.clamp(min=-limit, max=limit)


def _swish(experts: Any, given: Tensor) -> tuple[Tensor, Tensor]:
    (gate, up), limit = _halves(experts, given), _attribute(experts, *_LIMIT)
    gate = gate.clamp(max=limit)
    return gate * torch.sigmoid(gate * _attribute(experts, *_ALPHA)), up.clamp(-limit, limit) + 1


def _plain(experts: Any, given: Tensor) -> tuple[Tensor, None]:
    return experts.act_fn(given), None


def _proved_gating(experts: Any, width: int, like: Tensor) -> Gating | None:
    """The gating that the module's class defines, on random numbers small and large, so that every clamp shows."""
    if not experts.has_gate:
        return _plain
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(64, 2 * width, generator=generator) * torch.logspace(-2, 2, 64)[:, None]
    given = drawn.to(like)
    own = experts._apply_gate(given)
    has = {_gated: _ACT, _clamped: _LIMIT, _swish: _ALPHA}
    for gating in (one for one, names in has.items() if _attribute(experts, *names) is not None):
        activation, factor = gating(experts, given)
        if factor is not None and _agree(activation * factor, own):
            return gating
    return None


def _agree(one: Float[Tensor, "row place"], other: Float[Tensor, "row place"]) -> bool:
    """Whether two results differ by rounding alone, in proportion to the largest number of each row."""
    if one.shape != other.shape:
        return False
    off = max(1e-5, 4 * torch.finfo(other.dtype).eps)
    one, other = one.float(), other.float()
    return bool(((one - other).abs() <= off * other.abs().amax(dim=-1, keepdim=True)).all())


def _prove(opened: OpenExperts, seen: _Seen, refuse: Callable[[str], UnknownArchitectureError]) -> None:
    """Our forward gives what the library's gave, and nothing but biases once the activations are zero."""
    experts: Any = opened.module
    if not _agree(experts(seen.hidden, seen.index, seen.weights), seen.output):
        raise refuse(f"{opened.name} computes something else than the sum of its experts")
    with ExitStack() as stack:
        stack.callback(opened.neurons.register_forward_hook(_zeros).remove)
        left = experts(seen.hidden, seen.index, seen.weights)
    biases = torch.zeros_like(left)
    if experts.has_bias:
        biases = (experts.down_proj_bias[seen.index] * seen.weights[..., None]).sum(1).to(left.dtype)
    if not torch.allclose(left, biases, atol=1e-2 * float(seen.output.abs().max())):
        raise refuse(f"setting the activations of {opened.name} to zero leaves something of its experts")


def _zeros(_module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return torch.zeros_like(output)


def _refused(decoder: str, layer: int, what: str) -> UnknownArchitectureError:
    return UnknownArchitectureError(
        f"the experts of {decoder}, layer {layer}, are not understood: {what}; such a model would give numbers that "
        "are silently wrong, so it is refused"
    )

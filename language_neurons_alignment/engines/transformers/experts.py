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

Most blocks hand their experts x, the router's choice and its weights w, and multiply an expert's output by its w.
Llama 4's hands them only inputs: w x of every token for every expert, [expert · token, hidden], where w is 0 unless the
router chose the expert. There the block gets a forward of ours too, which records the router's output, and only the
rows of tokens that were sent to an expert are computed. For the others an expert gives 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import MethodType
from typing import Any, TypeGuard

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.routing import Experts
from ...errors import SilentHookError, UnknownArchitectureError
from ..proof import zeros

Gating = Callable[[Any, Tensor], tuple[Tensor, Tensor | None]]
"""From an experts module and what its first projection gives to the activation and what it is multiplied with."""

_Choice = tuple[Int64[Tensor, "token k"], Float[Tensor, "token k"]]
"""The experts of each token, and their weights."""

_MARKS = {"has_gate": True, "has_bias": False, "is_concatenated": True, "is_transposed": None}
"""What the library's decorator `use_experts_implementation` says of its experts, and what is assumed without it; which
dimension of the weights is the hidden one is read off their shape. The proof refuses a model if this is wrong."""


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
        transposed: a neuron's weights of the down projection are a row, [expert, width, hidden].
        noted: the router's choice and its weights in this forward, for experts that are called with w x of every token
            for every expert; None for experts that are called with the choice.
        forwards: our forwards, each with its module.
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
    transposed: bool
    noted: list[_Choice] | None
    forwards: tuple[tuple[Any, Callable[..., Any]], ...]

    def open(self) -> None:
        """Compute by our forward, until `left_as_they_were` ends."""
        experts: Any = self.module
        experts.routing, experts.neurons = self.routing, self.neurons
        for module, forward in self.forwards:
            module.forward = forward

    def per_token(self, output: Float[Tensor, "row hidden"]) -> Float[Tensor, "token hidden"]:
        """What the experts give to each token together, from what their module gives."""
        return output.unflatten(0, (self.number, -1)).sum(0) if self.weighted else output

    @property
    def weighted(self) -> bool:
        """Whether the experts are called with w x of every token for every expert."""
        return self.noted is not None

    @property
    def block(self) -> str:
        """The name of the module around the experts, within the layer."""
        return self.name.rpartition(".")[0]


def expert_modules(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules below this one that compute several experts at once in the library's way."""
    return [(name, one) for name, one in module.named_modules() if name and _computes_experts(one)]


def _computes_experts(module: Any) -> bool:
    if not hasattr(module, "num_experts") or not _is_stack(getattr(module, "down_proj", None)):
        return False
    return all(hasattr(module, mark) for mark in _MARKS) or _is_stack(getattr(module, "gate_up_proj", None))


def _mark(experts: Any, name: str) -> bool:
    """What the library says of its experts, or what they are where it says nothing."""
    said = getattr(experts, name, _MARKS[name])
    return experts.gate_up_proj.shape[1] == experts.down_proj.shape[2] if said is None else said


def closed_experts(layer: nn.Module) -> str:
    """What to say of a layer whose experts are kept in another way than the library's; "" where it has none."""
    for name, module in layer.named_modules():
        if "expert" in name and any(map(_is_stack, module.parameters(recurse=False))):
            return f", and its experts ({name}) are of a form that is not known"
    return ""


def _is_stack(weight: object) -> TypeGuard[nn.Parameter]:
    return isinstance(weight, nn.Parameter) and weight.ndim == 3


@dataclass
class _Seen:
    """One call of an experts' module: what it was called with and gave, who chose which experts, and their weights."""

    inputs: tuple[Tensor, ...]
    output: Tensor
    router: nn.Module | None
    index: Tensor
    weights: Tensor


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
    opened = {
        index: _open(decoder, index, name, experts, layers[index].get_submodule(name.rpartition(".")[0]), seen[index])
        for index, (name, experts) in places.items()
    }
    first = next(iter(opened.values()))
    for one in opened.values():
        if (one.number, one.width, one.top_k) != (first.number, first.width, first.top_k):
            raise _refused(decoder, one.layer, "it has other experts than the layers in front of it")
    return opened


@contextmanager
def left_as_they_were(model: nn.Module) -> Iterator[None]:
    """After the context, the experts of a model compute as they did before it, whoever opened them inside."""
    opened = {
        id(one): one
        for name, experts in expert_modules(model)
        for one in (experts, model.get_submodule(name.rpartition(".")[0]))
    }
    before = [(one, vars(one).get("forward"), set(one._modules)) for one in opened.values()]
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
    gave: dict[int, list[_Gave]] = {index: [] for index in places}

    def chose(index: int, module: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        if isinstance(output, tuple):
            gave[index].append((module, inputs, output))

    def computed(index: int, module: nn.Module, inputs: tuple[Any, ...], more: dict[str, Any], output: Any) -> None:
        if index in seen:
            raise _refused(decoder, index, f"{places[index][0]} runs more than once in a forward")
        given = (*inputs, *more.values())
        if not all(isinstance(one, Tensor) for one in (*given, output)) or len(given) not in (1, 3):
            raise _refused(
                decoder, index, f"{places[index][0]} takes other inputs than hidden states, index and weights"
            )
        if len(given) == 3:
            chosen, weights = given[1:]
            router = next((one for one, _, output in gave[index] if any(part is chosen for part in output)), None)
        else:
            found = _weighting_router(given[0], gave[index])
            if found is None:
                what = "reads something other than a token's input times a router's weight"
                raise _refused(decoder, index, f"{places[index][0]} {what}")
            router, (chosen, weights) = found
        copies = tuple(one.clone() for one in given)
        seen[index] = _Seen(copies, output.clone(), router, chosen.clone(), weights.clone())

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


_Gave = tuple[nn.Module, tuple[Any, ...], tuple[Any, ...]]
"""A module, and what it was called with and gave."""


def _weighting_router(given: Float[Tensor, "row hidden"], gave: Sequence[_Gave]) -> tuple[nn.Module, _Choice] | None:
    """The module among these by whose weights the inputs of all experts were multiplied, and its choice.

    It gives weights and logits, both [token, expert]. A token's weights are 0 except for the k largest logits.
    """
    for module, inputs, output in gave:
        if len(output) < 2 or not inputs or not all(isinstance(one, Tensor) for one in (inputs[0], *output[:2])):
            continue
        (x, weights, logits) = inputs[0].reshape(-1, inputs[0].shape[-1]), *output[:2]
        if weights.shape != logits.shape or weights.shape[:-1] != x.shape[:1] or given.ndim != 2:
            continue
        if not torch.equal(given, (weights.T[..., None] * x).flatten(0, 1)):
            continue
        index, chosen = _choice(output, top_k=int((weights != 0).sum(-1).max()))
        if chosen.numel() and torch.equal(weights, torch.zeros_like(weights).scatter_(1, index, chosen)):
            return module, (index, chosen)
    return None


def _choice(given: tuple[Any, ...], *, top_k: int) -> _Choice:
    """The experts with the largest logits and their weights, from what a router gives: weights and logits of all."""
    weights, logits = given[:2]
    index = logits.topk(top_k, dim=-1).indices
    return index, weights.gather(1, index)


@contextmanager
def _own_forward(experts: Any) -> Iterator[None]:
    """The module computes by the forward of its class, and not by a kernel."""
    if not hasattr(experts, "_apply_gate") or not hasattr(experts, "config"):  # it has no other
        yield
        return
    config, before = experts.config, experts.config._experts_implementation
    config._experts_implementation_internal = "eager"
    try:
        yield
    finally:
        config._experts_implementation_internal = before


def _open(decoder: str, index: int, name: str, experts: Any, block: Any, seen: _Seen) -> OpenExperts:
    """Give one layer's experts our forward, and prove it on what the library's own was given and gave."""
    refuse = partial(_refused, decoder, index)
    if reason := _objection(name, experts, seen):
        raise refuse(reason)
    transposed, weighted, top_k = _mark(experts, "is_transposed"), len(seen.inputs) == 1, seen.index.shape[-1]
    width = int(experts.down_proj.shape[1 if transposed else 2])
    gating = _proved_gating(experts, width, seen.inputs[0])
    if gating is None:
        raise refuse(f"the gating of {type(experts).__name__} is none of those that are known")
    cases = [seen] if hasattr(experts, "_apply_gate") else [seen, *_at_other_sizes(experts, seen)]
    noted: list[_Choice] | None = [] if weighted else None
    forward = partial(_forward, gating=gating) if noted is None else partial(_weighted, gating=gating, noted=noted)
    forwards: list[tuple[Any, Callable[..., Any]]] = [(experts, MethodType(forward, experts))]
    if noted is not None and seen.router is not None:
        noting = partial(_noting, forward=block.forward, router=seen.router, noted=noted, top_k=top_k)
        forwards.append((block, noting))
    opened = OpenExperts(
        layer=index,
        name=name,
        module=experts,
        routing=Routing(),
        neurons=RoutedNeurons(),
        router=seen.router,
        number=int(experts.num_experts),
        width=width,
        top_k=top_k,
        transposed=transposed,
        noted=noted,
        forwards=tuple(forwards),
    )
    opened.open()
    for case in cases:
        _prove(opened, case, refuse)
    return opened


def _objection(name: str, experts: Any, seen: _Seen) -> str:
    """Why a layer's experts cannot be computed by our forward; "" if nothing speaks against it."""
    hidden, chosen, number = seen.inputs[0], seen.index, int(experts.num_experts)
    first = getattr(experts, "gate_up_proj" if _mark(experts, "has_gate") else "up_proj", None)
    if not _is_stack(first) or {first.dtype, experts.down_proj.dtype} != {hidden.dtype}:
        return f"the weights of {name} are not tensors of {hidden.dtype} with an expert in each row"
    if len(experts.down_proj) != number:
        return f"{name} holds {len(experts.down_proj)} of {number} experts"
    tokens = len(hidden) // number if len(seen.inputs) == 1 else len(hidden)
    if chosen.shape != (tokens, chosen.shape[-1]) or chosen.min() < 0 or chosen.max() >= number:
        return f"its router leaves tokens out or sends them nowhere ({chosen.min()}..{chosen.max()} of {number})"
    if bool((chosen.sort(dim=-1).values.diff(dim=-1) == 0).any()):
        return "its router sends a token to one expert twice"
    return ""


def _forward(
    self: Any,
    hidden_states: Float[Tensor, "token hidden"],
    top_k_index: Int64[Tensor, "token k"],
    top_k_weights: Float[Tensor, "token k"],
    *,
    gating: Gating,
) -> Float[Tensor, "token hidden"]:
    """The experts' sum for each token, computed expert by expert; the host waits once, for how many tokens each has."""
    result = torch.zeros_like(hidden_states)
    weights, sent = _routed(self, top_k_index, top_k_weights)
    for expert, tokens, pairs in sent:
        given = _expert(self, expert, hidden_states[tokens], tokens, gating) * weights.flatten()[pairs, None]
        result.index_add_(0, tokens, given.to(result.dtype))
    return result


def _weighted(
    self: Any, hidden_states: Float[Tensor, "row hidden"], *, gating: Gating, noted: Sequence[_Choice]
) -> Float[Tensor, "row hidden"]:
    """What each expert gives for each token, from w x of each, [expert · token, hidden]: 0 where w is."""
    if len(noted) != 1:
        raise SilentHookError(
            f"{type(self).__name__} ran after {len(noted)} runs of its router, expected 1, so it is not known which "
            "tokens its experts have: run the block around them, not a part of it"
        )
    inputs = hidden_states.unflatten(0, (self.num_experts, -1))
    result = torch.zeros_like(inputs)
    for expert, tokens, _ in _routed(self, *noted[0])[1]:
        result[expert, tokens] = _expert(self, expert, inputs[expert, tokens], tokens, gating)
    return result.flatten(0, 1)


def _noting(
    *args: Any, forward: Callable[..., Any], router: nn.Module, noted: list[_Choice], top_k: int, **more: Any
) -> Any:
    """The forward of a block; its router's choice is recorded while it runs."""
    note = router.register_forward_hook(lambda _module, _inputs, output: noted.append(_choice(output, top_k=top_k)))
    try:
        return forward(*args, **more)
    finally:
        note.remove()
        noted.clear()


def _routed(
    self: Any, index: Int64[Tensor, "token k"], weights: Float[Tensor, "token k"]
) -> tuple[Float[Tensor, "token k"], list[tuple[int, Int64[Tensor, " routed"], Int64[Tensor, " routed"]]]]:
    """The weights, and for each expert that has tokens: its number, its tokens, and their places in the flat choice."""
    sent = torch.bincount(index.flatten(), minlength=self.num_experts).tolist()
    index, weights = self.routing(index, weights, sent)
    pairs = index.flatten().argsort(stable=True).split(sent)  # (token, choice), sorted by expert and then by token
    return weights, [(expert, some // index.shape[1], some) for expert, some in enumerate(pairs) if sent[expert]]


def _expert(
    self: Any, expert: int, x: Float[Tensor, "routed hidden"], tokens: Int64[Tensor, " routed"], gating: Gating
) -> Float[Tensor, "routed hidden"]:
    """What one expert gives for its tokens."""
    given = _linear(self, "gate_up_proj" if _mark(self, "has_gate") else "up_proj", expert, x)
    activation, factor = gating(self, given)
    activation = self.neurons(activation, expert, tokens)
    return _linear(self, "down_proj", expert, activation if factor is None else activation * factor)


def _linear(experts: Any, name: str, expert: int, x: Tensor) -> Tensor:
    weight = getattr(experts, name)[expert]
    bias = getattr(experts, f"{name}_bias")[expert] if _mark(experts, "has_bias") else None
    if _mark(experts, "is_transposed"):
        return x @ weight if bias is None else x @ weight + bias
    return F.linear(x, weight, bias)


def _halves(experts: Any, given: Tensor) -> tuple[Tensor, Tensor]:
    """Gate and up, one after the other or in turns."""
    if _mark(experts, "is_concatenated"):
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
    if not _mark(experts, "has_gate"):
        return _plain
    if not hasattr(experts, "_apply_gate"):
        return _gated  # what the module gives is compared at several sizes instead
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


def _at_other_sizes(experts: Any, seen: _Seen) -> list[_Seen]:
    """What the library's own forward gives for inputs small and large, so that every clamp shows."""
    hidden, *choice = seen.inputs
    sized = [(hidden * size, *choice) for size in (0.01, 0.1, 10.0, 100.0)]
    cases = [replace(seen, inputs=some, output=type(experts).forward(experts, *some)) for some in sized]
    return [one for one in cases if one.output.isfinite().all()]  # float16 is soon too small


def _prove(opened: OpenExperts, seen: _Seen, refuse: Callable[[str], UnknownArchitectureError]) -> None:
    """Our forward gives what the library's gave, and nothing but biases once the activations are zero."""
    experts: Any = opened.module
    with ExitStack() as stack:
        if opened.noted is not None:
            opened.noted.append((seen.index, seen.weights))
            stack.callback(opened.noted.clear)
        if not _agree(experts(*seen.inputs), seen.output):
            raise refuse(f"{opened.name} computes something other than the sum of its experts")
        stack.callback(opened.neurons.register_forward_hook(zeros).remove)
        left = experts(*seen.inputs)
    biases = torch.zeros_like(left)
    if _mark(experts, "has_bias"):
        biases = (experts.down_proj_bias[seen.index] * seen.weights[..., None]).sum(1).to(left.dtype)
    if not torch.allclose(left, biases, atol=1e-2 * float(seen.output.abs().max())):
        raise refuse(f"setting the activations of {opened.name} to zero leaves something of its experts")


def _refused(decoder: str, layer: int, what: str) -> UnknownArchitectureError:
    return UnknownArchitectureError(
        f"the experts of {decoder}, layer {layer}, are not understood: {what}; such a model would give numbers that "
        "are silently wrong, so it is refused"
    )

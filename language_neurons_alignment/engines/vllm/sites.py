"""Where vLLM keeps a model's neurons: found by following a few tokens through one rank, and proved there.

    merged   down(m([gate | up]))      m([gate | up]) = act(gate) · up, one module; a neuron's activation is act(gate)
    plain    down(act(x))              a neuron's activation is act(x)
    gated    down(act(gate) · up)      the same with two modules, as in the transformers library

vLLM builds its own classes, so each rank proves them itself (`engines.transformers.sites` proves those of the
transformers library). While a short text runs through vLLM as a corpus would, every module inside of the decoder layers
notes what came in and what went out. In each layer the neurons belong to the one module for which all of this holds:

1. it is an activation function: each of its outputs depends on its input at the same place alone. A merged module is
   linear in its second half also where that is large, and what it multiplies with depends on the first half alone;
2. the input of a linear map, the down projection, is what it gave, bit for bit, or that times a linear map's output;
3. modules around the down projection return what it gave, or add their own input;
4. it runs once per layer and forward, and so does the down projection, which sums over the ranks (RowParallelLinear)
   where several share a layer;
5. set to zero by a hook, only zeros reach the down projection (`Trace.report`, under an intervention);
6. what the down projection gives is used: with something else in its place, the layer gives something else
   (`Trace.report`, without an intervention; each layer runs once more on what it was given).

Outside of the decoder layers nothing runs that could hold neurons: no such module, no layer, no other list of modules.

A layer in which no module or more than one is found is refused by name. In a mixture of experts, the routed experts of
a layer are proved by `engines.vllm.experts`, and the shared ones, which read every token, as above; but what they give
may be weighted, token by token, before it is added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...core.interventions import LayerIntervention
from ...errors import UnknownArchitectureError
from ..proof import Call, heaviest_list, outer_lists, passes_on, what_came, what_went
from .experts import RankExperts, RoutedCall, routed_experts
from .messages import Message


@dataclass(frozen=True)
class RankSite:
    """One layer's neurons on one rank of vLLM.

    Attributes:
        layer: the decoder layer by its number in the whole model.
        block: the decoder layer.
        module: it applies the activation function; in some of vLLM's classes all layers share one.
        merged: the module computes act(gate) · up from [gate | up]; else act(x) from x.
        signed: act(gate) > 0 exactly where gate > 0, so that firings can be read from the gate. Where this is False,
            a merged module's activations are computed again for counting.
        down: the down projection.
        start, width: the site's neurons, by their flat index in the layer on this rank (`core.routing`).
        experts: the routed experts whose neurons these are; `module` is then vLLM's module of them.
    """

    layer: int
    block: nn.Module
    module: nn.Module
    merged: bool
    signed: bool = True
    down: nn.Module | None = None
    start: int = 0
    width: int = 0
    experts: RankExperts | None = None

    def activation(self, gate: Tensor) -> Tensor:
        """The activations of a merged module, from [row, neuron] of the gate: its output where up = 1."""
        return self.module.forward(torch.cat([gate, torch.ones_like(gate)], dim=-1))


@dataclass
class _Call(Call):
    """A call in a model of vLLM."""

    arguments: int = 1  # including those that are not tensors

    @property
    def is_linear(self) -> bool:
        """Whether the module is one of vLLM's linear maps, or has a matrix of weights that is no embedding."""
        weight = getattr(self.module, "weight", None)
        matrix = isinstance(weight, Tensor) and weight.ndim == 2 and "Embedding" not in type(self.module).__name__
        return matrix or _is(self.module, "LinearBase")


@dataclass
class Trace:
    """Follows the first forward pass that holds tokens of a request; an `engines.vllm.rank.RankObserver`.

    Attributes:
        model: the part of the model on this rank, as vLLM built it.
        sites: the rank's neurons where they are known already.
        twice: whether each layer runs again for each of them, with something else in the place of what its down
            projection gives.
    """

    model: nn.Module
    sites: Sequence[RankSite] = ()
    twice: bool = False
    _layers: Mapping[int, nn.Module] = field(init=False)
    _calls: dict[int, list[_Call]] = field(init=False)
    _routed: dict[int, list[RoutedCall]] = field(init=False)
    _inputs: dict[int, list[tuple[list[Tensor], int]]] = field(default_factory=dict)
    _turned: dict[int, list[Any]] = field(default_factory=dict)  # rotary embeddings that gave something else, by layer
    _outside: list[_Call] = field(default_factory=list)
    _given: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})  # what the layer that runs was called with
    _unused: set[int] = field(default_factory=set)
    _other: RankSite | None = None  # while a layer runs again: the site whose down projection gives something else
    _here: int | None = None  # the layer that runs: layers may share modules
    _requests: bool = False
    _done: bool = False
    _handles: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Hook every module, those inside of the decoder layers and the others."""
        self._layers = decoder_layers(self.model)
        self._calls = {index: [] for index in self._layers}
        self._routed = {index: [] for index in self._layers}
        self._experts: list[Any] = [module for layer in self._layers.values() for _, module in routed_experts(layer)]
        for module in self._experts:
            module.__dict__[_ROUTED] = partial(self._route, module.forward_modular)
        self._names = {
            index: {id(module): name for name, module in layer.named_modules()} for index, layer in self._layers.items()
        }
        self._all = {id(module): name for name, module in self.model.named_modules()}
        modules = {id(module): module for module in self.model.modules() if module is not self.model}
        for index, layer in self._layers.items():
            modules.pop(id(layer), None)
            self._handles += [
                layer.register_forward_pre_hook(partial(self._enter, index), with_kwargs=True),
                layer.register_forward_hook(partial(self._leave, index)),
            ]
        for module in modules.values():
            self._handles += [
                module.register_forward_pre_hook(self._came, with_kwargs=True),
                module.register_forward_hook(self._went),
            ]

    def step(self, scheduled: Any) -> None:
        """A scheduler step begins; None when it is over."""
        self._requests = scheduled is not None

    def before(self, inputs: Mapping[str, Any]) -> None:
        """The model is about to run."""

    def layer(self, site: RankSite, inputs: Tensor, changed: tuple[Tensor, Tensor] | None) -> None:
        """A layer's activation module ran; its own hook noted that."""

    def routed(self, site: RankSite, call: RoutedCall, change: LayerIntervention | None) -> None:
        """A layer's routed experts ran; `_route` noted that."""

    def after(self, output: object) -> None:
        """The model ran: what follows is not noted."""
        self._done = self._done or self._requests

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for module in self._experts:
            module.__dict__.pop(_ROUTED, None)

    def report(self) -> Message:
        """What an intervention depends on.

        `reached` has the layers in which something other than zeros reached the down projection, of use where all
        neurons are off; `unused` those that gave the same with something else in the place of what it gives.
        """
        self.close()
        reached = []
        for site in self.sites:
            if site.experts is not None:  # computed here under an intervention
                continue
            given = [call.inputs for call in self._calls[site.layer] if call.module is site.down]
            if len(given) != 1 or not given[0] or bool(given[0][0].any()):
                reached.append(site.layer)
        return {"reached": reached, "unused": sorted(self._unused)}

    def correct(self) -> bool:
        """Let rotary embeddings compute their equation if their kernel gave something else; whether there was one.

        If so, this trace is of no use: follow another text.
        """
        turned = [one for some in self._turned.values() for one in some]
        other = [one for one in turned if getattr(one, _FORWARD, None) not in (None, one.forward_native)]
        for module in other:
            setattr(module, _FORWARD, module.forward_native)
        return bool(other)

    def found(self, *, width: int, tensor: int) -> tuple[RankSite, ...]:
        """The neurons of the rank's layers, proved, in their order.

        Args:
            width: neurons per layer on this rank, by the model's config; not asked of a mixture of experts.
            tensor: how many ranks share a layer.

        Raises:
            UnknownArchitectureError: there is no such place in a layer, or more than one, or of another width, or there
                may be one outside of the layers.
        """
        self.close()
        name, mixed = type(self.model).__name__, bool(self._experts)
        sites: list[RankSite] = []
        for index, layer in self._layers.items():
            refuse = partial(_refused, name, index, layer)
            if index in self._turned:
                raise refuse("its rotary embedding does not compute its own equation")
            routed, experts = None, routed_experts(layer)
            if experts:
                routed = _routed_site(index, layer, experts, self._routed[index], tensor=tensor, refuse=refuse)
                sites.append(routed)
            dense, seen = _sites(index, layer, self._calls[index], width=None if mixed else width, tensor=tensor)
            shared = any("shared_expert" in call.name for call in self._calls[index])
            wanted = (1,) if routed is None or shared else (0, 1)
            if len(dense) not in wanted or any(" runs " in one for one in seen):
                raise refuse(_number(dense) + (f"; {seen[-1]}" if seen else ""))
            sites += [one if routed is None else replace(one, start=routed.width) for one in dense]
        _prove_nothing_outside(self.model, self._layers, self._outside)
        return tuple(sites)

    @property
    def _noting(self) -> bool:
        return self._requests and not self._done and self._other is None

    def _enter(self, index: int, _layer: nn.Module, inputs: tuple[Any, ...], more: dict[str, Any]) -> None:
        self._here = index
        if self.twice and self._noting:
            self._given = _copied(inputs), dict(zip(more, _copied(more.values()), strict=True))

    def _leave(self, index: int, layer: nn.Module, _inputs: object, output: Any) -> None:
        if self.twice and self._noting:
            for site in self.sites:
                if site.layer == index:
                    other = self._again(layer, site)
                    if all(torch.equal(one, two) for one, two in zip(_tensors(output), _tensors(other), strict=True)):
                        self._unused.add(index)
        self._here = None

    def _again(self, layer: nn.Module, site: RankSite) -> Any:
        """Run a layer once more, with something else in the place of what the down projection of a site gives."""
        (inputs, more), self._other = self._given, site
        experts: Any = site.module
        original, kept = getattr(experts, _ROUTED, None), experts.__dict__.get(_ROUTED)
        if site.experts is not None and original is not None:
            experts.__dict__[_ROUTED] = lambda *args, **named: _something_else(original(*args, **named))
        try:
            return layer.forward(*_copied(inputs), **dict(zip(more, _copied(more.values()), strict=True)))
        finally:
            self._other = None
            if site.experts is not None:
                experts.__dict__.pop(_ROUTED, None)
                experts.__dict__.update({} if kept is None else {_ROUTED: kept})

    def _came(self, module: nn.Module, inputs: tuple[Any, ...], more: dict[str, Any]) -> None:
        if self._noting:
            self._inputs.setdefault(id(module), []).append((what_came(inputs, more), len(inputs) + len(more)))

    def _route(self, original: Any, x: Tensor, topk_weights: Tensor, topk_ids: Tensor, *args: Any, **more: Any) -> Any:
        came = x.clone(), topk_weights.clone(), topk_ids.clone()  # a kernel may change them
        output = original(x, topk_weights, topk_ids, *args, **more)
        if self._noting and self._here is not None:
            given = output.clone() if isinstance(output, Tensor) else None
            self._routed[self._here].append(RoutedCall(*came, given))
        return output

    def _went(self, module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Any:
        if self._other is not None and module is self._other.down:
            return _something_else(output)
        if not self._noting or not self._inputs.get(id(module)):
            return None
        (inputs, arguments), given = self._inputs[id(module)].pop(), what_went(output)
        if self._here is None:
            if given is not None:
                self._outside.append(_Call(self._all[id(module)], module, inputs, given, arguments))
            return None
        if _is(module, "RotaryEmbedding") and len(inputs) in (2, 3) and not _turns_as_it_says(module, inputs, output):
            self._turned.setdefault(self._here, []).append(module)
        if given is not None:
            name = self._names[self._here].get(id(module), type(module).__name__)
            self._calls[self._here].append(_Call(name, module, inputs, given, arguments))
        return None


def _copied(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(one.clone() if isinstance(one, Tensor) else one for one in values)


def _tensors(output: Any) -> list[Tensor]:
    return [one for one in (output if isinstance(output, tuple) else (output,)) if isinstance(one, Tensor)]


def _something_else(output: Any) -> Any:
    """What a module gave, and a slope over its places, which no norm takes out."""
    given = output[0] if isinstance(output, tuple) else output
    slope = torch.linspace(-1, 1, given.shape[-1], device=given.device, dtype=torch.float32)
    other = given + (slope * (1 + given.abs().max())).to(given.dtype)
    return (other, *output[1:]) if isinstance(output, tuple) else other


def _prove_nothing_outside(model: nn.Module, layers: Mapping[int, nn.Module], calls: Sequence[_Call]) -> None:
    """No module outside of the layers could hold neurons, which would be left out of every count."""
    kinds, ran = {type(layer) for layer in layers.values()}, {id(call.module) for call in calls}
    within = {id(module) for layer in layers.values() for module in layer.modules()}
    seen = [
        f"{call.name} ({type(call.module).__name__}), followed by {downs[0].name}"
        for call, downs, merged in _carried(calls)
        if not _not_activation(call, merged=merged)
    ]
    seen += [
        f"{call.name}, a {type(call.module).__name__} as its layers are" for call in calls if type(call.module) in kinds
    ]
    for some in outer_lists(model):
        seen += [
            f"another list of modules ({type(one).__name__})"
            for one in some
            if id(one) in ran and id(one) not in within and any(True for _ in one.children())
        ]
    if seen:
        raise UnknownArchitectureError(
            f"{type(model).__name__} in vLLM runs {seen[0]}, outside of its list of layers: neurons there would be "
            "left out of every count, so the model is refused; try --engine transformers"
        )


def decoder_layers(model: nn.Module) -> dict[int, nn.Module]:
    """The decoder layers on this rank, by number: those of the list with the most weights, of the text decoder."""
    text = model.get_language_model() if hasattr(model, "get_language_model") else model  # pyright: ignore[reportCallIssue]
    found = heaviest_list(text)
    if found is None:
        raise UnknownArchitectureError(
            f"{type(model).__name__}, as vLLM built it, has no list of decoder layers; try --engine transformers"
        )
    elsewhere = ("PPMissingLayer", "StageMissingLayer")  # on another pipeline stage
    return {index: layer for index, layer in enumerate(found) if type(layer).__name__ not in elsewhere}


def _routed_site(
    index: int,
    layer: nn.Module,
    experts: Sequence[tuple[str, nn.Module]],
    calls: Sequence[RoutedCall],
    *,
    tensor: int,
    refuse: Callable[[str], UnknownArchitectureError],
) -> RankSite:
    """The neurons of a layer's routed experts, proved."""
    if len(experts) > 1 or tensor > 1:
        several = f"{len(experts)} groups of experts" if len(experts) > 1 else f"{tensor} ranks share its experts"
        raise refuse(f"{several}; one is supported (--tensor-parallel-size 1)")
    if len(calls) != 1:
        raise refuse(
            f"its experts ran {len(calls)} times where the router's choice can be seen; some kernels choose and "
            "compute in one, that of --engine-arg moe_backend=triton does not"
        )
    (name, module), *_ = experts
    around = layer.get_submodule(name.rpartition(".")[0])
    found = RankExperts.of(module, calls[0], scale=getattr(around, "routed_scaling_factor", 1.0))
    if isinstance(found, str):
        raise refuse(f"of its experts, {found}")
    return RankSite(index, layer, module, merged=False, width=found.number * found.width, experts=found)


def _sites(
    index: int, layer: nn.Module, calls: Sequence[_Call], *, width: int | None, tensor: int
) -> tuple[list[RankSite], list[str]]:
    """The places in a layer that hold neurons which every token reads, and what speaks against others."""
    found: list[RankSite] = []
    seen: list[str] = []
    for call, downs, merged in _carried(calls):
        objection = _not_activation(call, merged=merged)
        if not objection:
            objection = _objection(call, downs, calls, routed_experts(layer), width=width, tensor=tensor)
        if objection:
            seen.append(f"{call.name} ({type(call.module).__name__}) {objection}")
            continue
        site = RankSite(index, layer, call.module, merged, down=downs[0].module, width=call.output.shape[-1])
        found.append(replace(site, signed=not merged or _signed(site, call.inputs[0])))
    return found, seen


def _carried(calls: Sequence[_Call]) -> Iterator[tuple[_Call, list[_Call], bool]]:
    """Modules without children of whose output the input of linear maps is made, these maps, and whether it is merged.

    The output is as wide as the one input, or half as wide in a merged module.
    """
    linear = [one for one in calls if one.is_linear]
    for call in calls:
        alone = len(call.inputs) == call.arguments == 1  # attention over another layer's keys has queries, and None
        if call.is_linear or any(True for _ in call.module.children()) or not alone:
            continue
        given, merged = call.inputs[0], call.inputs[0].shape[-1] == 2 * call.output.shape[-1]
        if not given.is_floating_point() or not (merged or given.shape == call.output.shape):
            continue
        if downs := [down for down in linear if _is_carried(call, down, linear, merged=merged)]:
            yield call, downs, merged


def _number(found: Sequence[RankSite]) -> str:
    places = ", ".join(type(one.module).__name__ for one in found)
    number = {0: "no place", 1: "one place"}.get(len(found), f"{len(found)} places")
    return f"{number} could hold them{f' ({places})' if places else ''}"


def _refused(name: str, index: int, layer: nn.Module, what: str) -> UnknownArchitectureError:
    return UnknownArchitectureError(
        f"the neurons of {name} in vLLM, layer {index} ({type(layer).__name__}), cannot be proved: {what}; its numbers "
        "could be silently wrong, so it is refused: try --engine transformers"
    )


def _is_carried(call: _Call, down: _Call, linear: Sequence[_Call], *, merged: bool) -> bool:
    """Whether the input of `down` is what `call` gave, or in two modules that times a linear map's output."""
    given = down.inputs[0] if down.inputs else None
    if given is None or given.shape != call.output.shape:
        return False
    if torch.equal(given, call.output):
        return True
    parts = [] if merged else [part for one in linear for part in _parts(one.output, given)]
    return any(torch.equal(given, call.output * part) for part in parts)


def _parts(output: Tensor, like: Tensor) -> Sequence[Tensor]:
    """A linear map's output, or its two halves where it computes gate and up together."""
    if output.shape[:-1] != like.shape[:-1]:
        return ()
    width = like.shape[-1]
    return {width: (output,), 2 * width: output.chunk(2, dim=-1)}.get(output.shape[-1], ())


_VALUES = (0.0, 1e-30, 1e-6, 1e-3, 0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 30.0, 100.0)
"""Where an activation function is tried, with both signs."""

_LARGE = (-100.0, -8.0, 0.5, 100.0)
"""Factors that a merged module must multiply with as they are; some modules cut them off."""


def _not_activation(call: _Call, *, merged: bool) -> str:
    """Why a module is no activation function of the same place; "" if it is one."""
    given = call.inputs[0]
    own = {one.dtype for one in (*call.module.parameters(), *call.module.buffers()) if one.is_floating_point()}
    if own - {given.dtype}:
        kept, used = ", ".join(sorted(map(_short, own))), _short(given.dtype)
        return f"has parameters in {kept}, and computes in {used}: load the model in {kept}"
    if not merged:
        if torch.equal(given, call.output):
            return "changes nothing"
        return "" if _same_place(call.module.forward, given) else "mixes places of its input"
    gate, _ = _halves(given)
    rows = torch.cat([gate, *(torch.full_like(gate[:1], sign * one) for one in _VALUES for sign in (1, -1))])

    def act(one: Tensor) -> Tensor:
        return call.module.forward(torch.cat([one, torch.ones_like(one)], dim=-1))

    alone = act(rows)
    for factor in _LARGE:
        up = torch.full_like(rows, factor)
        product = call.module.forward(torch.cat([rows, up], dim=-1))
        if not _close(product, alone * factor):
            doubled = call.module.forward(torch.cat([2 * rows, up], dim=-1))
            swapped = ": the gate is its second half" if _close(doubled, 2 * product) else ""
            return f"is not act(first half) · second half{swapped}"
    if not _same_place(act, gate):
        return "mixes places of its input"
    # interventions compute some neurons alone
    return "" if _close(act(gate[:, 1:]), act(gate)[:, 1:]) else "treats neurons differently"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _halves(given: Tensor) -> tuple[Tensor, Tensor]:
    gate, up = given.reshape(-1, given.shape[-1]).chunk(2, dim=-1)
    return gate.contiguous(), up.contiguous()


def _same_place(act: Any, given: Tensor) -> bool:
    """Whether a function of each place's own input: a large change of the first place changes no other."""
    rows = given.reshape(-1, given.shape[-1]).contiguous()
    other = rows.clone()
    other[..., 0] += 100 * rows.abs().max() + 1  # a norm would divide every place by it
    return _close(act(other)[..., 1:], act(rows.clone())[..., 1:])


def _close(one: Tensor, other: Tensor) -> bool:
    """Equal but for rounding, which vectorised code does differently where memory lies differently."""
    return torch.allclose(one.float(), other.float(), rtol=0.02, atol=1e-3 * float(other.abs().max()))


def _signed(site: RankSite, given: Tensor) -> bool:
    """Whether a merged module's act(gate) is above 0 exactly where the gate is; from what came in, and over a grid."""
    gate, _ = _halves(given)
    grid = torch.linspace(-12, 12, 4096, device=gate.device, dtype=torch.float32)
    values = torch.cat([grid, grid * 100, *(torch.tensor([one, -one], device=gate.device) for one in _VALUES)])
    rows = values.to(gate.dtype)[:, None].expand(-1, gate.shape[-1])[:, :64].contiguous()
    grids = gate.new_zeros(len(rows), gate.shape[-1])
    grids[:, : rows.shape[1]] = rows
    return all(bool(((site.activation(one) > 0) == (one > 0)).all()) for one in (gate, grids))


def _objection(
    call: _Call,
    downs: Sequence[_Call],
    calls: Sequence[_Call],
    experts: Sequence[tuple[str, nn.Module]],
    *,
    width: int | None,
    tensor: int,
) -> str:
    """Why this is not the place of a layer's neurons; "" if nothing speaks against it."""
    down = downs[0]
    if len(downs) > 1:
        return f"is followed by {', '.join(one.name for one in downs)}"
    for one in (call, down):
        times = sum(other.module is one.module for other in calls)
        if times != 1:
            return f"is followed by {down.name}, but {one.name} runs {times} times per layer"
    if width is not None and call.output.shape[-1] != width:
        return f"gives {call.output.shape[-1]} neurons, the config says {width} for each of {tensor} ranks"
    if tensor > 1 and not _is(down.module, "RowParallelLinear"):
        return f"is followed by {down.name}, a {type(down.module).__name__}, which does not sum over the ranks"
    for one in calls:
        halves = one.is_linear and one.output.shape[-1] == 2 * call.output.shape[-1] == 2 * call.inputs[0].shape[-1]
        if tensor > 1 and halves and not _is(one.module, "MergedColumnParallelLinear"):
            return f"is fed by half of what {one.name} gives, and {tensor} ranks may share that otherwise"
    for around in calls:
        if not down.name.startswith(f"{around.name}."):
            continue
        if any(name.startswith(f"{around.name}.") for name, _ in experts):  # adds what the routed experts give
            continue
        if experts and _is_multiple(around.output, down.output):
            continue
        if not passes_on(around, down):
            return f"is followed by {down.name}, but {around.name} returns something other than what that gives"
    return ""


def _is_multiple(one: Tensor, other: Tensor) -> bool:
    """Whether each row is a multiple of the other's."""
    if one.shape != other.shape:
        return False
    off = max(1e-4, 8 * torch.finfo(one.dtype).eps)
    one, other = one.double().flatten(0, -2), other.double().flatten(0, -2)
    factor = (one * other).sum(-1, keepdim=True) / other.square().sum(-1, keepdim=True).clamp(min=1e-30)
    return bool(((one - factor * other).abs() <= off * one.abs().amax(-1, keepdim=True)).all())


_ROUTED = "forward_modular"
"""What vLLM calls of its `RoutedExperts`."""

_FORWARD = "_forward_method"
"""Where a `CustomOp` of vLLM keeps which of its ways to compute it takes."""


def _turns_as_it_says(module: Any, inputs: Sequence[Tensor], output: Any) -> bool:
    """Whether a rotary embedding's kernel gives what its own equation in PyTorch gives.

    vLLM's kernel for CPUs reads other rows where queries or keys are [token, head, size] (LFM2, DeepSeek).
    """
    given = [one for one in output if isinstance(one, Tensor)]
    expected = [one for one in module.forward_native(*inputs) if isinstance(one, Tensor)]
    return all(_close(one.flatten(), other.flatten()) for one, other in zip(given, expected, strict=True))


def _is(module: nn.Module, base: str) -> bool:
    """Whether a module's class, or one of its bases, has this name; vLLM need not be imported to ask."""
    module = getattr(module, "base_layer", module)  # inside of the linear maps that an adapter wraps
    return any(one.__name__ == base for one in type(module).__mro__)

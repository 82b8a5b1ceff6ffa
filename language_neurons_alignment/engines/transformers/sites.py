"""Where a model keeps its neurons: found by following a few tokens through it, and proved before anything is counted.

    gated MLP   down(act(gate x) · up x)    a neuron's activation is act(gate x)
    plain MLP   fc2(act(fc1 x))             a neuron's activation is act(fc1 x)

A probe runs through the model while every module without children notes what came in and what went out. In each
decoder layer the neurons are the output `a` of the one module for which all of this holds:

1. it is an activation function: each of its outputs depends on the input at the same place alone;
2. the input of a linear map, the down projection, is `a`, or `a` times the output of another linear map, bit for bit;
3. what the down projection gives is what the MLP adds: each module around it returns the same, or adds its own input;
4. it and the down projection run once per forward, over each token once;
5. when a hook sets it to zero, only zeros reach the down projection, and the layer's output changes, so that
   interventions take effect.

Outside the list of layers nothing runs that could hold neurons: no such place, no layer, no other list of modules.

In a mixture of experts the routed experts are a place of their own, proved in `experts`; behind them in the layer's
flat order stand the shared experts, found in the way above. What router and experts together give must be, on every
token, a multiple of what the routed experts give plus one of what the shared ones do.

The model must also be causal: a token never changes what stands in front of it. What cannot be proved is refused by
name, with what was seen, because a wrong guess gives wrong numbers without an error. The table of families
(`engines.families`) may say where the neurons are; what it says is proved in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from ...errors import UnknownArchitectureError
from ..families import TransformersPlace
from ..proof import Call, heaviest_list, outer_lists, passes_on, what_came, what_went, zeros
from .experts import OpenExperts, closed_experts, open_experts
from .functional import open_mlps

_MATRICES = ("weight", "qweight", "weight_packed")
"""Under which names linear maps keep their matrix: the usual one, GPTQ's and AWQ's, that of compressed-tensors."""

_TOKENS = 7
"""Length of the probe: longer than one token, so that causality can be seen, and short enough to cost nothing."""


@dataclass(frozen=True)
class NeuronSite:
    """One layer's neurons, or those of its routed or of its shared experts.

    Attributes:
        module: its output is the activation of the neurons.
        d_mlp: how many they are.
        activation, down: names of this module and of the down projection, within the layer; of routed experts, the
            names of the module that they pass through and of the experts.
        up: name of the linear map that a gated MLP multiplies the activation with; None in a plain MLP.
        start: flat index of the first of them in the layer.
        experts: the routed experts that they belong to; None if each of them is computed for every token.
    """

    layer: int
    module: nn.Module
    d_mlp: int
    activation: str
    down: str
    up: str | None = None
    start: int = 0
    experts: OpenExperts | None = None

    @property
    def stop(self) -> int:
        """Flat index behind the last of them."""
        return self.start + self.d_mlp

    def holds(self, neurons: Int64[Tensor, "neuron 2"]) -> Bool[Tensor, " neuron"]:
        """Which of these neurons, (layer, flat index), are among them."""
        return (neurons[:, 0] == self.layer) & (neurons[:, 1] >= self.start) & (neurons[:, 1] < self.stop)


class _Call(Call):
    """A call in a model of the transformers library."""

    @property
    def is_linear(self) -> bool:
        """Whether the module has a matrix of weights, quantised ones and those with an adapter included."""
        return _is_linear(self.module)


def _is_linear(module: nn.Module) -> bool:
    weights = (getattr(module, name, None) for name in _MATRICES)
    matrix = any(isinstance(weight, Tensor) and weight.ndim == 2 for weight in weights)
    return matrix and not isinstance(module, nn.Embedding)


def find_sites(
    decoder: nn.Module, place: TransformersPlace | None = None, *, layers: nn.ModuleList | None = None
) -> tuple[NeuronSite, ...]:
    """Find the neurons of every decoder layer, and prove them; of each layer, in the order of their flat indices.

    Args:
        decoder: a model without its lm_head.
        place: what the table of families says of it.
        layers: its `decoder_layers`, where they are known.

    Raises:
        UnknownArchitectureError: there is no such place in a layer, or more than one, or it is not where `place` says.
    """
    name, layers = type(decoder).__name__, layers or decoder_layers(decoder, place)
    with torch.no_grad():
        tokens = probe(decoder)
        run = partial(_run, decoder, tokens)
        open_mlps(layers, run, _is_linear)
        opened = open_experts(name, layers, run)
        seen = _trace(decoder, layers, tokens)
        idle = [index for index, calls in enumerate(seen.calls) if not calls]
        if idle:
            raise UnknownArchitectureError(
                f"{name} does not run layer {idle[0]} ({type(layers[idle[0]]).__name__}) on text alone, so its neurons "
                "cannot be proved; the model is refused"
            )
        sites = tuple(
            site
            for index, layer in enumerate(layers)
            for site in _sites(name, index, layer, seen.calls[index], place, opened.get(index))
        )
        if len({id(site.module) for site in sites}) != len(sites):
            raise UnknownArchitectureError(
                f"{name}: layers share one activation module, so their firings cannot be told apart"
            )
        _prove_nothing_outside(name, decoder, layers, seen.outside)
        _prove_interventions(name, layers, sites, seen)
        _prove_causal(name, decoder, tokens, seen.hidden)
    return sites


def layer_widths(sites: Sequence[NeuronSite]) -> list[int]:
    """How many neurons each layer has."""
    widths: dict[int, int] = {}
    for site in sites:
        widths[site.layer] = widths.get(site.layer, 0) + site.d_mlp
    return list(widths.values())


def decoder_layers(decoder: nn.Module, place: TransformersPlace | None = None) -> nn.ModuleList:
    """The list of a decoder's layers: the one that the table names, else that with the most weights in use on text.

    If there are several lists, this runs a few tokens through the decoder; for a loaded model use `Network.layers`.
    """
    name = type(decoder).__name__
    if place is not None and place.layers is not None:
        found = _submodule(decoder, place.layers)
    else:
        found = _heaviest_that_runs(decoder) if len(outer_lists(decoder)) > 1 else heaviest_list(decoder)
    if not isinstance(found, nn.ModuleList) or not len(found):
        raise UnknownArchitectureError(f"{name} has no list of decoder layers{_expected(place, 'layers')}")
    return found


def _heaviest_that_runs(decoder: nn.Module) -> nn.ModuleList | None:
    """Of several outermost lists, the one with the most weights among those that text runs through.

    A part for images or sounds may have more weights than the decoder, and text alone never enters it.
    """
    ran: set[int] = set()
    lists = outer_lists(decoder)
    with ExitStack() as hooks, torch.no_grad():
        for module in {id(one): one for some in lists for one in some.modules()}.values():
            hooks.callback(module.register_forward_pre_hook(lambda one, _inputs: ran.add(id(one))).remove)
        _run(decoder, probe(decoder))
    return heaviest_list(decoder, [one for one in lists if any(id(module) in ran for module in one.modules())])


def probe(decoder: nn.Module) -> Int64[Tensor, "one token"]:
    """Tokens spread over the vocabulary."""
    weight = decoder.get_input_embeddings().weight  # pyright: ignore[reportCallIssue]
    return (torch.arange(1, _TOKENS + 1, device=weight.device) * (weight.shape[0] // (_TOKENS + 1)))[None]


def _run(decoder: nn.Module, tokens: Int64[Tensor, "one token"]) -> Float[Tensor, "one token hidden"]:
    return decoder(input_ids=tokens, use_cache=False)[0]


@dataclass
class _Seen:
    """What a probe saw.

    Attributes:
        calls: for each layer, those of the modules inside it, in order; a module around others comes after them.
        given: what each layer was called with.
        outputs: what each layer gave; None where it gave no tensor.
        outside: the calls of the decoder's modules that are in no layer.
        hidden: what the decoder gave.
    """

    calls: list[list[_Call]]
    given: list[tuple[tuple[Any, ...], dict[str, Any]]]
    outputs: list[Tensor | None]
    outside: list[_Call]
    hidden: Tensor


def _trace(decoder: nn.Module, layers: nn.ModuleList, tokens: Int64[Tensor, "one token"]) -> _Seen:
    """Run the probe, and keep what the modules were given and gave."""
    seen = _Seen([[] for _ in layers], [((), {})] * len(layers), [None] * len(layers), [], torch.empty(0))
    came_in: dict[int, list[list[Tensor]]] = {}

    def before(module: nn.Module, inputs: tuple[Any, ...], more: dict[str, Any]) -> None:
        came_in.setdefault(id(module), []).append(what_came(inputs, more))

    def after(to: list[_Call], name: str, module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        inputs, given = came_in[id(module)].pop(), what_went(output)
        if given is not None:
            to.append(_Call(name, module, inputs, given))

    def whole(index: int, _layer: nn.Module, inputs: tuple[Any, ...], more: dict[str, Any], output: Any) -> None:
        seen.given[index], seen.outputs[index] = (inputs, more), what_went(output)

    within = {id(module) for module in layers.modules()}
    apart = [(name, one) for name, one in decoder.named_modules() if one is not decoder and id(one) not in within]
    with ExitStack() as hooks:
        for to, modules in [
            *((seen.calls[i], one.named_modules()) for i, one in enumerate(layers)),
            (seen.outside, apart),
        ]:
            for name, module in modules:
                if name:
                    hooks.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
                    hooks.callback(module.register_forward_hook(partial(after, to, name)).remove)
        for index, layer in enumerate(layers):
            hooks.callback(layer.register_forward_hook(partial(whole, index), with_kwargs=True).remove)
        seen.hidden = _run(decoder, tokens)
    return seen


def _sites(
    decoder: str,
    index: int,
    layer: nn.Module,
    calls: Sequence[_Call],
    place: TransformersPlace | None,
    experts: OpenExperts | None,
) -> list[NeuronSite]:
    """The places in a layer that are proved to hold its neurons: one, or those of its routed and shared experts."""
    if experts is None:
        return [_site(decoder, index, layer, calls, place)]
    routed = NeuronSite(
        index,
        experts.neurons,
        experts.number * experts.width,
        f"{experts.name}.neurons",
        experts.name,
        experts=experts,
    )
    apart = [one for one in calls if not one.name.startswith(f"{experts.name}.")]
    own = next(one for one in apart if one.name == experts.name)
    around = [one for one in apart if one.name and f"{experts.name}.".startswith(f"{one.name}.") and one is not own]
    others = [one for one in apart if one is not own and one not in around]
    found, refused = _places(index, others, None)
    shared = _only(decoder, index, layer, found, refused, f", beside its experts ({experts.name})") if found else None
    parts = [
        experts.per_token(own.output),
        *(one.output for one in others if shared is not None and one.name == shared.down),
    ]
    for one in around:
        if not _is_mixture(one.output, parts):
            raise UnknownArchitectureError(
                f"the neurons of {decoder}, layer {index} ({type(layer).__name__}) cannot be proved: {one.name} "
                f"returns something other than what its experts ({experts.name}"
                f"{f', {shared.down}' if shared else ''}) give; the model is refused"
            )
    return [routed] if shared is None else [routed, replace(shared, start=routed.d_mlp)]


def _is_mixture(whole: Tensor, parts: Sequence[Tensor]) -> bool:
    """Whether each token's row of the whole is a sum of multiples of the parts' rows."""
    rows = [one.reshape(-1, one.shape[-1]).double() for one in (whole, *parts)]
    if len({one.shape for one in rows}) != 1:
        return False
    given = torch.stack(rows[1:], dim=-1)  # [token, hidden, part]
    left = rows[0] - (given @ torch.linalg.pinv(given) @ rows[0][..., None])[..., 0]
    off = max(1e-4, 4 * torch.finfo(whole.dtype).eps)
    return bool((left.abs() <= off * rows[0].abs().amax(dim=-1, keepdim=True)).all())


def _site(
    decoder: str, index: int, layer: nn.Module, calls: Sequence[_Call], place: TransformersPlace | None
) -> NeuronSite:
    """The one place in a dense layer that is proved to hold its neurons."""
    if place is not None and place.activation is not None and not any(one.name == place.activation for one in calls):
        raise UnknownArchitectureError(
            f"{decoder}, layer {index} ({type(layer).__name__}) never called a module {place.activation!r}, where the "
            "table of families expects the activation function; this version of the model's code is not supported"
        )
    found, refused = _places(index, calls, place)
    return _only(decoder, index, layer, found, refused, closed_experts(layer))


def _places(index: int, calls: Sequence[_Call], place: TransformersPlace | None) -> tuple[list[NeuronSite], list[str]]:
    """The places among a layer's calls that could hold its neurons, and what speaks against others."""
    found: dict[tuple[str, str], NeuronSite] = {}
    refused: list[str] = []
    linear = _outermost([one for one in calls if one.is_linear])
    for activation in calls:
        if any(True for _ in activation.module.children()) or not _may_be_activation(activation, place):
            continue
        for down in linear:
            if (up := _carried(activation, down, linear)) is None:
                continue
            reason = _objection(activation, down, up[1], calls, place)
            if reason:
                refused.append(f"{activation.name} is followed by {down.name}, but {reason}")
                continue
            site = NeuronSite(
                index, activation.module, activation.output.shape[-1], activation.name, down.name, up[0] or None
            )
            found[activation.name, down.name] = site
    return list(found.values()), refused


def _only(
    decoder: str, index: int, layer: nn.Module, found: Sequence[NeuronSite], refused: Sequence[str], note: str
) -> NeuronSite:
    """The one place that was found, if nothing speaks against it; else the refusal says what was seen."""
    if len(found) != 1 or refused:
        names = f" ({', '.join(site.activation for site in found)})" if found else ""
        number = {0: "no place", 1: "one place"}.get(len(found), f"{len(found)} places")
        seen = f"{number} could hold its neurons{names}{f'; {refused[0]}' if refused else ''}"
        raise UnknownArchitectureError(
            f"the neurons of {decoder}, layer {index} ({type(layer).__name__}) cannot be proved: {seen}{note}; such a "
            "model would give numbers that are silently wrong, so it is refused"
        )
    return found[0]


def _outermost(calls: Sequence[_Call]) -> list[_Call]:
    """Those that are not parts of others: a linear map with a live adapter holds its own matrix and the adapter's."""
    names = [f"{one.name}." for one in calls]
    return [one for one in calls if not one.name.startswith(tuple(names))]


def _may_be_activation(call: _Call, place: TransformersPlace | None) -> bool:
    """Whether a module computes each place of its output from the same place of its input, and changes something."""
    if place is not None and place.activation is not None and call.name != place.activation:
        return False
    if call.is_linear or len(call.inputs) != 1 or call.inputs[0].shape != call.output.shape:
        return False
    given = call.inputs[0]
    if not given.is_floating_point() or torch.equal(given, call.output):
        return False
    other = given.clone()
    other[..., 0] += 100 * given.abs().max()  # a norm would divide every place by it
    seen, expected = call.module(other)[..., 1:], call.output[..., 1:]
    # not bit for bit: vectorised code rounds differently where memory lies differently
    return torch.allclose(seen, expected, rtol=0.02, atol=1e-3 * float(expected.abs().max()))


def _carried(activation: _Call, down: _Call, linear: Sequence[_Call]) -> tuple[str, _Call | None] | None:
    """What the down projection's input is made of besides `a`: nothing, or a linear map's output; None if it is not."""
    given = down.inputs[0] if down.inputs else None
    if given is None or given.shape != activation.output.shape:
        return None
    if torch.equal(given, activation.output):
        return "", None
    for one in linear:
        width = one.output.shape[-1]
        parts = [one.output]
        if width == 2 * given.shape[-1]:  # gate and up computed together
            parts = list(one.output.chunk(2, dim=-1))
        for part in parts:
            if part.shape == given.shape and torch.equal(given, activation.output * part):
                return one.name, one
    return None


def _objection(
    activation: _Call, down: _Call, up: _Call | None, calls: Sequence[_Call], place: TransformersPlace | None
) -> str:
    """Why this is not the place of a layer's neurons; "" if nothing speaks against it."""
    for one in (activation, down):
        times = sum(call.module is one.module for call in calls)
        if times != 1:
            return f"{one.name} runs {times} times per forward"
    if (places := activation.output.numel() // activation.output.shape[-1]) != _TOKENS:
        return f"{activation.name} computes {places} rows of neurons for {_TOKENS} tokens"
    for around in calls:
        if not down.name.startswith(f"{around.name}."):
            continue
        if not passes_on(around, down):
            return f"{around.name} returns something other than what the down projection gives"
    if place is not None and place.projection is not None:
        before = next((call for call in calls if call.name == place.projection), None)
        given = activation.inputs[0]
        if before is None or not any(torch.equal(given, part) for part in _parts(before.output, given)):
            return f"its input is not what {place.projection} gives, as the table of families says"
    return ""


def _parts(output: Tensor, like: Tensor) -> list[Tensor]:
    """A linear map's output, or its first half where gate and up are computed together."""
    return [output] if output.shape == like.shape else [output.chunk(2, dim=-1)[0]]


def _prove_nothing_outside(name: str, decoder: nn.Module, layers: nn.ModuleList, calls: Sequence[_Call]) -> None:
    """No module outside of the layers could hold neurons, which would be left out of every count."""
    found, refused = _places(len(layers), calls, None)
    kinds, ran = {type(layer) for layer in layers}, {id(call.module) for call in calls}
    others = [
        f"{call.name}, a {type(call.module).__name__} as its layers are" for call in calls if type(call.module) in kinds
    ]
    for some in outer_lists(decoder):
        others += [
            f"another list of modules ({type(one).__name__})"
            for one in some
            if id(one) in ran and any(True for _ in one.children())
        ]
    seen = [f"{site.activation}, followed by {site.down}" for site in found] + others + refused
    if seen:
        raise UnknownArchitectureError(
            f"{name} runs {seen[0]}, outside its list of layers ({type(layers[0]).__name__}): neurons there would "
            "be left out of every count, so the model is refused"
        )


def _prove_interventions(name: str, layers: nn.ModuleList, sites: Sequence[NeuronSite], seen: _Seen) -> None:
    """With all activations set to zero by hooks, only zeros reach the down projections, and layers' outputs change.

    Each layer runs once more by itself, on the same input. If the down projection gives the same as before (because its
    weights are 0, or the activations were), the layer may too. The down projections of routed experts are no modules;
    `experts` proves that only zeros reach them.
    """
    for index, layer in enumerate(layers):
        here = [site for site in sites if site.layer == index]
        downs, given = _with_zeros(layer, here, *seen.given[index])
        for site in here:
            inputs, _ = downs.get(site.down, ((), None))
            if not inputs or (site.experts is None and bool((inputs[0] != 0).any())):
                raise UnknownArchitectureError(
                    f"{name}: setting the activations to zero at {site.activation} does not reach {site.down} in "
                    f"layer {index}, so interventions would do nothing; the model is refused"
                )
        before = {call.name: call.output for call in seen.calls[index]}
        changed = any(output is None or not torch.equal(output, before[down]) for down, (_, output) in downs.items())
        whole = seen.outputs[index]
        if changed and (given is None or whole is None or torch.equal(given, whole)):
            raise UnknownArchitectureError(
                f"{name}: setting the activations to zero at {here[0].activation} changes nothing in what layer "
                f"{index} ({type(layer).__name__}) gives, so these are not its neurons; the model is refused"
            )


def _with_zeros(
    layer: nn.Module, sites: Sequence[NeuronSite], inputs: tuple[Any, ...], more: dict[str, Any]
) -> tuple[dict[str, tuple[tuple[Any, ...], Tensor | None]], Tensor | None]:
    """Run a layer with its activations set to zero: what its down projections were given and gave, and what it gave."""
    downs: dict[str, tuple[tuple[Any, ...], Tensor | None]] = {}

    def look(down: str, _module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        downs[down] = inputs, what_went(output)

    with ExitStack() as hooks:
        for site in sites:
            hooks.callback(site.module.register_forward_hook(zeros).remove)
            hooks.callback(layer.get_submodule(site.down).register_forward_hook(partial(look, site.down)).remove)
        return downs, what_went(layer(*inputs, **more))


def _prove_causal(name: str, decoder: nn.Module, tokens: Int64[Tensor, "one token"], hidden: Tensor) -> None:
    """Another last token changes nothing in front of it."""
    other = tokens.clone()
    other[0, -1] = tokens[0, 0]
    one, two = hidden.float(), _run(decoder, other).float()
    before, last = (one - two)[:, :-1].abs().max(), (one - two)[:, -1].abs().max()
    if before > 1e-2 * last:
        raise UnknownArchitectureError(
            f"{name} is not causal: another last token changes the hidden states in front of it by up to "
            f"{float(before):g}; only decoders are supported"
        )


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def _expected(place: TransformersPlace | None, what: str) -> str:
    path = place and getattr(place, what)
    return f" at {path!r}, where the table of families expects it" if path else ""

"""What neurons write into the residual stream, as the unembedding reads it: from the weights alone.

    d = g ∘ p ∘ W_down[:, i]        g: scale of the final norm; p: of a norm between MLP and residual stream, or 1

This is the direct path, and linear: what later layers make of it, the divisor of each norm (its scale is taken at a
residual stream of length √hidden), a LayerNorm's mean, biases and a soft cap are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ...core.readings import Readout, read_out
from ...errors import EngineError, UnknownArchitectureError
from ..proof import what_came, what_went
from .interventions import hooked
from .network import Network
from .sites import NeuronSite, probe

_ROWS = 256
"""Columns of a matrix that is no plain one, read at a time."""


def readout(
    network: Network,
    neurons: Int64[Tensor, "neuron 2"],
    *,
    most: int,
    languages: Sequence[Int64[Tensor, " token"]] = (),
) -> Readout:
    """The tokens that neurons promote and suppress, and where they point among the languages (`core.read_out`)."""
    directions = written(network, neurons)
    weight = network.head.projection.weight
    if not (isinstance(weight, Tensor) and weight.ndim == 2 and weight.is_floating_point()) or _is_wrapped(weight):
        raise EngineError(
            f"the unembedding of {type(network.model).__name__} is a {type(network.head.projection).__name__} whose "
            "weights cannot be read as a matrix, so the tokens that a neuron promotes are not known: load the model "
            "without quantization"
        )
    if weight.shape[1] != directions.shape[1]:
        raise UnknownArchitectureError(
            f"the unembedding of {type(network.model).__name__} reads {weight.shape[1]} numbers and its layers write "
            f"{directions.shape[1]}: something stands between that is not understood, so give another model"
        )
    return read_out(directions, weight, most=most, languages=languages, scale=network.head.scale)


def written(network: Network, neurons: Int64[Tensor, "neuron 2"]) -> Float32[Tensor, "neuron hidden"]:
    """What each neuron writes for an activation of 1 and a factor of 1, times the final norm's scale."""
    found: list[Tensor] = []
    with torch.no_grad():
        between, final = _norms(network)
        for site in network.sites:
            inside = site.holds(neurons)
            if inside.any():
                local = (neurons[inside, 1] - site.start).to(network.device)
                columns = _columns(network.layers[site.layer].get_submodule(site.down), site, local)
                found.append(columns * between[site.layer] * final)
    return torch.cat(found)


def _columns(down: nn.Module, site: NeuronSite, local: Tensor) -> Float32[Tensor, "neuron hidden"]:
    """Columns of a down projection."""
    if site.experts is not None:
        weights: Any = down.down_proj
        expert, index = local // site.experts.width, local % site.experts.width
        if not (isinstance(weights, Tensor) and weights.is_floating_point()):
            raise EngineError(
                f"the experts of layer {site.layer} are quantized, so what their neurons write is not known: load the "
                "model without quantization"
            )
        return (weights[expert, index] if site.experts.transposed else weights[expert, :, index]).float()
    if type(down) is nn.Linear and not _is_wrapped(down.weight):
        return down.weight[:, local].T.float()
    # Conv1D, adapters that are computed live, quantized matrices (torchao's are in a Linear): ask for what they give
    device = local.device
    dtype = next((one.dtype for one in down.parameters() if one.is_floating_point()), torch.float32)
    nothing = down(torch.zeros(1, site.d_mlp, device=device, dtype=dtype)).float()
    parts = []
    for some in local.split(_ROWS):
        one_hot = torch.zeros(len(some), site.d_mlp, device=device, dtype=dtype)
        one_hot[torch.arange(len(some)), some] = 1
        parts.append(down(one_hot).float() - nothing)
    return torch.cat(parts)


def _is_wrapped(weight: object) -> bool:
    """Whether a tensor is made of others, as torchao's are: rows of it may not be selectable."""
    return is_traceable_wrapper_subclass(weight)


def _norms(network: Network) -> tuple[list[Tensor | float], Tensor | float]:
    """The scales of the norms between each layer's MLP and the residual stream, 1 where there is none; the final one's.

    Found by what goes in and comes out on a few tokens.
    """
    decoder, layers, calls = network.decoder, network.layers, {}

    def noted(key: object) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            calls.setdefault(key, []).append((module, what_came(inputs, {}), what_went(output)))

        return hook

    inner = {id(one) for one in layers.modules()}
    hooks: list[tuple[nn.Module, Any]] = [(layers[-1], noted("last"))]
    for index, layer in enumerate(layers):
        hooks += [(child, noted((index, name))) for name, child in layer.named_children()]
    outside = [one for one in decoder.modules() if id(one) not in inner and one is not decoder]
    hooks += [(one, noted("outside")) for one in outside]
    with hooked(hooks):
        hidden = decoder(input_ids=probe(decoder), use_cache=False)[0]
    between: list[Tensor | float] = [1.0] * len(layers)
    for site in network.sites:
        name = site.down.partition(".")[0]
        given = [output for _, _, output in calls.get((site.layer, name), [])]
        for (index, child), seen in [(k, v) for k, v in calls.items() if isinstance(k, tuple)]:
            if index != site.layer or child == name or not given or given[0] is None:
                continue
            for module, inputs, output in seen:
                if _same(inputs, given[0]) and output is not None and output.shape == given[0].shape:
                    between[index] = _scale(module, output.shape[-1], f"layer {index}'s {child}", output)
    last = calls["last"][-1][2]
    if last is None or last.shape != hidden.shape:
        seen = "nothing" if last is None else str(tuple(last.shape))
        raise UnknownArchitectureError(
            f"the last layer of {type(decoder).__name__} gives {seen} where the unembedding reads "
            f"{tuple(hidden.shape)}, so the tokens that a neuron promotes cannot be read: give another model"
        )
    if torch.equal(last, hidden):
        return between, 1.0
    ends = [
        module
        for module, inputs, output in calls.get("outside", [])
        if output is not None and output.shape == hidden.shape and torch.equal(output, hidden) and _same(inputs, last)
    ]
    if len(ends) != 1:
        raise UnknownArchitectureError(
            f"{len(ends)} modules of {type(decoder).__name__} could be its final norm, where one was expected, so the "
            "tokens that a neuron promotes cannot be read: give another model"
        )
    return between, _scale(ends[0], hidden.shape[-1], "the final norm", hidden)


def _same(inputs: Sequence[Tensor], given: Tensor | None) -> bool:
    return bool(inputs) and given is not None and inputs[0].shape == given.shape and torch.equal(inputs[0], given)


def _scale(norm: nn.Module, width: int, what: str, like: Tensor) -> Float32[Tensor, " hidden"]:
    """What a norm multiplies each dimension with, from what it gives for ±1 in turns; proved on other signs.

    f(x) = g ∘ x / rms(x) + b,  rms(x) = 1, mean(x) = 0:   g = (f(x) − f(−x)) / 2x
    """
    x = torch.ones(width, device=like.device, dtype=like.dtype)
    x[1::2] = -1
    scales = []
    pairs = torch.where(torch.arange(width, device=like.device) % 4 < 2, 1.0, -1.0).to(like.dtype)
    for some in (x, pairs if width % 4 == 0 else -x):
        try:
            up, down = (norm(one[None, None])[0, 0].float() for one in (some, -some))
        except TypeError as error:
            raise UnknownArchitectureError(
                f"{what} ({type(norm).__name__}) reads more than the numbers that it scales, so what a neuron writes "
                "cannot be read: give another model"
            ) from error
        scales.append((up - down) / (2 * some.float()))
    if not all(torch.allclose(scales[0], one, rtol=1e-2, atol=1e-3 * float(scales[0].abs().max())) for one in scales):
        raise UnknownArchitectureError(
            f"{what} ({type(norm).__name__}) is no norm with one scale for each dimension, so what a neuron writes "
            "cannot be read: give another model"
        )
    return scales[0]

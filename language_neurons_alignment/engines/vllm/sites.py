"""Where neurons are in vLLM's own model classes, on one rank.

vLLM merges the gate and up projections of a gated MLP, and one module makes `act(gate) · up` of both:

    merged    x = [gate | up]  →  act(gate) · up     a neuron's activation is act(gate), inside the module
    plain     x = fc1(h)       →  act(x)             a neuron's activation is the module's output

For SiLU and GELU (and ReLU) act(gate) > 0 exactly where gate > 0 (SPEC, words), so counting needs no activation again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ...errors import UnknownArchitectureError

MERGED = ("SiluAndMul", "GeluAndMul")
"""Modules that make act(gate) · up, gate first, with an activation that is positive exactly where its input is."""

PLAIN = (
    "ReLU",
    "GELU",
    "SiLU",
    "GELUTanh",
    "NewGELU",
    "FastGELU",
    "QuickGELU",
    "GELUActivation",
    "NewGELUActivation",
    "PytorchGELUTanh",
    "GELUTanhActivation",
    "SiLUActivation",
    "FastGELUActivation",
    "QuickGELUActivation",
)
"""Modules that apply an activation and nothing else."""


@dataclass(frozen=True)
class Place:
    """Where a vLLM model class keeps its layers, and in a layer the module that applies the activation."""

    layers: str
    activation: str


_LLAMA = Place("model.layers", "mlp.act_fn")
_BACKEND = "TransformersForCausalLM"

PLACES: dict[str, Place] = {
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": _LLAMA,
    "Qwen2ForCausalLM": _LLAMA,
    "Qwen3ForCausalLM": _LLAMA,
    "Gemma2ForCausalLM": _LLAMA,
    "Gemma3ForCausalLM": _LLAMA,
    "Phi3ForCausalLM": _LLAMA,
    "OPTForCausalLM": Place("model.decoder.layers", "activation_fn"),
    "BloomForCausalLM": Place("transformer.h", "mlp.gelu_impl"),
    f"{_BACKEND}:olmo2": _LLAMA,
    f"{_BACKEND}:gpt_neox": Place("model.layers", "mlp.act"),
}
"""By vLLM's model class; models that vLLM runs by its transformers backend, by class and `model_type`."""

MODEL_TYPES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "phi3",
    "opt",
    "bloom",
    "olmo2",
    "gpt_neox",
)
"""The `model_type`s that end in one of these classes."""


@dataclass(frozen=True)
class RankSite:
    """One layer's neurons on this rank.

    Attributes:
        layer: the decoder layer by its number in the whole model.
        block: the decoder layer itself.
        module: the module that applies the activation; some of vLLM's classes share one between all layers.
        merged: it makes act(gate) · up of [gate | up]; else act(x) of x.
    """

    layer: int
    block: nn.Module
    module: nn.Module
    merged: bool


def rank_sites(model: nn.Module, *, model_type: str) -> tuple[RankSite, ...]:
    """The neuron sites of the layers that live on this rank; pipeline stages elsewhere hold placeholders.

    Raises:
        UnknownArchitectureError: a class, or an activation module, whose neurons are not known.
    """
    place = _place(model, model_type)
    layers = _submodule(model, place.layers)
    if not isinstance(layers, nn.ModuleList):
        raise UnknownArchitectureError(
            f"{type(model).__name__}.{place.layers} is a {type(layers).__name__}, not a list of layers"
        )
    return tuple(
        _site(layer, index, place) for index, layer in enumerate(layers) if type(layer).__name__ != "PPMissingLayer"
    )


def unknown(names: str | Sequence[str] | None) -> UnknownArchitectureError:
    """The refusal, by name, with what is known."""
    return UnknownArchitectureError(
        f"the neuron sites of {names} in vLLM are not known, so its numbers could be silently wrong; "
        f"known model types: {', '.join(MODEL_TYPES)}; --engine transformers may know it"
    )


def _place(model: nn.Module, model_type: str) -> Place:
    name = type(model).__name__
    place = PLACES.get(name) or PLACES.get(f"{name}:{model_type}")
    if place is None:
        raise unknown(f"{name} (model_type {model_type!r})")
    return place


def _site(layer: nn.Module, index: int, place: Place) -> RankSite:
    module = _submodule(layer, place.activation)
    name = type(module).__name__
    if name not in MERGED and name not in PLAIN:
        raise UnknownArchitectureError(
            f"layer {index}: the activation module {name} is not known; known: {', '.join((*MERGED, *PLAIN))}"
        )
    return RankSite(index, layer, module, merged=name in MERGED)


def _submodule(module: nn.Module, path: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        raise UnknownArchitectureError(
            f"{type(module).__name__} has no module {path!r}, where vLLM kept its neurons; this vLLM is not supported"
        ) from error

"""Where neurons are: from an architecture to the modules whose output is a neuron's activation (SPEC, words).

A neuron's activation is taken right after the activation function:

    gated MLP   down(act(gate x) · up x)    the site is act(gate x)
    plain MLP   fc2(act(fc1 x))             the site is act(fc1 x)

Which activation function a model has is never assumed: the module that applies it is looked up and hooked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..errors import EngineError, UnknownArchitectureError


@dataclass(frozen=True)
class Architecture:
    """Where an architecture keeps its neurons, as module paths.

    Attributes:
        layers: the list of decoder layers, seen from the decoder (the model without its lm_head).
        activation: in a layer, the module that applies the activation function.
        projection: in a layer, the linear map whose output goes through it.
        gated: the MLP multiplies the activation by a second projection.
        fused: the projection holds gate and up, one after the other, so it is twice as wide as the neurons are many.
    """

    layers: str
    activation: str
    projection: str
    gated: bool
    fused: bool = False


_LLAMA = Architecture("layers", "mlp.act_fn", "mlp.gate_proj", gated=True)

ARCHITECTURES: dict[str, Architecture] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _LLAMA,
    "gemma3": _LLAMA,
    "gemma3_text": _LLAMA,
    "olmo2": _LLAMA,
    "phi3": Architecture("layers", "mlp.activation_fn", "mlp.gate_up_proj", gated=True, fused=True),
    "gpt_neox": Architecture("layers", "mlp.act", "mlp.dense_h_to_4h", gated=False),
    "opt": Architecture("layers", "activation_fn", "fc1", gated=False),
    "bloom": Architecture("h", "mlp.gelu_impl", "mlp.dense_h_to_4h", gated=False),
}
"""By `model_type` in a model's config."""


@dataclass(frozen=True)
class NeuronSite:
    """One layer's neurons in a loaded model.

    Attributes:
        layer: the decoder layer, from 0.
        module: the module whose output is the activation of the layer's neurons.
        projection: the linear map in front of it.
        d_mlp: how many neurons the layer has.
    """

    layer: int
    module: nn.Module
    projection: nn.Module
    d_mlp: int


def architecture_of(config: Any) -> Architecture:
    """The neuron sites of the architecture that a model's config names.

    Raises:
        UnknownArchitectureError: its sites are not known.
    """
    model_type = getattr(config, "model_type", None)
    if model_type in ARCHITECTURES:
        return ARCHITECTURES[model_type]
    raise unknown_architecture(class_name(config) or str(model_type), str(model_type))


def unknown_architecture(name: str, model_type: str) -> UnknownArchitectureError:
    """The refusal, by name, with what is known."""
    return UnknownArchitectureError(
        f"the neuron sites of {name} (model_type {model_type!r}) are not known, so its numbers could be "
        f"silently wrong; known model types: {', '.join(sorted(ARCHITECTURES))}"
    )


def class_name(config: Any) -> str | None:
    """The model class named in a config ("LlamaForCausalLM"), if it names one."""
    named = getattr(config, "architectures", None) or [None]
    return named[0]


def find_sites(decoder: nn.Module, architecture: Architecture) -> tuple[NeuronSite, ...]:
    """The neuron sites of every layer, each one checked before anything runs.

    Raises:
        UnknownArchitectureError: a layer is not built as its architecture's name promises.
    """
    layers = _submodule(decoder, architecture.layers, "the decoder")
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        raise UnknownArchitectureError(f"{type(decoder).__name__}.{architecture.layers} holds no decoder layers")
    sites = tuple(_site(layer, index, architecture) for index, layer in enumerate(layers))
    _check(sites, type(decoder).__name__)
    return sites


def _site(layer: nn.Module, index: int, architecture: Architecture) -> NeuronSite:
    where = f"layer {index} ({type(layer).__name__})"
    activation = _submodule(layer, architecture.activation, where)
    projection = _submodule(layer, architecture.projection, where)
    width = getattr(projection, "out_features", None)
    if not isinstance(width, int) or width < 1:
        raise UnknownArchitectureError(
            f"{where}: {architecture.projection} is a {type(projection).__name__} with no out_features, "
            "so how many neurons it has is not known"
        )
    return NeuronSite(index, activation, projection, width // 2 if architecture.fused else width)


def _submodule(module: nn.Module, path: str, where: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        raise UnknownArchitectureError(
            f"{where} has no module {path!r}, where its architecture keeps its neurons; "
            "this version of the model's code is not supported"
        ) from error


def _check(sites: Sequence[NeuronSite], model: str) -> None:
    widths = sorted({site.d_mlp for site in sites})
    if len(widths) > 1:
        raise UnknownArchitectureError(
            f"{model}: layers of different widths ({', '.join(map(str, widths))} neurons) are not supported"
        )
    if len({id(site.module) for site in sites}) != len(sites):
        raise EngineError(f"{model}: layers share one activation module, so its firings cannot be told apart by layer")

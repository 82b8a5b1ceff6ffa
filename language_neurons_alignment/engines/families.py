"""Where each model family keeps its neurons: one table for both engines, and how each engine finds the modules.

A neuron's activation is taken right after the activation function (docs/concepts/counting.md):

    gated MLP   down(act(gate x) · up x)    the site is act(gate x)
    plain MLP   fc2(act(fc1 x))             the site is act(fc1 x)

The activation function itself is never assumed: the module that applies it is looked up in the loaded model and hooked.
To add a family, add one entry to `FAMILIES`. A family that is not in the table is refused by name, because a wrong
guess gives wrong numbers without an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

from torch import nn

from ..errors import EngineError, UnknownArchitectureError


@dataclass(frozen=True)
class TransformersPlace:
    """Where a family's neurons are in the transformers library, as module paths; by default as in Llama."""

    layers: str = "layers"  # from the decoder (the model without its lm_head) to the list of its layers
    activation: str = "mlp.act_fn"  # from a layer to the module that applies the activation function
    projection: str = "mlp.gate_proj"  # from a layer to the linear map whose output goes through it
    fused: bool = False  # the projection computes gate and up together, so it is twice as wide as the layer has neurons


@dataclass(frozen=True)
class VLLMPlace:
    """Where a family's neurons are in vLLM, as module paths; by default as in Llama.

    vLLM computes the gate and up projections of a gated MLP as one, and one module makes act(gate) · up of both.
    """

    model: str  # the class that vLLM builds for the family
    layers: str = "model.layers"  # from the model to the list of its layers
    activation: str = "mlp.act_fn"  # from a layer to the module that applies the activation function


@dataclass(frozen=True)
class Family:
    """A model family: all that the engines must know of it."""

    transformers: TransformersPlace = TransformersPlace()
    vllm: VLLMPlace | None = None  # None where vLLM cannot count them
    without_vllm: str = ""  # why not
    width: Callable[[Any], int] = attrgetter("intermediate_size")  # neurons per layer, from the text model's config


BACKEND = "TransformersForCausalLM"
"""The class of every family that vLLM runs with the transformers library's own code."""

FAMILIES: dict[str, Family] = {
    "llama": Family(vllm=VLLMPlace("LlamaForCausalLM")),
    "mistral": Family(vllm=VLLMPlace("MistralForCausalLM")),
    "qwen2": Family(vllm=VLLMPlace("Qwen2ForCausalLM")),
    "qwen3": Family(vllm=VLLMPlace("Qwen3ForCausalLM")),
    "gemma2": Family(vllm=VLLMPlace("Gemma2ForCausalLM")),
    "gemma3": Family(
        without_vllm="vLLM builds a class for text and images, Gemma3ForConditionalGeneration, not tested here"
    ),
    "gemma3_text": Family(vllm=VLLMPlace("Gemma3ForCausalLM")),
    "olmo2": Family(vllm=VLLMPlace(BACKEND)),
    "phi3": Family(
        TransformersPlace(activation="mlp.activation_fn", projection="mlp.gate_up_proj", fused=True),
        VLLMPlace("Phi3ForCausalLM"),
    ),
    "gpt_neox": Family(
        TransformersPlace(activation="mlp.act", projection="mlp.dense_h_to_4h"),
        VLLMPlace(BACKEND, activation="mlp.act"),
    ),
    "opt": Family(
        TransformersPlace(activation="activation_fn", projection="fc1"),
        VLLMPlace("OPTForCausalLM", layers="model.decoder.layers", activation="activation_fn"),
        width=attrgetter("ffn_dim"),
    ),
    "bloom": Family(
        TransformersPlace(layers="h", activation="mlp.gelu_impl", projection="mlp.dense_h_to_4h"),
        VLLMPlace("BloomForCausalLM", layers="transformer.h", activation="mlp.gelu_impl"),
        width=lambda config: 4 * config.hidden_size,  # its config names no width
    ),
}
"""The families, by `model_type` in a model's config."""


def family_of(config: Any) -> Family:
    """The family of a model, from its config."""
    model_type = getattr(config, "model_type", None)
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    raise unknown_family(class_name(config) or str(model_type), str(model_type))


def neurons_of(config: dict[str, Any]) -> int:
    """How many neurons a model has by its config.json: layers × width; 0 where that does not tell.

    >>> neurons_of({"model_type": "llama", "num_hidden_layers": 32, "intermediate_size": 14336})
    458752
    """
    text = SimpleNamespace(**(config.get("text_config") or config))
    try:
        layers = getattr(text, "num_hidden_layers", None) or text.n_layer
        return int(layers) * int(family_of(text).width(text))
    except (AttributeError, TypeError, ValueError, UnknownArchitectureError):
        return 0


def unknown_family(name: str, model_type: str) -> UnknownArchitectureError:
    """The refusal of a family that is not in the table; it names those that are."""
    return UnknownArchitectureError(
        f"the neuron sites of {name} (model_type {model_type!r}) are not known, so its numbers could be "
        f"silently wrong; known model types: {', '.join(sorted(FAMILIES))}"
    )


def class_name(config: Any) -> str | None:
    """The model class that a config names ("LlamaForCausalLM"), or None."""
    return (getattr(config, "architectures", None) or [None])[0]


def neurons_per_layer(config: Any) -> int:
    """Neurons per layer (d_mlp), from a model's config."""
    width = family_of(config).width
    try:
        neurons = width(config.get_text_config() if hasattr(config, "get_text_config") else config)
    except (AttributeError, TypeError) as error:
        raise EngineError(f"the config does not tell how many neurons a layer has: {error}") from error
    if not isinstance(neurons, int) or neurons < 1:
        raise EngineError(f"the config does not tell how many neurons a layer has: it says {neurons!r}")
    return neurons


@dataclass(frozen=True)
class NeuronSite:
    """One layer's neurons in a model of the transformers library."""

    layer: int
    module: nn.Module  # its output is the activation of the layer's neurons
    d_mlp: int


def find_sites(decoder: nn.Module, place: TransformersPlace) -> tuple[NeuronSite, ...]:
    """The neuron sites of every layer of a transformers decoder, checked before anything runs."""
    name = type(decoder).__name__
    layers = _submodule(decoder, place.layers, "the decoder")
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        raise UnknownArchitectureError(f"{name}.{place.layers} holds no decoder layers")
    sites = tuple(_site(layer, index, place) for index, layer in enumerate(layers))
    widths = sorted({site.d_mlp for site in sites})
    if len(widths) > 1:
        raise UnknownArchitectureError(
            f"{name}: layers of different widths ({', '.join(map(str, widths))} neurons) are not supported"
        )
    if len({id(site.module) for site in sites}) != len(sites):
        raise EngineError(f"{name}: layers share one activation module, so their firings cannot be told apart")
    return sites


def _site(layer: nn.Module, index: int, place: TransformersPlace) -> NeuronSite:
    where = f"layer {index} ({type(layer).__name__})"
    activation = _submodule(layer, place.activation, where)
    projection = _submodule(layer, place.projection, where)
    width = getattr(projection, "out_features", None)
    if not isinstance(width, int) or width < 1:
        raise UnknownArchitectureError(
            f"{where}: {place.projection} is a {type(projection).__name__} with no out_features, "
            "so its number of neurons is not known"
        )
    return NeuronSite(index, activation, width // 2 if place.fused else width)


MERGED = ("SiluAndMul", "GeluAndMul")
"""vLLM's modules that compute act(gate) · up, gate first, with act(gate) > 0 exactly where gate > 0: counting firings
needs the gate alone."""

PLAIN = (
    "ReLU", "GELU", "SiLU", "GELUTanh", "NewGELU", "FastGELU", "QuickGELU", "GELUActivation", "NewGELUActivation",
    "PytorchGELUTanh", "GELUTanhActivation", "SiLUActivation", "FastGELUActivation", "QuickGELUActivation",
)  # fmt: skip
"""Modules in vLLM that apply an activation function and nothing else."""


@dataclass(frozen=True)
class RankSite:
    """One layer's neurons on one rank of vLLM."""

    layer: int  # the decoder layer by its number in the whole model
    block: nn.Module  # the decoder layer
    module: nn.Module  # the module that applies the activation function; in some of vLLM's classes all layers share one
    merged: bool  # the module computes act(gate) · up from [gate | up]; else act(x) from x


def vllm_place(config: Any) -> VLLMPlace:
    """Where vLLM keeps a model's neurons, from the model's config, before vLLM loads anything."""
    model_type = getattr(config, "model_type", None)
    family = FAMILIES.get(str(model_type))
    if family is None or family.vllm is None:
        name = f"{class_name(config) or model_type} (model_type {model_type!r})"
        raise _unknown_in_vllm(name, "" if family is None else family.without_vllm)
    return family.vllm


def rank_sites(model: nn.Module, *, model_type: str) -> tuple[RankSite, ...]:
    """The neuron sites of the layers that live on one rank of vLLM; other pipeline stages' layers are placeholders."""
    name = type(model).__name__
    place = _place_of_class(name, model_type)
    layers = _submodule(model, place.layers, name)
    if not isinstance(layers, nn.ModuleList):
        raise UnknownArchitectureError(f"{name}.{place.layers} is a {type(layers).__name__}, not a list of layers")
    return tuple(
        _rank_site(layer, index, place)
        for index, layer in enumerate(layers)
        if type(layer).__name__ != "PPMissingLayer"
    )


def _place_of_class(name: str, model_type: str) -> VLLMPlace:
    """The place in the class that vLLM built: the family's own, or another's whose class the config names."""
    own = {key: family for key, family in FAMILIES.items() if key == model_type}
    for family in (own if name == BACKEND else own | FAMILIES).values():
        if family.vllm is not None and family.vllm.model == name:
            return family.vllm
    raise _unknown_in_vllm(f"{name} (model_type {model_type!r})")


def _rank_site(layer: nn.Module, index: int, place: VLLMPlace) -> RankSite:
    module = _submodule(layer, place.activation, f"layer {index} ({type(layer).__name__})")
    name = type(module).__name__
    if name not in MERGED and name not in PLAIN:
        raise UnknownArchitectureError(
            f"layer {index}: the activation module {name} is not known; known: {', '.join((*MERGED, *PLAIN))}"
        )
    return RankSite(index, layer, module, merged=name in MERGED)


def _unknown_in_vllm(name: str, reason: str = "") -> UnknownArchitectureError:
    served = [key for key, family in FAMILIES.items() if family.vllm is not None]
    return UnknownArchitectureError(
        f"the neuron sites of {name} in vLLM are not known, so its numbers could be silently wrong"
        f"{f' ({reason})' if reason else ''}; known model types: {', '.join(served)}; try --engine transformers"
    )


def _submodule(module: nn.Module, path: str, where: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        raise UnknownArchitectureError(
            f"{where} has no module {path!r}, where the table of families expects it; "
            "this version of the model's code is not supported"
        ) from error

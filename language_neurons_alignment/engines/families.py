"""What the engines must be told of a model family, because they cannot find it out: one small table.

A neuron's activation is taken right after the activation function (docs/concepts/counting.md):

    gated MLP   down(act(gate x) · up x)    the site is act(gate x)
    plain MLP   fc2(act(fc1 x))             the site is act(fc1 x)

Both engines find the neurons when a model is loaded, and prove them (`engines.transformers.sites`,
`engines.vllm.sites`), also those of families that are not in the table. What the table says of the transformers
library is proved too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ..errors import EngineError, UnknownArchitectureError


@dataclass(frozen=True)
class TransformersPlace:
    """Where a family's neurons are in the transformers library, as module paths; None: found when the model is loaded.

    Either way they are proved then (`engines.transformers.sites`).
    """

    layers: str | None = None  # from the decoder (the model without its lm_head) to the list of its layers
    activation: str | None = None  # from a layer to the module that applies the activation function
    projection: str | None = None  # from a layer to the linear map whose output goes through it; gate first where fused


@dataclass(frozen=True)
class Family:
    """A model family: all that the engines must know of it."""

    transformers: TransformersPlace = TransformersPlace()
    without_vllm: str = ""  # why vLLM cannot serve the family, where that is known before it loads
    longest_in_vllm: Callable[[Any], int | None] | None = (
        None  # longer texts are computed in another way there, in tokens
    )
    width: Callable[[Any], int | None] | None = None  # neurons per layer, from the text model's config


_GATED = TransformersPlace("layers", "mlp.act_fn", "mlp.gate_proj")
"""As in Llama."""

_MLA = "its attention (MLA) gave other hidden states there than in the transformers library"

FAMILIES: dict[str, Family] = {
    "llama": Family(_GATED),
    "mistral": Family(_GATED),
    "qwen2": Family(_GATED),
    "qwen3": Family(_GATED),
    "gemma2": Family(_GATED),
    "gemma3": Family(_GATED),
    "gemma3_text": Family(_GATED),
    "olmo2": Family(_GATED),
    "phi3": Family(TransformersPlace("layers", "mlp.activation_fn", "mlp.gate_up_proj")),
    "gpt_neox": Family(TransformersPlace("layers", "mlp.act", "mlp.dense_h_to_4h")),
    "opt": Family(TransformersPlace("layers", "activation_fn", "fc1")),
    "bloom": Family(
        TransformersPlace("h", "mlp.gelu_impl", "mlp.dense_h_to_4h"),
        width=lambda config: 4 * config.hidden_size,  # whatever else its config may say
        without_vllm="it computes the exact GELU, and the model was trained with the tanh approximation",
    ),
    "deepseek_v2": Family(without_vllm=_MLA),
    "deepseek_v3": Family(without_vllm=_MLA),
    # the layers with a window see one token more there than in the transformers library
    "cohere2": Family(longest_in_vllm=lambda config: config.sliding_window),
}
"""The families, by `model_type` in a model's config."""


def family_of(config: Any) -> Family:
    """The family of a model, from its config; an empty entry for one that is not in the table."""
    return FAMILIES.get(str(getattr(config, "model_type", None)), Family())


def neurons_of(config: dict[str, Any]) -> int:
    """How many neurons a model has by its config.json: layers × width; 0 where that does not tell.

    >>> neurons_of({"model_type": "llama", "num_hidden_layers": 32, "intermediate_size": 14336})
    458752
    """
    text = SimpleNamespace(**(config.get("text_config") or config))
    try:
        layers = getattr(text, "num_hidden_layers", None) or text.n_layer
        return int(layers) * neurons_per_layer(text)
    except (AttributeError, TypeError, ValueError, EngineError):
        return 0


def unknown_family(name: str, model_type: str) -> UnknownArchitectureError:
    """The refusal of a family that the transformers library does not have."""
    return UnknownArchitectureError(
        f"{name} (model_type {model_type!r}) is unknown to the installed transformers library: give a model "
        "of another family, or install a version that has this one"
    )


def class_name(config: Any) -> str | None:
    """The model class that a config names ("LlamaForCausalLM"), or None."""
    return (getattr(config, "architectures", None) or [None])[0]


_WIDTHS = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "d_ff")
"""Names under which configs say how many neurons a layer has."""


def neurons_per_layer(config: Any) -> int:
    """Neurons per layer (d_mlp) as a model's config tells them; the loaded model proves them."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    width = family_of(config).width
    found = width(text) if width else next((one for name in _WIDTHS if (one := getattr(text, name, None))), None)
    if found is None and (hidden := getattr(text, "hidden_size", None)):
        found = 4 * hidden  # the default of configs that leave it open, from GPT-2 on
    if not isinstance(found, int) or found < 1:
        raise EngineError(
            f"the config of {class_name(config)} does not tell how many neurons a layer has: it says {found!r}, and "
            f"has none of {', '.join(_WIDTHS)}"
        )
    return found

"""What the engines must be told of a model family, because they cannot find it out: one small table.

A neuron's activation is taken right after the activation function (docs/concepts/counting.md):

    gated MLP   down(act(gate x) · up x)    the site is act(gate x)
    plain MLP   fc2(act(fc1 x))             the site is act(fc1 x)

Both engines find the neurons when a model is loaded, and prove them (`engines.transformers.sites`,
`engines.vllm.sites`), also those of families that are not in the table. What the table says of the transformers
library is proved too.

A package can bring families of its own. Each of its entry points in the group
`language_neurons_alignment.architectures` is named after a `model_type` and gives a `Family`:

    [project.entry-points."language_neurons_alignment.architectures"]
    my_model = "my_package.families:MY_MODEL"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from types import SimpleNamespace
from typing import Any, TypeGuard

from ..core.model import MOST_LAYERS
from ..core.routing import Experts
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
    longest_in_vllm: Callable[[Any], int | None] | None = None  # tokens; longer texts are computed otherwise there
    for_vllm: Callable[[Any], dict[str, Any]] | None = None  # what vLLM's class reads under names that the config lacks
    width: Callable[[Any], int | list[int] | None] | None = None  # of all layers or of each, from the text's config


_GATED = TransformersPlace("layers", "mlp.act_fn", "mlp.gate_proj")
"""As in Llama."""

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
    # the layers with a window see one token more there than in the transformers library
    "cohere2": Family(longest_in_vllm=lambda config: config.sliding_window),
    "cohere2_moe": Family(longest_in_vllm=lambda config: config.sliding_window),
    # what the transformers library always computes, whatever the config says
    "deepseek_v3": Family(for_vllm=lambda _config: {"scoring_func": "sigmoid", "topk_method": "noaux_tc"}),
    "mimo_v2_flash": Family(for_vllm=lambda config: _mimo_names(config)),
    "phimoe": Family(without_vllm="its class there leaves out the bias of the lm_head"),
    "lfm2": Family(width=lambda config: _lfm2_width(config)),
    "recurrent_gemma": Family(width=lambda config: config.intermediate_size // 2),  # its config counts gate and up
    "llama4_text": Family(width=lambda config: getattr(config, "intermediate_size_mlp", None)),  # its dense layers
    "gemma4_text": Family(width=lambda config: _gemma4_widths(config)),
}
"""The families of this package, by `model_type` in a model's config."""

ENTRY_POINTS = "language_neurons_alignment.architectures"
"""The group of entry points in which other packages name their families."""


def families() -> Mapping[str, Family]:
    """The table: the families of this package, and those that installed packages name.

    Raises:
        UnknownArchitectureError: an entry point does not load, gives something other than a `Family`, or names a
            family that is in the table already.
    """
    return {**FAMILIES, **_from_packages()}


@cache
def _from_packages() -> Mapping[str, Family]:
    found: dict[str, Family] = {}
    for entry in entry_points(group=ENTRY_POINTS):
        package = entry.dist.name if entry.dist is not None else "an installed package"
        said = f"the entry point {entry.name} = {entry.value} of {package}"
        try:
            family = entry.load()
        except Exception as error:  # whatever a package's own code raises
            raise UnknownArchitectureError(f"{said} cannot be loaded: {error}; repair or remove {package}") from error
        if not isinstance(family, Family):
            raise UnknownArchitectureError(
                f"{said} gives a {type(family).__name__}, expected a Family of {__name__}: repair or remove {package}"
            )
        if entry.name in FAMILIES or entry.name in found:
            raise UnknownArchitectureError(
                f"{said} names a family that is in the table already: remove {package}, or rename its entry"
            )
        found[entry.name] = family
    return found


def _lfm2_width(config: Any) -> int | None:
    """LFM2 may take two thirds of the width that its config names, times a factor and rounded up."""
    width = getattr(config, "intermediate_size", None)
    if not isinstance(width, int) or not getattr(config, "block_auto_adjust_ff_dim", False):
        return width
    width, factor = 2 * width // 3, getattr(config, "block_ffn_dim_multiplier", None)
    if factor is None:
        return width
    multiple = config.block_multiple_of
    return -(-int(factor * width) // multiple) * multiple


def _gemma4_widths(config: Any) -> list[int] | int | None:
    """Gemma 4 may double the width of the last layers, which share the keys and values of those before them."""
    width, layers = getattr(config, "intermediate_size", None), getattr(config, "num_hidden_layers", 0)
    first = layers - (getattr(config, "num_kv_shared_layers", 0) or 0)
    if not getattr(config, "use_double_wide_mlp", False) or not 0 < first < layers or not isinstance(width, int):
        return width
    return [width if layer < first else 2 * width for layer in range(layers)]


def _mimo_names(config: Any) -> dict[str, Any]:
    """MiMo V2's config under the names of its first release, which vLLM's class reads.

    Without them it rotates all dimensions of a head, with base 10⁶, and gives no warning.
    """
    kinds, rope = config.layer_types, config.rope_parameters
    whole, window = (rope[kind] for kind in ("full_attention", "sliding_attention"))
    if whole["partial_rotary_factor"] != window["partial_rotary_factor"]:
        raise UnknownArchitectureError(
            f"{class_name(config)} rotates {whole['partial_rotary_factor']} of a head in some layers and "
            f"{window['partial_rotary_factor']} in those with a window, and vLLM's class the same share in all: "
            "try --engine transformers"
        )
    return {
        "hybrid_layer_pattern": [int(kind == "sliding_attention") for kind in kinds],
        "moe_layer_freq": [int(kind == "sparse") for kind in config.mlp_layer_types],
        "layernorm_epsilon": config.rms_norm_eps,
        "sliding_window_size": config.sliding_window,
        "swa_num_attention_heads": config.num_attention_heads,
        "swa_num_key_value_heads": 2 * config.num_key_value_heads,
        "swa_head_dim": config.head_dim,
        "swa_v_head_dim": config.v_head_dim,
        "add_swa_attention_sink_bias": True,
        "rope_theta": whole["rope_theta"],
        "swa_rope_theta": window["rope_theta"],
        "partial_rotary_factor": whole["partial_rotary_factor"],
    }


def family_of(config: Any) -> Family:
    """The family of a model, from its config; an empty entry for one that is not in the table.

    If the family of a model of text and images or sounds is not in the table, that of its text decoder is taken.

    >>> text = SimpleNamespace(model_type="lfm2")
    >>> family_of(SimpleNamespace(model_type="lfm2_vl", get_text_config=lambda: text)) is FAMILIES["lfm2"]
    True
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    listed = (families().get(str(getattr(one, "model_type", None))) for one in (config, text))
    return next((family for family in listed if family is not None), Family())


def neurons_of(config: dict[str, Any]) -> int:
    """How many neurons a table of a model has by its config.json: layers × width; 0 where that does not tell.

    >>> neurons_of({"model_type": "llama", "num_hidden_layers": 32, "intermediate_size": 14336})
    458752
    """
    text = SimpleNamespace(**(config.get("text_config") or config))
    try:
        layers = getattr(text, "num_hidden_layers", None) or text.n_layer
        return int(layers) * max(neurons_of_layers(text, int(layers)))  # files hold a table as wide as the widest
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


_WIDTHS = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "d_ff", "dff", "decoder_ffn_dim")
"""Names under which configs say how many neurons a layer has."""


def neurons_per_layer(config: Any) -> int:
    """Neurons per layer (d_mlp), or in the widest, as a model's config tells them; the loaded model proves them."""
    found = _width(config)
    return found if isinstance(found, int) else max(found)


def check_vllm(config: Any) -> None:
    """Refuse a model that is known not to be served by vLLM, before vLLM loads it; others are proved when it has.

    Raises:
        UnknownArchitectureError: it would be counted wrongly, or has no layers of attention and MLPs.
    """
    name = f"{class_name(config) or config.model_type} (model_type {config.model_type!r})"
    if reason := family_of(config).without_vllm:
        raise UnknownArchitectureError(f"{name} is not served by vLLM: {reason}; try --engine transformers")
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    layers, heads = (getattr(text, what, None) for what in ("num_hidden_layers", "num_attention_heads"))
    if not isinstance(layers, int) or not isinstance(heads, int):
        raise UnknownArchitectureError(
            f"the config of {name} tells no number of layers or attention heads ({layers!r}, {heads!r}): only decoders "
            "with attention and MLPs are supported"
        )
    both = next((what for what in ("use_bidirectional_attention", "is_causal") if _sees_ahead(text, what)), None)
    if both is not None:
        raise UnknownArchitectureError(
            f"{name} is not causal: its config says {both} {getattr(text, both)!r}, which vLLM may pass over; only "
            "decoders are supported"
        )
    widths = sorted(set(neurons_of_layers(config, layers)))
    if len(widths) > 1 and experts_in(config) is None:
        raise UnknownArchitectureError(
            f"{name} has layers of different widths ({', '.join(map(str, widths))} neurons), which are not counted in "
            "vLLM, expected one width: try --engine transformers"
        )


def _sees_ahead(text: Any, what: str) -> bool:
    """Whether this entry of a config lets tokens attend to those behind them; "vision" is of images alone (Gemma 4)."""
    value = getattr(text, what, None)
    return value is False if what == "is_causal" else value in (True, "all")


def neurons_of_layers(config: Any, layers: int) -> tuple[int, ...]:
    """The neurons of each layer, as a model's config tells them for all or for each.

    >>> neurons_of_layers(SimpleNamespace(intermediate_size=[2, 4]), 2)
    (2, 4)
    """
    if not 0 < layers <= MOST_LAYERS:
        raise EngineError(
            f"the config of {class_name(config)} names {layers:,} layers, expected 1 to {MOST_LAYERS:,}: correct "
            "config.json"
        )
    found = _width(config)
    each = (found,) * layers if isinstance(found, int) else tuple(found)
    if len(each) != layers:
        raise EngineError(
            f"the config of {class_name(config)} tells the neurons of {len(each)} layers, expected {layers}, as many "
            "as it has: correct config.json"
        )
    return each


def _width(config: Any) -> int | list[int]:
    """The neurons of all layers, or those of each."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    width = family_of(config).width or family_of(text).width
    found: Any = width(text) if width else next((one for name in _WIDTHS if (one := getattr(text, name, None))), None)
    if found is None and (hidden := getattr(text, "hidden_size", None)):
        found = 4 * hidden  # the default of configs that leave it open, from GPT-2 on
    listed: list[Any] = list(found) if isinstance(found, list | tuple) else [found]
    each = [one for one in listed if _is_size(one)]
    if not each or len(each) < len(listed):
        raise EngineError(
            f"the config of {class_name(config)} does not tell how many neurons a layer has: it says {found!r}, and "
            f"has none of {', '.join(_WIDTHS)}"
        )
    experts = experts_in(text)
    if experts is None or len(each) > 1:
        return each if isinstance(found, list | tuple) else each[0]
    routed = experts.number * experts.width + _shared_width(text, experts)
    if len(experts.layers) == text.num_hidden_layers:
        return routed
    return [routed if layer in experts.layers else each[0] for layer in range(text.num_hidden_layers)]


_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_TOP_K = ("num_experts_per_tok", "top_k_experts", "moe_topk", "moe_k")
_EXPERT_WIDTH = ("moe_intermediate_size", "intermediate_size")
_SHARED_WIDTH = ("shared_expert_intermediate_size", "shared_intermediate_size", "share_expert_dim")
_SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
"""Names under which configs say how many experts a layer has, how many read a token, and what every token passes."""
_STEPS = ("decoder_sparse_step", "moe_layer_interval", "interleave_moe_layer_step")
"""Names under which they say which layers have experts: each whose number, counted from 1, is a multiple."""


def experts_in(config: Any) -> Experts | None:
    """The experts of a model as its config tells them, None where it has none; the loaded model proves them.

    >>> experts_in(SimpleNamespace(num_hidden_layers=2, num_local_experts=8, intermediate_size=96, top_k_experts=2))
    Experts(layers=(0, 1), number=8, width=96, top_k=2)
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    number, top_k, width, depth = (
        _size(text, names) for names in (_EXPERTS, _TOP_K, _EXPERT_WIDTH, ("num_hidden_layers",))
    )
    if not (number and top_k and width) or getattr(text, "enable_moe_block", None) is False:  # Gemma 4's dense models
        return None
    layers = tuple(layer for layer in range(depth) if _is_sparse(text, layer))
    return Experts(layers, number, width, top_k) if layers else None


def _is_size(value: object) -> TypeGuard[int]:
    return type(value) is int and value > 0


def _is_sparse(text: Any, layer: int) -> bool:
    """Whether a layer has experts, in the ways in which configs say it."""
    kinds = getattr(text, "mlp_layer_types", None)
    if kinds:
        return kinds[layer] in ("sparse", "moe", "hash_moe")  # DeepSeek-V4 has the latter two
    if period := getattr(text, "expert_layer_period", None):  # Jamba
        return (layer - text.expert_layer_offset) % period == 0
    if isinstance(listed := getattr(text, "moe_layers", None), list):  # Llama 4
        return layer in listed
    dense = getattr(text, "first_k_dense_replace", None) or getattr(text, "num_dense_layers", None) or 0
    start = getattr(text, "moe_layer_start_index", None) or 0
    steps = (getattr(text, name, None) for name in _STEPS)
    step = next((one for one in steps if one), 1)
    only = getattr(text, "mlp_only_layers", None) or []
    return layer >= max(dense, start) and layer not in only and (layer + 1) % step == 0


def _shared_width(text: Any, experts: Experts) -> int:
    """The neurons that read every token beside the routed experts."""
    dense = getattr(text, "enable_moe_block", False)  # Gemma 4
    dense = dense or getattr(text, "model_type", None) in ("hunyuan_v1_moe", "llama4_text")
    beside = text.intermediate_size if dense else 0  # an MLP of the usual width
    return beside or _size(text, _SHARED_WIDTH) or _size(text, _SHARED) * experts.width


def _size(text: Any, names: Sequence[str]) -> int:
    """The first of these that the config tells; 0 where it tells none."""
    return next((one for name in names if _is_size(one := getattr(text, name, None))), 0)

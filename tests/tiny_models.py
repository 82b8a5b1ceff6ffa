"""Tiny random models of every supported architecture, as ordinary model folders on disk.

    folder = save_tiny_model("mistral", tmp_path / "mistral")

Deterministic by seed, made in well under a second each. The Llama and the Mistral one can be loaded by vLLM too
(heads of 32, twice as many query heads as key heads, everything divisible by 2 for tensor parallelism).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

LAYERS, D_MLP, HIDDEN, VOCABULARY, MAX_LENGTH = 3, 96, 128, 320, 2048
EXPERTS, TOP_K = 6, 2
"""Experts of a layer in a mixture, and how many of them each token is sent to."""

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
MERGES = (("a", "b"), ("ab", "c"), ("Ġ", "a"), ("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ã", "©"))
"""Byte-pair merges; "ab" + "c" merge across a border between an instruction and its answer."""

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": D_MLP,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": MAX_LENGTH,
}
_GEMMA: dict[str, Any] = {**_COMMON, "head_dim": 32, "sliding_window": 8, "query_pre_attn_scalar": 32}
_GEMMA3: dict[str, Any] = {
    **_GEMMA,
    "num_hidden_layers": 4,
    "sliding_window_pattern": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
_PER_LAYER_INPUTS: dict[str, Any] = {
    **_GEMMA3,
    "sliding_window_pattern": None,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 16,
}
_LINEAR_ATTENTION: dict[str, Any] = {
    **_COMMON,
    "head_dim": 32,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "linear_attention", "full_attention"],
}
_GPT2 = {"vocab_size": VOCABULARY, "n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4}
_MIXTRAL = {**_COMMON, "num_local_experts": EXPERTS, "num_experts_per_tok": TOP_K}
_EXPERTS = {**_COMMON, "num_experts": EXPERTS, "num_experts_per_tok": TOP_K, "moe_intermediate_size": 40}
_SHARED_EXPERTS = {
    **_COMMON,
    "head_dim": 32,
    "n_routed_experts": EXPERTS,
    "num_experts_per_tok": TOP_K,
    "n_shared_experts": 1,
    "moe_intermediate_size": 40,
    "first_k_dense_replace": 0,
    "n_group": 1,
    "topk_group": 1,
}
_DEEPSEEK = {
    **_SHARED_EXPERTS,
    "num_key_value_heads": 4,
    "q_lora_rank": None,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "head_dim": 16,
}
_LLAMA4 = {
    **_COMMON,
    "intermediate_size": 40,
    "intermediate_size_mlp": D_MLP,
    "head_dim": 32,
    "num_local_experts": EXPERTS,
    "num_experts_per_tok": TOP_K,
    "moe_layers": [1, 2],
    "no_rope_layer_interval": 2,
    "attention_chunk_size": 8,
    "floor_scale": 16,  # tokens after which the layers without rotation attend more sharply
}
_MLA = {name: value for name, value in _DEEPSEEK.items() if name != "head_dim"}
_INDEXER = {"index_n_heads": 2, "index_head_dim": 32, "index_topk": 64}
_VISION = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
_PIXELS = {**_VISION, "image_size": 28, "patch_size": 14}
_QWEN_VISION = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32}
_QWEN_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": _COMMON,
    "mistral": {**_COMMON, "head_dim": 32, "sliding_window": None},
    "qwen2": _COMMON,
    "qwen3": {**_COMMON, "head_dim": 32},
    "gemma2": {**_GEMMA, "final_logit_softcapping": 0.5, "attn_logit_softcapping": 1.0},
    "gemma3_text": _GEMMA3,
    "gemma3": {"text_config": _GEMMA3, "vision_config": _PIXELS},
    "phi3": _COMMON,
    "olmo2": _COMMON,
    "gpt_neox": {**_COMMON, "num_key_value_heads": 4, "hidden_act": "gelu"},
    "opt": {**_COMMON, "ffn_dim": D_MLP, "word_embed_proj_dim": 64, "do_layer_norm_before": True},
    "bloom": {**_COMMON, "n_layer": LAYERS, "n_head": 4, "seq_length": MAX_LENGTH},
    "mixtral": _MIXTRAL,
    "qwen2_moe": {**_EXPERTS, "shared_expert_intermediate_size": 64},
    "qwen3_moe": {**_EXPERTS, "head_dim": 32, "norm_topk_prob": True},
    "olmoe": {**_COMMON, "num_experts": EXPERTS, "num_experts_per_tok": TOP_K},
    "gpt_oss": {**_MIXTRAL, "head_dim": 32, "sliding_window": 8},
    "deepseek_v2": {**_DEEPSEEK, "topk_method": "group_limited_greedy", "n_group": 2, "topk_group": 1},
    "deepseek_v3": {**_DEEPSEEK, "n_group": 3, "topk_group": 2},
    "glm4_moe": _SHARED_EXPERTS,
    "dots1": _SHARED_EXPERTS,
    "granitemoe": _MIXTRAL,
    "phimoe": _MIXTRAL,
    "flex_olmo": {**_COMMON, "num_experts": EXPERTS, "num_experts_per_tok": TOP_K},
    "hunyuan_v1_moe": {**_COMMON, "head_dim": 32, "num_experts": EXPERTS, "moe_topk": TOP_K},
    "ernie4_5_moe": {
        **_COMMON,
        "moe_num_experts": EXPERTS,
        "moe_k": TOP_K,
        "moe_intermediate_size": 40,
        "moe_num_shared_experts": 1,
        "moe_layer_start_index": 1,
        "moe_layer_end_index": LAYERS - 1,
        "moe_layer_interval": 1,
    },
    "exaone_moe": {
        **_EXPERTS,
        "head_dim": 32,
        "num_shared_experts": 1,
        "mlp_layer_types": ["dense", *["sparse"] * (LAYERS - 1)],
        "sliding_window": 8,
        "sliding_window_pattern": 2,
    },
    "gemma": {**_COMMON, "head_dim": 32},
    "cohere": _COMMON,
    "cohere2": {**_COMMON, "sliding_window": 8},
    "smollm3": _COMMON,
    "granite": {**_COMMON, "logits_scaling": 3.0, "residual_multiplier": 0.5, "embedding_multiplier": 2.0},
    "glm": {**_COMMON, "head_dim": 32},
    "glm4": {**_COMMON, "head_dim": 32},
    "apertus": _COMMON,
    "olmo": _COMMON,
    "olmo3": {**_COMMON, "sliding_window": 8},
    "stablelm": _COMMON,
    "starcoder2": _COMMON,
    "phi": _COMMON,
    "nemotron": _COMMON,
    "helium": {**_COMMON, "head_dim": 32},
    "arcee": _COMMON,
    "exaone4": {**_COMMON, "sliding_window": 8, "sliding_window_pattern": 2},
    "ernie4_5": {**_COMMON, "head_dim": 32},
    "seed_oss": {**_COMMON, "head_dim": 32},
    "hunyuan_v1_dense": {**_COMMON, "head_dim": 32},
    "ministral": {**_COMMON, "head_dim": 32, "sliding_window": 8},
    "falcon": {**_COMMON, "ffn_hidden_size": D_MLP, "new_decoder_architecture": False},
    "gpt2": {**_GPT2, "n_inner": D_MLP, "n_positions": MAX_LENGTH},
    "gptj": {**_GPT2, "n_inner": D_MLP, "n_positions": MAX_LENGTH, "rotary_dim": 16},
    "gpt_bigcode": {**_GPT2, "n_inner": D_MLP, "n_positions": MAX_LENGTH},
    "xglm": {**_COMMON, "d_model": HIDDEN, "ffn_dim": D_MLP, "num_layers": LAYERS, "attention_heads": 4},
    "mpt": {"vocab_size": VOCABULARY, "d_model": HIDDEN, "n_heads": 4, "n_layers": LAYERS, "max_seq_len": MAX_LENGTH},
    "codegen": {**_GPT2, "n_inner": D_MLP, "n_positions": MAX_LENGTH, "rotary_dim": 16},
    "gpt_neo": {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "num_layers": 4,
        "num_heads": 4,
        "intermediate_size": D_MLP,
        "max_position_embeddings": MAX_LENGTH,
        "attention_types": [[["global", "local"], 2]],
    },
    "biogpt": {**_COMMON, "num_key_value_heads": 4},
    "persimmon": {**_COMMON, "num_key_value_heads": 4},
    "granitemoehybrid": {
        **_COMMON,
        "num_local_experts": 0,
        "shared_intermediate_size": D_MLP,
        "layer_types": ["attention"] * LAYERS,
    },
    "vaultgemma": _GEMMA3,
    "diffllama": _COMMON,
    "cwm": {**_COMMON, "head_dim": 32, "sliding_window": 8},
    "jais2": _COMMON,
    "nanochat": _COMMON,
    "ministral3": {**_COMMON, "head_dim": 32},
    "gemma3n_text": {  # a width for each layer
        **_PER_LAYER_INPUTS,
        "num_kv_shared_layers": 0,
        "laurel_rank": 8,
        "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
        "intermediate_size": [96, 51, 64, 96],
    },
    "gemma4_text": {  # the layers that share keys and values are twice as wide
        **_PER_LAYER_INPUTS,
        "num_kv_shared_layers": 2,
        "global_head_dim": 32,
        "enable_moe_block": False,
        "tie_word_embeddings": False,  # else a model of random weights repeats the last token, whatever is changed
        "use_double_wide_mlp": True,
    },
    "qwen3_5_text": _LINEAR_ATTENTION,
    "qwen3_5_moe_text": {**_EXPERTS, **_LINEAR_ATTENTION, "shared_expert_intermediate_size": 64},
    "qwen3_next": {**_EXPERTS, **_LINEAR_ATTENTION, "shared_expert_intermediate_size": 64},
    "olmo_hybrid": _LINEAR_ATTENTION,
    "minimax": {**_MIXTRAL, "head_dim": 32, "layer_types": ["linear_attention", "full_attention", "linear_attention"]},
    "minimax_m2": {**_MIXTRAL, "head_dim": 32},
    "lfm2": {
        **_COMMON,
        "intermediate_size": 144,
        "block_multiple_of": 32,
        "layer_types": ["conv", "conv", "full_attention"],
    },
    "lfm2_moe": {**_EXPERTS, "num_dense_layers": 1, "layer_types": ["conv", "conv", "full_attention"]},
    "jamba": {
        **_COMMON,
        "num_experts": EXPERTS,
        "num_experts_per_tok": TOP_K,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
    },
    "falcon_h1": {
        **_COMMON,
        "head_dim": 32,
        "mamba_d_ssm": 128,
        "mamba_n_heads": 4,
        "mamba_d_head": 32,
        "mamba_d_state": 8,
        "mamba_chunk_size": 16,
    },
    "zaya": {**_EXPERTS, "head_dim": 32, "num_experts_per_tok": 1},
    "granitemoeshared": {**_MIXTRAL, "shared_intermediate_size": 64},
    "cohere2_moe": {
        **_COMMON,
        "num_experts": EXPERTS,
        "num_experts_per_tok": TOP_K,
        "num_shared_experts": 1,
        "sliding_window": 8,
    },
    "hy_v3": {**_EXPERTS, "head_dim": 32, "num_shared_experts": 1, "first_k_dense_replace": 1},
    "laguna": {**_EXPERTS, "head_dim": 32, "shared_expert_intermediate_size": 64},
    "mellum": {**_EXPERTS, "head_dim": 32},
    "mimo_v2_flash": {
        **_EXPERTS,
        "n_routed_experts": EXPERTS,
        "head_dim": 32,
        "v_head_dim": 32,
        "sliding_window": 8,
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    },
    "afmoe": {**_EXPERTS, "head_dim": 32, "num_shared_experts": 1, "num_dense_layers": 1, "sliding_window": 8},
    "glm4_moe_lite": {**_DEEPSEEK, "q_lora_rank": 32, "first_k_dense_replace": 1},
    "minicpm3": {
        **_COMMON,
        "num_key_value_heads": 4,
        "q_lora_rank": 32,
        "kv_lora_rank": 32,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 16,
        "v_head_dim": 32,
    },
    "ctrl": {
        "vocab_size": VOCABULARY,
        "n_positions": MAX_LENGTH,
        "n_embd": HIDDEN,
        "dff": D_MLP,
        "n_layer": 3,
        "n_head": 4,
    },
    "hyperclovax": _COMMON,
    "llama4_text": _LLAMA4,
    "llama4": {
        "text_config": _LLAMA4,
        "vision_config": {
            **_PIXELS,
            "vision_output_dim": 32,
            "projector_input_dim": 32,
            "projector_output_dim": 32,
        },
    },
    "solar_open": _SHARED_EXPERTS,
    "granitemoe_swa": {**_MIXTRAL, "head_dim": 32, "sliding_window": 8},
    "hy_v4": {**_SHARED_EXPERTS, "first_k_dense_replace": 1},
    "mistral4": {**_MLA, "q_lora_rank": 32},
    "deepseek_v32": {**_DEEPSEEK, "q_lora_rank": 32, **_INDEXER},
    "glm_moe_dsa": {**_DEEPSEEK, "q_lora_rank": 32, **_INDEXER},
    "deepseek_v4": {
        **{name: value for name, value in _SHARED_EXPERTS.items() if name != "intermediate_size"},
        "mlp_layer_types": ["moe"] * LAYERS,  # others route by a table of tokens, which would be empty
        "q_lora_rank": 32,
        "o_lora_rank": 32,
        "qk_rope_head_dim": 16,
        **_INDEXER,
    },
    "qwen3_vl_moe": {
        "text_config": {**_EXPERTS, "head_dim": 32, "rope_parameters": {**_QWEN_ROPE, "mrope_interleaved": True}},
        "vision_config": {**_QWEN_VISION, "out_hidden_size": HIDDEN, "deepstack_visual_indexes": [0]},
    },
    "glm4v_moe": {
        "text_config": {**_SHARED_EXPERTS, "rope_parameters": {**_QWEN_ROPE, "partial_rotary_factor": 1.0}},
        "vision_config": {**_QWEN_VISION, "out_hidden_size": HIDDEN, "image_size": 28, "patch_size": 14},
    },
    "qwen2_vl": {
        "text_config": {**_COMMON, "rope_parameters": _QWEN_ROPE},
        "vision_config": {**_QWEN_VISION, "hidden_size": HIDDEN},
    },
    "qwen2_5_vl": {
        "text_config": {**_COMMON, "rope_parameters": _QWEN_ROPE},
        "vision_config": {**_QWEN_VISION, "out_hidden_size": HIDDEN, "fullatt_block_indexes": [0]},
    },
    "qwen3_vl": {
        "text_config": {**_COMMON, "head_dim": 32, "rope_parameters": {**_QWEN_ROPE, "mrope_interleaved": True}},
        "vision_config": {**_QWEN_VISION, "out_hidden_size": HIDDEN, "deepstack_visual_indexes": [0]},
    },
    "mistral3": {
        "text_config": {**_COMMON, "model_type": "mistral", "head_dim": 32},
        "vision_config": {**_PIXELS, "model_type": "pixtral"},
    },
    "aya_vision": {
        "text_config": {**_COMMON, "model_type": "cohere2", "sliding_window": 8},
        "vision_config": {**_PIXELS, "model_type": "siglip_vision_model"},
    },
    "llava": {
        "text_config": {**_COMMON, "model_type": "llama"},
        "vision_config": {**_PIXELS, "model_type": "clip_vision_model"},
    },
    "internvl": {"text_config": {**_COMMON, "model_type": "qwen2"}, "vision_config": _PIXELS},
    "smolvlm": {"text_config": {**_COMMON, "model_type": "llama"}, "vision_config": _PIXELS},
    "voxtral": {
        "text_config": {**_COMMON, "model_type": "llama", "head_dim": 32},
        "audio_config": {**_VISION, "model_type": "voxtral_encoder"},
    },
    "recurrent_gemma": {**_COMMON, "intermediate_size": 2 * D_MLP, "lru_width": HIDDEN, "attention_window_size": 8},
}
"""Config values by `model_type`; Gemma and one Mistral variant attend through windows shorter than a prompt."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral-window": ("mistral", {"sliding_window": 8}),
    "opt-post-norm": ("opt", {"do_layer_norm_before": False}),
    "deepseek_v3-dense": ("deepseek_v3", {"first_k_dense_replace": 1}),
    "qwen3_moe-dense": ("qwen3_moe", {"decoder_sparse_step": 2}),
    "gemma4_text-experts": (
        "gemma4_text",
        {
            "num_kv_shared_layers": 0,
            "use_double_wide_mlp": False,
            "enable_moe_block": True,
            "num_experts": EXPERTS,
            "top_k_experts": TOP_K,
            "moe_intermediate_size": 40,
        },
    ),
    "llama-gelu": ("llama", {"hidden_act": "gelu_pytorch_tanh"}),
    "llama-relu": ("llama", {"hidden_act": "relu"}),
    "llama-odd": ("llama", {"intermediate_size": 51}),
    "phi3-longrope": (
        "phi3",
        {
            "max_position_embeddings": 64,
            "original_max_position_embeddings": 16,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0] * 16,
                "long_factor": [4.0] * 16,
                "original_max_position_embeddings": 16,
            },
        },
    ),
}
"""Other configurations of the same architectures, each with a trap of its own."""

RAGGED_WIDTHS = {"gemma3n_text": (96, 51, 64, 96), "gemma4_text": (96, 96, 192, 192)}
"""The neurons of each layer where layers differ in width, by `model_type`."""

MODELS = (*CONFIGS, *VARIANTS)

SELDOM = {"solar_open", "granitemoe_swa", "hy_v4", "mistral4", "deepseek_v32", "glm_moe_dsa", "deepseek_v4"}
SELDOM |= {"qwen3_vl_moe", "glm4v_moe", "gemma4_text-experts", "llama4"}
"""Kinds that only slow tests try: each has a relative among the others."""


def save_tiny_model(
    kind: str,
    folder: Path,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    spread: float = 0.2,
    **changes: object,
) -> Path:
    """A random model of this kind in `folder`: config, safetensors, tokenizer.

    Args:
        kind: one of `MODELS`.
        folder: made if it is not there.
        seed: of the weights.
        dtype: of the weights.
        spread: their standard deviation; large enough for attention and MLPs to matter.
        changes: config values in place of the usual ones.
    """
    config = tiny_config(kind, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = auto_model(config).from_config(config, dtype=torch.float32)
        for name, parameter in model.named_parameters():
            with torch.no_grad():
                parameter.copy_(torch.randn_like(parameter) * spread + (1.0 if _is_scale(name, parameter) else 0.0))
    save_quietly(model.to(dtype), folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def auto_model(config: PreTrainedConfig) -> Any:
    """What the library makes such a model with, the part for images or sounds and all."""
    images = hasattr(config, "vision_config")  # its text decoder alone may have a class too (Llama 4)
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and not images:
        return AutoModelForCausalLM
    return (
        AutoModelForImageTextToText
        if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        else AutoModelForMultimodalLM
    )


def tiny_config(kind: str, **changes: object) -> PreTrainedConfig:
    """The config of such a model."""
    model_type, variant = VARIANTS.get(kind, (kind, {}))
    specials = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return AutoConfig.for_model(model_type, **{**specials, **CONFIGS.get(model_type, {}), **variant, **changes})


def save_quietly(model: PreTrainedModel, folder: Path) -> None:
    """`save_pretrained` without its progress bar."""
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    if bars:
        logging.enable_progress_bar()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of any text: 256 bytes, a few merges, and a BOS in front."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*SPECIALS, *alphabet, *("".join(merge) for merge in MERGES)]
    backend = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=list(MERGES)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return wrap_tokenizer(backend)


def wrap_tokenizer(backend: Tokenizer) -> PreTrainedTokenizerFast:
    """A tokenizer with this project's special tokens, as transformers saves and loads it."""
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def _is_scale(name: str, parameter: torch.Tensor) -> bool:
    return parameter.dim() == 1 and "norm" in name and name.endswith("weight")


def often_and_seldom(kinds: Iterable[str]) -> list[Any]:
    """These kinds as parameters of a test, those of `SELDOM` as slow ones."""
    return [pytest.param(kind, marks=pytest.mark.slow) if kind in SELDOM else kind for kind in kinds]

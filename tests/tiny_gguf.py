"""Tiny GGUF files: a tiny model's folder written as one, with tokenizer tables of both kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from transformers import AutoModelForCausalLM

from tests.tiny_models import MERGES, SPECIALS, VOCABULARY, save_tiny_model, tiny_tokenizer

Tables = dict[str, Any]
"""The entries tokenizer.ggml.*, without that beginning."""

CHANGES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "gemma3_text": {"query_pre_attn_scalar": 256, "layer_types": ["sliding_attention"] * 4},
}
"""What a GGUF file cannot say of these models has the value that readers of such a file take."""
_ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "gemma3_text": "gemma3"}
NORMAL, CONTROL, USER, BYTE = 1, 3, 4, 6


def byte_level_tables() -> Tables:
    """The tables of `tiny_models.tiny_tokenizer`."""
    vocabulary = tiny_tokenizer().get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    return {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "token_type": [CONTROL if token in SPECIALS else NORMAL for token in tokens],
        "merges": [" ".join(pair) for pair in MERGES],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 3,
        "padding_token_id": 0,
        "add_bos_token": True,
    }


PIECES = ("th", "▁t", "he", "in", "the", "▁the", "▁a", "an", "ab", "abc", "▁ab", "aa", "aaa", "er", "her", "en")
"""Pieces of several characters, the highest score first."""


def sentencepiece_tables() -> Tables:
    """A vocabulary such as Gemma's: bytes, pieces with scores, and whole runs of spaces and line breaks."""
    control, user = ["<pad>", "<eos>", "<bos>", "<unk>"], ["\n\n", "  ", "<table>"]
    octets = [f"<0x{value:02X}>" for value in range(256)]
    characters = ["▁", *"abcehinrt1"]
    normal = [*PIECES, *characters]
    return {
        "model": "llama",
        "pre": "default",
        "tokens": [*control, *user, *octets, *normal],
        "scores": [*[-1000.0] * 7, *[0.0] * 256, *(-float(place) for place in range(len(normal)))],
        "token_type": [*[CONTROL] * 4, *[USER] * 3, *[BYTE] * 256, *[NORMAL] * len(normal)],
        "bos_token_id": 2,
        "eos_token_id": 1,
        "unknown_token_id": 3,
        "padding_token_id": 0,
        "add_bos_token": True,
        "add_eos_token": False,
        "add_space_prefix": False,
    }


def save_tiny_gguf(
    kind: str, folder: Path, file: Path, *, tables: Tables, quantized: bool = False, **metadata: Any
) -> Path:
    """Make a tiny model in `folder`, as `save_tiny_model` does, and the same model as a GGUF file.

    Args:
        kind: one of `CHANGES`.
        folder: of the ordinary model.
        file: of the same as GGUF.
        tables: the tokenizer's.
        quantized: weights of two axes in 8 bits (Q8_0), not in float32.
        metadata: further entries; dots in their names are written as two underscores.
    """
    save_tiny_model(kind, folder, **CHANGES[kind])
    model = AutoModelForCausalLM.from_pretrained(folder)
    config, architecture = model.config, _ARCHITECTURES[kind]
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(VOCABULARY)
    if kind == "gemma3_text":
        writer.add_key_length(config.head_dim)
        writer.add_sliding_window(config.sliding_window)
    elif kind == "llama":
        writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    for name, value in [*((f"tokenizer.ggml.{key}", value) for key, value in tables.items()), *metadata.items()]:
        _add(writer, name.replace("__", "."), value)
    enumerated = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(enumerated[architecture], config.num_hidden_layers)
    for name, weights in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        _add_tensor(
            writer, str(names.get_name(name, (".weight", ".bias"))), _stored(kind, name, weights, config), quantized
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add(writer: gguf.GGUFWriter, name: str, value: Any) -> None:
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    (writer.add_array if isinstance(value, list) else kinds[type(value)])(name, value)


def _stored(kind: str, name: str, weights: Any, config: Any) -> np.ndarray:
    """Weights as such a file holds them: Gemma's norms with their 1, Llama's queries and keys in pairs of rows."""
    array = weights.numpy()
    if kind == "gemma3_text" and name.endswith("norm.weight"):
        return array + 1
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if kind == "llama" and heads is not None:
        halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
        return halves.swapaxes(1, 2).reshape(array.shape)
    return array


def _add_tensor(writer: gguf.GGUFWriter, name: str, array: np.ndarray, quantized: bool) -> None:
    if quantized and array.ndim == 2:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quantize(np.ascontiguousarray(array), kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, np.ascontiguousarray(array, dtype=np.float32))

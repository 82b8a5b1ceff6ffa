"""What a model's config says of it: shape, limits, provenance. The same for every engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import EngineError
from .sites import architecture_of

_LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")
_UNLIMITED = 1_000_000_000
"""Tokenizers that know no limit say 10³⁰; a model that names none (ALiBi) gets this."""


def longest_sequence(config: Any, tokenizer: Any) -> int:
    """The longest sequence, in tokens, that a model's config and its tokenizer both allow."""
    named = [getattr(config, name, None) for name in _LENGTHS]
    named.append(getattr(tokenizer, "model_max_length", None))
    limits = [limit for limit in named if isinstance(limit, int) and 0 < limit < _UNLIMITED]
    return min(limits, default=_UNLIMITED)


def rope_switch(config: Any) -> int | None:
    """The length from which on a model rotates its positions differently, for every token of a sequence.

    With "longrope" (Phi-3) a sequence of more than this many tokens is computed differently from its first token on,
    so nothing can be shared between sequences on the two sides. None: no such length.
    """
    found = [
        rope["original_max_position_embeddings"]
        for rope in _mappings(getattr(config, "rope_parameters", None))
        if rope.get("rope_type") == "longrope" and rope.get("original_max_position_embeddings")
    ]
    return min(found, default=None)


def _mappings(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
        for inner in value.values():
            yield from _mappings(inner)


# ── How many layers and neurons a model has, from its config alone.


def model_shape(model_path: str) -> tuple[int, int]:
    """Layers, and neurons per layer, of a model folder or hub id; no weights are read.

    Raises:
        EngineError: there is no config, or it does not tell.
        UnknownArchitectureError: where its neurons are is not known.
    """
    from .checkpoint import load_config

    config: Any = load_config(model_path, None)
    architecture_of(config)
    text = config.get_text_config()
    layers, d_mlp = getattr(text, "num_hidden_layers", None), _width(text)
    if not (isinstance(layers, int) and isinstance(d_mlp, int)):
        raise EngineError(f"the config of {model_path} does not tell how many layers and neurons it has")
    return layers, d_mlp


def _width(text: Any) -> int | None:
    """Neurons per layer; BLOOM's config names no width: its MLPs are 4 times as wide as its residual stream."""
    if text.model_type == "bloom":
        return 4 * text.hidden_size
    return getattr(text, "intermediate_size", None) or getattr(text, "ffn_dim", None)

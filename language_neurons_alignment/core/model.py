"""What is known of a loaded model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a loaded model.

    Attributes:
        path: the path or hub id that it was loaded from.
        architecture: the class named in the model's config.
        layers: decoder layers.
        d_mlp: neurons per layer (`intermediate_size`).
        max_length: the longest sequence that the model allows, in tokens.
        dtype: the precision in which it runs ("bfloat16", …).
        end_tokens: the tokens by which it ends an answer.
    """

    path: str
    architecture: str
    layers: int
    d_mlp: int
    max_length: int
    dtype: str
    end_tokens: tuple[int, ...] = ()

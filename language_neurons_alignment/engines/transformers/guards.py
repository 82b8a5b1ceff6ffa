"""What can go wrong while a model runs, said in one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from ...corpus.encode import Tokens
from ...errors import EngineError


def check_sequences(sequences: Sequence[Tokens], *, longest: int, vocabulary: int) -> None:
    """Refuse sequences that the model cannot read, before anything runs.

    Raises:
        EngineError: sequences longer than the model allows, or tokens that it does not know.
    """
    largest = max((max(tokens) for tokens in sequences if tokens), default=0)
    if largest >= vocabulary:
        raise EngineError(
            f"the tokenizer gives token {largest}, but the model knows {vocabulary} tokens only: "
            "the tokenizer files do not belong to this model"
        )
    too_long = [len(tokens) for tokens in sequences if len(tokens) > longest]
    if too_long:
        raise EngineError(
            f"{len(too_long)} sequences are longer than the model allows: up to {max(too_long)} tokens, "
            f"at most {longest} are possible; use --overlong truncate or --overlong skip"
        )


@contextmanager
def out_of_memory(batch_tokens: int) -> Iterator[None]:
    """Say what to do when the device's memory does not suffice.

    Raises:
        EngineError: in place of the library's error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EngineError(_no_memory("CUDA", batch_tokens)) from error
    except RuntimeError as error:
        if "MPS backend out of memory" not in str(error):
            raise
        raise EngineError(_no_memory("MPS", batch_tokens)) from error


def _no_memory(device: str, batch_tokens: int) -> str:
    return (
        f"{device} ran out of memory with batch_tokens {batch_tokens}: "
        f"try --batch-tokens {max(1, batch_tokens // 2)}, or a smaller --dtype"
    )


def not_finite(what: str, device: torch.device) -> str:
    """The message for NaN and infinity."""
    return (
        f"the model's {what} became NaN or infinite on {device}, so nothing of this run can be trusted: "
        "try --dtype bfloat16 or --dtype float32 (float16 overflows easily)"
    )

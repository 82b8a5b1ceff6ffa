"""Activation moments files: `{"total_tokens", "sum", "sum_of_squares", "meta"}`, beside the counts of the same pass."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, TypeGuard

import torch

from ..core.moments import LanguageMoments, SpanMoments
from ..errors import ArtifactError, IncompatibleError
from .layout import Layout
from .tensors import load_tensors

COLLECT = "collect it with `lna activation --moments`"


def has_moments(layout: Layout, language: str) -> bool:
    """Whether a language's moments are there."""
    return layout.moments(language).exists()


def moments_content(
    layout: Layout, language: str, moments: LanguageMoments, meta: dict[str, Any]
) -> dict[Path, dict[str, Any]]:
    """What a language's two files hold, by their paths; `meta` is of plain values."""
    return {
        layout.moments(language, prefix=prefix): {
            "total_tokens": span.total_tokens,
            "sum": span.sum,
            "sum_of_squares": span.sum_of_squares,
            "meta": meta,
        }
        for prefix, span in ((False, moments.full), (True, moments.prefix))
    }


def load_moments(layout: Layout, language: str) -> tuple[LanguageMoments, dict[str, Any]]:
    """Read a language's two files and check that they belong together.

    Raises:
        MissingArtifactError: a file is not there.
        ArtifactError: a file is torn or not one of moments.
        IncompatibleError: the full and the prefix file come from different runs.
    """
    full, meta = _load_span(layout.moments(language))
    prefix, prefix_meta = _load_span(layout.moments(language, prefix=True))
    if full.sum.shape != prefix.sum.shape or meta != prefix_meta:
        raise IncompatibleError(
            f"the full and prefix moments of {language!r} do not belong together: {layout.moments(language)} and its "
            "prefix file come from different runs; collect them again with `lna activation --moments --force`"
        )
    return LanguageMoments(full, prefix), meta


def moments_hash(moments: LanguageMoments) -> str:
    """A digest of a language's moments."""
    digest = hashlib.blake2b(digest_size=16)
    for span in (moments.full, moments.prefix):
        digest.update(str((span.total_tokens, *span.sum.shape)).encode())
        digest.update(span.sum.contiguous().numpy().tobytes())
        digest.update(span.sum_of_squares.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _load_span(path: Path) -> tuple[SpanMoments, dict[str, Any]]:
    match load_tensors(path, remedy=COLLECT):
        case {"total_tokens": int(total), "sum": first, "sum_of_squares": second, "meta": dict(meta)}:
            if total >= 0 and _is_table(first) and _is_table(second) and first.shape == second.shape:
                return SpanMoments(total, first, second), meta
    raise ArtifactError(
        f"{path} is not a file of activation moments: expected total_tokens, meta, and sum and sum_of_squares, "
        f"finite float64 of shape [layer, d_mlp]; delete it and {COLLECT}"
    )


def _is_table(values: object) -> TypeGuard[torch.Tensor]:
    """Whether these are finite numbers per layer and neuron."""
    return (
        isinstance(values, torch.Tensor)
        and values.ndim == 2
        and values.numel() > 0
        and values.dtype == torch.float64
        and bool(torch.isfinite(values).all())
    )

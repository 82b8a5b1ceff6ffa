"""Activation count files: `{"total_tokens", "over_zero", "meta"}` (SPEC 2)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import torch

from ..core.counts import LanguageCounts, SpanCounts
from ..errors import ArtifactError, IncompatibleError
from .atomic import atomic_files
from .layout import Layout
from .moments_file import load_moments, moments_content
from .tensors import load_tensors, save_tensors

Meta = dict[str, Any]

COLLECT = "collect it with `lna activation`"

COUNTS_HASH = "counts_hash"
"""In the provenance of moments: the digest of the counts that they were collected with."""

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def save_counts(layout: Layout, language: str, counts: LanguageCounts, meta: Meta) -> list[Path]:
    """Write a language's files: full, prefix, and those of its moments, where it has any.

    They appear together, the full file last, so that its presence means that all are there.
    """
    plain = json.loads(json.dumps(meta))  # subclasses of str and int (torch's version is one) would not load again
    content = {
        layout.activation(language, prefix=prefix): {
            "total_tokens": span.total_tokens,
            "over_zero": span.over_zero,
            "meta": plain,
        }
        for prefix, span in ((False, counts.full), (True, counts.prefix))
    }
    if counts.moments is not None:
        belonging = {**plain, COUNTS_HASH: counts_hash(counts)}
        content |= moments_content(layout, language, counts.moments, belonging)
    with atomic_files(*reversed(content)) as files:
        for what, file in zip(reversed(content.values()), files, strict=True):
            save_tensors(what, file)
    return list(content)


def load_counts(layout: Layout, language: str, *, moments: bool = False) -> tuple[LanguageCounts, Meta]:
    """Read a language's two files, and those of its moments if asked to, and check that they belong together.

    Raises:
        MissingArtifactError: a file is not there.
        ArtifactError: a file is torn or not of its kind.
        IncompatibleError: the files come from different models or corpora.
    """
    full, meta = load_span(layout.activation(language))
    prefix, prefix_meta = load_span(layout.activation(language, prefix=True))
    if full.over_zero.shape != prefix.over_zero.shape or meta != prefix_meta:
        raise IncompatibleError(
            f"the full and prefix counts of {language!r} do not belong together: {layout.activation(language)} and its "
            "prefix file come from different runs; collect them again with `lna activation --force`"
        )
    counts = LanguageCounts(full, prefix)
    return (_with_moments(counts, layout, language) if moments else counts), meta


def _with_moments(counts: LanguageCounts, layout: Layout, language: str) -> LanguageCounts:
    """The counts, with the moments that were collected with them."""
    found, meta = load_moments(layout, language)
    if meta.get(COUNTS_HASH) != counts_hash(counts):
        raise IncompatibleError(
            f"{layout.moments(language)} was collected with other counts than those that are beside it: "
            "collect them again with `lna activation --moments`"
        )
    return replace(counts, moments=found)


def load_span(path: Path) -> tuple[SpanCounts, Meta]:
    """Read one count file. Files made elsewhere have no `meta`; it is empty then."""
    content = load_tensors(path, remedy=COLLECT)
    counts = content.get("over_zero") if isinstance(content, dict) else None
    total = content.get("total_tokens") if isinstance(content, dict) else None
    if isinstance(total, torch.Tensor) and total.numel() == 1:
        total = total.item()
    if not _is_table(counts) or not isinstance(total, int):
        raise ArtifactError(
            f"{path} is not a count file: expected total_tokens, a whole number, and over_zero, whole numbers of shape "
            "[layer, d_mlp]; delete it and collect it again with `lna activation`"
        )
    smallest, largest = int(counts.min()), int(counts.max())
    if smallest < 0 or largest > total:
        raise ArtifactError(
            f"{path} holds impossible counts: over_zero spans {smallest}..{largest} for {total} tokens; "
            "delete it and collect it again with `lna activation`"
        )
    meta = content.get("meta")
    return SpanCounts(total, counts.to(torch.int64)), meta if isinstance(meta, dict) else {}


def load_origin(path: Path) -> tuple[int, Meta]:
    """Of a count file, the tokens counted and where they come from; its counts are not read.

    Raises:
        MissingArtifactError, ArtifactError: as `load_span`.
    """
    content = load_tensors(path, remedy=COLLECT, lazy=True)
    if not isinstance(content, dict) or "total_tokens" not in content:
        raise ArtifactError(f"{path} is not a count file: it has no total_tokens; delete it and {COLLECT}")
    meta = content.get("meta")
    return int(content["total_tokens"]), meta if isinstance(meta, dict) else {}


def counts_hash(counts: LanguageCounts) -> str:
    """A digest of a language's counts, whichever file they come from."""
    digest = hashlib.blake2b(digest_size=16)
    for span in (counts.full, counts.prefix):
        digest.update(str((span.total_tokens, *span.over_zero.shape)).encode())
        digest.update(span.over_zero.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _is_table(counts: object) -> TypeGuard[torch.Tensor]:
    """Whether these are whole numbers per layer and neuron."""
    return isinstance(counts, torch.Tensor) and counts.ndim == 2 and counts.numel() > 0 and counts.dtype in _WHOLE

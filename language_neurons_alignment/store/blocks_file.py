"""Counts in blocks of a corpus: `{"total_tokens", "over_zero", "meta"}`, with one axis more than count files."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from ..core.blocks import LanguageBlocks, SpanBlocks
from ..core.counts import SpanCounts
from ..errors import ArtifactError, IncompatibleError
from .atomic import atomic_files
from .counts_file import Meta, load_counts
from .layout import Layout
from .tensors import load_tensors, save_tensors

COLLECT = "count with `lna activation --blocks 20` (counts that are there: with --force)"

_WIDTHS = (torch.uint8, torch.int16, torch.int32, torch.int64)


def save_blocks(layout: Layout, language: str, blocks: LanguageBlocks, meta: Meta) -> None:
    """Write a language's prefix and full blocks, in the smallest whole numbers that hold them.

    They are written before the counts: these, once there, have blocks that add up to them.
    """
    plain = json.loads(json.dumps(meta))
    paths = layout.blocks(language, prefix=True), layout.blocks(language)
    with atomic_files(*paths) as files:
        for span, file in zip((blocks.prefix, blocks.full), files, strict=True):
            content = {"total_tokens": span.total_tokens, "over_zero": _small(span.over_zero), "meta": plain}
            save_tensors(content, file)


def load_blocks(layout: Layout, language: str) -> LanguageBlocks:
    """Read a language's blocks and check that they add up to its counts.

    Raises:
        MissingArtifactError: the counts were not kept in blocks.
        ArtifactError: a file is torn or not one of blocks.
        IncompatibleError: the blocks do not add up to the counts that are there.
    """
    paths = layout.blocks(language), layout.blocks(language, prefix=True)
    blocks = LanguageBlocks(*map(_load_span, paths))
    counts, _ = load_counts(layout, language)
    for path, span, whole in zip(paths, (blocks.full, blocks.prefix), (counts.full, counts.prefix), strict=True):
        if not _same(span.total, whole):
            raise IncompatibleError(
                f"the blocks of {path} do not add up to the counts beside them, which are of another run: {COLLECT}"
            )
    return blocks


def _load_span(path: Path) -> SpanBlocks:
    content = load_tensors(path, remedy=COLLECT)
    counts = content.get("over_zero") if isinstance(content, dict) else None
    tokens = content.get("total_tokens") if isinstance(content, dict) else None
    if not (isinstance(counts, Tensor) and isinstance(tokens, Tensor) and _fit(counts, tokens)):
        raise ArtifactError(
            f"{path} holds no blocks of counts: expected total_tokens, whole numbers [block], and over_zero, whole "
            f"numbers [block, layer, d_mlp]; delete it and {COLLECT}"
        )
    return SpanBlocks(tokens, counts)


def _fit(counts: Tensor, tokens: Tensor) -> bool:
    whole = counts.dtype in (*_WIDTHS, torch.int8) and tokens.dtype == torch.int64
    return whole and counts.ndim == 3 and tokens.shape == counts.shape[:1] and counts.numel() > 0


def _same(one: SpanCounts, other: SpanCounts) -> bool:
    return one.total_tokens == other.total_tokens and torch.equal(one.over_zero, other.over_zero)


def _small(counts: Tensor) -> Tensor:
    """The same numbers in as few bytes as hold them."""
    largest = int(counts.max())
    return counts.to(next(width for width in _WIDTHS if torch.iinfo(width).max >= largest))

"""Activation count files: `{"total_tokens", "over_zero", "meta"}` (SPEC 2)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from ..core.counts import (
    LanguageBlocks,
    LanguageCounts,
    LanguageMoments,
    SpanBlocks,
    SpanCounts,
    SpanMoments,
    activation_probability,
    answer_counts,
)
from ..core.selection import NeuronStatistics, neuron_statistics
from ..errors import ArtifactError, IncompatibleError, MissingArtifactError
from .files import atomic_files, load_tensors, save_tensors
from .layout import Layout

# ── Step 3: from counts to probabilities, language neurons and masks (SPEC 3, 5).


@dataclass(frozen=True)
class AnswerCounts:
    """The answer counts of several languages side by side.

    Attributes:
        languages: codes, in the order of the last axis.
        counts: c_full − c_prefix.
        tokens: t_full − t_prefix.
        prefix_tokens: t_prefix, which the answers do not change.
        hashes: digest of each language's files.
        config_hash: of the model's config; "" where the files do not tell.
        weights_hash: of the model's weights; likewise.
    """

    languages: tuple[str, ...]
    counts: Int[Tensor, "layer neuron lang"]
    tokens: Int[Tensor, " lang"]
    prefix_tokens: Int[Tensor, " lang"]
    hashes: dict[str, str]
    config_hash: str
    weights_hash: str

    def statistics(self, *, bar: float) -> NeuronStatistics:
        """Entropy, peak and membership of every neuron."""
        return neuron_statistics(activation_probability(self.counts, tokens=self.tokens), bar=bar)


def load_answer_counts(layout: Layout, languages: Sequence[str]) -> AnswerCounts:
    """Read the counts of several languages and put them side by side.

    Raises:
        MissingArtifactError, ArtifactError: a file is missing or torn.
        IncompatibleError: the languages were not counted on the same model.
    """
    table: Tensor | None = None
    tokens, prefix_tokens, hashes, origins = [], [], {}, {}
    for k, language in enumerate(languages):
        counts, meta = load_counts(layout, language)
        answers = answer_counts(counts.full.over_zero, counts.prefix.over_zero)
        if table is None:
            # one language after the other in memory: what runs over languages then reads memory in order
            table = torch.empty(len(languages), *answers.shape, dtype=torch.int64).permute(1, 2, 0)
        if answers.shape != table.shape[:2]:
            raise IncompatibleError(
                f"the counts of {language!r} have shape {tuple(answers.shape)}, those of {languages[0]!r} "
                f"{tuple(table.shape[:2])}: they come from different models; collect {language!r} again"
            )
        table[..., k] = answers
        tokens.append(counts.full.total_tokens - counts.prefix.total_tokens)
        prefix_tokens.append(counts.prefix.total_tokens)
        hashes[language] = counts_hash(counts)
        origins[language] = (str(meta.get("config_hash") or ""), str(meta.get("weights_hash") or ""))
    config_hash, weights_hash = _common_origin(origins)
    assert table is not None  # languages are never empty: parse_languages
    return AnswerCounts(
        tuple(languages), table, torch.tensor(tokens), torch.tensor(prefix_tokens), hashes, config_hash, weights_hash
    )


def _common_origin(origins: dict[str, tuple[str, str]]) -> tuple[str, str]:
    """The one model that all languages were counted on."""
    first, *others = origins
    for other in others:
        if origins[other] != origins[first]:
            raise IncompatibleError(
                f"the counts of {first!r} and {other!r} come from different models (config or weights differ): "
                "collect one of them again with `lna activation --force`"
            )
    return origins[first]


# ── Activation moments files: `{"total_tokens", "sum", "sum_of_squares", "meta"}`, beside the counts of the same pass.

COLLECT_MOMENTS = "collect it with `lna activation --moments`"


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
    full, meta = _load_moment_span(layout.moments(language))
    prefix, prefix_meta = _load_moment_span(layout.moments(language, prefix=True))
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


def _load_moment_span(path: Path) -> tuple[SpanMoments, dict[str, Any]]:
    match load_tensors(path, remedy=COLLECT_MOMENTS):
        case {"total_tokens": int(total), "sum": first, "sum_of_squares": second, "meta": dict(meta)}:
            if total >= 0 and _is_moment_table(first) and _is_moment_table(second) and first.shape == second.shape:
                return SpanMoments(total, first, second), meta
    raise ArtifactError(
        f"{path} is not a file of activation moments: expected total_tokens, meta, and sum and sum_of_squares, "
        f"finite float64 of shape [layer, d_mlp]; delete it and {COLLECT}"
    )


def _is_moment_table(values: object) -> TypeGuard[torch.Tensor]:
    """Whether these are finite numbers per layer and neuron."""
    return (
        isinstance(values, torch.Tensor)
        and values.ndim == 2
        and values.numel() > 0
        and values.dtype == torch.float64
        and bool(torch.isfinite(values).all())
    )


Json = dict[str, Any]

COLLECT = "collect it with `lna activation`"

COUNTS_HASH = "counts_hash"
"""In the provenance of moments: the digest of the counts that they were collected with."""

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def save_counts(layout: Layout, language: str, counts: LanguageCounts, meta: Json) -> list[Path]:
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


def load_counts(layout: Layout, language: str, *, moments: bool = False) -> tuple[LanguageCounts, Json]:
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


def load_span(path: Path) -> tuple[SpanCounts, Json]:
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


def load_origin(path: Path) -> tuple[int, Json]:
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


# ── The mean activation of each neuron on a language's answers, which some interventions need.


@dataclass(frozen=True)
class AnswerMoments:
    """How active a model's neurons are on one language's answers.

    Attributes:
        tokens: of the answers.
        mean: activation per neuron, over these tokens.
        variance: of the activation over these tokens.
        digest: of what this was made from, so that results can say which means they were made with.
        config_hash: of the model that was looked at.
        weights_hash: of the same model.
    """

    tokens: int
    mean: Float64[Tensor, "layer neuron"]
    variance: Float64[Tensor, "layer neuron"]
    digest: str
    config_hash: str
    weights_hash: str


def answer_moments(layout: Layout, language: str) -> AnswerMoments:
    """The moments of a language's answers, full − prefix as of counts (SPEC 3), from its files.

    Raises:
        MissingArtifactError: the language was counted without moments, or not at all.
        ArtifactError: a file is torn, or there are no answer tokens to take a mean over.
        IncompatibleError: the moments were not collected with the counts that are there.
    """
    if not has_moments(layout, language):
        raise MissingArtifactError(f"{layout.moments(language)} is not there: {COLLECT} -l {language}")
    counts, meta = load_counts(layout, language, moments=True)
    assert counts.moments is not None  # asked for
    answer = counts.moments.answer
    if answer.total_tokens < 1:
        raise ArtifactError(
            f"{layout.moments(language)} holds no answer tokens, so there is no mean activation: "
            "count a corpus whose answers are not empty"
        )
    return AnswerMoments(
        answer.total_tokens,
        answer.mean,
        answer.variance,
        moments_hash(counts.moments),
        str(meta.get("config_hash", "")),
        str(meta.get("weights_hash", "")),
    )


# ── Counts in blocks of a corpus: `{"total_tokens", "over_zero", "meta"}`, with one axis more than count files.

COLLECT_BLOCKS = "count with `lna activation --blocks 20` (counts that are there: with --force)"

_WIDTHS = (torch.uint8, torch.int16, torch.int32, torch.int64)


def save_blocks(layout: Layout, language: str, blocks: LanguageBlocks, meta: Json) -> None:
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
    content = load_tensors(path, remedy=COLLECT_BLOCKS)
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

"""Files of activation counts, of their moments, and of counts in blocks of the corpus.

Counting writes pairs of files for each language, one over whole texts and one over prefixes:

    activation.<lang>.<model>.pt   {"total_tokens", "over_zero", "meta"}                counts [layer, d_mlp]
    moments.<lang>.<model>.pt      {"total_tokens", "sum", "sum_of_squares", "meta"}    moments [layer, d_mlp]
    blocks.<lang>.<model>.pt       {"total_tokens", "over_zero", "meta"}                counts [block, layer, d_mlp]

`load_answer_counts` puts the counts of several languages side by side, and `answer_moments` gives the mean activation
on a language's answers: what the steps compute with.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float32, Float64, Int
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
from ..languages import parse_languages
from .checkpoint import Checkpoint
from .files import Json, atomic_files, digest_of_bytes, load_tensors, save_tensors
from .layout import Layout

COUNTS_HASH = "counts_hash"
"""In the meta of moments: the digest of the counts that they were collected with."""

_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class _Kind(NamedTuple):
    """A kind of file: its tables, and what to say of a file that is another kind."""

    name: str
    tables: tuple[str, ...]
    expected: str
    command: str
    note: str = ""

    @property
    def remedy(self) -> str:
        """What to do where a file is missing or torn."""
        return f"collect it with `{self.command}`{self.note}"


_COUNTS = _Kind(
    "a count file",
    ("over_zero",),
    "total_tokens, a whole number, and over_zero, whole numbers of shape [layer, d_mlp]",
    "lna activation",
)
_MOMENTS = _Kind(
    "a file of activation moments",
    ("sum", "sum_of_squares"),
    "total_tokens, meta, and sum and sum_of_squares, finite float64 of shape [layer, d_mlp]",
    "lna activation --moments",
)
_BLOCKS = _Kind(
    "a file with blocks of counts",
    ("over_zero",),
    "total_tokens, whole numbers [block], and over_zero, whole numbers [block, layer, d_mlp]",
    "lna activation --blocks 20",
    " (existing counts: with --force)",
)


class _Span(NamedTuple):
    """What one file holds: the tokens (for blocks, those of each), the tables, and where they come from."""

    tokens: Any
    tables: tuple[Tensor, ...]
    meta: Json


def _load_span(path: Path, kind: _Kind) -> _Span:
    """Read one file. Counts made elsewhere have no `meta`; it is empty then."""
    content = load_tensors(path, remedy=kind.remedy)
    content = content if isinstance(content, dict) else {}
    tokens, meta = content.get("total_tokens"), content.get("meta")
    if kind is _COUNTS and isinstance(tokens, Tensor) and tokens.numel() == 1:
        tokens = tokens.item()
    tables = tuple(table for name in kind.tables if isinstance(table := content.get(name), Tensor))
    span = _Span(tokens, tables, meta if isinstance(meta, dict) else {})
    if not _fits(span, kind):
        raise ArtifactError(f"{path} is not {kind.name}: expected {kind.expected}; delete it and {kind.remedy}")
    if kind is _COUNTS:
        smallest, largest = int(tables[0].min()), int(tables[0].max())
        if smallest < 0 or largest > span.tokens:
            raise ArtifactError(
                f"{path} holds impossible counts: over_zero spans {smallest}..{largest} for {tokens} tokens; "
                f"delete it and {kind.remedy}"
            )
    return span


def _fits(span: _Span, kind: _Kind) -> bool:
    """Whether tokens and tables have the types and shapes of their kind."""
    tokens, tables, meta = span
    if len(tables) < len(kind.tables) or len({one.shape for one in tables}) > 1 or not tables[0].numel():
        return False
    first = tables[0]
    if kind is _BLOCKS:
        per_block = isinstance(tokens, Tensor) and tokens.dtype == torch.int64 and tokens.shape == first.shape[:1]
        return per_block and first.ndim == 3 and first.dtype in _WHOLE
    if not isinstance(tokens, int) or first.ndim != 2:
        return False
    if kind is _COUNTS:
        return first.dtype in _WHOLE
    return tokens >= 0 and bool(meta) and all(one.dtype == torch.float64 and one.isfinite().all() for one in tables)


def _load_pair(full: Path, prefix: Path, kind: _Kind) -> tuple[_Span, _Span]:
    """Read a language's full and prefix file, and check that they come from one run."""
    one, other = _load_span(full, kind), _load_span(prefix, kind)
    if one.tables[0].shape != other.tables[0].shape or one.meta != other.meta:
        raise IncompatibleError(
            f"{full} and {prefix.name} do not belong together, they come from different runs: collect them again "
            f"with `{kind.command} --force`"
        )
    return one, other


def save_counts(layout: Layout, language: str, counts: LanguageCounts, meta: Json) -> list[Path]:
    """Write a language's count files, and those of its moments where it has any.

    The files appear together. The full counts come last, so their presence means that everything is there.
    """
    plain, content = _plain(meta), {}
    for prefix, span in ((False, counts.full), (True, counts.prefix)):
        path = layout.activation(language, prefix=prefix)
        content[path] = {"total_tokens": span.total_tokens, "over_zero": span.over_zero, "meta": plain}
    if counts.moments is not None:
        belonging = {**plain, COUNTS_HASH: counts_hash(counts)}
        for prefix, sums in ((False, counts.moments.full), (True, counts.moments.prefix)):
            tables = {"sum": sums.sum, "sum_of_squares": sums.sum_of_squares}
            path = layout.moments(language, prefix=prefix)
            content[path] = {"total_tokens": sums.total_tokens, **tables, "meta": belonging}
    _save(dict(reversed(content.items())))
    return list(content)


def save_blocks(layout: Layout, language: str, blocks: LanguageBlocks, meta: Json) -> None:
    """Write a language's prefix and full blocks, in the smallest integers that hold them.

    Write them before the counts: counts that are there then have blocks that add up to them.
    """
    plain, content = _plain(meta), {}
    for prefix, span in ((True, blocks.prefix), (False, blocks.full)):
        path = layout.blocks(language, prefix=prefix)
        content[path] = {"total_tokens": span.total_tokens, "over_zero": _smallest(span.over_zero), "meta": plain}
    _save(content)


def _save(content: dict[Path, Json]) -> None:
    """Write files together, in this order."""
    with atomic_files(*content) as files:
        for one, file in zip(content.values(), files, strict=True):
            save_tensors(one, file)


def _plain(meta: Json) -> Json:
    """The same without subclasses of str and int (torch's version is one), which `weights_only` would not load."""
    return json.loads(json.dumps(meta))


def _smallest(counts: Tensor) -> Tensor:
    """The same numbers in as few bytes as hold them."""
    widths = (torch.uint8, torch.int16, torch.int32, torch.int64)
    return counts.to(next(width for width in widths if torch.iinfo(width).max >= int(counts.max())))


def load_counts(layout: Layout, language: str, *, moments: bool = False) -> tuple[LanguageCounts, Json]:
    """Read a language's counts and their meta, with the moments collected at the same time if asked for."""
    full, prefix = _load_pair(layout.activation(language), layout.activation(language, prefix=True), _COUNTS)
    counts = LanguageCounts(_counts_of(full), _counts_of(prefix))
    return with_moments(layout, language, counts) if moments else counts, full.meta


def with_moments(layout: Layout, language: str, counts: LanguageCounts) -> LanguageCounts:
    """Add the moments that were collected with these counts."""
    return replace(counts, moments=_load_moments(layout, language, counts_hash(counts))[0])


def load_span(path: Path) -> tuple[SpanCounts, Json]:
    """Read one count file by itself."""
    span = _load_span(path, _COUNTS)
    return _counts_of(span), span.meta


def load_origin(path: Path) -> tuple[int, Json]:
    """Read the number of tokens and the meta of a count file, without its counts."""
    content = load_tensors(path, remedy=_COUNTS.remedy, lazy=True)
    if not isinstance(content, dict) or "total_tokens" not in content:
        raise ArtifactError(f"{path} is not a count file: it has no total_tokens; delete it and {_COUNTS.remedy}")
    meta = content.get("meta")
    return int(content["total_tokens"]), meta if isinstance(meta, dict) else {}


def load_blocks(layout: Layout, language: str, *, counted: str | None = None) -> LanguageBlocks:
    """Read a language's blocks and check that they add up to its counts; `counted` is the digest of counts at hand."""
    path = layout.blocks(language)
    full, prefix = _load_pair(path, layout.blocks(language, prefix=True), _BLOCKS)
    blocks = LanguageBlocks(SpanBlocks(full.tokens, full.tables[0]), SpanBlocks(prefix.tokens, prefix.tables[0]))
    whole = LanguageCounts(blocks.full.total, blocks.prefix.total)
    if counts_hash(whole) != (counted or counts_hash(load_counts(layout, language)[0])):
        raise IncompatibleError(
            f"the blocks of {path} do not add up to the counts beside them, they come from another run: "
            f"{_BLOCKS.remedy}"
        )
    return blocks


def has_moments(layout: Layout, language: str) -> bool:
    """Whether a language's moments are there."""
    return layout.moments(language).exists()


def _load_moments(layout: Layout, language: str, counted: str) -> tuple[LanguageMoments, Json]:
    """Read a language's moments; `counted` is the digest of the counts that they have to belong to."""
    path = layout.moments(language)
    full, prefix = _load_pair(path, layout.moments(language, prefix=True), _MOMENTS)
    if full.meta.get(COUNTS_HASH) != counted:
        raise IncompatibleError(
            f"{path} was collected with other counts than those beside it: collect the moments again with "
            f"`{_MOMENTS.command}`"
        )
    one, other = (SpanMoments(span.tokens, *span.tables) for span in (full, prefix))
    return LanguageMoments(one, other), full.meta


def _counts_of(span: _Span) -> SpanCounts:
    return SpanCounts(span.tokens, span.tables[0].to(torch.int64))


def counts_hash(counts: LanguageCounts) -> str:
    """Return a digest of a language's counts, whichever file they come from."""
    return _digest((span.total_tokens, span.over_zero) for span in (counts.full, counts.prefix))


def _digest(spans: Iterable[tuple[Any, ...]]) -> str:
    parts: list[bytes] = []
    for tokens, *tables in spans:
        parts.append(str((tokens, *tables[0].shape)).encode())
        parts += [table.contiguous().numpy().tobytes() for table in tables]
    return digest_of_bytes(*parts)


@dataclass(frozen=True)
class AnswerCounts:
    """The answer counts of several languages side by side.

    Attributes:
        counts: c_full − c_prefix.
        tokens: t_full − t_prefix.
        prefix_tokens: t_prefix, which the answers do not change.
        hashes: digest of each language's files.
        config_hash, weights_hash: of the model; "" where the files do not tell.
        metas: what each language's files say about their making.
    """

    languages: tuple[str, ...]
    counts: Int[Tensor, "layer neuron lang"]
    tokens: Int[Tensor, " lang"]
    prefix_tokens: Int[Tensor, " lang"]
    hashes: dict[str, str]
    config_hash: str
    weights_hash: str
    metas: tuple[Json, ...] = ()

    @property
    def probability(self) -> Float32[Tensor, "layer neuron lang"]:
        """The activation probabilities."""
        return activation_probability(self.counts, tokens=self.tokens)

    def statistics(self, *, bar: float) -> NeuronStatistics:
        """Compute entropy, peak and membership of every neuron."""
        return neuron_statistics(self.probability, bar=bar)


def load_answer_counts(layout: Layout, languages: Sequence[str]) -> AnswerCounts:
    """Read the counts of several languages and put them side by side."""
    languages = parse_languages(languages)
    table: Tensor | None = None
    origin: Json = {}
    tokens, prefix_tokens, hashes, metas = [], [], {}, []
    for k, language in enumerate(languages):
        counts, meta = load_counts(layout, language)
        metas.append(meta)
        answers = answer_counts(counts.full.over_zero, counts.prefix.over_zero)
        if table is None:
            # one language after the other in memory: what runs over languages then reads memory in order
            table, origin = torch.empty(len(languages), *answers.shape, dtype=torch.int64).permute(1, 2, 0), meta
        if answers.shape != table.shape[:2]:
            raise IncompatibleError(
                f"the counts of {language!r} have shape {tuple(answers.shape)}, those of {languages[0]!r} "
                f"{tuple(table.shape[:2])}: they come from different models; collect {language!r} again"
            )
        differs = _model_of(meta).difference(origin, unknown_differs=True)
        if differs:
            raise IncompatibleError(
                f"the counts of {languages[0]!r} and {language!r} come from different models (other {differs}): "
                "collect one of them again with `lna activation --force`"
            )
        table[..., k] = answers
        tokens.append(counts.full.total_tokens - counts.prefix.total_tokens)
        prefix_tokens.append(counts.prefix.total_tokens)
        hashes[language] = counts_hash(counts)
    assert table is not None  # languages are never empty: parse_languages
    model = _model_of(origin)
    totals = torch.tensor(tokens), torch.tensor(prefix_tokens)
    return AnswerCounts(tuple(languages), table, *totals, hashes, model.config_hash, model.weights_hash, tuple(metas))


def _model_of(meta: Json) -> Checkpoint:
    """The model that files say they come from."""
    return Checkpoint(str(meta.get("config_hash") or ""), str(meta.get("weights_hash") or ""))


@dataclass(frozen=True)
class AnswerMoments:
    """How active a model's neurons are on one language's answers.

    Attributes:
        tokens: number of answer tokens.
        mean, variance: of each neuron's activation over these tokens.
        digest: of the files, so that results can say which means they were made with.
        config_hash, weights_hash: of the model.
    """

    tokens: int
    mean: Float64[Tensor, "layer neuron"]
    variance: Float64[Tensor, "layer neuron"]
    digest: str
    config_hash: str
    weights_hash: str


def answer_moments(layout: Layout, language: str, *, counts: AnswerCounts | None = None) -> AnswerMoments:
    """Read the moments of a language's answers, full − prefix as for counts."""
    path = layout.moments(language)
    if not has_moments(layout, language):
        raise MissingArtifactError(f"{path} is not there: collect it with `{_MOMENTS.command} -l {language}`")
    counted = counts.hashes.get(language) if counts else None
    moments, meta = _load_moments(layout, language, counted or counts_hash(load_counts(layout, language)[0]))
    answer = moments.answer
    if answer.total_tokens < 1:
        raise ArtifactError(
            f"{path} holds no answer tokens, so there is no mean activation: count a corpus whose answers are not empty"
        )
    model = _model_of(meta)
    digest = _digest((span.total_tokens, span.sum, span.sum_of_squares) for span in (moments.full, moments.prefix))
    return AnswerMoments(
        answer.total_tokens, answer.mean, answer.variance, digest, model.config_hash, model.weights_hash
    )

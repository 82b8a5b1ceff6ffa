"""Files of activation counts, of their moments, and of counts in blocks of the corpus.

Counting writes pairs of files for each language, one over whole texts and one over prefixes:

    activation.<lang>.<model>.pt   {"total_tokens", "over_zero", "meta"}                counts [layer, d_mlp]
                                   of a mixture also {"routing"}                       routing [layer, expert]
    moments.<lang>.<model>.pt      {"total_tokens", "sum", "sum_of_squares", "meta"}    moments [layer, d_mlp]
    blocks.<lang>.<model>.pt       {"total_tokens", "over_zero", "meta"}                counts [block, layer, d_mlp]

Each `meta` says what its file is: of which kind, language and model, and which counts it belongs to. Every reader
checks it against the file's name, and the numbers against what must hold, before it computes with them.

`load_answer_counts` puts the counts of several languages side by side, and `answer_moments` gives the mean activation
on a language's answers: what the steps compute with.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float32, Float64, Int
from torch import Tensor

from ..config import DEFAULT_SELECTION, MEAN_DIFFERENCE, Selection
from ..core.counts import (
    Excess,
    LanguageBlocks,
    LanguageCounts,
    LanguageMoments,
    SpanBlocks,
    SpanCounts,
    SpanMoments,
    activation_probability,
    answer_counts,
    check_answer_tokens,
    excess,
    moments_fault,
    pair_fault,
    span_fault,
)
from ..core.find import find, fine_lambda
from ..core.frames import Columns, Framed, html_table
from ..core.methods import effect_size
from ..core.model import MOST_LAYERS, WIDEST
from ..core.routing import Experts, LanguageRouting, SpanRouting, routing_fault
from ..core.selection import NeuronStatistics, neuron_statistics
from ..core.widths import Widths, beyond, neurons_among, size_in_words, widths_fault
from ..errors import ArtifactError, IncompatibleError, LNAWarning, MissingArtifactError, SettingsError, SweepError
from ..languages import code_or_name, parse_languages
from .checkpoint import Checkpoint
from .files import Json, atomic_files, digest_of_bytes, load_tensors, save_tensors
from .layout import Layout

if TYPE_CHECKING:
    from .masks import Mask

COUNTS_HASH = "counts_hash"
"""In `meta`: the digest of the counts; in that of moments, of those that they were collected with."""

UNSHARED = "unshared_prefix_tokens"
"""In `meta`: how many prefix tokens may have been counted apart from the texts (`excess`)."""

WIDTHS = "widths"
"""In `meta`: the neurons of each layer, where layers differ (`core.widths`)."""

_KIND, _MODEL = "kind", "model"
_OF_THE_FILE = (_KIND, _MODEL, COUNTS_HASH)
"""In `meta`: what the file is, not how it was made."""

_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

_MOST_TOKENS = 2**53
"""More than any corpus has; sums up to here are exact in every type that we use."""

_NEURONS_APART, _TOKENS_APART = 2000, 50
"""Of counts made elsewhere in two passes, at most 1 neuron in 2000 may break `excess`, by 1 in 50 prefix tokens.

In the published Mistral counts it is 1 in 38,000 by 1 in 480; in wrong pairs at least 1 in 74 by 1 in 1.8 (0043).
"""


class _Kind(NamedTuple):
    """A kind of file: its name in paths, its tables, and what to say of a file that is another kind."""

    stem: str
    name: str
    tables: tuple[str, ...]
    expected: str
    command: str
    note: str = ""

    @property
    def remedy(self) -> str:
        """What to do where a file is missing or torn."""
        return f"collect it with `{self.command}`{self.note}"

    def of(self, *, prefix: bool) -> str:
        """The kind as `meta` says it."""
        return f"{_PLURAL[self.stem]} of {'prefixes' if prefix else 'whole texts'}"


_PLURAL = {"activation": "counts", "moments": "moments", "blocks": "blocks of counts"}

_COUNTS = _Kind(
    "activation",
    "a count file",
    ("over_zero",),
    "total_tokens, a whole number, and over_zero, whole numbers of shape [layer, d_mlp]",
    "lna activation",
)
_MOMENTS = _Kind(
    "moments",
    "a file of activation moments",
    ("sum", "sum_of_squares"),
    "total_tokens, meta, and sum and sum_of_squares, finite float64 of shape [layer, d_mlp]",
    "lna activation --moments",
)
_BLOCKS = _Kind(
    "blocks",
    "a file with blocks of counts",
    ("over_zero",),
    "total_tokens, whole numbers [block], and over_zero, whole numbers [block, layer, d_mlp]",
    "lna activation --blocks 20",
    " (existing counts: `lna activation --blocks 20 --force`)",
)


class _Span(NamedTuple):
    """What one file holds: the tokens (for blocks, those of each), the tables, and where they come from."""

    tokens: Any
    tables: tuple[Tensor, ...]
    meta: Json
    routing: tuple[Experts, SpanRouting] | None = None  # of counts of a mixture of experts

    @property
    def origin(self) -> Json:
        """`meta` without what tells the full file from the prefix file."""
        return {key: value for key, value in self.meta.items() if key != _KIND}

    @property
    def made(self) -> Json:
        """`meta` without what the file is: how it was made."""
        return _made(self.meta)

    @property
    def widths(self) -> Widths | None:
        """The neurons of each layer, where layers differ."""
        return widths_in(self.meta)


def widths_in(meta: Json) -> Widths | None:
    """Return the widths in the `meta` of a file that has been checked; None where all layers are alike."""
    return tuple(meta[WIDTHS]) if WIDTHS in meta else None


def _made(meta: Json) -> Json:
    return {key: value for key, value in meta.items() if key not in _OF_THE_FILE}


def _load_span(path: Path, kind: _Kind) -> _Span:
    """Read one file and check it by itself. Counts made elsewhere have no `meta`; it is empty then."""
    content = load_tensors(path, remedy=kind.remedy)
    content = content if isinstance(content, dict) else {}
    tokens, meta = content.get("total_tokens"), content.get("meta")
    if kind is _COUNTS:
        tokens = _number(tokens)
    tables = tuple(table for name in kind.tables if isinstance(table := content.get(name), Tensor))
    span = _Span(tokens, tables, meta if isinstance(meta, dict) else {})
    if _fits(span, kind) and kind is _COUNTS and "routing" in content:
        span = span._replace(routing=_routing(path, content["routing"], span))
    if not _fits(span, kind):
        raise ArtifactError(f"{path} is not {kind.name}: expected {kind.expected}; {_again(span.meta, kind)}")
    _check_meta(path, span.meta, kind)
    fault = _fault_of(span, kind)
    if fault:
        raise ArtifactError(f"{path} holds impossible counts: {fault}; {_again(span.meta, kind)}")
    return span


def _routing(path: Path, stored: object, span: _Span) -> tuple[Experts, SpanRouting]:
    """What a count file says of a mixture's experts and of the tokens sent to them."""
    content = stored if isinstance(stored, dict) else {}
    said, routed, weight = (content.get(name) for name in ("experts", "routed", "weight"))
    said, layers = said if isinstance(said, dict) else {}, len(span.tables[0])
    sizes = [one for name in ("number", "width", "top_k") if type(one := said.get(name)) is int and one > 0]
    places = said.get("layers")
    known = isinstance(places, list) and all(type(one) is int and 0 <= one < layers for one in places)
    if (
        not (known and len(sizes) == 3)
        or not isinstance(routed, Tensor)
        or not isinstance(weight, Tensor)
        or (routed.dtype, weight.dtype) != (torch.int64, torch.float64)
        or not routed.shape == weight.shape == (layers, sizes[0])
    ):
        raise ArtifactError(
            f"{path} is not {_COUNTS.name}: its routing is not that of experts, expected whole numbers and float64 of "
            f"shape [layer, expert]; {_again(span.meta, _COUNTS)}"
        )
    assert isinstance(places, list)
    return Experts(tuple(places), *sizes), SpanRouting(span.tokens, routed, weight)


def _routing_of(full: _Span, prefix: _Span, path: Path) -> LanguageRouting | None:
    """The routing of a language's two files, checked; None where the model is no mixture."""
    if full.routing is None and prefix.routing is None:
        return None
    if full.routing is None or prefix.routing is None or full.routing[0] != prefix.routing[0]:
        raise IncompatibleError(
            f"{path} and its prefix file have the routing of different experts, they come from different runs: "
            f"collect both again with `{_COUNTS.command} --force`"
        )
    routing = LanguageRouting(full.routing[0], full.routing[1], prefix.routing[1])
    if fault := routing_fault(routing, full_tokens=full.tokens, prefix_tokens=prefix.tokens):
        raise ArtifactError(
            f"{path} and its prefix file hold impossible counts: {fault}; delete them and {_COUNTS.remedy}"
        )
    return routing


def _stored_routing(experts: Experts, span: SpanRouting) -> Json:
    """Routing as a count file holds it."""
    said = {**asdict(experts), "layers": list(experts.layers)}
    return {"experts": said, "routed": span.routed, "weight": span.weight}


def _again(meta: Json, kind: _Kind) -> str:
    """What to do where a file cannot be used: ours is made again, what others made is theirs to keep."""
    if "version" in meta:
        return f"delete it and {kind.remedy}"
    return f"lna did not write it: move it away, or use another --root or -s, and {kind.remedy}"


def _number(tokens: object) -> object:
    """A number of tokens that other tools stored as a tensor."""
    if isinstance(tokens, Tensor) and tokens.numel() == 1 and tokens.dtype in _WHOLE:
        return tokens.item()
    return tokens


def _fits(span: _Span, kind: _Kind) -> bool:
    """Whether tokens and tables have the types and shapes of their kind, and sizes that a model can have."""
    tokens, tables = span.tokens, span.tables
    if len(tables) < len(kind.tables) or len({one.shape for one in tables}) > 1 or not tables[0].numel():
        return False
    first = tables[0]
    if first.ndim < 2 or first.shape[-2] > MOST_LAYERS or first.shape[-1] > WIDEST:
        return False
    if kind is _BLOCKS:
        per_block = isinstance(tokens, Tensor) and tokens.dtype == torch.int64 and tokens.shape == first.shape[:1]
        return per_block and first.ndim == 3 and first.dtype in _WHOLE
    if type(tokens) is not int or first.ndim != 2 or not -_MOST_TOKENS <= tokens <= _MOST_TOKENS:
        return False
    if kind is _COUNTS:
        return first.dtype in _WHOLE
    return (
        tokens >= 0 and bool(span.meta) and all(one.dtype == torch.float64 and one.isfinite().all() for one in tables)
    )


def _fault_of(span: _Span, kind: _Kind) -> str | None:
    """Say what is impossible about the counts in one file; moments are held to the counts beside them."""
    if WIDTHS in span.meta:
        fault = widths_fault(span.meta[WIDTHS], *span.tables[0].shape[-2:])
        faults = (beyond(table, span.meta[WIDTHS]) for table in span.tables)
        if fault := fault or next(filter(None, faults), None):
            return fault
    if kind is _COUNTS:
        return span_fault(span.tokens, span.tables[0])
    if kind is not _BLOCKS:
        return None
    tokens = span.tokens.tolist()
    if sum(map(abs, tokens)) > _MOST_TOKENS:
        return f"its blocks have {sum(map(abs, tokens))} tokens"
    faults = map(span_fault, tokens, span.tables[0].unbind())
    return next((f"in block {number}, {fault}" for number, fault in enumerate(faults, start=1) if fault), None)


_NAME = re.compile(r"(prefix\.)?(activation|moments|blocks)\.([^.]+)\.(.+)\.pt")
"""The names of files (`Layout`): prefix or not, kind, language, model."""


def _check_meta(path: Path, meta: Json, kind: _Kind) -> None:
    """Raise where `meta` holds other than plain values, or names another kind, language or model than the path does."""
    for key, value in meta.items():
        plain = isinstance(value, str | int | float | bool | None) or (key == WIDTHS and isinstance(value, list))
        if not isinstance(key, str) or not plain:
            raise ArtifactError(
                f"{path} is not {kind.name}: its meta holds a {type(value).__name__} under {str(key)[:40]!r}, expected "
                f"plain values; {_again(meta, kind)}"
            )
    for key in ("sequences", "boundary_cases", UNSHARED):
        if key in meta and (type(meta[key]) is not int or not 0 <= meta[key] <= _MOST_TOKENS):
            raise ArtifactError(
                f"{path} is not {kind.name}: its meta has {key} {meta[key]!r}, expected a whole number; "
                f"{_again(meta, kind)}"
            )
    named = _NAME.fullmatch(path.name)
    if named is None:
        return
    prefix, stem, language, model = named.groups()
    own = next(one for one in (_COUNTS, _MOMENTS, _BLOCKS) if one.stem == stem)
    wanted = {_KIND: own.of(prefix=prefix is not None), "language": language, _MODEL: model}
    for key, value in wanted.items():
        if (
            key in meta
            and meta[key] != value
            and not (key == "language" and code_or_name(str(meta[key])) == code_or_name(value))
        ):
            raise IncompatibleError(
                f"{path} has {key} {meta[key]!r} in its meta, but {value!r} in its name: it was renamed or exchanged; "
                f"restore its name, or {kind.remedy}"
            )


def _load_pair(full: Path, prefix: Path, kind: _Kind) -> tuple[_Span, _Span]:
    """Read a language's full and prefix file, and check that they come from one run."""
    one, other = _load_span(full, kind), _load_span(prefix, kind)
    if bool(one.meta) != bool(other.meta):
        told, untold = (full, prefix.name) if one.meta else (prefix, full.name)
        raise IncompatibleError(
            f"{told} says in its meta how it was made, and {untold} has no meta: lna did not write both, so nothing "
            f"shows that they belong together; restore {untold}, or collect both again with `{kind.command} --force`"
        )
    if one.tables[0].shape != other.tables[0].shape or one.origin != other.origin:
        raise IncompatibleError(
            f"{full} and {prefix.name} do not belong together, they come from different runs: collect them again "
            f"with `{kind.command} --force`"
        )
    return one, other


def _unshared(meta: Json, prefix_tokens: int) -> int:
    """How many prefix tokens may have been counted apart from the texts.

    Earlier versions stored only the number of boundary cases, of answers whose tokens do not begin with the whole
    prefix: take each of them for a prefix of the mean length.
    """
    if UNSHARED in meta:
        return meta[UNSHARED]
    cases, sequences = meta.get("boundary_cases", 0), meta.get("sequences", 0)
    return min(prefix_tokens, -(-cases * prefix_tokens // max(sequences, 1)))


class _Loaded(NamedTuple):
    """A language's counts, their digest, how they were made, and what two passes counted apart."""

    counts: LanguageCounts
    digest: str
    made: Json
    apart: Excess


def _load_language(layout: Layout, language: str) -> _Loaded:
    """Read a language's counts, and check that full and prefix counts are possible together."""
    path = layout.activation(language)
    full, prefix = _load_pair(path, layout.activation(language, prefix=True), _COUNTS)
    counts = LanguageCounts(_counts_of(full), _counts_of(prefix), routing=_routing_of(full, prefix, path))
    digest = counts_hash(counts)
    if full.meta.get(COUNTS_HASH, digest) != digest:
        raise IncompatibleError(
            f"{path} or its prefix file was changed after it was counted, or comes from another run: collect both "
            f"again with `{_COUNTS.command} --force`"
        )
    unshared = _unshared(full.meta, prefix.tokens)
    fault, apart = pair_fault(counts, unshared=unshared, widths=full.widths), Excess(0, 0, 0)
    if fault and not full.meta:
        apart = excess(counts)
        fault = None if _by_rounding(apart, counts) else fault
    if fault:
        raise ArtifactError(
            f"{path} and its prefix file hold impossible counts: {fault}; they were exchanged, or do not belong "
            f"together: restore them, or collect them again with `{_COUNTS.command} --force`"
        )
    return _Loaded(counts, digest, full.made, apart)


def _by_rounding(apart: Excess, counts: LanguageCounts) -> bool:
    """Whether two passes over the same texts may have rounded so differently."""
    few = apart.neurons * _NEURONS_APART <= counts.full.over_zero.numel()
    return few and 0 <= apart.largest * _TOKENS_APART <= counts.prefix.total_tokens <= counts.full.total_tokens


def save_counts(layout: Layout, language: str, counts: LanguageCounts, meta: Json) -> list[Path]:
    """Write a language's count files, and those of its moments where it has any.

    The files appear together. The full counts come last, so their presence means that everything is there.
    """
    content, describe = {}, partial(_described, meta, layout, language, counts)
    for prefix, span in ((False, counts.full), (True, counts.prefix)):
        path, said = layout.activation(language, prefix=prefix), describe(_COUNTS, prefix=prefix)
        content[path] = {"total_tokens": span.total_tokens, "over_zero": span.over_zero, "meta": said}
        if counts.routing is not None:
            routed = counts.routing.prefix if prefix else counts.routing.full
            content[path]["routing"] = _stored_routing(counts.routing.experts, routed)
    if counts.moments is not None:
        for prefix, sums in ((False, counts.moments.full), (True, counts.moments.prefix)):
            tables = {"sum": sums.sum, "sum_of_squares": sums.sum_of_squares}
            path, said = layout.moments(language, prefix=prefix), describe(_MOMENTS, prefix=prefix)
            content[path] = {"total_tokens": sums.total_tokens, **tables, "meta": said}
    _save(dict(reversed(content.items())))
    return list(content)


def save_blocks(layout: Layout, language: str, blocks: LanguageBlocks, meta: Json) -> None:
    """Write a language's prefix and full blocks, in the smallest integers that hold them.

    Write them before the counts: counts that are there then have blocks that add up to them.
    """
    content, whole = {}, LanguageCounts(blocks.full.total, blocks.prefix.total)
    for prefix, span in ((True, blocks.prefix), (False, blocks.full)):
        path = layout.blocks(language, prefix=prefix)
        said = _described(meta, layout, language, whole, _BLOCKS, prefix=prefix)
        content[path] = {"total_tokens": span.total_tokens, "over_zero": _smallest(span.over_zero), "meta": said}
    _save(content)


def _described(meta: Json, layout: Layout, language: str, counts: LanguageCounts, kind: _Kind, *, prefix: bool) -> Json:
    """The `meta` of a file: how it was made, and what it is."""
    what = {_KIND: kind.of(prefix=prefix), "language": language, _MODEL: layout.model, COUNTS_HASH: counts_hash(counts)}
    return _plain({**meta, **what})


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
    loaded = _load_language(layout, language)
    counts = loaded.counts
    if moments:
        counts = replace(counts, moments=_load_moments(layout, language, counts, loaded.digest)[0])
    return counts, loaded.made


def with_moments(layout: Layout, language: str, counts: LanguageCounts) -> LanguageCounts:
    """Add the moments that were collected with these counts."""
    return replace(counts, moments=_load_moments(layout, language, counts, counts_hash(counts))[0])


def load_span(path: Path) -> tuple[SpanCounts, Json]:
    """Read one count file by itself."""
    span = _load_span(path, _COUNTS)
    return _counts_of(span), span.made


def load_origin(path: Path) -> tuple[int, Json]:
    """Read the number of tokens and the meta of a count file, without its counts."""
    content = load_tensors(path, remedy=_COUNTS.remedy, lazy=True)
    if not isinstance(content, dict) or "total_tokens" not in content:
        raise ArtifactError(f"{path} is not a count file: it has no total_tokens; {_again({}, _COUNTS)}")
    tokens, meta = _number(content["total_tokens"]), content.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    if type(tokens) is not int or not 0 <= tokens <= _MOST_TOKENS:
        raise ArtifactError(
            f"{path} is not a count file: its total_tokens is not a number of tokens; {_again(meta, _COUNTS)}"
        )
    _check_meta(path, meta, _COUNTS)
    return tokens, _made(meta)


def stored_hash(layout: Layout, language: str) -> str | None:
    """Return the digest of a language's counts as their file says it, without reading them; None where none does."""
    path = layout.activation(language)
    try:
        content = load_tensors(path, remedy=_COUNTS.remedy, lazy=True)
    except (MissingArtifactError, ArtifactError):
        return None
    meta = content.get("meta") if isinstance(content, dict) else None
    digest = meta.get(COUNTS_HASH) if isinstance(meta, dict) else None
    return digest if isinstance(digest, str) else None


def load_blocks(layout: Layout, language: str, *, counted: str | None = None) -> LanguageBlocks:
    """Read a language's blocks and check that they add up to its counts; `counted` is the digest of counts at hand."""
    path = layout.blocks(language)
    full, prefix = _load_pair(path, layout.blocks(language, prefix=True), _BLOCKS)
    blocks = LanguageBlocks(SpanBlocks(full.tokens, full.tables[0]), SpanBlocks(prefix.tokens, prefix.tables[0]))
    whole = LanguageCounts(blocks.full.total, blocks.prefix.total)
    if counts_hash(whole) != (counted or _load_language(layout, language).digest):
        raise IncompatibleError(
            f"the blocks of {path} do not add up to the counts beside them, they come from another run: "
            f"{_BLOCKS.remedy}"
        )
    unshared = _unshared(full.meta, whole.prefix.total_tokens)
    for number, counts in enumerate(_blocks_of(blocks), start=1):
        if fault := pair_fault(counts, unshared=unshared, widths=full.widths):
            raise ArtifactError(
                f"{path} and its prefix file hold impossible counts: in block {number}, {fault}; {_BLOCKS.remedy}"
            )
    return blocks


def _blocks_of(blocks: LanguageBlocks) -> Iterator[LanguageCounts]:
    """The counts of each block."""
    for number in range(len(blocks)):
        full, prefix = (
            SpanCounts(int(span.total_tokens[number]), span.over_zero[number].to(torch.int64))
            for span in (blocks.full, blocks.prefix)
        )
        yield LanguageCounts(full, prefix)


def has_moments(layout: Layout, language: str) -> bool:
    """Whether a language's moments are there."""
    return layout.moments(language).exists()


def _load_moments(layout: Layout, language: str, counts: LanguageCounts, digest: str) -> tuple[LanguageMoments, Json]:
    """Read a language's moments, and check that they belong to these counts and are possible beside them."""
    path = layout.moments(language)
    full, prefix = _load_pair(path, layout.moments(language, prefix=True), _MOMENTS)
    if full.meta.get(COUNTS_HASH) != digest:
        raise IncompatibleError(
            f"{path} was collected with other counts than those beside it: collect the moments again with "
            f"`{_MOMENTS.command}`"
        )
    one, other = (SpanMoments(span.tokens, *span.tables) for span in (full, prefix))
    moments = LanguageMoments(one, other)
    if fault := moments_fault(moments, counts, unshared=_unshared(full.meta, prefix.tokens)):
        raise ArtifactError(
            f"{path} and its prefix file hold impossible moments: {fault}; collect them again with "
            f"`{_MOMENTS.command} --force`"
        )
    return moments, full.meta


def _counts_of(span: _Span) -> SpanCounts:
    return SpanCounts(span.tokens, span.tables[0].to(torch.int64))


def counts_hash(counts: LanguageCounts) -> str:
    """Return a digest of a language's counts, whichever file they come from."""
    return _digest((span.total_tokens, span.over_zero) for span in (counts.full, counts.prefix))


def moments_hash(moments: LanguageMoments) -> str:
    """Return a digest of a language's moments."""
    return _digest((span.total_tokens, span.sum, span.sum_of_squares) for span in (moments.full, moments.prefix))


def _digest(spans: Iterable[tuple[Any, ...]]) -> str:
    parts: list[bytes] = []
    for tokens, *tables in spans:
        parts.append(str((tokens, *tables[0].shape)).encode())
        parts += [table.contiguous().numpy().tobytes() for table in tables]
    return digest_of_bytes(*parts)


@dataclass(frozen=True, repr=False, eq=False)
class AnswerCounts(Framed):
    """The answer counts of several languages side by side, as `Model.count` gives them and as they lie in files.

        p[l, i, k] = counts[l, i, k] / tokens[k]        the share of answer tokens on which a neuron fires

        >>> import language_neurons_alignment as lna
        >>> counts = lna.load("model", device="cpu").count({"en": ["One house."], "fr": ["Une maison."]})
        >>> counts
        AnswerCounts(3 × 96 neurons; tokens: en 10, fr 11)
        >>> counts.probability.shape  # [layer, neuron, language]
        torch.Size([3, 96, 2])

    Attributes:
        counts: c_full − c_prefix.
        tokens: t_full − t_prefix.
        prefix_tokens: t_prefix, which the answers do not change.
        hashes: digest of each language's files.
        config_hash, weights_hash: of the model; "" where the files do not tell.
        metas: what each language's files say about their making.
        notes: sentences about these counts that a reader must know.
        left_out: languages that were asked for and have no answer token.
        widths: the neurons of each layer, where layers differ (`core.widths`).
        routing: of each language, if the model is a mixture of experts; empty where a file has none.
        moments: by language, the mean activations that were collected in memory with the counts.

    Raises:
        CorpusError: a language has no answer token.
    """

    languages: tuple[str, ...]
    counts: Int[Tensor, "layer neuron lang"]
    tokens: Int[Tensor, " lang"]
    prefix_tokens: Int[Tensor, " lang"]
    hashes: dict[str, str]
    config_hash: str
    weights_hash: str
    metas: tuple[Json, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    widths: Widths | None = None
    routing: tuple[LanguageRouting, ...] = ()
    moments: Mapping[str, AnswerMoments] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_answer_tokens(self.answer_tokens, others=max(self.answer_tokens.values()) > 0)

    @classmethod
    def of(
        cls, counted: Mapping[str, LanguageCounts], *, model: Checkpoint, widths: Widths | None = None
    ) -> AnswerCounts:
        """Put counts in memory side by side, by language.

        Args:
            counted: of one model.
            model: that model.
            widths: the neurons of each layer, where layers differ.

        Raises:
            CorpusError: a language has no answer token.
        """
        every = list(counted.values())
        check_answer_tokens({language: one.answer_tokens for language, one in counted.items()}, flag="")
        # one language after the other in memory, as `load_answer_counts` has them
        answers = torch.stack([answer_counts(one.full.over_zero, one.prefix.over_zero) for one in every])
        of_model = model.config_hash, model.weights_hash
        moments = {
            language: AnswerMoments(
                one.answer_tokens, sums.answer.mean, sums.answer.variance, moments_hash(sums), *of_model
            )
            for language, one in counted.items()
            if (sums := one.moments) is not None
        }
        routing = tuple(one.routing for one in every if one.routing is not None)
        return cls(
            tuple(counted),
            answers.permute(1, 2, 0),
            torch.tensor([one.answer_tokens for one in every]),
            torch.tensor([one.prefix.total_tokens for one in every]),
            {language: counts_hash(one) for language, one in counted.items()},
            *of_model,
            metas=tuple({**asdict(model), "language": language} for language in counted),
            widths=widths,
            routing=routing if len(routing) == len(every) else (),
            moments=moments,
        )

    @property
    def answer_tokens(self) -> dict[str, int]:
        """The number of answer tokens of each language."""
        return dict(zip(self.languages, self.tokens.tolist(), strict=True))

    @property
    def tokenizer_hash(self) -> str:
        """The digest of the tokenizer; "" where the files do not tell."""
        return next((digest for meta in self.metas if (digest := model_of(meta).tokenizer_hash)), "")

    @property
    def probability(self) -> Float32[Tensor, "layer neuron lang"]:
        """The activation probabilities."""
        return activation_probability(self.counts, tokens=self.tokens)

    def statistics(self, *, bar: float) -> NeuronStatistics:
        """Compute entropy, peak and membership of every neuron."""
        return neuron_statistics(self.probability, bar=bar, widths=self.widths)

    def find_neurons(self, selection: Selection = DEFAULT_SELECTION) -> Mask:
        """Find the language neurons; nothing is written.

            s(λ) = e − λ r      the top rate's share of neurons of lowest score is selected
            p > τ               a selected neuron belongs to the languages in which this holds

        Without a λ, it is the largest for which no selected neuron is above τ in every language, wherever it lies, or
        in the range of `selection.search`. What a reader must know, such as that no λ is the largest, is a warning.

        >>> import language_neurons_alignment as lna
        >>> texts = {"en": ["Two doors, two keys."], "es": ["Dos puertas, dos llaves."], "sw": ["Milango miwili."]}
        >>> counts = lna.load("model", device="cpu").count(texts)
        >>> neurons = counts.find_neurons(lna.config.Selection(top_rate=0.1, bar=0.8))
        >>> neurons.languages, int(neurons["es"].tensor.sum()) == neurons.sizes["es"]
        (('en', 'es', 'sw'), True)

        Args:
            selection: method and rates; `languages` are those to compare, by default all.

        Raises:
            SweepError: no λ is fine.
            SettingsError: rates that name no neuron, or a language that was not counted.
            MissingArtifactError: mean-difference, and the counts were made without `moments=True`.
        """
        from .masks import Mask, describe, notes_on_found  # which reads counts

        counts = self if selection.languages is None else self._of(selection.languages)
        if selection.has_lambda and selection.lam is None:
            statistics = counts.statistics(bar=selection.known_bar)
            lam = fine_lambda(statistics, selection)
            if math.isnan(lam):
                raise SweepError(
                    "at no λ is appear[K] = 0, the number of selected neurons that are above τ in every language: give "
                    "a lower top rate or a higher bar"
                )
            selection = replace(selection, lam=lam)
        effect, digests = counts._effects() if selection.method == MEAN_DIFFERENCE else (None, {})
        found = find(counts.probability, selection, effect=effect, widths=counts.widths)
        description = describe(found, counts, selection, moments=digests)
        for note in notes_on_found(found, counts, description):
            warnings.warn(note, LNAWarning, stacklevel=2)
        return Mask(counts.languages, found.mask, description, counts=counts)

    def _of(self, languages: Sequence[str]) -> AnswerCounts:
        """Some of the languages, in this order."""
        if missing := [language for language in languages if language not in self.languages]:
            raise SettingsError(
                f"there are no counts of {', '.join(missing)}: choose languages from {', '.join(self.languages)}"
            )
        order = [self.languages.index(language) for language in languages]
        return replace(
            self,
            languages=tuple(languages),
            counts=self.counts[..., order],
            tokens=self.tokens[order],
            prefix_tokens=self.prefix_tokens[order],
            hashes={language: self.hashes[language] for language in languages},
            moments={language: one for language, one in self.moments.items() if language in languages},
            metas=tuple(self.metas[k] for k in order if self.metas),
            routing=tuple(self.routing[k] for k in order if self.routing),
        )

    def _effects(self) -> tuple[Float64[Tensor, "layer neuron lang"], dict[str, str]]:
        if missing := [language for language in self.languages if language not in self.moments]:
            raise MissingArtifactError(
                f"mean-difference needs mean activations, and these counts have none of {', '.join(missing)}: count "
                "with moments=True"
            )
        return effects_of({language: self.moments[language] for language in self.languages})

    def columns(self) -> Columns:
        """A row for each language: its answer tokens, and the mean over neurons of p."""
        layers, d_mlp, _ = self.counts.shape
        neurons = neurons_among(layers, d_mlp, self.widths)
        fired = (self.counts.sum(dim=(0, 1)) / self.tokens / neurons).tolist()
        return {"language": list(self.languages), "tokens": self.tokens.tolist(), "mean_probability": fired}

    def __repr__(self) -> str:
        tokens = ", ".join(f"{language} {count}" for language, count in self.answer_tokens.items())
        return f"AnswerCounts({self._size}; tokens: {tokens})"

    def _repr_html_(self) -> str:
        return html_table(self.columns(), caption=f"Activation counts of {self._size}")

    @property
    def _size(self) -> str:
        layers, d_mlp, _ = self.counts.shape
        return f"{size_in_words(layers, d_mlp, self.widths)} neurons"


def effects_of(moments: Mapping[str, AnswerMoments]) -> tuple[Float64[Tensor, "layer neuron lang"], dict[str, str]]:
    """The effect sizes that mean-difference ranks neurons by, and the digest of each language's moments."""
    mean, variance = (
        torch.stack([getattr(one, name) for one in moments.values()], dim=-1) for name in ("mean", "variance")
    )
    return effect_size(mean, variance), {language: one.digest for language, one in moments.items()}


def load_answer_counts(layout: Layout, languages: Sequence[str], *, skip_empty: bool = False) -> AnswerCounts:
    """Read the counts of several languages and put them side by side; `skip_empty` leaves out those without answers.

    Raises:
        CorpusError: a language has no answer token, and not `skip_empty`; or none has any.
    """
    languages = parse_languages(languages)
    table: Tensor | None = None
    origin: Json = {}
    tokens, prefix_tokens, hashes, metas, empty, apart = [], [], {}, [], {}, {}
    routing: list[LanguageRouting] = []
    for language in languages:
        counts, digest, meta, found = _load_language(layout, language)
        if counts.answer_tokens < 1:
            empty[language] = counts.answer_tokens
            continue
        k, hashes[language] = len(metas), digest
        metas.append(meta)
        if found.neurons:
            apart[language] = found
        answers = answer_counts(counts.full.over_zero, counts.prefix.over_zero)
        if table is None:
            # one language after the other in memory: what runs over languages then reads memory in order
            table, origin = torch.empty(len(languages), *answers.shape, dtype=torch.int64).permute(1, 2, 0), meta
        if answers.shape != table.shape[:2]:
            raise IncompatibleError(
                f"the counts of {language!r} have shape {tuple(answers.shape)}, those of {next(iter(hashes))!r} "
                f"{tuple(table.shape[:2])}: they come from different models; collect {language!r} again"
            )
        if meta.get(WIDTHS) != origin.get(WIDTHS):
            raise IncompatibleError(
                f"the counts of {next(iter(hashes))!r} and {language!r} are of layers of different widths: they come "
                f"from different models; collect {language!r} again"
            )
        for other, earlier in zip(hashes, metas, strict=True):
            if differs := model_of(meta).difference(earlier, unknown_differs=True):
                raise IncompatibleError(
                    f"the counts of {other!r} and {language!r} come from different models (other {differs}): "
                    "collect one of them again with `lna activation --force`"
                )
        table[..., k] = answers
        tokens.append(counts.answer_tokens)
        routing += [] if counts.routing is None else [counts.routing]
        prefix_tokens.append(counts.prefix.total_tokens)
    if not skip_empty or table is None:
        check_answer_tokens(empty, others=table is not None)
    assert table is not None  # languages are never empty: parse_languages
    model, widths = model_of(origin), widths_in(origin)
    totals = torch.tensor(tokens), torch.tensor(prefix_tokens)
    notes = (
        *((left_out_note(empty),) if empty else ()),
        *_notes_on(apart, neurons=neurons_among(len(table), table.shape[1], widths)),
    )
    of_model = model.config_hash, model.weights_hash
    return AnswerCounts(
        tuple(hashes),
        table[..., : len(hashes)],
        *totals,
        hashes,
        *of_model,
        tuple(metas),
        notes,
        tuple(empty),
        widths,
        tuple(routing) if len(routing) == len(metas) else (),
    )


def left_out_note(languages: Iterable[str]) -> str:
    """Say which languages were left out because their answers have no token."""
    return f"left out, because the answers have no token: {', '.join(languages)}"


def _notes_on(apart: Mapping[str, Excess], *, neurons: int) -> tuple[str, ...]:
    """Say in which languages text and prefix were counted apart, and what becomes of the neurons that show it."""
    if not apart:
        return ()
    rounded = {language: found.prefix for language, found in apart.items() if found.prefix}
    above = {language: found.answer for language, found in apart.items() if found.answer}
    largest = max(apart.values(), key=lambda found: found.largest).largest
    said = [
        f"{', '.join(f'{language} {number}' for language, number in some.items())} {what}"
        for some, what in (
            (rounded, "fire more often in the prefix than in the text and are taken as silent in the answers"),
            (above, "fire more often in the answers than these have tokens"),
        )
        if some
    ]
    return (
        f"text and prefix were counted in two passes that rounded differently: of {neurons} neurons, "
        f"{'; '.join(said)}; by {largest} tokens at most",
    )


def model_of(meta: Json) -> Checkpoint:
    """The model that files say they come from."""
    return Checkpoint(*(str(meta.get(f"{what}_hash") or "") for what in ("config", "weights", "tokenizer")))


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
    loaded = _load_language(layout, language)
    counted = counts.hashes.get(language) if counts else None
    moments, meta = _load_moments(layout, language, loaded.counts, counted or loaded.digest)
    answer = moments.answer
    if answer.total_tokens < 1:
        raise ArtifactError(
            f"{path} holds no answer tokens, so there is no mean activation: count a corpus whose answers are not empty"
        )
    model = model_of(meta)
    return AnswerMoments(
        answer.total_tokens, answer.mean, answer.variance, moments_hash(moments), model.config_hash, model.weights_hash
    )

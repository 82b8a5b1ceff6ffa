"""Step 1: count, per language, on how many tokens each neuron fires (SPEC 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

from .config import OVERLONG, check_block_number, check_choice
from .core.blocks import LanguageBlocks
from .core.counts import LanguageCounts, check_tally
from .corpus.encode import EncodedCorpus, answered_positions, check_blocks, encode_groups
from .corpus.records import Record, records_hash
from .engines.base import Engine
from .errors import ConflictError, IncompatibleError, MissingArtifactError
from .session import Session, StartWork, silent, with_stored_answers
from .store.blocks_file import load_blocks, save_blocks
from .store.counts_file import Meta, counts_hash, load_counts, save_counts
from .store.layout import Layout
from .version import __version__

_COUNTED_BY = ("engine", "dtype")
"""What has to be the same for counting again to give the same counts; known only once the engine is there."""


@dataclass(frozen=True)
class Collected:
    """One language's count files.

    Attributes:
        language: code.
        paths: the full and the prefix file; then those of the moments, if they were asked for.
        meta: provenance, as stored.
        reused: they were there already, made from the same model, corpus and settings.
        recounted: the counts were there, but not the moments: counted again, they came out the same.
    """

    language: str
    paths: list[Path]
    meta: Meta
    reused: bool
    recounted: bool = False


def collect_activations(
    session: Session,
    language: str,
    *,
    overlong: str = "error",
    blocks: int | None = None,
    force: bool = False,
    moments: bool = False,
    start: StartWork = silent,
) -> Collected:
    """Count one language and store its files; where they are there already, from the same inputs, do nothing.

    Args:
        session: model, corpus and place; a corpus without answers stands for this model's own (`with_stored_answers`).
        language: code of the language to count.
        overlong: what to do with sequences longer than the model allows: "error", "truncate" or "skip".
        blocks: keep the counts in so many blocks of the corpus too, for `lna stability`; None: not, and blocks that
            are there stay.
        force: count again whatever is there.
        moments: add up the activations too; counts that are there without are made again, and must come out the same.
        start: told of the work, for a progress bar.

    Raises:
        ConflictError: counts of another model, corpus or setting, or not in these blocks, stand there, and not `force`;
            or counts that came out differently now that moments are wanted.
        CorpusError: no records, no answers, sequences too long, or a block without any.
        TallyError: the engine did not count exactly the corpus's tokens; nothing is written.
    """
    check_choice(overlong, OVERLONG, "--overlong")
    session = with_stored_answers(session)
    layout, checkpoint, source = session.layout, session.checkpoint, session.source
    records = session.corpus.of_language(language)
    wanted: Meta = {
        "config_hash": checkpoint.config_hash,
        "weights_hash": checkpoint.weights_hash,
        "corpus_hash": records_hash(records),
        "overlong_policy": overlong,
        **source.explicit,
    }
    _check_blocks(records, blocks)
    before = None if force else _stored(layout, language, wanted)
    if before is not None:
        _check_blocks_there(layout, language, blocks)
        if not moments or before[0].moments is not None:
            return Collected(language, _paths(layout, language, moments=moments), before[1], reused=True)
    engine = source()
    if before is not None:
        _check_same(layout, language, before[1], {key: engine.provenance[key] for key in _COUNTED_BY})
    encoded = encode_groups(records, engine.tokenizer, max_length=engine.model.max_length, overlong=overlong)
    divided = blocks or (before and _blocks_there(layout, language))  # again as before: batches may round otherwise
    parts = encoded.in_blocks(divided) if divided else [encoded]
    counted = _count_parts(engine, parts, start(language, encoded.full_tokens), moments=moments)
    counts = reduce(add, counted)
    if before is not None:
        _check_unchanged(layout, language, before[0], counts)
    meta = {**wanted, **_describe(encoded), **engine.provenance, "language": language, "version": __version__}
    if blocks is not None:
        save_blocks(layout, language, LanguageBlocks.of(counted), meta)
    paths = save_counts(layout, language, counts, meta)
    return Collected(language, paths, meta, reused=False, recounted=before is not None)


def _check_blocks(records: Sequence[Record], blocks: int | None) -> None:
    """Raise, before a model is loaded, where the records cannot be kept in these blocks."""
    if blocks is not None:
        check_block_number(blocks)
        check_blocks(answered_positions(records), blocks)


def _count_parts(
    engine: Engine, parts: Sequence[EncodedCorpus], progress: Callable[[int], None], *, moments: bool
) -> list[LanguageCounts]:
    """Count disjoint parts of a language's corpus, each with its tally; the counts of the whole are their sum."""
    counted = []
    for part in parts:
        counts = engine.count(part.groups, progress=progress, moments=moments)
        check_tally(counts, full_tokens=part.full_tokens, prefix_tokens=part.prefix_tokens)
        counted.append(counts)
    return counted


def _check_blocks_there(layout: Layout, language: str, blocks: int | None) -> None:
    """Raise ConflictError unless the counts that are there are kept in these blocks too, where any are wanted."""
    if blocks is None:
        return
    there = len(load_blocks(layout, language)) if layout.blocks(language).exists() else 0
    if there != blocks:
        raise ConflictError(
            f"{layout.activation(language)} is there {f'in {there} blocks' if there else 'without blocks'}, this run "
            f"has --blocks {blocks}: count again with `lna activation --blocks {blocks} --force`"
        )


def _blocks_there(layout: Layout, language: str) -> int | None:
    """In how many blocks the counts that are there were counted; None in one piece, or where that is not known."""
    with suppress(MissingArtifactError, IncompatibleError):  # blocks of other counts are none of these
        return len(load_blocks(layout, language))
    return None


def _stored(layout: Layout, language: str, wanted: Meta) -> tuple[LanguageCounts, Meta] | None:
    """The counts that are there, if they are the ones wanted, with moments that belong to them, if there are any."""
    if not layout.activation(language).exists():  # the full file is written last: a prefix file alone is half a result
        return None
    counts, meta = load_counts(layout, language)
    _check_same(layout, language, meta, wanted)
    with suppress(MissingArtifactError, IncompatibleError):  # moments of other counts are none of these
        return load_counts(layout, language, moments=True)
    return counts, meta


def _paths(layout: Layout, language: str, *, moments: bool) -> list[Path]:
    """A language's files, in the order of `save_counts`."""
    kinds = [layout.activation, layout.moments] if moments else [layout.activation]
    return [path(language, prefix=prefix) for path in kinds for prefix in (False, True)]


def _check_same(layout: Layout, language: str, meta: Meta, wanted: Meta) -> None:
    """Hold the provenance of counts that are there against the one wanted."""
    for key, value in wanted.items():
        if meta.get(key) != value:
            raise ConflictError(
                f"{layout.activation(language)} is there with {key} {meta.get(key)!r}, this run has {value!r}: "
                "use --force to count again, or another --root or -s"
            )


def _check_unchanged(layout: Layout, language: str, before: LanguageCounts, counts: LanguageCounts) -> None:
    """Hold counts that were made again, for their moments, against those that are there."""
    if counts_hash(before) != counts_hash(counts):
        apart = (before.full.over_zero != counts.full.over_zero) | (before.prefix.over_zero != counts.prefix.over_zero)
        raise ConflictError(
            f"{layout.activation(language)} was counted without moments, and counted again {int(apart.sum())} of "
            f"{apart.numel()} neurons come out differently, so the moments would not be theirs: count on the same "
            "engine, with the same --batch-tokens and --blocks, or use --force to replace the counts too"
        )


def _describe(encoded: EncodedCorpus) -> Meta:
    return {
        "sequences": encoded.sequences,
        "overlong": encoded.overlong,
        "boundary_cases": encoded.boundary_cases,
    }

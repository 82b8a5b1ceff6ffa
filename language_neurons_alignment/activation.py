"""Step 1: count, per language, on how many tokens each neuron fires (SPEC 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

from .config import OVERLONG, check_block_number, check_choice
from .core.blocks import LanguageBlocks
from .core.counts import LanguageCounts, check_tally
from .corpus.encode import EncodedCorpus, answered_positions, check_blocks, encode_groups
from .corpus.records import records_hash
from .engines.base import Engine
from .errors import ConflictError
from .session import Session, StartWork, silent, with_stored_answers
from .store.blocks_file import load_blocks, save_blocks
from .store.counts_file import Meta, load_counts, save_counts
from .store.layout import Layout
from .version import __version__


@dataclass(frozen=True)
class Collected:
    """One language's count files.

    Attributes:
        language: code.
        paths: the full and the prefix file.
        meta: provenance, as stored.
        reused: they were there already, made from the same model, corpus and settings.
    """

    language: str
    paths: list[Path]
    meta: Meta
    reused: bool


def collect_activations(
    session: Session,
    language: str,
    *,
    overlong: str = "error",
    blocks: int | None = None,
    force: bool = False,
    start: StartWork = silent,
) -> Collected:
    """Count one language and store its two files; where they are there already, from the same inputs, do nothing.

    Args:
        session: model, corpus and place; a corpus without answers stands for this model's own (`with_stored_answers`).
        language: code of the language to count.
        overlong: what to do with sequences longer than the model allows: "error", "truncate" or "skip".
        blocks: keep the counts in so many blocks of the corpus too, for `lna stability`; None: not.
        force: count again whatever is there.
        start: told of the work, for a progress bar.

    Raises:
        ConflictError: counts of another model, corpus or setting, or not in these blocks, stand there, and not `force`.
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
    if blocks is not None:
        check_block_number(blocks)
        check_blocks(answered_positions(records), blocks)
    paths = [layout.activation(language), layout.activation(language, prefix=True)]
    if not force and paths[0].exists():  # the full file is written last: a prefix file alone is half a result
        _check_blocks_there(layout, language, blocks)
        return Collected(language, paths, _matching_meta(layout, language, wanted), reused=True)
    engine = source()
    encoded = encode_groups(records, engine.tokenizer, max_length=engine.model.max_length, overlong=overlong)
    parts = [encoded] if blocks is None else encoded.in_blocks(blocks)
    counted = _count_parts(engine, parts, start(language, encoded.full_tokens))
    meta = {**wanted, **_describe(encoded), **engine.provenance, "language": language, "version": __version__}
    if blocks is not None:
        save_blocks(layout, language, LanguageBlocks.of(counted), meta)
    save_counts(layout, language, reduce(add, counted), meta)
    return Collected(language, paths, meta, reused=False)


def _count_parts(
    engine: Engine, parts: Sequence[EncodedCorpus], progress: Callable[[int], None]
) -> list[LanguageCounts]:
    """Count disjoint parts of a language's corpus, each with its tally; the counts of the whole are their sum."""
    counted = []
    for part in parts:
        counts = engine.count(part.groups, progress=progress)
        check_tally(counts, full_tokens=part.full_tokens, prefix_tokens=part.prefix_tokens)
        counted.append(counts)
    return counted


def _check_blocks_there(layout: Layout, language: str, blocks: int | None) -> None:
    """Raise ConflictError unless the counts that are there are kept in these blocks too, where any are wanted."""
    if blocks is None:
        return
    path = layout.blocks(language)
    there = len(load_blocks(layout, language).full.total_tokens) if path.exists() else 0
    if there != blocks:
        raise ConflictError(
            f"{layout.activation(language)} is there {f'in {there} blocks' if there else 'without blocks'}, this run "
            f"has --blocks {blocks}: count again with `lna activation --blocks {blocks} --force`"
        )


def _matching_meta(layout: Layout, language: str, wanted: Meta) -> Meta:
    """The provenance of counts that are there, if it is the one wanted."""
    _, meta = load_counts(layout, language)
    for key, value in wanted.items():
        if meta.get(key) != value:
            raise ConflictError(
                f"{layout.activation(language)} is there with {key} {meta.get(key)!r}, this run has {value!r}: "
                "use --force to count again, or another --root or -s"
            )
    return meta


def _describe(encoded: EncodedCorpus) -> Meta:
    return {
        "sequences": encoded.sequences,
        "overlong": encoded.overlong,
        "boundary_cases": encoded.boundary_cases,
    }

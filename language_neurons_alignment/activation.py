"""Step 1: count, per language, on how many tokens each neuron fires.

`collect_activations` counts one language of a corpus. On several machines each counts one shard of it
(`shard_session`), and `merge_counts` adds the shards up to the counts of the whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path

from ._session import Session, with_stored_answers
from .config import OVERLONG, check_block_number, check_choice, check_shard
from .core.counts import LanguageBlocks, LanguageCounts, check_answer_tokens, check_block_tokens, check_tally
from .core.model import Progress, StartProgress, silent
from .core.widths import Widths, neurons_among
from .corpus.encode import EncodedCorpus, answered_positions, check_blocks, encode_groups
from .corpus.records import Record, add_hashes, records_hash
from .engines import Engine
from .engines.families import neurons_of
from .errors import ConflictError, CorpusError, IncompatibleError, MissingArtifactError, SettingsError
from .languages import language_code
from .store.checkpoint import local_folder, read_config
from .store.counts import (
    UNSHARED,
    WIDTHS,
    counts_hash,
    has_moments,
    load_blocks,
    load_counts,
    load_origin,
    moments_hash,
    save_blocks,
    save_counts,
    with_moments,
)
from .store.files import Json, check_writable, remove_leftovers
from .store.layout import Layout
from .store.replacing import Replacing
from .version import __version__

_COUNTED_BY = ("engine", "dtype")
"""What must be the same for counting again to give the same counts; known only once the engine is loaded."""

_TOKENIZER = "tokenizer_hash"
"""What earlier versions did not note, so it is compared only where both sides tell it."""

_SAME = ("config_hash", "weights_hash", _TOKENIZER, "overlong_policy", WIDTHS, *_COUNTED_BY)
"""What shards must have in common."""

_SUMMED = ("sequences", "overlong", "boundary_cases")
"""What adds up over shards."""


@dataclass(frozen=True)
class Collected:
    """One language's count files.

    Attributes:
        paths: the full and the prefix file; then those of the moments, if these were asked for.
        reused: the files existed already, made from the same model, corpus and settings.
        recounted: the counts existed without moments; recomputed, they came out the same.
    """

    language: str
    paths: list[Path]
    meta: Json
    reused: bool
    recounted: bool = False


def collect_activations(
    session: Session,
    language: str,
    *,
    overlong: str = "error",
    blocks: int | None = None,
    overwrite: bool = False,
    moments: bool = False,
    shard: bool = False,
    start: StartProgress = silent,
) -> Collected:
    """Count one language and store its files; where they exist already, from the same inputs, do nothing.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "corpus.json", "toy") as session:
    ...     done = collect_activations(session, "fr")
    >>> [path.name for path in done.paths]
    ['activation.fr.Llama-model.pt', 'prefix.activation.fr.Llama-model.pt']

    Args:
        session: model, corpus and place; where the corpus has only questions, this model's answers are counted
            (`with_stored_answers`).
        language: code of the language to count.
        overlong: what to do with sequences longer than the model allows: "error", "truncate" or "skip".
        blocks: also store the counts in this many blocks of the corpus, for `lna stability`; None: do not, and keep
            existing blocks.
        overwrite: count again, whatever exists.
        moments: also store mean activations. Stored counts without moments are recomputed with the same blocks and
            must match.
        shard: the corpus is one shard of another (`shard_session`), in which a language may have no answer token.
        start: returns the progress bar.

    Raises:
        ConflictError: counts of another model, corpus or setting, or in other blocks, exist, and not `overwrite`; or
            recomputed counts do not match.
        CorpusError: no records, no answers, answers or a block of them without any token, or sequences that are too
            long.
        TallyError: the engine did not count exactly the corpus's tokens; nothing is written.
    """
    check_choice(overlong, OVERLONG, "--overlong")
    language = language_code(language)
    session = with_stored_answers(session)
    layout, source = session.layout, session.source
    records = session.corpus.of_language(language)
    wanted = _provenance(session, language, records, overlong)
    answered = answered_positions(records)  # before a model is loaded
    if blocks is not None:
        check_block_number(blocks)
        check_blocks(answered, blocks)
    before = None if overwrite else _stored(layout, language, wanted)
    if before is not None and (kept := _kept(layout, language, before, blocks=blocks, moments=moments, shard=shard)):
        remove_leftovers(kept.paths[0].parent)  # nothing is written, which would remove them too
        return kept
    check_writable(layout.activation(language), needed=counts_size(session, blocks=blocks, moments=moments))
    engine = source()
    if before is not None:
        _check_same(layout, language, before[1], {key: engine.provenance[key] for key in _COUNTED_BY})
    encoded = encode_groups(records, engine.tokenizer, max_length=engine.model.max_length, overlong=overlong)
    # recomputing uses the same blocks as before: other batches may round differently
    divided = blocks or (before and _blocks_there(layout, language))
    parts = encoded.in_blocks(divided) if divided else [encoded]
    if not shard:
        check_answer_tokens({language: encoded.answer_tokens}, flag="")
    if blocks is not None and not shard:
        check_block_tokens({language: [part.answer_tokens for part in parts]})
    progress = start(language, encoded.full_tokens)
    counted = [count_checked(engine, part, progress=progress, moments=moments) for part in parts]
    counts = reduce(add, counted)
    if before is not None:
        _check_unchanged(layout, language, before[0], counts, engine.model.widths)
    described = {name: getattr(encoded, name) for name in _SUMMED}
    described[UNSHARED] = encoded.unshared_prefix_tokens(engine.model.switch)
    if engine.model.widths is not None:
        described[WIDTHS] = list(engine.model.widths)
    meta = {**wanted, **described, **engine.provenance, "language": language, "version": __version__}
    if blocks is not None:
        save_blocks(layout, language, LanguageBlocks.of(counted), meta)
    paths = save_counts(layout, language, counts, meta)
    return Collected(language, paths, meta, reused=False, recounted=before is not None)


def counted_before(
    session: Session,
    language: str,
    *,
    overlong: str = "error",
    blocks: int | None = None,
    moments: bool = False,
    shard: bool = False,
) -> Collected | None:
    """Return the counts that `collect_activations` would keep; None where it would count, and all these could be read.

    Raises:
        ArtifactError: the existing counts are damaged, or cut off.
        ConflictError, CorpusError: as `collect_activations`.
    """
    language, session = language_code(language), with_stored_answers(session)
    records = session.corpus.of_language(language)
    answered_positions(records)
    before = _stored(session.layout, language, _provenance(session, language, records, overlong))
    return before and _kept(session.layout, language, before, blocks=blocks, moments=moments, shard=shard)


def _provenance(session: Session, language: str, records: Sequence[Record], overlong: str) -> Json:
    """What existing counts must have been made from."""
    return {
        **session.hashes_of_all,
        "corpus_hash": _corpus_hash(records, session.layout.spelling(language)),
        "overlong_policy": overlong,
        **session.source.explicit,
    }


def _kept(
    layout: Layout,
    language: str,
    before: tuple[LanguageCounts, Json],
    *,
    blocks: int | None,
    moments: bool,
    shard: bool,
) -> Collected | None:
    """The existing counts as a result; None where moments are wanted that they do not have."""
    if not shard:
        check_answer_tokens({language: before[0].answer_tokens}, flag="")
    if blocks is not None:
        _check_blocks_there(layout, language, blocks)
    if moments and before[0].moments is None:
        return None
    kinds = [layout.activation, layout.moments] if moments else [layout.activation]
    paths = [path(language, prefix=prefix) for path in kinds for prefix in (False, True)]
    return Collected(language, paths, before[1], reused=True)


def count_checked(engine: Engine, encoded: EncodedCorpus, *, progress: Progress, moments: bool) -> LanguageCounts:
    """Count, and compare what was counted with the corpus.

    Raises:
        TallyError: the engine did not count exactly the corpus's tokens.
    """
    counted = engine.count(encoded.groups, progress=progress, moments=moments)
    check_tally(
        counted,
        full_tokens=encoded.full_tokens,
        prefix_tokens=encoded.prefix_tokens,
        unshared=encoded.unshared_prefix_tokens(engine.model.switch),
        widths=engine.model.widths,
    )
    return counted


def without_answer_tokens(
    session: Session, languages: Sequence[str], *, overlong: str, again: Mapping[str, bool]
) -> dict[str, int]:
    """Return the languages whose answers have no token, by their counts or else by their texts, and t_full − t_prefix.

    Nothing is counted, and a language is tokenized no further than to the first record whose answers have tokens.
    """
    uncounted = [one for one in languages if again.get(one) or not _counted_answers(session.layout, one)]
    if not uncounted:
        return {}
    engine = session.source()
    cut = {"max_length": engine.model.max_length, "overlong": "skip" if overlong == "skip" else "truncate"}

    def tokens_of(record: Record) -> int:
        with suppress(CorpusError):  # no answers, or --overlong skip leaves none
            return encode_groups([record], engine.tokenizer, **cut).answer_tokens
        return 0

    empty = {}
    for language in uncounted:
        tokens = 0
        for record in session.corpus.of_language(language):
            if (found := tokens_of(record)) > 0:
                break
            tokens += found
        else:
            empty[language] = tokens
    return empty


def _counted_answers(layout: Layout, language: str) -> bool:
    """Whether there are counts with answer tokens."""
    paths = [layout.activation(language, prefix=prefix) for prefix in (False, True)]
    if not all(path.exists() for path in paths):
        return False
    full, prefix = (load_origin(path)[0] for path in paths)
    return full > prefix


def counts_size(session: Session, *, blocks: int | None, moments: bool) -> int:
    """Return how many bytes the count files of one language take; 0 where the model's config does not tell."""
    config = read_config(local_folder(session.source.settings.model_path)) or {}
    return count_file_bytes(neurons_of(config), blocks=blocks, moments=moments)


def count_file_bytes(neurons: int, *, blocks: int | None = None, moments: bool = False) -> int:
    """Return how many bytes the full and the prefix file of one language take, with their blocks and moments.

    >>> count_file_bytes(32 * 14336)  # Mistral-7B: two counts of eight bytes for each neuron
    7340032
    """
    of_a_neuron = 8 + (2 * 8 if moments else 0) + (blocks or 0)  # int64, two float64, at least a byte in each block
    return 2 * neurons * of_a_neuron


def _check_blocks_there(layout: Layout, language: str, blocks: int) -> None:
    """Raise ConflictError where the existing counts have no blocks, or another number."""
    there = len(load_blocks(layout, language)) if layout.blocks(language).exists() else 0
    if there != blocks:
        raise ConflictError(
            f"{layout.activation(language)} is there {f'in {there} blocks' if there else 'without blocks'}, this run "
            f"has --blocks {blocks}: count again with `lna activation --blocks {blocks} --force`"
        )


def _blocks_there(layout: Layout, language: str) -> int | None:
    """The number of blocks of the existing counts; None where they have none, or only those of other counts."""
    with suppress(MissingArtifactError, IncompatibleError):
        return len(load_blocks(layout, language))
    return None


def _corpus_hash(records: Sequence[Record], spelling: str) -> str:
    """The digest of the records, with their language as the files of their counts have it."""
    return records_hash([replace(record, language=spelling) for record in records])


def _stored(layout: Layout, language: str, wanted: Json) -> tuple[LanguageCounts, Json] | None:
    """The existing counts and their meta, with their moments where these exist; None where there are no counts."""
    if not layout.activation(language).exists():  # the full file is written last: a prefix file alone is half a result
        return None
    counts, meta = load_counts(layout, language)
    _check_same(layout, language, meta, wanted)
    with suppress(MissingArtifactError, IncompatibleError):  # moments of other counts are of no use
        return with_moments(layout, language, counts), meta
    return counts, meta


def _check_same(layout: Layout, language: str, meta: Json, wanted: Json) -> None:
    """Raise ConflictError where the provenance of existing counts is not the one wanted."""
    for key, value in wanted.items():
        if _differs(key, meta, wanted):
            raise ConflictError(
                f"{layout.activation(language)} is there with {key} {meta.get(key)!r}, this run has {value!r}: "
                "use --force to count again, or another --root or -s"
            )


def _differs(key: str, one: Json, other: Json) -> bool:
    """Whether two files were made with different values of a setting."""
    known = key != _TOKENIZER or (key in one and key in other)
    return known and one.get(key) != other.get(key)


def _check_unchanged(
    layout: Layout, language: str, before: LanguageCounts, counts: LanguageCounts, widths: Widths | None
) -> None:
    """Raise ConflictError where recomputed counts differ from the existing ones."""
    if counts_hash(before) != counts_hash(counts):
        apart = (before.full.over_zero != counts.full.over_zero) | (before.prefix.over_zero != counts.prefix.over_zero)
        layers, d_mlp = apart.shape
        raise ConflictError(
            f"{layout.activation(language)} was counted without moments; recomputed, {int(apart.sum())} of "
            f"{neurons_among(layers, d_mlp, widths)} neurons come out differently, so the moments would not belong to "
            "it: count on the same engine, with the same --batch-tokens and --blocks, or use --force to replace the "
            "counts too"
        )


@dataclass(frozen=True)
class Merged:
    """One language's merged counts.

    Attributes:
        tokens: of all full sequences.
        paths: the full and the prefix file; then those of the moments, where the shards have any.
        dtype: the precision in which the shards were counted; "" where they do not say.
        batch_invariant: every shard was counted with --batch-invariant, so the counts are exactly those of the whole.
        reused: the files existed already, merged from the same shards.
    """

    language: str
    shards: int
    tokens: int
    paths: list[Path]
    dtype: str = ""
    batch_invariant: bool = False
    reused: bool = False


def shard_session(session: Session, part: int, parts: int) -> Session:
    """Return the session of one of `parts` disjoint shards of the corpus, with a folder of results of its own."""
    check_shard(part, parts)
    layout = shard_layout(session.layout, part, parts)
    return replace(session, corpus=session.corpus.shard(part, parts), layout=layout)


def shards_at(layout: Layout, folders: Sequence[Path]) -> list[Layout]:
    """Return the layouts of folders of count files (`…/activations/<name>`), wherever they were copied from."""
    for folder in folders:
        if folder.absolute().parent.name != "activations":
            raise SettingsError(f"{folder} is not a folder of counts: expected …/activations/<name>")
    _check_parts([folder.absolute().name for folder in folders])
    return [Layout(folder.absolute().parents[1], folder.absolute().name, layout.model) for folder in folders]


def _check_parts(names: Sequence[str]) -> None:
    """Raise ConflictError where folders named …shard-K-of-N are not all N parts, each once, of one division."""
    known = [part for name in names if (part := _part_in(name))]
    if not known:
        return
    divisions = {(whole, parts) for whole, _, parts in known}
    given = sorted(part for _, part, _ in known)
    if len(divisions) > 1 or len(known) < len(names) or given != list(range(1, known[0][2] + 1)):
        raise ConflictError(
            f"the folders {', '.join(names)} are not the parts of one whole, so their sum would count some questions "
            f"twice or never: give all parts of one division, shard-1-of-N to shard-N-of-N, each once"
        )


def _part_in(name: str) -> tuple[str, int, int] | None:
    """Read (dataset, K, N) off the name of a folder …shard-K-of-N; None for another name."""
    found = re.fullmatch(r"(.+)\.shard-(\d+)-of-(\d+)", name)
    return (found[1], int(found[2]), int(found[3])) if found else None


def shard_layout(layout: Layout, part: int, parts: int) -> Layout:
    """Return where one shard's counts lie: beside the whole, under a name that says which shard it is."""
    return Layout(layout.root, f"{layout.dataset}.shard-{part}-of-{parts}", layout.model)


def find_shards(layout: Layout) -> list[Layout]:
    """Find the shards of a dataset under its root."""
    folder = layout.root / "activations"
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    divisions = {part[2] for name in names if (part := _part_in(name)) and part[0] == layout.dataset}
    if not divisions:
        raise MissingArtifactError(
            f"no shards at {folder}/{layout.dataset}.shard-K-of-N: count them with `lna activation --shard K/N`"
        )
    if len(divisions) > 1:
        raise ConflictError(
            f"{folder} holds shards of several divisions of {layout.dataset} "
            f"(of {', '.join(map(str, sorted(divisions)))}): keep one"
        )
    parts = divisions.pop()
    shards = [shard_layout(layout, part, parts) for part in range(1, parts + 1)]
    missing = [shard.dataset for shard in shards if shard.dataset not in names]
    if missing:
        raise MissingArtifactError(f"{len(missing)} of {parts} shards are missing under {folder}: {', '.join(missing)}")
    return shards


def merge_counts(layout: Layout, shards: Sequence[Layout], *, overwrite: bool = False) -> list[Merged]:
    """Add up the counts of disjoint shards, language by language, and store them as those of the whole.

    What was merged from the same shards before is kept. A run that was cut off, also by a kill, goes on where it
    stopped when it is started again.

    Args:
        layout: where the whole belongs.
        shards: where the parts lie.
        overwrite: merge again, and replace whatever exists.

    Raises:
        MissingArtifactError: a shard lacks a language that another one has.
        IncompatibleError: shards of different models or settings, some with moments and some without, or the same
            shard twice.
        ConflictError: counts of something other than these shards exist, and not `overwrite`.
    """
    if not shards:
        raise MissingArtifactError("nothing to merge: name at least one folder of counts")
    languages = _languages(shards)
    run = {"languages": languages, "shards": [str(shard.activation("").parent.absolute()) for shard in shards]}
    replacing = Replacing(layout.merging(), run, overwrite=overwrite)
    again = {language: replacing.again(layout.activation(language)) for language in languages}
    kept = {}
    for language in languages:  # all, before anything is written
        if layout.activation(language).exists() and not again[language]:
            whole = _sum_of_shards(shards, language)
            if other := _other_than(layout, language, whole):
                if not replacing.active:
                    raise ConflictError(
                        f"{layout.activation(language)} is there already, {other}: use --force to replace it, or "
                        "another -s"
                    )
            else:
                kept[language] = _merged(layout, language, whole, reused=True)
    merged = [kept.get(language) or _merge_language(layout, shards, language) for language in languages]
    replacing.end()
    return merged


@dataclass(frozen=True)
class _Whole:
    """What the shards of one language add up to."""

    counts: LanguageCounts
    blocks: LanguageBlocks | None
    meta: Json


def _sum_of_shards(shards: Sequence[Layout], language: str) -> _Whole:
    blocks = _merged_blocks(shards, language)
    parts, metas = [], []
    for shard in shards:
        counts, meta = load_counts(shard, language, moments=has_moments(shard, language))
        _check_belongs(shard, meta, metas)
        metas.append(meta)
        parts.append(counts)
    meta = metas[0] | {key: sum(int(meta.get(key, 0)) for meta in metas) for key in _SUMMED}
    meta.pop(UNSHARED, None)
    if all(UNSHARED in meta for meta in metas):  # earlier versions did not say
        meta[UNSHARED] = sum(meta[UNSHARED] for meta in metas)
    meta["corpus_hash"] = add_hashes(str(meta["corpus_hash"]) for meta in metas)
    meta |= {"shards": len(metas), "version": __version__}
    if not all(_TOKENIZER in meta for meta in metas):
        meta.pop(_TOKENIZER, None)
    if not all(meta.get("batch_invariant") is True for meta in metas):
        meta.pop("batch_invariant", None)
    return _Whole(reduce(add, parts), blocks, meta)


def _other_than(layout: Layout, language: str, whole: _Whole) -> str | None:
    """Say what shows that the existing counts were not merged from these shards; None where nothing does."""
    counts, meta = load_counts(layout, language)
    for key in (*_SAME, "corpus_hash", "shards", "batch_invariant"):
        if _differs(key, meta, whole.meta):
            return f"with {key} {meta.get(key)!r}, these shards have {whole.meta.get(key)!r}"
    digest = counts_hash(counts)
    if digest != counts_hash(whole.counts):
        return "and these shards add up to other counts"
    if whole.blocks is not None and _blocks_there(layout, language) != len(whole.blocks):
        return f"without the {len(whole.blocks)} blocks that these shards have"
    if (sums := whole.counts.moments) is not None:
        with suppress(MissingArtifactError, IncompatibleError):
            there = with_moments(layout, language, counts).moments
            if there is not None and moments_hash(there) == moments_hash(sums):
                return None
        return "without the moments that these shards have"
    return None


def _merge_language(layout: Layout, shards: Sequence[Layout], language: str) -> Merged:
    whole = _sum_of_shards(shards, language)
    if whole.blocks is not None:
        save_blocks(layout, language, whole.blocks, whole.meta)
    save_counts(layout, language, whole.counts, whole.meta)
    return _merged(layout, language, whole)


def _merged(layout: Layout, language: str, whole: _Whole, *, reused: bool = False) -> Merged:
    kinds = [layout.activation, layout.moments] if whole.counts.moments is not None else [layout.activation]
    return Merged(
        language,
        whole.meta["shards"],
        whole.counts.full.total_tokens,
        [path(language, prefix=prefix) for path in kinds for prefix in (False, True)],
        str(whole.meta.get("dtype", "")),
        batch_invariant=whole.meta.get("batch_invariant") is True,
        reused=reused,
    )


def _merged_blocks(shards: Sequence[Layout], language: str) -> LanguageBlocks | None:
    """The blocks of the whole: the first blocks of all shards added up, and so on; None where no shard has blocks."""
    without = [shard for shard in shards if not shard.blocks(language).exists()]
    if len(without) == len(shards):
        return None
    if without:
        raise IncompatibleError(
            f"{without[0].blocks(language)} is not there, and other shards have blocks: count all shards with the same "
            "--blocks"
        )
    return reduce(add, (load_blocks(shard, language) for shard in shards))


def _languages(shards: Sequence[Layout]) -> list[str]:
    """The languages of the shards; all must have the same."""
    found = [set(map(language_code, shard.counted_languages())) for shard in shards]
    for shard, languages in zip(shards, found, strict=True):
        lacking = sorted(set().union(*found) - languages)
        if lacking or not languages:
            raise MissingArtifactError(
                f"{shard.activation('').parent} has no counts of {shard.model}"
                f"{' in ' + ', '.join(lacking) if lacking else ''}: count that shard first"
            )
    return sorted(found[0])


def _check_belongs(shard: Layout, meta: Json, earlier: list[Json]) -> None:
    where = shard.activation("").parent
    if not meta.get("corpus_hash"):
        raise IncompatibleError(
            f"{where} does not say what it was counted from, so nothing shows that shards are disjoint: "
            "count it with lna"
        )
    for other in earlier:
        for key in _SAME:
            if _differs(key, other, meta):
                raise IncompatibleError(
                    f"{where} has {key} {meta.get(key)!r}, an earlier shard {other.get(key)!r}: "
                    "count all shards in the same way"
                )
        if other["corpus_hash"] == meta["corpus_hash"]:
            raise IncompatibleError(
                f"{where} was counted from the same records as an earlier shard: shards must be disjoint"
            )

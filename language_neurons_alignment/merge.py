"""Counts of disjoint shards of a corpus, added up to the counts of the whole (SPEC 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path

from .config import check_shard
from .core.blocks import LanguageBlocks
from .core.counts import LanguageCounts
from .corpus.records import add_hashes
from .errors import ConflictError, IncompatibleError, MissingArtifactError, SettingsError
from .languages import language_code
from .session import Session
from .store.blocks_file import load_blocks, save_blocks
from .store.counts_file import Meta, load_counts, save_counts
from .store.layout import Layout
from .store.moments_file import has_moments
from .version import __version__

_SAME = ("config_hash", "weights_hash", "overlong_policy", "engine", "dtype")
"""What counts must have in common to add up to one result."""

_SUMMED = ("sequences", "overlong", "boundary_cases")


@dataclass(frozen=True)
class Merged:
    """One language's merged counts.

    Attributes:
        language: code.
        shards: how many were added.
        tokens: of the whole, full sequences.
        paths: the full and the prefix file; then those of the moments, where the shards have any.
    """

    language: str
    shards: int
    tokens: int
    paths: list[Path]


def shard_session(session: Session, part: int, parts: int) -> Session:
    """The same model at work on one of `parts` disjoint shards of the corpus, with a place of its own.

    Raises:
        SettingsError: no such part.
    """
    check_shard(part, parts)
    corpus = session.corpus.shard(part, parts)
    return replace(session, corpus=corpus, layout=shard_layout(session.layout, part, parts))


def shards_at(layout: Layout, folders: Sequence[Path]) -> list[Layout]:
    """Folders of count files (`…/activations/<name>`), wherever they were copied from, as shards.

    Raises:
        SettingsError: a folder that is not one of counts.
    """
    for folder in folders:
        if folder.absolute().parent.name != "activations":
            raise SettingsError(f"{folder} is not a folder of counts: expected …/activations/<name>")
    return [Layout(folder.absolute().parents[1], folder.absolute().name, layout.model) for folder in folders]


def shard_layout(layout: Layout, part: int, parts: int) -> Layout:
    """Where one shard's counts lie: beside the whole, under a name that says which shard it is."""
    return Layout(layout.root, f"{layout.dataset}.shard-{part}-of-{parts}", layout.model)


def find_shards(layout: Layout) -> list[Layout]:
    """The shards of a dataset that lie under its root.

    Raises:
        MissingArtifactError: there are none, or not all of them.
        ConflictError: there are shards of several divisions.
    """
    prefix = f"{layout.dataset}.shard-"
    folder = layout.root / "activations"
    names = sorted(path.name for path in folder.glob(f"{prefix}*-of-*")) if folder.is_dir() else []
    divisions = {name.rpartition("-of-")[2] for name in names}
    if not names:
        raise MissingArtifactError(
            f"no shards at {folder}/{prefix}K-of-N: count them with `lna activation --shard K/N`"
        )
    if len(divisions) > 1:
        raise ConflictError(
            f"{folder} holds shards of several divisions of {layout.dataset} "
            f"(of {', '.join(sorted(divisions))}): keep one"
        )
    parts = int(divisions.pop())
    shards = [shard_layout(layout, part, parts) for part in range(1, parts + 1)]
    missing = [shard.dataset for shard in shards if shard.dataset not in names]
    if missing:
        raise MissingArtifactError(f"{len(missing)} of {parts} shards are missing under {folder}: {', '.join(missing)}")
    return shards


def merge_counts(layout: Layout, shards: Sequence[Layout], *, force: bool = False) -> list[Merged]:
    """Add up the counts of disjoint shards, language by language, and store them as those of the whole.

    Args:
        layout: where the whole belongs.
        shards: where the parts lie.
        force: replace counts that are there.

    Raises:
        MissingArtifactError: a shard lacks a language that another one has.
        IncompatibleError: shards of different models or settings, some with moments and some without, or the same
            shard twice.
        ConflictError: counts are there already, and not `force`.
    """
    languages = _languages(shards)
    for language in languages:
        if layout.activation(language).exists() and not force:
            raise ConflictError(
                f"{layout.activation(language)} is there already: use --force to replace it, or another -s"
            )
    return [_merge_language(layout, shards, language) for language in languages]


def _merge_language(layout: Layout, shards: Sequence[Layout], language: str) -> Merged:
    total: LanguageCounts | None = None
    blocks = _merged_blocks(shards, language)
    metas: list[Meta] = []
    for shard in shards:
        counts, meta = load_counts(shard, language, moments=has_moments(shard, language))
        _check_belongs(shard, meta, metas)
        metas.append(meta)
        total = counts if total is None else total + counts
    if total is None:
        raise MissingArtifactError("nothing to merge: name at least one folder of counts")
    if blocks is not None:
        save_blocks(layout, language, blocks, _merged_meta(metas))
    paths = save_counts(layout, language, total, _merged_meta(metas))
    return Merged(language, len(metas), total.full.total_tokens, paths)


def _merged_blocks(shards: Sequence[Layout], language: str) -> LanguageBlocks | None:
    """The blocks of the whole, where all shards have any: the first with the first, and so on."""
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
    """The languages of the first shard; every other shard must have the same."""
    found = [
        {
            language_code(path.name.split(".")[1])
            for path in shard.activation("*").parent.glob(shard.activation("*").name)
        }
        for shard in shards
    ]
    for shard, languages in zip(shards, found, strict=True):
        lacking = sorted(set().union(*found) - languages)
        if lacking or not languages:
            raise MissingArtifactError(
                f"{shard.activation('*').parent} has no counts of {shard.model}"
                f"{' in ' + ', '.join(lacking) if lacking else ''}: count that shard first"
            )
    return sorted(found[0]) if found else []


def _check_belongs(shard: Layout, meta: Meta, earlier: list[Meta]) -> None:
    where = shard.activation("*").parent
    if not meta.get("corpus_hash"):
        raise IncompatibleError(
            f"{where} does not say what it was counted from, so nothing shows that shards are disjoint: "
            "count it with lna"
        )
    for other in earlier:
        differing = [key for key in _SAME if other.get(key) != meta.get(key)]
        if differing:
            key = differing[0]
            raise IncompatibleError(
                f"{where} has {key} {meta.get(key)!r}, an earlier shard {other.get(key)!r}: "
                "count all shards in the same way"
            )
        if other["corpus_hash"] == meta["corpus_hash"]:
            raise IncompatibleError(
                f"{where} was counted from the same records as an earlier shard: shards must be disjoint"
            )


def _merged_meta(metas: Sequence[Meta]) -> Meta:
    summed = {key: sum(int(meta.get(key, 0)) for meta in metas) for key in _SUMMED}
    corpus_hash = add_hashes(str(meta["corpus_hash"]) for meta in metas)
    return {**metas[0], **summed, "corpus_hash": corpus_hash, "shards": len(metas), "version": __version__}

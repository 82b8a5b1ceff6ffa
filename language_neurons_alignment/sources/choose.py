"""A part of a corpus: the same questions in every language."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ..corpus.records import Record
from ..errors import CorpusError, SettingsError


def of_languages(records: Sequence[Record], languages: tuple[str, ...]) -> list[Record]:
    """The records of these languages, language by language in the order given.

    Raises:
        CorpusError: a language has none.
    """
    there = tuple(dict.fromkeys(record.language for record in records))
    missing = [code for code in languages if code not in there]
    if missing:
        raise CorpusError(
            f"the source has nothing in {', '.join(missing)}: it has {', '.join(there) or 'nothing at all'}; "
            "choose from these with --langs"
        )
    return [record for code in languages for record in records if record.language == code]


def choose(records: Sequence[Record], *, limit: int | None, seed: int | None) -> list[Record]:
    """At most `limit` records of each language, with the same ids in all of them.

    Without a seed the first ones. With a seed those whose digest of (seed, id) is lowest, which depends neither on the
    order nor on the number of languages, and a larger limit keeps what a smaller one chose. Where records have no ids,
    their number within their language stands in.

    Raises:
        SettingsError: a limit below 1, or a seed without a limit.
        CorpusError: no id is there in every language.
    """
    if limit is None:
        if seed is not None:
            raise SettingsError(f"--seed {seed} chooses which records stay under --limit: give --limit too")
        return list(records)
    if limit < 1:
        raise SettingsError(f"--limit must be at least 1, got {limit}")
    keys = _keys(records)
    common = _in_every_language(records, keys)
    if not common:
        raise CorpusError("no id is there in every language, so --limit cannot keep the same ones: see --id-column")
    if seed is not None:
        common = sorted(common, key=lambda key: hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=16).digest())
    kept = set(common[:limit])
    return [record for record, key in zip(records, keys, strict=True) if key in kept]


def _keys(records: Sequence[Record]) -> list[str]:
    """Each record's id, or its number within its language."""
    seen: dict[str, int] = {}
    keys = []
    for record in records:
        seen[record.language] = seen.get(record.language, 0) + 1
        keys.append(f"#{seen[record.language]}" if record.id is None else record.id)
    return keys


def _in_every_language(records: Sequence[Record], keys: list[str]) -> list[str]:
    """The keys that all languages have, in the first one's order."""
    of_language: dict[str, dict[str, None]] = {}
    for record, key in zip(records, keys, strict=True):
        of_language.setdefault(record.language, {})[key] = None
    first, *others = of_language.values()
    return [key for key in first if all(key in other for other in others)]

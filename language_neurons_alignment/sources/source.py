"""One source, whatever its kind: a benchmark by name, a table, or a folder.

`read_source` reads it, `of_languages` and `choose` keep a part of it, the same questions in every language, and
`describe_source` is what a corpus file stores about where its questions come from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..corpus.records import Record, records_hash
from ..errors import CorpusError, SettingsError
from ..languages import language_code
from .benchmarks import BENCHMARKS, read_benchmark
from .folders import read_folder
from .tables import DEFAULT_COLUMNS, ColumnNames, Gathered, gather, read_rows


@dataclass(frozen=True)
class SourceOptions:
    """How a source is read; an option that does not fit the source is an error.

    Attributes:
        folder: with a benchmark's files; None: the hub.
        split: of a benchmark.
        revision: of a benchmark on the hub.
        columns: of a table.
        lang: the one language of a table.
        header: the first row of a TSV or CSV file names the columns; else they are called 1, 2, 3, …
        quotes: in a TSV or CSV file a field may stand in double quotes.
        aligned: in a folder of text, line n says the same in every file.
    """

    folder: Path | None = None
    split: str | None = None
    revision: str | None = None
    columns: ColumnNames = DEFAULT_COLUMNS
    lang: str | None = None
    header: bool = True
    quotes: bool = True
    aligned: bool = True


DEFAULT_OPTIONS = SourceOptions()


def read_source(source: str, languages: tuple[str, ...] | None, options: SourceOptions) -> Gathered:
    """The records of a source, with their bare questions."""
    if source in BENCHMARKS:
        return _read_benchmark(source, languages, options)
    foreign = {"--from": options.folder, "--split": options.split, "--revision": options.revision}
    given = ", ".join(flag for flag, value in foreign.items() if value is not None)
    if given:
        raise SettingsError(f"{given} is for {', '.join(BENCHMARKS)} only, and the source is {source!r}: leave it out")
    path, columns, header, quotes = Path(source), options.columns, options.header, options.quotes
    if path.is_dir():
        if options.lang or columns.lang:
            raise SettingsError("in a folder each file's name says its language: leave out --lang and --lang-column")
        return read_folder(path, languages, columns=columns, header=header, quotes=quotes, aligned=options.aligned)
    if not path.exists():
        raise CorpusError(
            f"there is no source {source!r}: give {', '.join(BENCHMARKS)}, or the path of a table or folder"
        )
    if options.lang and columns.lang:
        raise SettingsError("--lang and --lang-column both say the language: give one of them")
    if not options.aligned:
        raise SettingsError(f"--unaligned is for a folder of text files, and {source} is a file: leave it out")
    language = None if options.lang is None else language_code(options.lang)
    return gather(read_rows(path, header=header, quotes=quotes), columns, language=language)


def _read_benchmark(name: str, languages: tuple[str, ...] | None, options: SourceOptions) -> Gathered:
    answers = options.columns.answers
    own = SourceOptions(options.folder, options.split, options.revision, replace(DEFAULT_COLUMNS, answers=answers))
    if options != own:
        raise SettingsError(f"the columns of {name} are known: leave out the flags that name or describe them")
    if options.folder is not None and options.revision:
        raise SettingsError("--revision is the hub's, and --from reads files on disk: give one of them")
    return read_benchmark(
        BENCHMARKS[name],
        languages,
        folder=options.folder,
        split=options.split,
        answers=answers,
        revision=options.revision,
    )


def describe_source(source: str, options: SourceOptions, gathered: Gathered) -> dict[str, Any]:
    """Where the questions come from, with a digest of the bare questions and gold answers."""
    given: dict[str, Any] = {"source": source, "digest": records_hash(gathered.records)}
    if source in BENCHMARKS:
        benchmark = BENCHMARKS[source]
        given["from"] = benchmark.hub if options.folder is None else str(options.folder)
        given["split"] = options.split or next(iter(benchmark.splits))
        given |= {"revision": options.revision} if options.revision else {}
        given |= {"answers": options.columns.answers} if options.columns.answers else {}
    elif Path(source).is_file():
        given["columns"] = {key: value for key, value in asdict(options.columns).items() if value is not None}
    return given


def of_languages(records: Sequence[Record], languages: tuple[str, ...]) -> list[Record]:
    """The records of these languages, language by language in the order given."""
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

    Without a seed these are the first ones. With a seed they are those whose digest of (seed, id) is lowest: the choice
    does not depend on the order or the number of languages, and a larger limit keeps what a smaller one chose. A record
    without an id is known by its number within its language.

    >>> records = [Record(code, f"{n} + 1?", (), id=str(n)) for code in ("en", "fr") for n in range(9)]
    >>> [(record.language, record.id) for record in choose(records, limit=2, seed=None)]
    [('en', '0'), ('en', '1'), ('fr', '0'), ('fr', '1')]
    """
    if limit is None:
        if seed is not None:
            raise SettingsError(f"--seed {seed} chooses which records stay under --limit: give --limit too")
        return list(records)
    if limit < 1:
        raise SettingsError(f"--limit must be at least 1, got {limit}")
    keys: list[str] = []
    of_language: dict[str, list[str]] = {}
    for record in records:
        own = of_language.setdefault(record.language, [])
        keys.append(f"#{len(own) + 1}" if record.id is None else record.id)
        own.append(keys[-1])
    first, *others = (dict.fromkeys(own) for own in of_language.values())
    common = [key for key in first if all(key in other for other in others)]
    if not common:
        raise CorpusError("no id is there in every language, so --limit cannot keep the same ones: see --id-column")
    if seed is not None:
        common = sorted(common, key=lambda key: hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=16).digest())
    kept = set(common[:limit])
    return [record for record, key in zip(records, keys, strict=True) if key in kept]

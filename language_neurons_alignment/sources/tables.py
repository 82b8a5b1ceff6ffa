"""Tables: TSV, CSV, JSON, JSON lines or Parquet → rows → records with bare questions.

`read_rows` reads a file, and `gather` makes records of its rows by the names of their columns.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..corpus.records import Record, Spellings, check_writable, parse_items, read_text
from ..errors import CorpusError, MissingPackageError, SettingsError
from ..languages import language_code

SourceRow = tuple[dict[str, Any], str]
"""A row by its columns' names, and its place ("questions.tsv, line 3")."""


@dataclass(frozen=True)
class ColumnNames:
    """Which column holds what.

    Attributes:
        instruction: the question.
        lang: the language, by name, code or tag; None if a whole file is in one language.
        id: the same for the same question in all languages.
        answers: gold answers: a text, a list of texts, or a list of {"generated": text}.
        target: the known final answer.
    """

    instruction: str = "instruction"
    lang: str | None = None
    id: str | None = None
    answers: str | None = None
    target: str | None = None


DEFAULT_COLUMNS = ColumnNames()


@dataclass(frozen=True)
class Gathered:
    """The records of a source; those of several files add up.

    Attributes:
        records: with their bare questions as instructions.
        empty: how many places had no question, and were left out.
    """

    records: tuple[Record, ...]
    empty: int = 0

    def __add__(self, other: Gathered) -> Gathered:
        return Gathered(self.records + other.records, self.empty + other.empty)


def gather(rows: Iterable[SourceRow], columns: ColumnNames, *, language: str | None = None) -> Gathered:
    """The records of a table's rows.

    >>> rows = [({"q": "1 + 1?", "n": 2}, "sums.tsv, line 2"), ({"q": "", "n": 3}, "sums.tsv, line 3")]
    >>> gathered = gather(rows, ColumnNames("q", target="n"), language="en")
    >>> [(record.instruction, record.target) for record in gathered.records], gathered.empty
    ([('1 + 1?', '2')], 1)
    """
    if language is None and columns.lang is None:
        raise SettingsError(
            "no language: name the column that holds it with --lang-column, or the file's one with --lang"
        )
    records: list[Record] = []
    empty, spellings = 0, Spellings()
    for row, where in rows:
        question = _text(row, columns.instruction, "--instruction-column", where)
        if not question.strip():
            empty += 1
            continue
        record = Record(
            _language(row, columns.lang, where) if columns.lang else str(language),
            question,
            tuple(_answers(_cell(row, columns.answers, "--answers-column", where), where)) if columns.answers else (),
            id=_optional(row, columns.id, "--id-column", where),
            target=_optional(row, columns.target, "--target-column", where),
        )
        check_writable(record.as_item(), where)
        if columns.lang:
            spellings.check(record, "_".join((_tag(row, columns.lang, where), *_variety(row, columns.lang))), where)
        records.append(record)
    return Gathered(tuple(records), empty)


def _cell(row: dict[str, Any], column: str, flag: str, where: str) -> Any:
    if column not in row:
        raise CorpusError(
            f"{where}: there is no column {column!r}: it has {', '.join(map(str, row))}; choose with {flag}"
        )
    return row[column]


def _text(row: dict[str, Any], column: str, flag: str, where: str) -> str:
    value = _cell(row, column, flag, where)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CorpusError(
            f"{where}: the column {column!r} must hold text, got {type(value).__name__}; choose with {flag}"
        )
    return value


def _optional(row: dict[str, Any], column: str | None, flag: str, where: str) -> str | None:
    value = None if column is None else _cell(row, column, flag, where)
    none = value is None or value != value  # NaN is how Parquet files of other tools leave a cell empty
    return None if none or not str(value).strip() else str(value).strip()


def _language(row: dict[str, Any], column: str, where: str) -> str:
    value = _tag(row, column, where)
    try:
        return language_code(value)
    except SettingsError as error:
        raise CorpusError(f"{where}: {error}") from error


_SCRIPT, _GLOTTOCODE = "iso_15924", "glottocode"
"""The columns beside `iso_639_3` in the tables of FLORES+; the language may be in either code."""


def _tag(row: dict[str, Any], column: str, where: str) -> str:
    """The language of a row as it is written; in a table of FLORES+ with its script, so that kas has two."""
    value, script = _text(row, column, "--lang-column", where), row.get(_SCRIPT)
    joins = column in ("iso_639_3", _GLOTTOCODE) and isinstance(script, str) and script.strip()
    return f"{value.strip()}_{str(script).strip()}" if joins else value


def _variety(row: dict[str, Any], column: str) -> list[str]:
    """What tells two varieties of one language apart in a table of FLORES+ (cat_Latn_vale1252)."""
    variety = row.get(_GLOTTOCODE)
    return [variety] if column == "iso_639_3" and isinstance(variety, str) and variety else []


def _answers(value: Any, where: str) -> Iterator[str]:
    """The answers in a cell, without empty ones."""
    for one in value if isinstance(value, list) else [] if value is None else [value]:
        text = one.get("generated") if isinstance(one, dict) else one
        if not isinstance(text, str):
            raise CorpusError(
                f'{where}: an answer must be a text, a list of texts, or a list of {{"generated": text}}, '
                f"got {type(text).__name__}; choose with --answers-column"
            )
        if text.strip():
            yield text


# Files → rows. The file's ending says which kind of table it is.

_DELIMITERS = {".tsv": "\t", ".csv": ","}
_ENDINGS = (*_DELIMITERS, ".json", ".jsonl", ".parquet")


def is_table(path: Path) -> bool:
    """Whether a file's ending says that it is a table."""
    return path.suffix.lower() in _ENDINGS


def read_rows(path: Path, *, header: bool = True, quotes: bool = True) -> list[SourceRow]:
    """All rows of a table."""
    ending = path.suffix.lower()
    if ending not in _ENDINGS:
        raise CorpusError(
            f"{path} is no table: expected a file ending in {', '.join(_ENDINGS)}; rename it, or convert it"
        )
    if ending not in _DELIMITERS and not (header and quotes):
        raise SettingsError(f"--no-header and --no-quotes are for TSV and CSV, and {path} is neither: leave them out")
    if ending == ".parquet":
        rows = _parquet(path)
    else:
        text = read_text(path, advice="save it as UTF-8")
        rows = list(_delimited(text, path, header, quotes) if ending in _DELIMITERS else _objects(text, path))
    if not rows:
        raise CorpusError(f"{path} has no rows: expected at least one below the columns' names")
    return rows


def _objects(text: str, path: Path) -> Iterator[SourceRow]:
    for item, where in parse_items(text, path):
        if not isinstance(item, dict):
            raise CorpusError(f"{where}: expected an object with the columns as keys, got {type(item).__name__}")
        yield item, where


def _delimited(text: str, path: Path, header: bool, quotes: bool) -> Iterator[SourceRow]:
    names: list[str] | None = None
    for cells, line in _cells(text, path, quotes):
        if names is None:
            names = _names(cells, path) if header else [str(n) for n in range(1, len(cells) + 1)]
            if header:
                continue
        if len(cells) != len(names):
            raise CorpusError(
                f"{path}, line {line}: columns found: {len(cells)}, expected: {len(names)} ({', '.join(names)}); "
                "put a field that holds a tab, comma or line break in double quotes"
            )
        yield dict(zip(names, cells, strict=True)), f"{path}, line {line}"


def _names(cells: list[str], path: Path) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CorpusError(
            f"{path}, line 1: the column {twice[0]!r} is there twice; give every column a name of its own"
        )
    return names


def _cells(text: str, path: Path, quotes: bool) -> Iterator[tuple[list[str], int]]:
    """Each row's fields and the line where it begins; a quoted field may continue over several lines."""
    quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    source = io.StringIO(text, newline="")
    reader = csv.reader(source, delimiter=_DELIMITERS[path.suffix.lower()], quoting=quoting, strict=True)
    begins = 1
    while True:
        try:
            with _fields_of_any_length():
                cells = next(reader, None)
        except csv.Error as error:
            raise CorpusError(
                f"{path}, line {begins}: {error}; double the quotes inside a quoted field, or use --no-quotes where "
                "quotes are plain characters"
            ) from error
        if cells is None:
            return
        if cells:  # an empty line is no row
            yield cells, begins
        begins = reader.line_num + 1


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    """Lift the csv module's limit of 128 KiB for a field, which holds for the whole process, and restore it."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _parquet(path: Path) -> list[SourceRow]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingPackageError.of("pyarrow", purpose=f"reading {path}", extra="data") from error
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:  # ValueError: a text that is not UTF-8
        reason = " ".join(str(error).split())
        raise CorpusError(f"cannot read {path}: {reason}; is it a whole Parquet file?") from error
    return [(row, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]

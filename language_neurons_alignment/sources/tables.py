"""Tables on disk → rows: TSV, CSV, JSON, JSON lines, Parquet."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..corpus.records import Record, check_encodable, parse_items, read_text
from ..errors import CorpusError, MissingPackageError, SettingsError
from ..languages import language_code

Row = tuple[dict[str, Any], str]
"""A row by its columns' names, and where it stands ("questions.tsv, line 3")."""

DELIMITERS = {".tsv": "\t", ".csv": ","}
ENDINGS = (*DELIMITERS, ".json", ".jsonl", ".parquet")


@dataclass(frozen=True)
class TableFormat:
    """How a TSV or CSV file is written.

    Attributes:
        header: its first row names the columns; else they are called 1, 2, 3, …
        quotes: a field may stand in double quotes, with tabs, line breaks and doubled quotes inside.
    """

    header: bool = True
    quotes: bool = True


PLAIN_TABLE = TableFormat()


def is_table(path: Path) -> bool:
    """Whether a file's ending says that it is a table."""
    return path.suffix.lower() in ENDINGS


def read_rows(path: Path, form: TableFormat) -> list[Row]:
    """All rows of a table; which kind it is, its ending says.

    Raises:
        CorpusError: it cannot be read, or is damaged; the message names the file and the line.
        SettingsError: `form` says something that is not for this kind.
        MissingPackageError: pyarrow is not installed, and it is Parquet.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise CorpusError(
            f"{path} is no table: expected a file ending in {', '.join(ENDINGS)}; rename it, or convert it"
        )
    if ending not in DELIMITERS and form != PLAIN_TABLE:
        raise SettingsError(f"--no-header and --no-quotes are for TSV and CSV, and {path} is neither: leave them out")
    if ending == ".parquet":
        return _parquet(path)
    text = read_text(path, advice="save it as UTF-8")
    rows = list(_delimited(text, path, form) if ending in DELIMITERS else _objects(text, path))
    if not rows:
        raise CorpusError(f"{path} has no rows: expected at least one below the columns' names")
    return rows


def _objects(text: str, path: Path) -> Iterator[Row]:
    for item, where in parse_items(text, path):
        if not isinstance(item, dict):
            raise CorpusError(f"{where}: expected an object with the columns as keys, got {type(item).__name__}")
        yield item, where


def _delimited(text: str, path: Path, form: TableFormat) -> Iterator[Row]:
    names: list[str] | None = None
    for cells, line in _cells(text, path, form):
        if names is None:
            names = _header(cells, path) if form.header else [str(n) for n in range(1, len(cells) + 1)]
            if form.header:
                continue
        if len(cells) != len(names):
            raise CorpusError(
                f"{path}, line {line}: columns found: {len(cells)}, expected: {len(names)} ({', '.join(names)}); "
                "put a field that holds a tab, comma or line break in double quotes"
            )
        yield dict(zip(names, cells, strict=True)), f"{path}, line {line}"


def _cells(text: str, path: Path, form: TableFormat) -> Iterator[tuple[list[str], int]]:
    """Each row's fields and the line where it begins; a quoted field may go on over several lines."""
    quoting = csv.QUOTE_MINIMAL if form.quotes else csv.QUOTE_NONE
    source = io.StringIO(text, newline="")
    reader = csv.reader(source, delimiter=DELIMITERS[path.suffix.lower()], quoting=quoting, strict=True)
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


def _header(cells: list[str], path: Path) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CorpusError(
            f"{path}, line 1: the column {twice[0]!r} is there twice; give every column a name of its own"
        )
    return names


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    """The csv module refuses fields above 128 KiB unless it is told otherwise, for the whole process."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _parquet(path: Path) -> list[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingPackageError.of("pyarrow", purpose=f"reading {path}", extra="data") from error
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise CorpusError(f"cannot read {path}: {reason}; is it a whole Parquet file?") from error
    if not rows:
        raise CorpusError(f"{path} has no rows: expected at least one")
    return [(row, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]


# ── Languages as data sets name them: "EN", "Bengali", "eng_Latn", "swh_Latn", "cmn_Hans".

_PART_OF = {"Kore": "Hang"}
"""Korean's usual script, "Hangul and Han", is written as Hangul alone in data sets."""


@cache
def language_of_tag(tag: str) -> str:
    """The code that this toolkit uses for a language named in any of the usual ways.

    A three-letter code becomes the two-letter one, a member of a macrolanguage that stands for it becomes it
    (swh → sw, cmn → zh, npi → ne), and a script is dropped where it is the language's usual one (eng_Latn → en).

    Raises:
        SettingsError: no such language.
    """
    try:
        return language_code(_standard(tag))
    except (LookupError, ValueError):  # not a tag: a name; langcodes' own errors are these
        return language_code(tag)


def _standard(tag: str) -> str:
    import langcodes

    language = langcodes.Language.get(langcodes.standardize_tag(tag.strip(), macro=True))
    usual = langcodes.Language.get(language.language or "und").maximize().script
    if language.script and language.script in (usual, _PART_OF.get(usual or "")):
        language = language.update_dict({"script": None})
    return language.to_tag()


def same_language(tag: str, code: str) -> bool:
    """Whether a tag that may be no language at all means this language."""
    try:
        return language_of_tag(tag) == code
    except SettingsError:
        return False


# ── Rows → records, by the names of their columns.


@dataclass(frozen=True)
class Columns:
    """Which column holds what.

    Attributes:
        instruction: the question.
        lang: the language, by name, code or tag; None where a whole file is in one language.
        id: the same for the same question in all languages.
        answers: gold answers: a text, a list of texts, or a list of {"generated": text}.
        target: the known final answer.
    """

    instruction: str = "instruction"
    lang: str | None = None
    id: str | None = None
    answers: str | None = None
    target: str | None = None


DEFAULT_COLUMNS = Columns()


@dataclass(frozen=True)
class Gathered:
    """What a source gave.

    Attributes:
        records: with their bare questions as instructions.
        empty: how many places had no question, and were left out.
    """

    records: tuple[Record, ...]
    empty: int = 0

    def __add__(self, other: Gathered) -> Gathered:
        return Gathered(self.records + other.records, self.empty + other.empty)


def gather(rows: Iterable[Row], columns: Columns, *, language: str | None = None) -> Gathered:
    """The records of a table's rows.

    Args:
        rows: as `read_rows` gives them.
        columns: what is where.
        language: of all rows, where no column says it.

    Raises:
        SettingsError: neither a column nor `language` says the language.
        CorpusError: a column that is not there, an unknown language, an answer that is no text; with file and line.
    """
    if language is None and columns.lang is None:
        raise SettingsError(
            "no language: name the column that holds it with --lang-column, or the file's one with --lang"
        )
    records: list[Record] = []
    empty = 0
    for row, where in rows:
        question = _text(row, columns.instruction, "--instruction-column", where)
        if not question.strip():
            empty += 1
            continue
        record = Record(
            _language(row, columns.lang, where) if columns.lang else str(language),
            question,
            tuple(_answers(_cell(row, columns.answers, "--answers", where), where)) if columns.answers else (),
            id=_optional(row, columns.id, "--id-column", where),
            target=_optional(row, columns.target, "--target-column", where),
        )
        check_encodable(record, where)
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
    return None if value is None or not str(value).strip() else str(value).strip()


def _language(row: dict[str, Any], column: str, where: str) -> str:
    value = _text(row, column, "--lang-column", where)
    try:
        return language_of_tag(value)
    except SettingsError as error:
        raise CorpusError(f"{where}: {error}") from error


def _answers(value: Any, where: str) -> list[str]:
    listed = value if isinstance(value, list) else [] if value is None else [value]
    return [text for one in listed if (text := _answer(one, where)).strip()]


def _answer(value: Any, where: str) -> str:
    text = value.get("generated") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise CorpusError(
            f'{where}: an answer must be a text, a list of texts, or a list of {{"generated": text}}, '
            f"got {type(text).__name__}; choose with --answers"
        )
    return text

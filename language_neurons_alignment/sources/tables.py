"""Tables on disk → rows: TSV, CSV, JSON, JSON lines, Parquet."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..corpus.items import parse_items, read_text
from ..errors import CorpusError, MissingPackageError, SettingsError

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

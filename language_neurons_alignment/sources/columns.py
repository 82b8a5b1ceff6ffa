"""Rows → records, by the names of their columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..corpus.records import Record, check_encodable
from ..errors import CorpusError, SettingsError
from .tables import Row
from .tags import language_of_tag


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

"""Corpus files: a JSON list, or JSON lines, of questions with their answers (SPEC 1)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CorpusError, SettingsError
from ..languages import language_code
from .items import Report, parse_items, raise_at_once, read_text

SCHEMA = '{"lang": str, "instruction": str, "answers": [{"generated": str}, …]}'


@dataclass(frozen=True)
class Record:
    """One question in one language, and the answers that a model gave to it.

    Attributes:
        language: code.
        instruction: the question, as the model is given it.
        answers: the generated texts, each a plain continuation of the instruction.
        id: the same for the same question in all languages, where the corpus has such ids.
        source: the record as it stood in the file, with whatever other keys it has; None for one made by hand.
        target: the known final answer, where there is one: what `lna evaluate` compares with.
        question: the bare question, where a template made the instruction from it.
    """

    language: str
    instruction: str
    answers: tuple[str, ...]
    id: str | None = None
    source: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    target: str | None = None
    question: str | None = None

    def as_item(self) -> dict[str, Any]:
        """The record as it stands in a corpus file, its other keys included (SPEC 1)."""
        if self.source is not None:
            return dict(self.source)
        extra = {"id": self.id, "target": self.target, "question": self.question}
        named = {key: value for key, value in extra.items() if value is not None}
        answers = [{"generated": answer} for answer in self.answers]
        return {"lang": self.language, **named, "instruction": self.instruction, "answers": answers}


@dataclass(frozen=True)
class Corpus:
    """The records of a dataset file, in their order.

    Attributes:
        path: the file.
        records: all of them.
    """

    path: Path
    records: tuple[Record, ...]

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that occur, in the order of first occurrence."""
        return tuple(dict.fromkeys(record.language for record in self.records))

    def shard(self, part: int, parts: int) -> Corpus:
        """One of `parts` disjoint corpora that together are this one: every `parts`-th record of each language.

        Args:
            part: counted from 1.
            parts: how many there are.
        """
        kept = [record for code in self.languages for record in self.of_language(code)[part - 1 :: parts]]
        return Corpus(self.path, tuple(kept))

    def of_language(self, language: str) -> list[Record]:
        """A language's records.

        Raises:
            CorpusError: it has none.
        """
        chosen = [record for record in self.records if record.language == language]
        if not chosen:
            raise CorpusError(
                f"{self.path} has no records in {language!r}: it has {', '.join(self.languages)}; "
                "choose from these with --langs (-l)"
            )
        return chosen


def read_corpus(path: Path) -> Corpus:
    """Read and check a corpus file.

    Raises:
        CorpusError: no such file, not JSON, empty, or a record that is not as SPEC 1 says; the message names the file
            and the record or line.
    """
    return Corpus(path, tuple(record for record, _ in read_numbered(path)))


def read_numbered(path: Path, *, report: Report = raise_at_once) -> list[tuple[Record, str]]:
    """The records of a corpus file, each with where it stands ("mgsm.json, record 3").

    Args:
        path: the file.
        report: told of every error (`read_corpus` lists them); what it is told of is left out.
    """
    numbered: list[tuple[Record, str]] = []
    text = read_text(path, what="the corpus", advice="give a JSON file in UTF-8")
    empty = True
    for item, where in parse_items(text, path, report=report):
        empty = False
        try:
            numbered.append((_record(item, where), where))
        except CorpusError as error:
            report(error)
    if empty and not text.strip().strip("[] \n"):
        report(CorpusError(f"the corpus {path} is empty: expected a list of records {SCHEMA}"))
    return numbered


def records_hash(records: Sequence[Record]) -> str:
    """A digest of what is read from records, independent of the file's formatting and of their order.

    It is the sum of the records' own digests, so that the digests of disjoint shards add up to that of the whole
    (`add_hashes`), as their counts do.
    """
    return add_hashes(_record_hash(record) for record in records)


def add_hashes(hashes: Iterable[str]) -> str:
    """The digest of several disjoint sets of records together: Σ digests mod 2¹²⁸."""
    return f"{sum(int(one, 16) for one in hashes) % 2**128:032x}"


def _record_hash(record: Record) -> str:
    content = json.dumps([record.language, record.instruction, list(record.answers)], ensure_ascii=False)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _record(item: Any, where: str) -> Record:
    if not isinstance(item, dict):
        raise CorpusError(f"{where}: expected a record {SCHEMA}, got {type(item).__name__}")
    missing = [key for key in ("lang", "instruction", "answers") if key not in item]
    if missing:
        raise CorpusError(f"{where}: the record has no {' and no '.join(map(repr, missing))}; expected {SCHEMA}")
    language, instruction, answers = item["lang"], item["instruction"], item["answers"]
    if not (isinstance(language, str) and isinstance(instruction, str) and isinstance(answers, list)):
        raise CorpusError(f"{where}: lang and instruction must be strings and answers a list; expected {SCHEMA}")
    if not instruction:
        raise CorpusError(f"{where}: the instruction is empty; give every record a question, or leave it out")
    try:
        code = language_code(language)
    except SettingsError as error:
        raise CorpusError(f"{where}: {error}") from error
    extra = {key: _text_or_none(item.get(key)) for key in ("id", "target", "question")}
    record = Record(code, instruction, tuple(_answer(answer, where) for answer in answers), source=item, **extra)
    check_encodable(record, where)
    return record


def _answer(answer: Any, where: str) -> str:
    if not isinstance(answer, dict) or not isinstance(answer.get("generated"), str):
        raise CorpusError(f'{where}: every answer must be {{"generated": str}}, got {json.dumps(answer)[:60]}')
    return answer["generated"]


def check_encodable(record: Record, where: str) -> None:
    """Refuse half of a surrogate pair: JSON can spell it, but it is no text and no tokenizer reads it."""
    for text in (record.instruction, *record.answers, *(record.id or "", record.target or "", record.question or "")):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise CorpusError(
                f"{where}: character {error.start + 1} of a text is half of a surrogate pair ({text[error.start]!a}); "
                "write the file again with whole characters"
            ) from error


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)

"""Corpus files: a JSON list, or JSON lines, of questions with their answers (SPEC 1)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CorpusError, SettingsError
from ..languages import language_code

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
    """

    language: str
    instruction: str
    answers: tuple[str, ...]
    id: str | None = None
    source: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    def as_item(self) -> dict[str, Any]:
        """The record as it stands in a corpus file, its other keys included (SPEC 1)."""
        if self.source is not None:
            return dict(self.source)
        named = {} if self.id is None else {"id": self.id}
        answers = [{"generated": answer} for answer in self.answers]
        return {**named, "lang": self.language, "instruction": self.instruction, "answers": answers}


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


def corpus_of(items: Iterable[Any], path: Path) -> Corpus:
    """The corpus of these items, as it is read from a file that holds them.

    Raises:
        CorpusError: an item that is not as SPEC 1 says.
    """
    return Corpus(path, tuple(_record(item, f"{path}, record {number}") for number, item in enumerate(items, start=1)))


def read_corpus(path: Path) -> Corpus:
    """Read and check a corpus file.

    Raises:
        CorpusError: no such file, not JSON, empty, or a record that is not as SPEC 1 says; the message names the file
            and the record or line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not UTF-8 at byte {error.start}"
        raise CorpusError(f"cannot read the corpus {path}: {reason}; give a JSON file with -d") from error
    records = tuple(_record(item, where) for item, where in _items(text, path))
    if not records:
        raise CorpusError(f"the corpus {path} is empty: expected a list of records {SCHEMA}")
    return Corpus(path, records)


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


def _items(text: str, path: Path) -> Iterator[tuple[Any, str]]:
    """The records as parsed, each with a description of where it stands."""
    if text.lstrip().startswith("["):
        try:
            items = json.loads(text)
        except json.JSONDecodeError as error:
            raise CorpusError(
                f"{path}, line {error.lineno}: not valid JSON ({error.msg}); is the file cut off?"
            ) from error
        for number, item in enumerate(items, start=1):
            yield item, f"{path}, record {number}"
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield json.loads(line), f"{path}, line {number}"
        except json.JSONDecodeError as error:
            raise CorpusError(
                f"{path}, line {number}: not valid JSON ({error.msg}); expected a JSON list, or one record a line"
            ) from error


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
    texts = tuple(_answer(answer, where) for answer in answers)
    record = Record(code, instruction, texts, _identifier(item.get("id")), source=item)
    for text in (record.instruction, *record.answers):
        _check_encodable(text, where)
    return record


def _answer(answer: Any, where: str) -> str:
    if not isinstance(answer, dict) or not isinstance(answer.get("generated"), str):
        raise CorpusError(f'{where}: every answer must be {{"generated": str}}, got {json.dumps(answer)[:60]}')
    return answer["generated"]


def _check_encodable(text: str, where: str) -> None:
    """Refuse half of a surrogate pair: JSON can spell it, but it is no text and no tokenizer reads it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CorpusError(
            f"{where}: character {error.start + 1} of a text is half of a surrogate pair ({text[error.start]!a}); "
            "write the file again with whole characters"
        ) from error


def _identifier(value: Any) -> str | None:
    return None if value is None else str(value)

"""Corpus files: a JSON list, or JSON lines, of questions with their answers (SPEC 1)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import CorpusError, SettingsError
from ..languages import language_code

# ── Text files of JSON items, each with the place where it stands: a JSON list, or JSON lines.

Report = Callable[[CorpusError], None]
"""Told of what is wrong with a file: it raises, or it takes note and reading goes on."""


def raise_at_once(error: CorpusError) -> None:
    """The first error ends the reading."""
    raise error


def read_text(path: Path, *, what: str = "", advice: str) -> str:
    """The text of a UTF-8 file, with or without a byte-order mark.

    Raises:
        CorpusError: it cannot be opened, or is not UTF-8; the message names the byte and its line.
    """
    named = f"{what} {path}".strip()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"cannot read {named}: {error.strerror}; {advice}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bom = 3 if data.startswith(b"\xef\xbb\xbf") else 0  # the decoder counts from behind the mark
        line = data.count(b"\n", 0, error.start + bom) + 1
        raise CorpusError(
            f"cannot read {named}: not UTF-8 at byte {error.start + bom}, line {line}; {advice}"
        ) from error


def parse_items(text: str, path: Path, *, report: Report = raise_at_once) -> Iterator[tuple[Any, str]]:
    """The items of a JSON list or of JSON lines, each with a description of where it stands.

    Args:
        text: the file's contents.
        path: its name, for the descriptions.
        report: told of what is not JSON. A damaged line is left out; a damaged list is left out as a whole.
    """
    if text.lstrip().startswith("["):
        yield from _listed(text, path, report)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except ValueError as error:
            reason = f"not valid JSON ({_reason(error)})"
            report(CorpusError(f"{path}, line {number}: {reason}; expected a JSON list, or one record a line"))
            continue
        yield item, f"{path}, line {number}"


def _listed(text: str, path: Path, report: Report) -> Iterator[tuple[Any, str]]:
    try:
        items = json.loads(text)
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        report(CorpusError(f"{path}, line {line}: not valid JSON ({_reason(error)}); is the file cut off?"))
        return
    for number, item in enumerate(items, start=1):
        yield item, f"{path}, record {number}"


def _reason(error: ValueError) -> str:
    return getattr(error, "msg", str(error))


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


# ── Records with a model's own answers: what was asked, what was answered, and how (SPEC 1).

GENERATION = "generation"
"""The key of a record that tells how its generated answers were made."""


Place = tuple[int, int]
"""Where an answer belongs: which record, and which of its answers, both from 0."""


def open_places(records: Sequence[Record], languages: Sequence[str], answers: int) -> list[Place]:
    """The places that are still empty where each question of these languages is to have `answers` answers."""
    return [
        (index, number)
        for index, record in enumerate(records)
        if record.language in languages
        for number in range(len(record.answers), answers)
    ]


def same_questions(one: Corpus, other: Corpus) -> bool:
    """Whether two corpora ask the same in the same order."""
    return _questions(one) == _questions(other)


def has_answers(records: Sequence[Record]) -> bool:
    """Whether any of these records has an answer."""
    return any(record.answers for record in records)


def generation_of(record: Record) -> Mapping[str, Any] | None:
    """How a record's generated answers were made; None where none were."""
    found = (record.source or {}).get(GENERATION)
    return found if isinstance(found, dict) else None


def without_answers(record: Record) -> Record:
    """The question alone, with its other keys."""
    item = {key: value for key, value in record.as_item().items() if key != GENERATION}
    return replace(record, answers=(), source={**item, "answers": []})


def with_all_answers(
    records: Sequence[Record], given: Mapping[Place, Mapping[str, Any]], *, generation: Mapping[str, Any]
) -> tuple[Record, ...]:
    """The records with their new answers, each in the order of its numbers (`with_answers`)."""
    new: dict[int, list[Mapping[str, Any]]] = {}
    for place in sorted(given):
        new.setdefault(place[0], []).append(given[place])
    return tuple(
        with_answers(record, new[index], generation=generation) if index in new else record
        for index, record in enumerate(records)
    )


def with_answers(record: Record, answers: Sequence[Mapping[str, Any]], *, generation: Mapping[str, Any]) -> Record:
    """A record with further answers behind those that it has; what else stands in it stays.

    Args:
        record: as it is.
        answers: {"generated": str, …} each.
        generation: how they were made.
    """
    item = record.as_item()
    added = {**item, "answers": [*item["answers"], *map(dict, answers)], GENERATION: dict(generation)}
    return replace(record, answers=(*record.answers, *(one["generated"] for one in answers)), source=added)


def _questions(corpus: Corpus) -> list[tuple[str, str]]:
    return [(record.language, record.instruction) for record in corpus.records]

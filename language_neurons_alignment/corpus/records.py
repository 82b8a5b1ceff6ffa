"""Corpus files: questions in several languages, with the answers that a model gave to them.

A corpus file is a JSON list, or JSON lines, of records

    {"lang": "en" | "English", "instruction": str, "answers": [{"generated": str}, …]}

with, where they are known, "id" (the same for the same question in all languages), "target" (the known final answer)
and "question" (the bare question, where a template made the instruction from it). "add_special_tokens": false says that
the instruction already holds every special token of its prompt. Other keys are kept. This module
reads such files (`read_corpus`), names what was read by a digest (`records_hash`), and puts a model's answers into
records (`open_places`, `with_all_answers`). The first half is what other modules use; reading and its checks follow.

Whatever cannot be read, or could not be written again, is a CorpusError of one line that names the file and the record.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import CorpusError, SettingsError
from ..languages import code_or_name, language_code, parse_languages

SCHEMA = '{"lang": str, "instruction": str, "answers": [{"generated": str}, …]}'
GENERATION = "generation"
"""The key of a record that describes how its generated answers were made."""


@dataclass(frozen=True)
class Record:
    """One question in one language, and the answers that a model gave to it.

    Attributes:
        language: code.
        instruction: the question, as the model is given it.
        answers: the generated texts, each a plain continuation of the instruction.
        id: the same for the same question in all languages, where the corpus has such ids.
        source: the record as it stands in the file, with whatever other keys it has; None for one made in Python.
        target: the known final answer, where there is one: `lna evaluate` compares with it.
        question: the bare question, where a template made the instruction from it.
        add_special_tokens: whether the tokenizer puts its own special tokens (BOS) in front; False where the
            instruction holds them all, as some chat templates write them.

    >>> Record("en", "1 + 1?", (" 2",), id="sum").as_item()
    {'lang': 'en', 'id': 'sum', 'instruction': '1 + 1?', 'answers': [{'generated': ' 2'}]}
    """

    language: str
    instruction: str
    answers: tuple[str, ...]
    id: str | None = None
    source: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    target: str | None = None
    question: str | None = None
    add_special_tokens: bool = True

    @property
    def asked(self) -> tuple[str] | tuple[str, bool]:
        """What decides the prompt: the instruction, and that no special tokens are added, where that is so."""
        return (self.instruction,) if self.add_special_tokens else (self.instruction, False)

    def as_item(self) -> dict[str, Any]:
        """The record as it stands in a corpus file, with its other keys."""
        if self.source is not None:
            return dict(self.source)
        extra = {"id": self.id, "target": self.target, "question": self.question}
        named: dict[str, Any] = {key: value for key, value in extra.items() if value is not None}
        if not self.add_special_tokens:
            named["add_special_tokens"] = False
        answers = [{"generated": answer} for answer in self.answers]
        return {"lang": self.language, **named, "instruction": self.instruction, "answers": answers}


@dataclass(frozen=True)
class Corpus:
    """The records of a corpus file, in their order.

    Attributes:
        path: the file.
        records: all of them.

    >>> records = tuple(Record(code, f"{n} + 1?", ()) for code in ("en", "fr") for n in (1, 2))
    >>> corpus = Corpus(Path("sums.json"), records)
    >>> corpus.languages
    ('en', 'fr')
    >>> [record.instruction for record in corpus.of_language("fr")]
    ['1 + 1?', '2 + 1?']
    >>> [(record.language, record.instruction) for record in corpus.shard(2, 2).records]
    [('en', '2 + 1?'), ('fr', '2 + 1?')]
    """

    path: Path
    records: tuple[Record, ...]

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of the records, in the order of first occurrence."""
        return tuple(dict.fromkeys(record.language for record in self.records))

    def of_language(self, language: str) -> list[Record]:
        """A language's records; the language by code, tag or name.

        Raises:
            CorpusError: it has none.
        """
        wanted = code_or_name(language)
        chosen = [record for record in self.records if record.language == wanted]
        if not chosen:
            raise CorpusError(
                f"{self.path} has no records in {language!r}: it has {', '.join(self.languages)}; "
                "choose from these languages"
            )
        return chosen

    def shard(self, part: int, parts: int) -> Corpus:
        """One of `parts` disjoint corpora that together are this one: every `parts`-th record of each language.

        Args:
            part: counted from 1.
            parts: how many there are.
        """
        kept = [record for code in self.languages for record in self.of_language(code)[part - 1 :: parts]]
        return Corpus(self.path, tuple(kept))


def read_corpus(path: Path) -> Corpus:
    """Read and check a corpus file.

    Raises:
        CorpusError: no such file, not JSON, empty, or a record that does not follow the schema; the message names the
            file and the record or line.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "sums.jsonl"
    ...     _ = path.write_text('{"lang": "English", "instruction": "1 + 1?", "answers": [{"generated": " 2"}]}')
    ...     corpus = read_corpus(path)
    >>> corpus.records[0].language, corpus.records[0].answers
    ('en', (' 2',))
    """
    return Corpus(path, tuple(record for record, _ in read_numbered(path)))


Text = str | tuple[str, str] | Record | Mapping[str, Any]
"""A plain text, a prompt with its answer, a record, or a record as it stands in a corpus file."""

Texts = Corpus | Path | str | Mapping[str, str | Iterable[Text]] | Iterable[Record | Mapping[str, Any]]
"""Texts in several languages: a corpus or the path of its file, texts by language, or records."""

NO_LANGUAGE = "und"
"""The language of texts that are given without one, among which records of any language may be."""

NO_FILE = Path("the texts")
"""The file of a corpus that has none, in messages."""


def corpus_of(texts: Texts) -> Corpus:
    """Make a corpus of texts in memory.

    A plain text is a record with an empty instruction: all of its tokens are counted as the answer's, and only what the
    tokenizer puts in front, such as BOS, is the prefix.

    >>> corpus = corpus_of({"French": ["Une maison.", ("1 + 1 ?", " 2")]})
    >>> [(one.language, one.instruction, one.answers) for one in corpus.records]
    [('fr', '', ('Une maison.',)), ('fr', '1 + 1 ?', (' 2',))]

    Raises:
        CorpusError: a file that cannot be read, or a text that is none of these, or empty.
        SettingsError: no such language, or one that is there twice.
    """
    if isinstance(texts, Corpus):
        return texts
    if isinstance(texts, str | Path):
        return read_corpus(Path(texts))
    if isinstance(texts, Mapping):
        codes = parse_languages(list(map(str, texts)))
        given = zip(codes, texts.values(), strict=True)
        return Corpus(NO_FILE, tuple(one for code, some in given for one in records_of(some, code)))
    return Corpus(NO_FILE, tuple(records_of(texts)))


def records_of(texts: str | Iterable[Text], language: str | None = None) -> list[Record]:
    """Make records of texts in one language, of which a single string is one; without a language, records say theirs.

    Raises:
        CorpusError: a text that is none, empty, or of another language.
    """
    if not isinstance(texts, str) and not isinstance(texts, Iterable):
        raise CorpusError(f"expected texts, got {_named_type(texts)}: give strings, (prompt, answer) pairs or records")
    listed: list[Any] = [texts] if isinstance(texts, str) else list(texts)
    of = "" if language in (None, NO_LANGUAGE) else f" of {language!r}"
    if not listed:
        raise CorpusError(f"the texts{of} are empty: give at least one, or leave the language out")
    return [_record_of(text, language, f"text {number}{of}") for number, text in enumerate(listed, start=1)]


def _record_of(text: Any, language: str | None, where: str) -> Record:
    """One text as a record."""
    if isinstance(text, Record):
        record = text
    elif isinstance(text, Mapping):
        record = _record(dict(text) if language in (None, NO_LANGUAGE) else {"lang": language, **text}, where)
    elif isinstance(text, str) and language is not None:
        record = Record(language, "", (text,))
    elif isinstance(text, tuple | list) and len(text) == 2 and all(isinstance(one, str) for one in text) and language:
        record = Record(language, text[0], (text[1],))
    else:
        expected = "a string, a (prompt, answer) pair or a record" if language is not None else f"a record {SCHEMA}"
        raise CorpusError(f"{where}: expected {expected}, got {_named_type(text)}")
    if language not in (None, NO_LANGUAGE, record.language):
        raise CorpusError(f"{where} is a record in {record.language!r}: put it under its own language")
    if not record.instruction and not any(record.answers):
        raise CorpusError(f"{where} is empty: leave it out")
    for part in (record.instruction, *record.answers):
        _check_encodable(part, where)
    return record


def _named_type(value: object) -> str:
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= _SHOWN else f'{shown[:_SHOWN]}…'}"


def records_hash(records: Sequence[Record]) -> str:
    """A digest of language, instruction and answers, independent of the file's formatting and of the records' order.

        H = Σ over records blake2b(language, instruction, answers)  mod 2¹²⁸

    It is a sum so that the digests of disjoint shards add up to that of the whole (`add_hashes`), as their counts do.
    """
    return add_hashes(_record_hash(record) for record in records)


def add_hashes(hashes: Iterable[str]) -> str:
    """The digest of several disjoint sets of records together: Σ digests mod 2¹²⁸.

    >>> one, two = Record("en", "1 + 1?", (" 2",)), Record("fr", "1 + 1 ?", ())
    >>> add_hashes([records_hash([two]), records_hash([one])]) == records_hash([one, two])
    True
    """
    return f"{sum(int(one, 16) for one in hashes) % 2**128:032x}"


def _record_hash(record: Record) -> str:
    language, instruction, *unusual = record.language, *record.asked
    content = json.dumps([language, instruction, list(record.answers), *unusual], ensure_ascii=False)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


# A model's own answers: which are missing, and records with them.

Place = tuple[int, int]
"""The place of an answer: the index of its record, and its number among the record's answers, both from 0."""


def open_places(records: Sequence[Record], languages: Sequence[str], answers: int) -> list[Place]:
    """The places that are still empty if each question in these languages is to have `answers` answers.

    >>> open_places([Record("en", "1 + 1?", (" 2",)), Record("fr", "1 + 1 ?", ())], ["en", "fr"], 2)
    [(0, 1), (1, 0), (1, 1)]
    """
    return [
        (index, number)
        for index, record in enumerate(records)
        if record.language in languages
        for number in range(len(record.answers), answers)
    ]


def same_questions(one: Corpus, other: Corpus) -> bool:
    """Whether two corpora ask the same in the same order."""
    first, second = ([(record.language, *record.asked) for record in corpus.records] for corpus in (one, other))
    return first == second


def texts_as_answers(corpus: Corpus) -> Corpus:
    """The same texts as answers to nothing, so that all of their tokens are counted (`corpus_of` does so too).

    >>> texts = texts_as_answers(Corpus(Path("lines.json"), (Record("fr", "Une maison.", ()),)))
    >>> [(one.instruction, one.answers) for one in texts.records]
    [('', ('Une maison.',))]

    Raises:
        CorpusError: some of them have answers.
    """
    answered = sum(bool(record.answers) for record in corpus.records)
    if answered:
        raise CorpusError(
            f"{corpus.path} has answers in {answered} of {len(corpus.records)} records, so its texts are questions: "
            "count the answers, without --count text"
        )
    texts = (replace(one, instruction="", answers=(one.instruction,), source=None) for one in corpus.records)
    return replace(corpus, records=tuple(texts))


def has_answers(records: Sequence[Record]) -> bool:
    """Whether any of these records has an answer."""
    return any(record.answers for record in records)


def generation_of(record: Record) -> Mapping[str, Any] | None:
    """How a record's answers were generated; None if they were not."""
    found = (record.source or {}).get(GENERATION)
    return found if isinstance(found, dict) else None


def without_answers(record: Record) -> Record:
    """The question alone, with its other keys."""
    item = {key: value for key, value in record.as_item().items() if key != GENERATION}
    return replace(record, answers=(), source={**item, "answers": []})


def with_all_answers(
    records: Sequence[Record], given: Mapping[Place, Mapping[str, Any]], *, generation: Mapping[str, Any]
) -> tuple[Record, ...]:
    """The records with new answers behind those that they have; everything else in them stays."""
    new: dict[int, list[dict[str, Any]]] = {}
    for place in sorted(given):
        new.setdefault(place[0], []).append(dict(given[place]))
    made = list(records)
    for index, added in new.items():
        record, item = made[index], made[index].as_item()
        item = {**item, "answers": [*item["answers"], *added], GENERATION: dict(generation)}
        answers = (*record.answers, *(answer["generated"] for answer in added))
        made[index] = replace(record, answers=answers, source=item)
    return tuple(made)


# Reading: a file → JSON items with their places → records.

OnError = Callable[[CorpusError], None]
"""Called with every error of a file: it raises the error, or it stores it and reading goes on."""


def raise_at_once(error: CorpusError) -> None:
    """Stop at the first error."""
    raise error


def read_numbered(path: Path, *, report: OnError = raise_at_once) -> list[tuple[Record, str]]:
    """The records of a corpus file, each with its place ("mgsm.json, record 3")."""
    numbered: list[tuple[Record, str]] = []
    text = read_text(path, what="the corpus", advice="give a JSON file in UTF-8")
    empty, spellings = True, Spellings()
    for item, where in parse_items(text, path, report=report):
        empty = False
        try:
            record = _record(item, where)
            spellings.check(record, item["lang"], where)
            numbered.append((record, where))
        except CorpusError as error:
            report(error)
    if empty and not text.strip().strip("[] \n"):
        report(CorpusError(f"the corpus {path} is empty: expected a list of records {SCHEMA}"))
    return numbered


def _record(item: Any, where: str) -> Record:
    if not isinstance(item, dict):
        raise CorpusError(f"{where}: expected a record {SCHEMA}, got {type(item).__name__}")
    check_writable(item, where)
    missing = [key for key in ("lang", "instruction", "answers") if key not in item]
    if missing:
        raise CorpusError(f"{where}: the record has no {' and no '.join(map(repr, missing))}; expected {SCHEMA}")
    language, instruction, answers = item["lang"], item["instruction"], item["answers"]
    if not (isinstance(language, str) and isinstance(instruction, str) and isinstance(answers, list)):
        raise CorpusError(f"{where}: lang and instruction must be strings and answers a list; expected {SCHEMA}")
    if not instruction:
        raise CorpusError(f"{where}: the instruction is empty; give every record a question, or leave it out")
    for answer in answers:
        if not isinstance(answer, dict) or not isinstance(answer.get("generated"), str):
            raise CorpusError(f'{where}: every answer must be {{"generated": str}}, got {json.dumps(answer)[:60]}')
    try:
        code = language_code(language)
    except SettingsError as error:
        raise CorpusError(f"{where}: {error}") from error
    special = item.get("add_special_tokens", True)
    if not isinstance(special, bool):
        raise CorpusError(f'{where}: "add_special_tokens" must be true or false, got {json.dumps(special)[:60]}')
    extra = {key: None if item.get(key) is None else str(item[key]) for key in ("id", "target", "question")}
    return Record(
        code,
        instruction,
        tuple(answer["generated"] for answer in answers),
        source=item,
        add_special_tokens=special,
        **extra,
    )


class Spellings:
    """Notices records that are there twice because their language is written in two ways.

    Two spellings of one language are one language. Where both have a record of the same id or the same question,
    the language would be counted twice.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[str, str, str], tuple[str, str]] = {}

    def check(self, record: Record, spelling: str, where: str) -> None:
        """Raise CorpusError where an earlier record of the same id or question has another spelling."""
        for what, value in (("id", record.id), ("question", record.question or record.instruction)):
            if value is None:
                continue
            first, place = self._first.setdefault((record.language, what, value), (spelling, where))
            if first != spelling:
                raise CorpusError(
                    f"{where}: {spelling!r} and {first!r} ({place.rsplit(', ', 1)[-1]}) are one language, "
                    f"{record.language}, and both have the {what} {_short(value)!r}: keep the records of one of them"
                )


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


_SHOWN = 60
"""Characters of a text in a message."""
_DEEPEST = 100
"""Levels of brackets in a record; at some thousand, Python can neither read nor write JSON."""


def check_writable(item: Any, where: str) -> None:
    r"""Refuse a JSON value that could not be written to a file again.

    JSON can spell half of a surrogate pair ("\ud83d"), but UTF-8 cannot, and no tokenizer reads it.
    """
    level = [item]
    for _ in range(_DEEPEST):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, str):
                _check_encodable(value, where)
            elif isinstance(value, float) and not math.isfinite(value):
                raise CorpusError(f"{where}: JSON has no number {value}; write null, or a smaller number")
            elif isinstance(value, dict):
                inner += [*value, *value.values()]
            elif isinstance(value, list):
                inner += value
        level = inner
    if level:
        raise CorpusError(f"{where}: brackets are nested more than {_DEEPEST} deep; write the record again, flatter")


def _check_encodable(text: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CorpusError(
            f"{where}: character {error.start + 1} of a text is half of a surrogate pair ({text[error.start]!a}); "
            "write the file again with whole characters"
        ) from error


def read_text(path: Path, *, what: str = "", advice: str) -> str:
    """The text of a UTF-8 file, with or without a byte-order mark."""
    named = f"{what} {path}".strip()
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise CorpusError(f"cannot read {named}: {reason}; {advice}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bom = 3 if data.startswith(b"\xef\xbb\xbf") else 0  # the decoder counts from behind the mark
        line = data.count(b"\n", 0, error.start + bom) + 1
        raise CorpusError(
            f"cannot read {named}: not UTF-8 at byte {error.start + bom}, line {line}; {advice}"
        ) from error


def parse_items(text: str, path: Path, *, report: OnError = raise_at_once) -> Iterator[tuple[Any, str]]:
    """The items of a JSON list or of JSON lines, each with its place.

    >>> list(parse_items('[{"n": 1}, {"n": 2}]', Path("a.json")))
    [({'n': 1}, 'a.json, record 1'), ({'n': 2}, 'a.json, record 2')]
    >>> list(parse_items('{"n": 1}', Path("a.jsonl")))
    [({'n': 1}, 'a.jsonl, line 1')]
    """
    if text.lstrip().startswith("["):
        try:
            items = parse_json(text, path)
        except CorpusError as error:
            report(error)
            return
        for number, item in enumerate(items, start=1):
            yield item, f"{path}, record {number}"
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                item = parse_json(line, path, line=number)
            except CorpusError as error:
                report(error)
                continue
            yield item, f"{path}, line {number}"


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"the key {_short(twice)!r} is there twice in one object")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON; write null")


def parse_json(text: str, path: Path, *, line: int | None = None) -> Any:
    """Parse a whole file of JSON, or one line of it."""
    try:
        return json.loads(text, object_pairs_hook=_each_key_once, parse_constant=_no_number)
    except RecursionError as error:
        raise CorpusError(
            f"{path}, line {line or 1}: brackets are nested too deeply to be read; is this the right file?"
        ) from error
    except ValueError as error:
        reason, at = getattr(error, "msg", str(error)), line or getattr(error, "lineno", 1)
        advice = "is the file cut off?" if line is None else "expected a JSON list, or one record a line"
        if not isinstance(error, json.JSONDecodeError):  # well formed, but a number or key that cannot be kept
            advice = "correct it there"
        raise CorpusError(f"{path}, line {at}: not valid JSON ({reason}); {advice}") from error

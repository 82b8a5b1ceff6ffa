"""Checks of a corpus: what is wrong with it, and its size language by language.

Each check takes the records with their places and yields a `Problem` for everything it finds: an error, where later
steps would fail or mislead, or a warning, for people to look at. `summarize` counts one language's questions, answers
and tokens. `lna dataset check` runs them all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..languages import language_name
from .encode import Tokenizer, encode_groups, encode_texts, special_tokens_in
from .language_id import identify_languages, known_languages
from .records import Record

Numbered = Sequence[tuple[Record, str]]
"""Records with their places, as `records.read_numbered` gives them."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: "schema", "empty", "duplicate", "missing", "language", "length", or "special tokens".
        message: one line: where, and what.
        error: whether it is an error rather than a warning.
    """

    kind: str
    message: str
    error: bool = False


def empty_texts(numbered: Numbered) -> Iterator[Problem]:
    """Questions of nothing but spaces (errors), and empty answers (warnings: they add no token).

    >>> [problem.message for problem in empty_texts([(Record("en", "1 + 1?", ("2", "")), "sums.json, record 1")])]
    ['sums.json, record 1: 1 of 2 answers are empty']
    """
    for record, where in numbered:
        if not _question(record).strip():
            yield Problem("empty", f"{where}: the question is nothing but spaces", error=True)
        empty = sum(not answer.strip() for answer in record.answers)
        if empty:
            yield Problem("empty", f"{where}: {empty} of {len(record.answers)} answers are empty")


def duplicates(numbered: Numbered) -> Iterator[Problem]:
    """An id twice in a language (an error); a question twice in a language, or one text in two languages (warnings)."""
    ids: dict[tuple[str, str], str] = {}
    questions: dict[tuple[str, str], str] = {}
    languages: dict[str, str] = {}
    for record, where in numbered:
        text = _question(record)
        if record.id is not None:
            first = ids.setdefault((record.language, record.id), where)
            if first is not where:
                seen = f"the id {record.id!r} is there twice in {record.language!r}, first at {_place(first)}"
                yield Problem("duplicate", f"{where}: {seen}", error=True)
        first = questions.setdefault((record.language, text), where)
        if first is not where:
            yield Problem("duplicate", f"{where}: the same question in {record.language!r} as {_place(first)}")
        elif languages.setdefault(text, record.language) != record.language:
            yield Problem("duplicate", f"{where}: the same text in {record.language!r} as in {languages[text]!r}")


def missing_ids(numbered: Numbered) -> Iterator[Problem]:
    """Ids that some languages have and others lack (warnings): those questions cannot be matched across languages."""
    having: dict[str, set[str]] = defaultdict(set)
    for record, _ in numbered:
        if record.id is not None:
            having[record.id].add(record.language)
    for code in _languages(numbered):
        lacking = [one for one in having if code not in having[one]]
        if lacking:
            shown = ", ".join(lacking[:5]) + (", …" if len(lacking) > 5 else "")
            yield Problem("missing", f"{language_name(code)} lacks {len(lacking)} of {len(having)} ids: {shown}")


def special_tokens(numbered: Numbered, tokenizer: Any) -> Iterator[Problem]:
    """Questions and answers that spell a special token, such as "</s>", which the model reads as such (warnings)."""
    for record, where in numbered:
        for number, text in enumerate([_question(record), *record.answers]):
            place = where if number == 0 else f"{where}, answer {number}"
            for spelled in dict.fromkeys(special_tokens_in(text, tokenizer)):
                yield Problem("special tokens", f"{place}: {spelled!r} in it is read as one special token")


def other_languages(numbered: Numbered) -> Iterator[Problem]:
    """Questions and answers that are, with confidence, in another language than the one they claim (warnings).

    Where that is more than half of a language's questions, the claimed language is wrong: an error. Answers do not
    count for that, since a model may well answer in another language.
    """
    languages = _languages(numbered)
    known = known_languages(languages)
    for code in languages:
        if code not in known:
            yield Problem("language", f"{language_name(code)} cannot be identified, so its texts are not checked")
    texts = [
        (record.language, number, text, where)
        for record, where in numbered
        if record.language in known
        for number, text in enumerate([_question(record), *record.answers])
    ]
    asked, wrong = Counter[str](), Counter[str]()
    verdicts = identify_languages([text for _, _, text, _ in texts], known)
    for (claimed, number, text, where), verdict in zip(texts, verdicts, strict=True):
        if verdict is None:
            continue
        asked[claimed] += number == 0
        if verdict.contradicts(claimed):
            wrong[claimed] += number == 0
            place = where if number == 0 else f"{where}, answer {number}"
            seen = f"looks like {language_name(verdict.language)} ({verdict.confidence:.2f})"
            yield Problem("language", f"{place}: {seen}, not {language_name(claimed)}: {_short(text)}")
    for code, number in wrong.items():
        if number > asked[code] / 2:
            found = f"{number} of {asked[code]} questions that are long enough to tell are in another language"
            yield Problem("language", f"{language_name(code)}: {found}", error=True)


def _question(record: Record) -> str:
    """The bare question, without the template around it."""
    return record.question or record.instruction


def _languages(numbered: Numbered) -> tuple[str, ...]:
    return tuple(dict.fromkeys(record.language for record, _ in numbered))


def _place(where: str) -> str:
    """A place without the file's name: "record 3"."""
    return where.rsplit(", ", 1)[-1]


def _short(text: str, length: int = 50) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


_ANY_LENGTH = 2**62


@dataclass(frozen=True)
class LanguageSummary:
    """The size of one language of a corpus.

    Attributes:
        language: code.
        records: questions.
        answers: of all of them.
        characters: of the instructions, each once, and of the answers.
        tokens: the same texts under a tokenizer; None without one.
        overlong: sequences that are longer than the model allows.
        merges: answers whose first character the tokenizer merges with the end of the instruction.
    """

    language: str
    records: int
    answers: int
    characters: int
    tokens: int | None = None
    overlong: int | None = None
    merges: int | None = None

    @property
    def tokens_per_character(self) -> float | None:
        """How finely the tokenizer splits the language."""
        return None if self.tokens is None else self.tokens / max(self.characters, 1)


def summarize(records: Sequence[Record], *, tokenizer: Tokenizer | None = None, max_length: int = 0) -> LanguageSummary:
    """Count one language's records; with a tokenizer, its tokens too.

        tokens = Σ over records ( |tokenize(instruction)| + Σ over answers ( |full| − |prefix| ) )

    >>> summarize([Record("en", "1 + 1?", (" 2", " two"))])
    LanguageSummary(language='en', records=1, answers=2, characters=12, tokens=None, overlong=None, merges=None)
    """
    answers = sum(len(record.answers) for record in records)
    characters = sum(len(record.instruction) + sum(map(len, record.answers)) for record in records)
    summary = LanguageSummary(records[0].language, len(records), answers, characters)
    if tokenizer is None:
        return summary
    unanswered = [record for record in records if not record.answers]
    texts = encode_texts(unanswered, tokenizer, text="instruction", max_length=_ANY_LENGTH)
    lengths = [len(text.tokens) for text in texts]
    tokens, merges = sum(lengths), 0
    if answers:
        encoded = encode_groups(records, tokenizer, max_length=_ANY_LENGTH)
        tokens += encoded.full_tokens - encoded.prefix_tokens + sum(len(group.prefix) for group in encoded.groups)
        lengths += [max(len(group.prefix), len(full)) for group in encoded.groups for full in group.full]
        merges = encoded.boundary_cases
    return replace(summary, tokens=tokens, overlong=sum(length > max_length for length in lengths), merges=merges)

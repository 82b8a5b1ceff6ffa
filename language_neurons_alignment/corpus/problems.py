"""What may be wrong with a corpus: errors, which later steps would stumble over, and warnings for people to see."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..languages import language_name
from .language_id import identify_languages, known_languages
from .records import Record

Numbered = Sequence[tuple[Record, str]]
"""Records, each with where it stands."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: "schema", "empty", "duplicate", "missing", "language", or "length".
        message: one line: where, and what.
        error: whether it is an error rather than a warning.
    """

    kind: str
    message: str
    error: bool = False


def empty_texts(numbered: Numbered) -> Iterator[Problem]:
    """Questions of nothing but spaces (errors), and answers of nothing at all (warnings: they count no token)."""
    for record, where in numbered:
        if not (record.question or record.instruction).strip():
            yield Problem("empty", f"{where}: the question is nothing but spaces", error=True)
        empty = sum(not answer.strip() for answer in record.answers)
        if empty:
            yield Problem("empty", f"{where}: {empty} of {len(record.answers)} answers are empty")


def duplicates(numbered: Numbered) -> Iterator[Problem]:
    """An id twice in a language (an error), a question twice in a language, one text in several languages."""
    ids: dict[tuple[str, str], str] = {}
    questions: dict[tuple[str, str], str] = {}
    languages: dict[str, str] = {}
    for record, where in numbered:
        text = record.question or record.instruction
        if record.id is not None:
            first = ids.setdefault((record.language, record.id), where)
            if first is not where:
                message = (
                    f"{where}: the id {record.id!r} is there twice in {record.language!r}, first at {_place(first)}"
                )
                yield Problem("duplicate", message, error=True)
        first = questions.setdefault((record.language, text), where)
        if first is not where:
            yield Problem("duplicate", f"{where}: the same question in {record.language!r} as {_place(first)}")
        elif languages.setdefault(text, record.language) != record.language:
            yield Problem("duplicate", f"{where}: the same text in {record.language!r} as in {languages[text]!r}")


def missing_ids(numbered: Numbered) -> Iterator[Problem]:
    """Ids that some languages have and others lack: those questions cannot be matched across languages."""
    languages = tuple(dict.fromkeys(record.language for record, _ in numbered))
    having: dict[str, set[str]] = defaultdict(set)
    for record, _ in numbered:
        if record.id is not None:
            having[record.id].add(record.language)
    for code in languages:
        lacking = [one for one in having if code not in having[one]]
        if lacking:
            shown = ", ".join(lacking[:5]) + (", …" if len(lacking) > 5 else "")
            yield Problem("missing", f"{language_name(code)} lacks {len(lacking)} of {len(having)} ids: {shown}")


def other_languages(numbered: Numbered) -> Iterator[Problem]:
    """Questions and answers that are, with confidence, in another language than the one they claim.

    Where that is more than half of a language's questions, the language is not what it claims to be: an error.
    Answers are judged too, but only warned of: a model may well answer in another language.
    """
    languages = dict.fromkeys(record.language for record, _ in numbered)
    known = set(known_languages(languages))
    for code in languages:
        if code not in known:
            yield Problem("language", f"{language_name(code)} is not among the languages that can be told: not judged")
    judged = [(record, where) for record, where in numbered if record.language in known]
    texts = [
        (record.language, text, where if n == 0 else f"{where}, answer {n}", n == 0)
        for record, where in judged
        for n, text in enumerate([record.question or record.instruction, *record.answers])
    ]
    verdicts = identify_languages([text for _, text, _, _ in texts], known)
    asked, wrong = Counter[str](), Counter[str]()
    for (claimed, text, where, is_question), verdict in zip(texts, verdicts, strict=True):
        if verdict is None:
            continue
        asked[claimed] += is_question
        if verdict.contradicts(claimed):
            wrong[claimed] += is_question
            seen = (
                f"looks like {language_name(verdict.language)} ({verdict.confidence:.2f}), not {language_name(claimed)}"
            )
            yield Problem("language", f"{where}: {seen}: {_short(text)}")
    for code, number in wrong.items():
        if number > asked[code] / 2:
            message = (
                f"{language_name(code)}: {number} of {asked[code]} questions that can be judged are in another language"
            )
            yield Problem("language", message, error=True)


def _place(where: str) -> str:
    """A place without the file's name: "record 3"."""
    return where.rsplit(", ", 1)[-1]


def _short(text: str, length: int = 50) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"

"""Grading: is an answer's number the known one, and is the answer in the language of its question?

`check_answerable` refuses a corpus that cannot be graded, before a model is loaded. `grade` then grades whatever a
model wrote: no answer raises an error. `answer_line` is one graded answer as `lna evaluate` stores it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from ..errors import CorpusError, SettingsError
from .language_id import Verdict, identify_languages, known_languages, letters
from .numbers import final_number, known_number, same_number
from .records import Record

_COMMAND = re.compile(r"\\[a-zA-Z]+")
r"""A command of LaTeX, such as \boxed or \frac: letters, but of no language."""

_SHORT = 20
"""Letters below which a language counts only if it is likelier than all others together: there, a name misleads."""


@dataclass(frozen=True)
class Graded:
    """One graded answer.

    Attributes:
        number: the final number in it; None if it holds none.
        right: whether that is the known number.
        seen: the answer's language with its confidence; None if the text is too short to tell.
        in_language: whether that is the language of the question; None if it cannot be told.
    """

    number: Fraction | None
    right: bool
    seen: Verdict | None
    in_language: bool | None


def grade(records: Sequence[Record], answers: Sequence[str], *, candidates: Iterable[str]) -> list[Graded]:
    """Compare each answer's number and language with its question's.

    >>> question = Record("fr", "Combien font 9 × 2 ?", (), target="18")
    >>> (graded,) = grade([question], ["La réponse est 18 euros par jour."], candidates=["fr", "en"])
    >>> str(graded.number), graded.right, graded.in_language
    ('18', True, True)
    """
    return [
        Graded(
            final_number(answer, record.language),
            same_number(answer, str(record.target), record.language),
            seen,
            None if seen is None else seen.language == record.language.split("-")[0],
        )
        for record, answer, seen in zip(records, answers, languages_seen(answers, candidates), strict=True)
    ]


def languages_seen(texts: Sequence[str], candidates: Iterable[str]) -> list[Verdict | None]:
    """The language of each answer: the likeliest of the candidates and the ten default languages, formulas aside.

    None where fewer than `language_id.SHORTEST` letters are left ("#### 18" is in no language), and where there are
    fewer than 20 letters and no language has more than half of the confidence.
    """
    texts = [_COMMAND.sub(" ", text) for text in texts]
    return [
        None if seen and seen.confidence <= 0.5 and letters(text) < _SHORT else seen
        for text, seen in zip(texts, identify_languages(texts, candidates), strict=True)
    ]


def check_answerable(records: Sequence[Record]) -> None:
    """Refuse questions whose answers could not be graded."""
    without = [one for one in records if one.target is None or known_number(one.target) is None]
    if without:
        seen = "no target" if without[0].target is None else f"the target {without[0].target!r}, which is no number"
        raise CorpusError(
            f"{len(without)} of {len(records)} questions have no known number to compare with; the first "
            f"({without[0].id or without[0].instruction[:40]!r}, {without[0].language}) has {seen}: take a corpus with "
            "numbers, such as `lna dataset build mgsm` makes"
        )
    check_identifiable(dict.fromkeys(record.language for record in records))


def check_identifiable(languages: Iterable[str]) -> None:
    """Raise SettingsError unless texts in all these languages can be identified."""
    languages = tuple(languages)
    unknown = sorted(set(languages) - set(known_languages(languages)))
    if unknown:
        raise SettingsError(
            f"answers in {', '.join(unknown)} cannot be identified, so none would count as right: "
            "leave these languages out with --langs"
        )


def answer_line(record: Record, answer: dict[str, Any], graded: Graded) -> dict[str, Any]:
    """One answer for people to read, with everything that it was graded by."""
    seen = graded.seen
    return {
        "id": record.id,
        "lang": record.language,
        "question": record.question or record.instruction,
        "answer": answer["generated"],
        "number": None if graded.number is None else shown_number(graded.number),
        "target": record.target,
        "right": graded.right,
        "language": None if seen is None else seen.language,
        "confidence": None if seen is None else round(seen.confidence, 4),
        "in_language": graded.in_language,
        "tokens": answer["tokens"],
        "finish": answer["finish"],
    }


def shown_number(number: Fraction) -> str:
    """A number exactly: as a decimal if it has one of at most 28 digits, else as a fraction.

    >>> [shown_number(Fraction(number)) for number in ("18", "5/2", "1/3")]
    ['18', '2.5', '1/3']
    """
    if number.denominator == 1:
        return str(number.numerator)
    decimal = Decimal(number.numerator) / number.denominator
    return f"{decimal:f}" if Fraction(decimal) == number else str(number)

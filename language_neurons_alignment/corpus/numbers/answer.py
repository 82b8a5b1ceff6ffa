r"""The number that a model's answer to a school problem comes to.

The rule. The first of these that is there tells, and of several alike the last one:

    1. #### 18        the number that follows directly
    2. \boxed{18}     the number in the box; behind its last "=" where there is one
    3. "The answer is 18", "Antwort: 18", "答えは18です", "উত্তর হল ১৮" and the like: the number that follows
       directly, or what an expression there comes to ("5 + 6 = 11"); else the last number of the sentence, or, behind
       a colon, of the paragraph
    4. the last number of the text

Not looked at are what follows when the model goes on with a question of its own, remarks ("Note: …") and brackets that
explain a number (`asides`), unless nothing else holds a number.

Signs beside a number are not part of it: 50 % is 50, $18 is 18. Dates, times of day, ordinals ("2nd"), the
numbers of lists and steps, and digits in names ("cm2") are no quantities. Numbers written as words are not read, but
for Chinese and Japanese numerals right behind an answer phrase, and halves and scales beside digits ("2 et demi",
"5 mil 300"). Of a range ("18–20") the last number counts. Which mark cuts off decimals: `marks`.
"""

from __future__ import annotations

import re
from fractions import Fraction

from ...errors import CorpusError
from .asides import own_questions, without_asides
from .clean import BOX, UNBOX, plain
from .phrases import DIRECTLY, LINK, NOUN, SENTENCE_END
from .scales import KANJI, east_asian
from .scan import Found, numbers_in

_HASHES = re.compile(r"#{4,}")
_BOXED = re.compile(f"{BOX}([^{UNBOX}]*)")
_PARAGRAPH_END = re.compile(r"\n\s*\n")
_GOES_ON = re.compile(r"\s*(?:[^\W\d]+\s*)?(?:[=+*×·⋅÷/x−–-]|(?<=\s):(?=\s))\s*\(?[$€£¥]?\d")


def final_number(text: str, language: str) -> Fraction | None:
    """The number that an answer comes to, exactly; None where it holds none.

    Args:
        text: a model's answer.
        language: code of the language that the answer should be in: it settles what "1.234" means, unless the text's
            other numbers do.
    """
    for end, numbered in own_questions(text):
        part, numbers = _read(text[:end], language)
        value = _announced(part, numbers)
        if value is not None:
            return value
        if numbers and not numbered:
            return numbers[-1].value
    part, numbers = _read(text, language)
    value = _announced(part, numbers)
    if value is not None:
        return value
    return numbers[-1].value if numbers else None


def same_number(text: str, target: str, language: str) -> bool:
    """Whether an answer comes to the known one; targets are written as in English ("18", "18.0", "1,234", "1/2").

    Raises:
        CorpusError: the target holds no number.
    """
    wanted = final_number(target, "en")
    if wanted is None:
        raise CorpusError(f"the target {target!r} holds no number: give the known answer in digits, for example '18'")
    return final_number(text, language) == wanted


def _read(text: str, language: str) -> tuple[str, list[Found]]:
    """The plain text with its numbers: without asides, unless all its numbers are in them."""
    whole = plain(text)
    text = without_asides(whole)
    numbers = numbers_in(text, language)
    return (text, numbers) if numbers else (whole, numbers_in(whole, language))


def _announced(text: str, numbers: list[Found]) -> Fraction | None:
    for rule in (_after_hashes, _in_a_box, _after_a_phrase):
        value = rule(text, numbers)
        if value is not None:
            return value
    return None


def _after_hashes(text: str, numbers: list[Found]) -> Fraction | None:
    for found in reversed(list(_HASHES.finditer(text))):
        number = _directly(text, numbers, found.end())
        if number:
            return number.value
    return None


def _in_a_box(text: str, numbers: list[Found]) -> Fraction | None:
    for found in reversed(list(_BOXED.finditer(text))):
        inside = _between(numbers, *found.span(1))
        if inside:
            return (_after_equals(text, inside, found.start(1)) or inside[0]).value
    return None


def _after_a_phrase(text: str, numbers: list[Found]) -> Fraction | None:
    for noun in reversed(list(NOUN.finditer(text))):
        link = LINK.match(text, noun.end())
        number = _directly(text, numbers, noun.end())
        if number is None and link:
            number = _directly(text, numbers, link.end())
        if number and not _GOES_ON.match(text, number.end):
            return number.value
        value = _told_at_length(text, numbers, link) if link else None
        if value is not None:
            return value
    return None


def _told_at_length(text: str, numbers: list[Found], link: re.Match[str]) -> Fraction | None:
    """What an expression or the prose behind an answer phrase comes to: a sentence, or behind a colon a paragraph."""
    start = _past_signs(text, link.end())
    if "\n" in text[link.start() : start]:
        return None  # a heading over steps, not an answer
    end = _end_of(_PARAGRAPH_END if link["colon"] else SENTENCE_END, text, start)
    told = _between(numbers, start, end)
    if told:
        goes_on = told[0].start <= start and _GOES_ON.match(text, told[0].end)
        result = _after_equals(text, told, start) if goes_on else None
        return (result or told[-1]).value
    numeral = KANJI.match(text, start)
    return east_asian(numeral[0]) if numeral else None


def _directly(text: str, numbers: list[Found], start: int) -> Found | None:
    """The number at this place, past blanks, signs and currencies."""
    place = _past_signs(text, start)
    return next(
        (number for number in numbers if number.start <= place <= number.digits and start <= number.start), None
    )


def _past_signs(text: str, start: int) -> int:
    found = DIRECTLY.match(text, start)
    return found.end() if found else start


def _after_equals(text: str, numbers: list[Found], start: int) -> Found | None:
    """The first number behind the last "=" that has one behind it."""
    for number, before in zip(reversed(numbers), [*reversed(numbers[:-1]), None], strict=True):
        if "=" in text[before.end if before else start : number.start]:
            return number
    return None


def _between(numbers: list[Found], start: int, end: int) -> list[Found]:
    return [number for number in numbers if start <= number.digits < end]


def _end_of(pattern: re.Pattern[str], text: str, start: int) -> int:
    found = pattern.search(text, start)
    return found.start() if found else len(text)

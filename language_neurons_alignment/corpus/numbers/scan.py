"""The numbers of a text, in their order: what stands for a quantity, as an exact fraction."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from .marks import RAW, decimal_mark, read
from .scales import COMPOUND, east_asian, goes_on, half_beside, scale_after, scale_before

_VULGAR = "".join(chr(n) for n in [*range(0xBC, 0xBF), *range(0x2150, 0x215F), 0x2189])
_NUMBER = re.compile(
    rf"(?P<compound>{COMPOUND})"
    rf"|(?:(?P<whole>\d+)[ \u00a0]?)?(?P<vulgar>[{_VULGAR}])"
    r"|(?P<mixed>\d+)[ \u00a0](?P<top>\d+)\s?/\s?(?P<bottom>\d+)(?![\d/.,]*\d)"
    r"|(?P<below>\d+)\s?分[の之]\s?(?P<above>\d+)"
    r"|(?P<point>(?<![\w.,)])\.\d+)"
    rf"|(?P<raw>{RAW})"
)
_DENOMINATOR = re.compile(r"\s?/\s?(\d{1,9})(?![\d/]|[.,]\d)")
_EXPONENT = re.compile(r"\^\{?(\d{1,2})\}?")
_SIGN = re.compile(r"(?:[-–]|−\s?)(?:[$€£¥₹₽฿৳]\s?|US\$)?$")
_LETTER = r"[A-Za-z\u00c0-\u024f\u0370-\u052f]"  # of scripts that put blanks between words and numbers
_LETTERS = re.compile(rf"{_LETTER}+\.?$")
_CODE = re.compile("usd?|eur|ksh|kes|sh|tsh|tzs|rs|tk|bdt|thb|rmb|cny|jpy|rub|gbp|inr|dola|dolari|shilingi")
_MONEY_BEFORE = re.compile(r"[$€£¥₹₽]\s?$")
_MONEY_AFTER = re.compile(r"\s?(?:[$€£¥₹₽]|USD|EUR|US-Dollar|Dollar|Euro|dólares|долл|руб)", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """A number and where it stands.

    Attributes:
        start: of the number with its sign.
        digits: of its digits.
        end: behind its digits, fraction and scale.
        value: exact.
        scale: what words beside it multiplied it by.
    """

    start: int
    digits: int
    end: int
    value: Fraction
    scale: Fraction = Fraction(1)


def numbers_in(text: str, language: str) -> list[Found]:
    """The numbers of a text that `clean.plain` has made plain, in their order."""
    mark = decimal_mark(text, language)
    numbers: list[Found] = []
    for match in _NUMBER.finditer(text):
        for found in _read(text, match, mark=mark):
            before = numbers[-1] if numbers else None
            if before and found.digits < before.end:  # a denominator or a power is part of the number before
                continue
            if before and _adds_to(text, before, found):
                numbers[-1] = replace(before, end=found.end, value=before.value + found.value, scale=found.scale)
            else:
                numbers.append(found)
    return numbers


def _adds_to(text: str, before: Found, found: Found) -> bool:
    between = text[before.end : found.start]
    return goes_on(between, scale=before.scale, following=found.value, its_scale=found.scale)


def _read(text: str, match: re.Match[str], *, mark: str) -> Iterator[Found]:
    start, end = match.span()
    if _belongs_to_a_word(text, start):
        return
    if match["raw"]:
        money = bool(_MONEY_BEFORE.search(text[max(start - 2, 0) : start]) or _MONEY_AFTER.match(text, end))
        for first, last, value in read(match["raw"], mark=mark, money=money):
            yield _whole(text, start + first, start + last, value)
    elif (value := _special(match)) is not None:
        yield _whole(text, start, end, value)


def _special(match: re.Match[str]) -> Fraction | None:
    """The value of whatever is not plain digits with marks; None for a fraction over nothing."""
    if match["compound"]:
        return east_asian(match["compound"])
    if match["vulgar"]:
        top, bottom = unicodedata.normalize("NFKC", match["vulgar"]).split("⁄")
        return int(match["whole"] or 0) + Fraction(int(top), int(bottom)) if bottom else None
    if match["point"]:
        return Fraction("0" + match["point"])
    whole, top, bottom = (int(match[name] or 0) for name in ("mixed", "top", "bottom"))
    if match["below"]:
        top, bottom = int(match["above"]), int(match["below"])
    return whole + Fraction(top, bottom) if bottom else None


def _whole(text: str, start: int, end: int, value: Fraction) -> Found:
    """A number with all that changes its value: exponent, denominator, scale, half, sign."""
    if power := _EXPONENT.match(text, end):
        end, value = power.end(), value ** int(power[1])
    below = _DENOMINATOR.match(text, end)
    if below and int(below[1]) and text[start - 1 : start] != "/":
        end, value = below.end(), value / int(below[1])
    end, factor = scale_after(text, end)
    factor *= scale_before(text, start)
    end, half = half_beside(text, start, end)
    value = (value + half) * factor
    sign = _SIGN.search(text[max(start - 5, 0) : start])
    first = start - len(sign[0]) if sign else start
    if sign and _is_a_sign(text[:first] if first < 40 else text[first - 40 : first]):
        return Found(first, start, end, -value, factor)
    return Found(start, start, end, value, factor)


def _is_a_sign(before: str) -> bool:
    """Whether a minus after this is a number's own, rather than a subtraction, a range or a hyphen."""
    return not re.search(rf"(?:[\d)%]|\d\s?[$€£¥])\s*$|{_LETTER}$", before)


def _belongs_to_a_word(text: str, start: int) -> bool:
    """Whether digits are part of a name: "cm2", "x2", "A4"; not "USD18", "4x18"."""
    letters = _LETTERS.search(text[max(start - 12, 0) : start])
    if not letters or letters[0].endswith("."):
        return False
    word, before = letters[0].casefold(), text[start - len(letters[0]) - 1 : start - len(letters[0])]
    return not _CODE.fullmatch(word) and not (word in ("x", "х") and before[-1:].isdigit())

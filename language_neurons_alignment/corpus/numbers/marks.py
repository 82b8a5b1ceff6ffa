"""Which mark cuts off the decimals: "1.234" is 1234 in German and 1.234 in English (Unicode CLDR's conventions)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

_DECIMAL_COMMA = re.compile(
    r"(?:af|az|be|bg|bs|ca|cs|da|de|el|es|et|eu|fi|fr|gl|hr|hu|hy|id|is|it|ka|kk|lt|lv|mk|mn|nb|nl|nn|no|pl|pt|ro|ru|sk"
    r"|sl|sq|sr|sv|tr|uk|uz|vi)\b"
)
_SPACES = " \u00a0\u2009\u202f\u2007"
RAW = rf"\d+(?:[.,٫٬，'’]\d+|[{_SPACES}]\d{{3}}(?!\d))*"
"""Digits with the marks that may stand among them; what they mean is `read`'s to say."""
_LONGEST = 40
"""Digits: longer runs are noise, not numbers."""

_THOUSANDS = re.compile(r"\d{1,3}([.,])\d{3}(?:\1\d{3})*")
_INDIAN = re.compile(r"\d{1,2}(?:,\d{2})+,\d{3}")
_PLAIN_GROUPS = re.compile(rf"(\d{{1,3}}(?:([{_SPACES}'’٬，])\d{{3}}(?:\2\d{{3}})*)|\d+)((?:[.,٫]\d+)?)")


def decimal_mark(text: str, language: str) -> str:
    """What the text's own unmistakable numbers show, "." or ","; where they show nothing or both, the language's."""
    shown = {mark for raw in re.findall(RAW, text) if (mark := _shown(raw))}
    if len(shown) == 1:
        return shown.pop()
    return "," if _DECIMAL_COMMA.match(language) else "."


def read(raw: str, *, mark: str, money: bool) -> Iterator[tuple[int, int, Fraction]]:
    """The numbers in a match of `RAW`, each with its place in it: one, unless the marks are those of a list ("1,2,3").

    A single mark with three digits behind it is the doubtful case. It groups thousands, if it is not `mark`. If it is:

        0,125  1234,567   decimals: thousands are not grouped so
        80,000            thousands, where `mark` is a comma: nobody writes 80 with three noughts behind a comma
        $1,234            thousands, where `mark` is a comma: amounts have two decimals
        3,125             decimals

    Args:
        raw: digits and marks.
        mark: of the decimals, from `decimal_mark`.
        money: a currency stands beside it.
    """
    if sum(map(str.isdigit, raw)) > _LONGEST:
        return
    value = _value(raw, mark=mark, money=money)
    if value is not None:
        yield 0, len(raw), value
        return
    for part in re.finditer(r"\d+(?:\.\d+)?(?![.\d])|\d+", raw):
        yield part.start(), part.end(), Fraction(part[0])


def _value(raw: str, *, mark: str, money: bool) -> Fraction | None:
    grouped = _PLAIN_GROUPS.fullmatch(raw)
    if grouped and (grouped[2] or not grouped[3]):  # spaces, apostrophes, or no mark at all
        return Fraction(re.sub(r"\D", "", grouped[1]) + re.sub("[,٫]", ".", grouped[3]))
    raw = raw.replace("٬", "").replace("٫", mark)
    marks = re.sub(r"\d", "", raw)
    if set(marks) == {".", ","}:
        whole, decimals = raw.rsplit(marks[-1], 1)
        return _decimal(_joined(whole), decimals) if marks.count(marks[-1]) == 1 and _is_grouped(whole) else None
    if len(marks) == 1 and marks in ".,":
        whole, decimals = raw.split(marks)
        doubtful = _THOUSANDS.fullmatch(raw) and not whole.startswith("0")
        thousands = doubtful and (marks != mark or (mark == "," and (money or decimals.endswith("0"))))
        return Fraction(whole + decimals) if thousands else _decimal(whole, decimals)
    return Fraction(_joined(raw)) if _is_grouped(raw) else None


def _shown(raw: str) -> str | None:
    """The decimal mark of a number that can be read one way only, or None."""
    marks = re.sub("[^.,]", "", raw)
    if not marks or re.sub(r"[\d.,]", "", raw):
        return None
    if len(set(marks)) == 2:
        return marks[-1] if _value(raw, mark=".", money=False) is not None else None
    if len(marks) > 1:
        return (".," if marks[0] == "," else ",.")[0] if _is_grouped(raw) else None
    return None if _THOUSANDS.fullmatch(raw) and not raw.startswith("0") else marks


def _is_grouped(raw: str) -> bool:
    return bool(_THOUSANDS.fullmatch(raw) or _INDIAN.fullmatch(raw))


def _joined(raw: str) -> str:
    return re.sub("[.,]", "", raw)


def _decimal(whole: str, decimals: str) -> Fraction:
    return Fraction(f"{whole}.{decimals}")

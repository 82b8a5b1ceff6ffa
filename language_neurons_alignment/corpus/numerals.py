"""The numbers of a text, in their order: what stands for a quantity, as an exact fraction."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

# ── Which mark cuts off the decimals: "1.234" is 1234 in German and 1.234 in English (Unicode CLDR's conventions).

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


# ── Words that multiply ("2.5 million", "1万8千", "elfu 5"), and Chinese and Japanese numerals.

_NO_LETTER = r"(?![^\W\d_])"
_SUFFIXES = [
    (re.compile(rf"\s*(?:{words}){end}", re.IGNORECASE), factor)
    for words, end, factor in (
        (r"mil\s+millones|billions?|milliarden?|milliards?|mrd\.?|миллиард\w*|млрд\.?", _NO_LETTER, 10**9),
        (r"millions?|millionen|millón|millon|millones|mio\.?|миллион\w*|млн\.?", _NO_LETTER, 10**6),
        (r"thousand|tausend|mille|mil|тысяч\w*|тыс\.?|elfu", _NO_LETTER, 10**3),
        (r"কোটি|crores?", "", 10**7),
        (r"ล้าน", "", 10**6),
        (r"লাখ|লক্ষ|lakhs?|แสน", "", 10**5),
        (r"หมื่น", "", 10**4),
        (r"হাজার|พัน(?!ธ)", "", 10**3),
        (r"ร้อย(?!ละ)", "", 10**2),
    )
]
_GLUED_K = re.compile(rf"[kK]{_NO_LETTER}")
_POWER = re.compile(r"\s*[×x*·]\s*10\s*\^\s*\{?([-−]?\d{1,2})\}?|[eE]([-+]?\d{1,2})(?![\w.])")
_SWAHILI = re.compile(r"\b(elfu|laki|milioni|bilioni)\s+$", re.IGNORECASE)
_SWAHILI_FACTORS = {"elfu": 10**3, "laki": 10**5, "milioni": 10**6, "bilioni": 10**9}

_HALF_AFTER = re.compile(
    rf"[ \u00a0](?:[^\W\d_]+[ \u00a0])?(?:and a half(?! of)|et demie?|y medi[ao]|und ein(?:e[nrs]?)? halbe?[nrs]?"
    rf"|с половиной|na nusu){_NO_LETTER}"
    r"|\s?(?:ชั่วโมง|วัน|สัปดาห์|เดือน|ปี|เท่า|ถ้วย|ลิตร|กิโลเมตร|กิโลกรัม)?ครึ่ง(?!หนึ่ง|ของ)"
    r"|\s?[個个]半(?=小[时時]|[钟鐘]|月)|\s?(?:時間|小[时時]|[个個]月|年|天|日|週間?|周|倍)半(?![分数数径徑額额])"
)
"""Ends at "half": "2 heures et demie", "2个半小时", "2時間半"."""
_HALF_BEFORE = re.compile("সা(?:\u09dc|\u09a1\u09bc)ে\\s*$")
_AND_LESS = re.compile(r"[ \u00a0](?:na )?(?:(?:laki|elfu) )?", re.IGNORECASE)
"""Between the parts of "২ লাখ ৫০ হাজার", "5 mil 300", "milioni 2 na elfu 50"."""

_DIGITS = {character: value for value, character in enumerate("〇一二三四五六七八九")} | {"零": 0, "两": 2, "兩": 2}
_SMALL = {"十": 10, "百": 100, "千": 1000}
_BIG = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8, "兆": 10**12}
_UNIT = r"(?:(?!千[克米瓦卡])[十百千万萬亿億兆])"  # 5千克 is five kilograms

COMPOUND = rf"(?:\d+(?:[.,]\d+)*[ ]?{_UNIT}+)+(?:\d{{1,4}}(?![\d.,]))?"
"""1万8千, 2.5万, 12万5000."""
KANJI = re.compile(r"(?!一[样般些起共定直切旦部])[〇零一二三四五六七八九两兩十百千万萬亿億兆]+")
_TERM = re.compile(rf"(\d+(?:[.,]\d+)*|[{''.join(_DIGITS)}])?\s?({_UNIT})?")


def scale_after(text: str, end: int) -> tuple[int, Fraction]:
    """What the words behind a number multiply it by, and where they end; (end, 1) where there are none."""
    power = _POWER.match(text, end)
    if power:
        return power.end(), Fraction(10) ** int((power[1] or power[2]).replace("−", "-"))
    if found := _GLUED_K.match(text, end):
        return found.end(), Fraction(1000)
    for pattern, factor in _SUFFIXES:
        if found := pattern.match(text, end):
            return found.end(), Fraction(factor)
    return end, Fraction(1)


def scale_before(text: str, start: int) -> int:
    """What the Swahili word before a number multiplies it by: "elfu 5" is 5000."""
    found = _SWAHILI.search(text[max(start - 12, 0) : start])
    return _SWAHILI_FACTORS[found[1].lower()] if found else 1


def half_beside(text: str, start: int, end: int) -> tuple[int, Fraction]:
    """Half of one, where the words beside a number add it, and where they end: "2 et demi", "সাড়ে ৩"."""
    if found := _HALF_AFTER.match(text, end):
        return found.end(), Fraction(1, 2)
    return end, Fraction(1, 2) if _HALF_BEFORE.search(text[max(start - 7, 0) : start]) else Fraction(0)


def goes_on(between: str, *, scale: Fraction, following: Fraction, its_scale: Fraction) -> bool:
    """Whether a number adds to the scaled one before it: "২ হাজার ৫০০" is 2500, "2 million 5 years ago" is not.

    Args:
        between: the text between the two.
        scale: of the number before.
        following: the second number with its scale.
        its_scale: of the second number, 1 where it has none.
    """
    fits = its_scale < scale and 0 < following < scale and (its_scale > 1 or following * 100 >= scale)
    return bool(scale > 1 and fits and _AND_LESS.fullmatch(between))


def east_asian(text: str) -> Fraction | None:
    """The value of a numeral with Chinese or Japanese units: 1万8千, 二百三十, 十八; None where it is none."""
    if not re.search(r"[十百千万萬亿億兆]", text) and len(text) > 1:
        return Fraction("".join(str(_DIGITS[character]) for character in text))  # 二〇二四
    total = section = Fraction(0)
    pending: Fraction | None = None
    for number, unit in _TERM.findall(text):
        if number:
            pending = Fraction(_DIGITS[number]) if number in _DIGITS else Fraction(number.replace(",", ""))
        if unit in _SMALL:
            section += (1 if pending is None else pending) * _SMALL[unit]
        elif unit in _BIG:
            total += (section + (pending or 0) or 1) * _BIG[unit]
            section = Fraction(0)
        if unit:
            pending = None
    return total + section + (pending or 0)


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

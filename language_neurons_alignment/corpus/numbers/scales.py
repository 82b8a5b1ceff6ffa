"""Words that multiply ("2.5 million", "1万8千", "elfu 5"), and Chinese and Japanese numerals."""

from __future__ import annotations

import re
from fractions import Fraction

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

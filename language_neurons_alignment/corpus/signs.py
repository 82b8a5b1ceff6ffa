"""The minus in front of a number, as a sign or as a word: -5, −5, "minus 5", "负5", "минус пять".

A minus may also subtract ("20 minus 12"), and its word may mean "less" ("al menos 12" is "at least 12"). The words
are those of num2words for the language, and those of the lists here.
"""

from __future__ import annotations

import re
from functools import cache

from .conventions import spellings

LETTER = r"[A-Za-z\u00c0-\u024f\u0370-\u052f]"
"""A letter of a script that puts blanks between words and numbers."""

_SIGN = re.compile(r"(?:[-–]|−\s?)(?:[$€£¥₹₽฿৳]\s?|US\$)?$")
_NO_SIGN = re.compile(rf"(?:[\d)%]|\d\s?[$€£¥])\s*$|{LETTER}$")
"""Behind this, a minus is a subtraction, a range or a hyphen."""

_ALWAYS_A_SIGN = (
    r"negative|negativ|negatif|hasi|负数?|負の|負|零下|ঋণাত্মক|ঋণ|ติดลบ|ऋणात्मक|ऋण|రుణ|రుణాత్మక|ఋణాత్మక|سالب|منفی|منفي"
)
_IN_ANY_LANGUAGE = r"minus|минус|мінус|マイナス|마이너스|মাইনাস|ลบ|माइनस|మైనస్|மைனஸ்|ಮೈನಸ್|μείον|מינוס|ناقص"
_OF_ONE_LANGUAGE = {"it": ["meno"], "vi": ["âm", "trừ"], "id": ["min"], "ms": ["min"], "gl": ["menos"]}
"""Words of languages for which num2words has none."""

_OR_LESS = re.compile(
    rf"(?<!{LETTER})(?:al|lo|le|au|du|pelo|ao|(?:plus|más|mas|mais|più|més|плюс)\s+(?:or|o|ou|или|oder))\s+$",
    re.IGNORECASE,
)
"""Behind these the word for minus means "less": "al menos", "au moins", "más o menos"."""
_BEHIND_A_NUMBER = re.compile(r"\d([^\d\n.。।!?:;=≈(]*)$")
_ENDS = re.compile(r"[\n.。!?:;=≈(]")
_LEADS_TO_A_VALUE = re.compile(
    r"(?<![^\W\d_])(?:is|are|was|equals?|gives?|makes?|becomes?|to|ist|sind|ergibt|macht|gibt|beträgt|auf|es|son|da|queda\w*|a|est|"
    r"sont|fait|donne|à|é|dá|è|fa|равн\w*|это|будет|до|составляет|ni|hadi|là|jest|daje|do|adalah|menjadi|is|naar|til)(?![^\W\d_])"
    r"|[是为為得到はがへ]|হল|হলো|হয়|কমে|คือ|เท่ากับ|เป็น|है|[—–→]"
)


def minus_before(text: str, start: int, language: str) -> int:
    """Where the minus of the number at `start` begins; `start` itself where it has none.

    >>> [minus_before(text, text.index("12"), "es") for text in ("-12", "es menos 12", "al menos 12", "20 menos 12")]
    [0, 3, 9, 9]
    """
    sign = _SIGN.search(text[max(start - 5, 0) : start])
    if sign:
        first = start - len(sign[0])
        return start if _NO_SIGN.search(text[max(first - 40, 0) : first]) else first
    word = _words(language).search(text[max(start - 24, 0) : start])
    if not word:
        return start
    first = start - len(word[0])
    before = text[max(first - 60, 0) : first]
    if word["always"]:
        return first
    between = _BEHIND_A_NUMBER.search(before)
    return start if (between and subtracts(between[1])) or _OR_LESS.search(before) else first


def subtracts(between: str) -> bool:
    """Whether a word for minus subtracts, by the text between it and the number before it."""
    return not _LEADS_TO_A_VALUE.search(between) and not _ENDS.search(between)


@cache
def _words(language: str) -> re.Pattern[str]:
    """The words for minus at the end of a text, with the blanks behind them."""
    from num2words import CONVERTER_CLASSES  # here, not above: only grading needs it

    names = list(spellings(language))
    written = [(getattr(CONVERTER_CLASSES.get(name), "negword", None) or "").strip() for name in names]
    own = [word for word in written if word.isalpha()] + [
        word for name in names for word in _OF_ONE_LANGUAGE.get(name, [])
    ]
    may_subtract = "|".join([*map(re.escape, own), _IN_ANY_LANGUAGE])
    return re.compile(
        rf"(?<!{LETTER})(?:(?P<always>{_ALWAYS_A_SIGN})|{may_subtract})\s*(?:[$€£¥₹₽฿৳]\s?|US\$)?$", re.IGNORECASE
    )

"""A text made plain before its numbers are read: one kind of digit, no LaTeX, no numbers that count nothing."""

from __future__ import annotations

import re
import unicodedata

BOX, UNBOX = "\ue000", "\ue001"
r"""Stand for `\boxed{` and its brace, so that a box is still seen when the LaTeX is gone."""

_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u200e\u200f\u2060\u2066\u2067\u2068\u2069\ufeff\u00ad"))
_FULL_WIDTH = {0xFF01 + n: chr(0x21 + n) for n in range(94) if chr(0x21 + n) != ","}  # "，" cuts off no decimals
_SIGNS = {ord("﹣"): "−", ord("－"): "-", ord("⁄"): "/", ord("∕"): "/", ord("฿"): "$", ord("৳"): "$", ord("￥"): "¥"}

_LATEX = [
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\([%$&#_])"), r"\1"),
    (re.compile(r"\\!|\\left|\\right|\\displaystyle"), ""),
    (re.compile(r"\\[,;: ]|(?<=\d)~(?=\d)"), "\u2009"),
    (re.compile(r"\\(?:times|cdot|ast)\b"), "×"),
    (re.compile(r"\\div\b"), "÷"),
    (re.compile(r"\\(?:approx|sim)\b"), "≈"),
    (re.compile(r"\\[()\[\]]|\\q?quad"), " "),
    (re.compile(r"(\d)\s*\\[dtc]?frac"), r"\1 \\frac"),
    (re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\\[dtc]?frac\s*(\d)\s*(\d)"), r"\1/\2"),
    (re.compile(r"(?<=[^\W\d])\s?\^\s*\{?[-−]?\d+\}?"), ""),  # cm^2
    (re.compile(r"_\{?\d+\}?(?!\w)"), ""),  # x_1
    (re.compile(r"\\(?:text|math|operator)[a-z]*\s*|\\(?:rm|bf|it)\b"), ""),
    (re.compile(r"(?<!\^)\{([^{}]*)\}"), r"\1"),
]

_STEP = (
    r"(?:step|schritt|paso|étape|шаг|hatua(?:\s+ya)?|ধাপ|ขั้นตอนที่|ขั้นที่|步骤|ステップ|手順|第|"
    r"question|frage|pregunta|вопрос|swali|问题|問題|প্রশ্ন|คำถามที่|ข้อที่)"
)
_COUNT_NOTHING = [
    re.compile(r"(?m)^[\s>*#•-]*\(?\d{1,2}(?:[.)]\**|\*\*[.)])[ \t]+(?=\S)"),  # "1. First", "**2.** Then"
    re.compile(r"(?m)^[\s>*•-]*\(?\d{1,2}[)、]\s?(?=\S)"),
    re.compile(rf"(?i){_STEP}\s*#?\d+(?![\d.,]*\d)"),
    re.compile(r"(?<![\d.,/])\d{1,2}([./])\d{1,2}\1(?:\d{4}|\d\d)(?![\d/])(?!\.\d)"),  # 12/05/2023, 12.05.23
    re.compile(r"(?<!\d)\d{4}-\d\d?-\d\d?(?!\d)"),  # 2023-05-12
    re.compile(r"(?<!\d)\d{4}\s?年(?:\s?\d\d?\s?月)?(?:\s?\d\d?\s?日)?|\d\d?\s?月\s?\d\d?\s?日"),
    re.compile(r"(?i)(?<![\d.,])\d{1,2}:\d\d(?::\d\d)?(?!\d)|(?<![\d.,])\d\d?\.\d\d(?=\s?uhr\b)"),  # 3:30, 15.30 Uhr
    re.compile(r"(?<![\d.,])\d\d?\s?h\s?\d\d(?!\d)|\d\d?\s?[时時点點]\s?\d\d?\s?分"),  # 15h30, 3时30分
    re.compile(r"(?<![\d.,])\d+(?:st|nd|rd|th|er|ère|e|ème|-?(?:й|я|е|го|му))(?!\w)"),  # 2nd, 3ème, 2-й
]


def plain(text: str) -> str:
    r"""The text with ASCII digits, without LaTeX, dates, times, ordinals, exponents of units and the numbers of lists.

    A box stays, as `BOX … UNBOX`; where its brace is missing because the answer was cut, it reaches to its line's end.
    """
    text = "".join(_ascii_digit(character) for character in text.translate(_INVISIBLE))
    text = _boxes(text.translate(_FULL_WIDTH | _SIGNS))
    for pattern, instead in _LATEX:
        text = pattern.sub(instead, text)
    for pattern in _COUNT_NOTHING:
        text = pattern.sub(" ", text)
    return text


def _ascii_digit(character: str) -> str:
    """২, ๒, ٢, ۲, २, ２ → 2; whatever is no decimal digit as it is."""
    value = unicodedata.decimal(character, None)
    return character if value is None else str(value)


def _boxes(text: str) -> str:
    r"""`\boxed{…}`, braces within braces too → BOX … UNBOX."""
    parts, position = [], 0
    for found in re.finditer(r"\\f?boxed\s*(\{|(?=[\d$]))", text):
        if found.start() < position:
            continue
        end = _closing(text, found.end()) if found[1] else _end_of_word(text, found.end())
        parts += [text[position : found.start()], BOX, text[found.end() : end], UNBOX]
        position = end + bool(found[1] and text[end : end + 1] == "}")
    return "".join([*parts, text[position:]])


def _closing(text: str, start: int) -> int:
    """Where the brace that was opened before `start` closes, or its line's end."""
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return position
        if text[position] == "\n":
            return position
    return len(text)


def _end_of_word(text: str, start: int) -> int:
    found = re.compile(r"\S*").match(text, start)
    return found.end() if found else start

r"""The numbers of a text, each with its place and its exact value.

A number is a run of digits with everything beside it that changes its value:

    1,234.50   1.234,50   1 234   1'234   12,34,567    grouped thousands and decimals, by the conventions of `_value`
    3/4   2 1/2   2½   2分の1                           fractions
    -5   2^10   3.2e6   1.5×10^3                       sign and powers
    2.5 million   5 mil   ২ লাখ   elfu 5               scales, behind the number or (Swahili) in front of it
    2 et demi   সাড়ে ৩   2個半                          halves
    1万8千   2.5亿                                       Chinese and Japanese units
    ২ হাজার ৫০০                                        a scaled number and the smaller one that adds to it

`numbers_in` reads a text that `numbers.plain` has prepared: all digits are ASCII and there is no LaTeX. The digits of
names ("cm2") are left out. Nothing here raises, whatever the text. More than 40 digits in a row are noise, and so are
powers of more than 900 digits.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache

from .conventions import THOUSANDS, decimal_mark, is_grouped, joined, scale_words, spellings
from .east_asian import COMPOUND, HALF, LARGEST, LONGEST, SPOKEN, TENTHS, east_asian, is_chinese, spoken, tenths
from .signs import LETTER, minus_before
from .spelt import run_at, run_before

NO_LETTER = r"(?![^\W\d_])"
"""A word of a pattern ends here."""
VULGAR = "".join(chr(n) for n in [*range(0xBC, 0xBF), *range(0x2150, 0x215F), 0x2189])
"""Fractions of one character: ½, ⅔, …"""


_SPACES = " \u00a0\u2009\u202f\u2007"
_GROUPS = "'’٬،⹁"
_RAW = rf"\d+(?:[.,٫，{_GROUPS}]\d+|[{_SPACES}]\d{{3}}(?!\d))*"
"""Digits with the marks that may stand among them; `_parts` says what they mean."""
_IS_A_PART = r"(?=(?:1/[2-9]|2/[3579]|3/[4578])[ ](?!of\b|de\b|von\b|respectively)[^\W\d_])"
"""A fraction of what is counted: "2 and 1/2 cups" is one number, "they are 2 and 1/2" two."""
_NUMBER = re.compile(
    rf"(?P<compound>{COMPOUND})"
    rf"|(?P<spoken>{SPOKEN})"
    rf"|(?P<tenths>{TENTHS})"
    rf"|(?:(?P<whole>\d+)[ \u00a0]?)?(?P<vulgar>[{VULGAR}])"
    rf"|(?P<mixed>\d+)[ \u00a0](?:(?:and|&|und|y|et)[ ]{_IS_A_PART})?"
    r"(?P<top>\d+)\s?/\s?(?P<bottom>\d+)(?!\d)(?![\d/.,]*\d)"
    r"|(?P<below>\d+)\s?分[の之]\s?(?P<above>\d+)"
    r"|(?P<point>(?<![\w.,)])\.\d+)"
    rf"|(?P<raw>{_RAW})"
)
_DENOMINATOR = re.compile(r"\s?/\s?(\d{1,9})(?![\d/]|[.,]\d)")
_EXPONENT = re.compile(r"\^\{?(\d{1,2})\}?")
_LETTERS = re.compile(rf"{LETTER}+\.?$")
_CODE = re.compile("usd?|eur|ksh|kes|sh|tsh|tzs|rs|tk|bdt|thb|rmb|cny|jpy|rub|gbp|inr|dola|dolari|shilingi")
_MONEY_BEFORE = re.compile(r"[$€£¥₹₽]\s?$")
_MONEY_AFTER = re.compile(r"\s?(?:[$€£¥₹₽]|USD|EUR|US-Dollar|Dollar|Euro|dólares|долл|руб)", re.IGNORECASE)


@dataclass(frozen=True)
class FoundNumber:
    """A number and its place in the text.

    Attributes:
        start: of the number with its sign.
        digits: of its first digit.
        end: behind its digits, fraction and scale.
        value: exact.
        scale: the factor that the words beside it stand for.
    """

    start: int
    digits: int
    end: int
    value: Fraction
    scale: Fraction = Fraction(1)


def numbers_in(text: str, language: str) -> list[FoundNumber]:
    """The numbers of a text in their order.

    >>> [str(found.value) for found in numbers_in("3 × $1,250.50 and 2 1/2 million", "en")]
    ['3', '2501/2', '2500000']
    >>> [str(found.value) for found in numbers_in("1.234 und 1万8千", "de")]
    ['1234', '18000']
    """
    mark = _decimal_mark(text, language)
    numbers: list[FoundNumber] = []
    done = 0
    for match in _NUMBER.finditer(text):
        for found in _read(text, match, mark=mark, language=language):
            if found.digits < done:  # a denominator or a power is part of the number before
                continue
            done_before, before = done, numbers[-1] if numbers else None
            done = found.end
            if max(found.value.numerator.bit_length(), found.value.denominator.bit_length()) > LARGEST:
                continue
            whole = _with_words(text, found, done_before, language)
            done = whole.end
            if (
                before
                and whole.digits == found.digits
                and whole.start == found.start
                and _adds_to(text, before, whole, language)
            ):
                numbers[-1] = replace(before, end=whole.end, value=before.value + whole.value, scale=whole.scale)
            else:
                numbers.append(whole)
    return numbers


def _read(text: str, match: re.Match[str], *, mark: str, language: str) -> Iterator[FoundNumber]:
    """The numbers of one match: one, several where the marks are those of a list ("1,2,3"), or none."""
    start, end = match.span()
    if sum(map(str.isdigit, match[0])) > LONGEST or _belongs_to_a_word(text, start):
        return
    if match["raw"]:
        money = bool(_MONEY_BEFORE.search(text[max(start - 2, 0) : start]) or _MONEY_AFTER.match(text, end))
        parts = _parts(match["raw"], mark=mark, money=money)
    else:
        value = _special(match, language)
        parts = [] if value is None else [(0, end - start, value)]
        if value is None and (match["tenths"] or (match["spoken"] and not is_chinese(language))):  # of other languages
            parts = [(*one.span(), Fraction(one[0])) for one in re.finditer(r"\d+", match[0])]
    for first, last, value in parts:
        yield _with_surroundings(text, start + first, start + last, value, language)


def _special(match: re.Match[str], language: str) -> Fraction | None:
    """The value of a match that is not plain digits with marks; None for a fraction over nothing."""
    if match["compound"]:
        return east_asian(match["compound"], language)
    if match["spoken"]:
        return spoken(match["spoken"], measured=bool(match["measured"]), language=language)
    if match["tenths"]:
        return tenths(match["tenths"], language)
    if match["vulgar"]:
        top, bottom = unicodedata.normalize("NFKC", match["vulgar"]).split("⁄")
        return int(match["whole"] or 0) + Fraction(int(top), int(bottom)) if bottom else None
    if match["point"]:
        return Fraction("0" + match["point"])
    whole, top, bottom = (int(match[name] or 0) for name in ("mixed", "top", "bottom"))
    if match["below"]:
        top, bottom = int(match["above"]), int(match["below"])
    return whole + Fraction(top, bottom) if bottom else None


def _with_surroundings(text: str, start: int, end: int, value: Fraction, language: str) -> FoundNumber:
    """A number with everything beside it that changes its value: exponent, denominator, scale, half, sign."""
    if power := _EXPONENT.match(text, end):
        end, value = power.end(), value ** int(power[1])
    below = _DENOMINATOR.match(text, end)
    if below and int(below[1]) and text[start - 1 : start] != "/":
        end, value = below.end(), value / int(below[1])
    scales = _scales(language)
    end, factor = _scale_after(text, end, scales)
    front, factor_before = _scale_before(text, start, scales)
    factor *= factor_before
    end, half = _half_beside(text, start, end)
    if half and factor == 1:  # "2 and a half million"
        end, factor = _scale_after(text, end, scales)
    value = (value + half) * factor
    first = minus_before(text, front, language)
    negative = first != front
    return FoundNumber(first if negative else start, start, end, -value if negative else value, factor)


def _belongs_to_a_word(text: str, start: int) -> bool:
    """Whether digits are part of a name: "cm2", "x2", "A4"; not "USD18", "4x18"."""
    letters = _LETTERS.search(text[max(start - 12, 0) : start])
    if not letters or letters[0].endswith("."):
        return False
    word, before = letters[0].casefold(), text[start - len(letters[0]) - 1 : start - len(letters[0])]
    return not _CODE.fullmatch(word) and not (word in ("x", "х") and before[-1:].isdigit())


# Which mark separates the decimals: "1.234" is 1234 in German and 1.234 in English.

_PLAIN_GROUPS = re.compile(rf"(\d{{1,3}}(?:([{_SPACES}{_GROUPS}，])\d{{3}}(?:\2\d{{3}})*)|\d+)((?:[.,٫]\d+)?)")


def _decimal_mark(text: str, language: str) -> str:
    """The decimal mark, "." or ",", of the text's unambiguous numbers; where they show none or both, the language's."""
    shown = {mark for raw in re.findall(_RAW, text) if (mark := _shown_mark(raw))}
    if len(shown) == 1:
        return shown.pop()
    return decimal_mark(language)


def _shown_mark(raw: str) -> str | None:
    """The decimal mark of a number that can be read one way only, or None."""
    marks = re.sub("[^.,]", "", raw)
    if not marks or re.sub(r"[\d.,]", "", raw):
        return None
    if len(set(marks)) == 2:
        fits = len(raw) - len(marks) <= LONGEST and _value(raw, mark=".", money=False) is not None
        return marks[-1] if fits else None
    if len(marks) > 1:
        return {",": ".", ".": ","}[marks[0]] if is_grouped(raw) else None
    return None if THOUSANDS.fullmatch(raw) and not raw.startswith("0") else marks


def _parts(raw: str, *, mark: str, money: bool) -> Iterator[tuple[int, int, Fraction]]:
    """The numbers in a match of `_RAW`, each with its place in it: one, unless the marks are those of a list."""
    value = _value(raw, mark=mark, money=money)
    if value is not None:
        yield 0, len(raw), value
        return
    for part in re.finditer(r"\d+(?:\.\d+)?(?![.\d])|\d+", raw):
        yield part.start(), part.end(), Fraction(part[0])


def _value(raw: str, *, mark: str, money: bool) -> Fraction | None:
    """The value of digits with marks; None where they are no one number.

    A single mark followed by three digits is ambiguous. It groups thousands if it is not `mark`. If it is:

        0,125  1234,567   decimals: thousands are not grouped so
        80,000            thousands, where `mark` is a comma: nobody writes 80 with three noughts behind a comma
        $1,234            thousands, where `mark` is a comma: amounts have two decimals
        3,125             decimals
    """
    grouped = _PLAIN_GROUPS.fullmatch(raw)
    if grouped and (grouped[2] or not grouped[3]):  # spaces, apostrophes, or no mark at all
        return Fraction(re.sub(r"\D", "", grouped[1]) + re.sub("[,٫]", ".", grouped[3]))
    raw = raw.replace("٬", "").replace("٫", mark)
    marks = re.sub(r"\d", "", raw)
    if set(marks) == {".", ","}:
        whole, decimals = raw.rsplit(marks[-1], 1)
        one_number = marks.count(marks[-1]) == 1 and is_grouped(whole)
        return Fraction(f"{joined(whole)}.{decimals}") if one_number else None
    if len(marks) == 1 and marks in ".,":
        whole, decimals = raw.split(marks)
        ambiguous = THOUSANDS.fullmatch(raw) and not whole.startswith("0")
        thousands = ambiguous and (marks != mark or (mark == "," and (money or decimals.endswith("0"))))
        return Fraction(whole + decimals) if thousands else Fraction(f"{whole}.{decimals}")
    return Fraction(joined(raw)) if is_grouped(raw) else None


# Words beside a number that multiply it ("2.5 million", "elfu 5") or add a half ("2 et demi").

_OTHER_WORDS = [
    (re.compile(rf"\s*(?:{words}){end}", re.IGNORECASE), factor)
    for words, end, factor in (
        (r"milliarden?|milliards?|mrd\.?|миллиард\w*|млрд\.?", NO_LETTER, 10**9),
        (r"millionen|millón|millon|millones|mio\.?|миллион\w*|млн\.?", NO_LETTER, 10**6),
        (r"tausend|mille|mil|тысяч\w*|тыс\.?|elfu", NO_LETTER, 10**3),
        (r"hundred|hundert", NO_LETTER, 10**2),
        (r"কোটি|crores?|करोड़|కోట్లు|కోట్ల|కోటి|கோடி", "", 10**7),
        (r"ล้าน", "", 10**6),
        (r"লাখ|লক্ষ|lakhs?|แสน|लाख|లక్షలు|లక్షల|లక్ష|லட்சம்", "", 10**5),
        (r"หมื่น", "", 10**4),
        (r"হাজার|พัน(?!ธ)|हजार|వేల", "", 10**3),
        (r"ร้อย(?!ละ)", "", 10**2),
    )
]
"""Words that CLDR does not have for the language asked in: a model may answer in another, or inflect."""
_PREFIXES = {"mia": 10**2, "elfu": 10**3, "laki": 10**5, "milioni": 10**6, "bilioni": 10**9}
_LONGEST_PREFIX = 24
_GLUED_K = re.compile(rf"[kK]{NO_LETTER}")
_POWER = re.compile(r"\s*[×x*·]\s*10\s*\^\s*\{?([-−]?\d{1,2})\}?|[eE]([-+]?\d{1,2})(?![\w.])")
_HALF_AFTER = re.compile(
    rf"[ \u00a0](?:[^\W\d_]+[ \u00a0])?(?:(?:and|&) a half(?! of)|et demie?|y medi[ao]|e mezz[oa]|e mei[ao]"
    r"|und ein(?:e[nrs]?)? halbe?[nrs]?|en (?:een )?hal(?:f|ve)|och en halv|og en halv|с половиной|з половиною"
    rf"|i pół|buçuk|rưỡi|setengah|na nusu){NO_LETTER}"
    r"|\s?(?:ชั่วโมง|วัน|สัปดาห์|เดือน|ปี|เท่า|ถ้วย|ลิตร|กิโลเมตร|กิโลกรัม)?ครึ่ง(?!หนึ่ง|ของ)"
    rf"|{HALF}"
)
"""Ends at "half": "2 heures et demie", "2个半小时", "2時間半"."""
_HALF_BEFORE = re.compile("(?:সা(?:\u09dc|\u09a1\u09bc)ে|सा(?:\u095d|\u0922\u093c)े)\\s*$")

_JOINING = {
    "en": "and", "de": "und", "fr": "et", "es": "y", "it": "e", "pt": "e", "gl": "e", "ca": "i", "ru": "и",
    "uk": "і|й|та", "pl": "i", "nl": "en", "sv": "och", "da": "og", "nb": "og", "no": "og", "ro": "și", "tr": "ve",
    "id": "dan", "ms": "dan", "vi": "và", "sw": "na", "bn": "ও|এবং|আর", "hi": "और", "te": "మరియు", "ta": "மற்றும்",
    "ur": "اور", "fa": "و", "ar": "و", "he": "ו",
}  # fmt: skip
"""What joins the parts of a number, by language. Chinese, Japanese and Thai numbers have no such word."""
_APART_BEFORE = re.compile(
    r"(?<![^\W\d_])(?:between|both|either|from|zwischen|sowohl|entre|tra|fra|между|mellan|mellem|mellom|pomiędzy|między|tussen|kati\s+ya|antara|giữa)"
    r"\s*[$€£¥₹₽]?\s*$",
    re.IGNORECASE,
)
_APART_BEHIND = re.compile(
    r"[^\n.।!?]{0,40}?(?<![^\W\d_])(?:respectively|each|jeweils|beziehungsweise|bzw|respectivamente|respectivement|rispettivamente|соответственно|mtawalia|যথাক্রমে)",
    re.IGNORECASE,
)
"""Words that say that what is joined are two numbers."""


@dataclass(frozen=True)
class _Scales:
    """The words of a language that scale a number, behind it and in front of it, with their factors.

    Attributes:
        between: what may stand between the parts of a number: "২ লাখ ৫০ হাজার", "milioni 2 na elfu 50".
    """

    between: re.Pattern[str]
    behind: re.Pattern[str]
    before: re.Pattern[str]
    factors: Mapping[str, int]


@cache
def _scales(language: str) -> _Scales:
    """CLDR's words of this language; where it has none of that spelling, the English and Swahili ones."""
    behind, before = scale_words(language)
    own = {word: factor for word, factor in _PREFIXES.items() if word not in behind}  # the Italian "2 milioni 300 mila"
    behind, before = {**scale_words("en")[0], **behind}, {**own, **before}
    names = [name for name in spellings(language) if name in _JOINING]
    joining = "|".join(dict.fromkeys(["and", *(_JOINING[name] for name in names)]))
    return _Scales(
        re.compile(
            rf"(?:[ \u00a0](?:(?:{joining})[ \u00a0])?|(?<=[\u0900-\u0eff]))({_any_of(before)})?[ \u00a0]?",
            re.IGNORECASE,
        ),
        re.compile(rf"\s*({_any_of(behind)}){NO_LETTER}(?![\u0900-\u0dff])", re.IGNORECASE),
        re.compile(rf"(?<!\w)({_any_of(before)})\s+$", re.IGNORECASE),
        before | behind,
    )


def _any_of(words: Iterable[str]) -> str:
    """A pattern for any of these words, the longest first, with any blanks between their parts."""
    return "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in sorted(words, key=len, reverse=True))


def _scale_after(text: str, end: int, scales: _Scales) -> tuple[int, Fraction]:
    """Where the words that scale a number end, and their factor; (end, 1) without such words."""
    power = _POWER.match(text, end)
    if power:
        return power.end(), Fraction(10) ** int((power[1] or power[2]).replace("−", "-"))
    if found := _GLUED_K.match(text, end):
        return found.end(), Fraction(1000)
    end, factor = _scale_word(text, end, scales)
    further, larger = _scale_word(text, end, scales)
    return (further, Fraction(factor * larger)) if 1 < factor < larger else (end, Fraction(factor))


def _scale_word(text: str, end: int, scales: _Scales) -> tuple[int, int]:
    """Where one word that scales ends, and its factor: two may follow each other ("2 mil millones", "৩ লাখ কোটি")."""
    if found := scales.behind.match(text, end):
        return found.end(), scales.factors[" ".join(found[1].casefold().split())]
    for pattern, factor in _OTHER_WORDS:
        if found := pattern.match(text, end):
            return found.end(), factor
    return end, 1


def _scale_before(text: str, start: int, scales: _Scales) -> tuple[int, int]:
    """Where the scale word before a number begins, and its factor: the Swahili "elfu 5" is 5000. Else (start, 1)."""
    window = max(start - _LONGEST_PREFIX, 0)
    found = scales.before.search(text[window:start])
    return (window + found.start(), scales.factors[" ".join(found[1].casefold().split())]) if found else (start, 1)


def _half_beside(text: str, start: int, end: int) -> tuple[int, Fraction]:
    """Where the words that add a half end, and that half ("2 et demi", "সাড়ে ৩"); (end, 0) without such words."""
    if found := _HALF_AFTER.match(text, end):
        return found.end(), Fraction(1, 2)
    return end, Fraction(1, 2) if _HALF_BEFORE.search(text[max(start - 7, 0) : start]) else Fraction(0)


def _adds_to(text: str, before: FoundNumber, found: FoundNumber, language: str) -> bool:
    """Whether a number adds to the scaled one before it: "২ হাজার ৫০০" is 2500, "2 million 5 years ago" is not.

    "2 thousand and 50" is one number too; behind a larger scale, digits that have none are a second one.
    """
    if before.scale <= 1 or not (found.scale < before.scale and 0 < found.value < before.scale):
        return False
    between = _scales(language).between.fullmatch(text, before.end, found.start)
    if not between:
        return False
    words = between[0].split()
    if len(words) > bool(between[1]):  # a word joins them
        fits = found.scale > 1 or found.value * 1000 >= before.scale
        apart = _APART_BEFORE.search(text[max(before.start - 24, 0) : before.start])
        return fits and not apart and not _APART_BEHIND.match(text, found.end)
    return found.scale > 1 or found.value * 100 >= before.scale


def _with_words(text: str, found: FoundNumber, first: int, language: str) -> FoundNumber:
    """With the words that add to it ("2 thousand five hundred") or to which it adds ("two million 300 thousand").

    The words in front of it begin at `first` or later: those before belong to another number.
    """
    behind = run_at(text, found.end, language) if found.scale > 1 and found.value > 0 else None
    if behind and behind.value and _fits(behind.value, found.scale, joined=behind.joined):
        found = replace(found, end=behind.end, value=found.value + behind.value, scale=Fraction(1))
    before = run_before(text, found.start, language) if found.value > 0 else None
    if before and before.value and before.start >= first:
        scale = next(scale for scale in (10**12, 10**9, 10**6, 1000, 100, 1) if before.value % scale == 0)
        joins = before.joined or found.scale > 1 or found.value * 10 >= scale
        if scale > found.scale and joins and 0 < found.value < scale:
            value = before.value + found.value
            found = replace(found, start=before.start, value=-value if before.negative else value)
    return found


def _fits(value: int | Fraction, scale: Fraction, *, joined: bool) -> bool:
    return 0 < value < scale and (joined or value * 100 >= scale)

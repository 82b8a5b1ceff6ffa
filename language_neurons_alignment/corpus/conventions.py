"""How a language, or a region's kind of it, writes numbers: its decimal mark and the words for its powers of ten.

Both are from Unicode's CLDR, which Babel carries, so no table of ours can go stale: es-ES writes 1.234,5 and es-MX
1,234.5; a billion is 10⁹ in English and 10¹² in German. Languages are given as BCP-47 tags ("es-MX") or as corpora
spell them ("es_MX", "zh_Hans", "swh_Latn"). One that CLDR does not know has a decimal point and no words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from babel import Locale


_PATTERN = re.compile("([^0一-鿿가-힣]*)(0+)([^0一-鿿가-힣]*)")
"""No Chinese, Japanese or Korean: their scales are read as parts of a numeral, as in 1万8千 and 1만 8천."""


THOUSANDS = re.compile(r"\d{1,3}([.,])\d{3}(?:\1\d{3})*")
_INDIAN = re.compile(r"\d{1,2}(?:,\d{2})+,\d{3}")


def is_grouped(raw: str) -> bool:
    """Whether the marks of these digits may group thousands: 1,234,567, 1.234.567 or, as in India, 12,34,567."""
    return bool(THOUSANDS.fullmatch(raw) or _INDIAN.fullmatch(raw))


def joined(raw: str) -> str:
    """Digits without the marks among them."""
    return re.sub("[.,]", "", raw)


@cache
def decimal_mark(language: str) -> str:
    """The mark before the decimals, "." or ",".

    >>> [decimal_mark(language) for language in ("es", "es-MX", "de", "de_CH", "fr-CH", "en-ZA")]
    [',', '.', ',', '.', ',', ',']
    """
    from babel.numbers import get_decimal_symbol  # here, not above: only grading needs Babel

    locale = _locale(language)
    return "," if locale and get_decimal_symbol(locale) == "," else "."


@cache
def scale_words(language: str) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """The words that stand behind a number and those in front of it, in lower case, with the factor of each.

    Words only: of the short forms, those of fewer than three letters are left out, for "5 M" may be metres.

    >>> scale_words("de")[0]["milliarden"], scale_words("en")[0]["billion"], scale_words("de")[0]["billionen"]
    (1000000000, 1000000000, 1000000000000)
    >>> scale_words("sw")[1]["elfu"]
    1000
    """
    patterns = list(_compact_patterns(language))
    behind = {back: factor for front, back, factor in reversed(patterns) if back and not front}
    before: dict[str, int] = {}
    for front, back, factor in patterns:
        if front and (not back or back in behind):  # Burmese puts one word on either side
            before.setdefault(front, factor // behind.get(back, 1))
    return behind, before


def _compact_patterns(language: str) -> Iterator[tuple[str, str, int]]:
    """CLDR's patterns of abbreviated numbers, "00 millions" → ("", "millions", 10**6)."""
    locale = _locale(language)
    forms = locale.compact_decimal_formats if locale else {}
    for length in ("long", "short"):
        for by_size in forms.get(length, {}).values():
            for size, pattern in by_size.items():
                found = _PATTERN.fullmatch(_cleaned(pattern.pattern))  # none in "mille", which is French for 1000
                if found and (length == "long" or _is_spelt_out(found[0])):
                    front, zeros, back = found.groups()
                    yield " ".join(front.split()), " ".join(back.split()), int(size) // 10 ** (len(zeros) - 1)


def _cleaned(pattern: str) -> str:
    """The positive half of a pattern, in lower case, without quotes and what cannot be seen."""
    positive = re.sub("['\u200c\u200d\u200e\u200f\u061c]", "", pattern.split(";")[0])
    return unicodedata.normalize("NFC", positive).casefold()


def _is_spelt_out(pattern: str) -> bool:
    """Whether every word of a pattern has three letters or more."""
    return all(len(word) >= 3 for word in re.findall(r"[^\W\d_]+", pattern))


@cache
def _locale(language: str) -> Locale | None:
    """CLDR's locale for a language tag: with its region where CLDR knows it, else the language's; None without data."""
    from babel import Locale, UnknownLocaleError

    for name in spellings(language):
        try:
            return Locale.parse(name)
        except (ValueError, UnknownLocaleError):
            continue
    return None


def spellings(language: str) -> Iterator[str]:
    """A tag as it is, then as the registry of languages spells it, each time with less behind the language."""
    yield language.replace("-", "_")
    import langcodes

    try:
        tag = langcodes.Language.get(language, normalize=True)
    except ValueError:  # no tag at all
        return
    plain = langcodes.standardize_tag(tag, macro=True).split("-")[0]
    for parts in ((tag.script, tag.territory), (tag.territory,), (tag.script,), ()):
        yield "_".join([plain, *(part for part in parts if part)])

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


_EAST_ASIAN = re.compile("[一-鿿가-힣]")
"""Chinese, Japanese and Korean scales are read as parts of a numeral, as in 1万8千 and 1만 8천."""


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
    locale = _locale(language)
    behind: dict[str, int] = {}
    before: dict[str, int] = {}
    for pattern, size in _compact_patterns(locale) if locale else ():
        zeros = pattern.count("0")
        front, _, back = (" ".join(part.split()) for part in re.sub("0+", "0", pattern).partition("0"))
        if zeros and bool(front) != bool(back):
            words, word = (before, front) if front else (behind, back)
            words.setdefault(word, size // 10 ** (zeros - 1))
    return behind, before


def _compact_patterns(locale: Locale) -> Iterator[tuple[str, int]]:
    """CLDR's patterns of abbreviated numbers, such as "00 millions", each with the smallest number that it is for."""
    for length in ("long", "short"):
        for by_size in locale.compact_decimal_formats.get(length, {}).values():
            for size, pattern in by_size.items():
                text = _cleaned(pattern.pattern)
                if not _EAST_ASIAN.search(text) and (length == "long" or _is_spelt_out(text)):
                    yield text, int(size)


def _cleaned(pattern: str) -> str:
    """The positive half of a pattern, in lower case, without quotes and marks of direction."""
    positive = re.sub("['\u200e\u200f\u061c]", "", pattern.split(";")[0])
    return unicodedata.normalize("NFC", positive).casefold()


def _is_spelt_out(pattern: str) -> bool:
    """Whether every word of a pattern has three letters or more."""
    return all(len(word) >= 3 for word in re.findall(r"[^\W\d_]+", pattern))


@cache
def _locale(language: str) -> Locale | None:
    """CLDR's locale for a language tag: with its region where CLDR knows it, else the language's; None without data."""
    from babel import Locale, UnknownLocaleError

    for name in _spellings(language):
        try:
            return Locale.parse(name)
        except (ValueError, UnknownLocaleError):
            continue
    return None


def _spellings(language: str) -> Iterator[str]:
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

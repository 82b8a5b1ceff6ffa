"""Which language is a text in? Asked of lingua, which is told the languages that are possible.

Short texts mislead, so a text needs a number of letters before it is looked at (`SHORTEST`), and a confidence before it
counts as being in another language than the claimed one (`SURE`). How the bounds were measured: docs/decisions,
0006, 0015 and 0030.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..errors import MissingPackageError
from ..languages import DEFAULT_LANGUAGES

SHORTEST = 10
"""Letters, as `letters` counts them, that a text needs; digits and signs are in no language."""
_LONGEST = 2000
"""Characters that are looked at: more do not make the result surer."""
SURE = 0.9
"""Confidence from which another language than the claimed one is believed.

On all 12,750 questions of MGSM (eleven languages) and MSVAMP (ten), whole or cut to 10, 15, 20, 30 or 40 letters, these
two bounds gave no false alarm. They miss: of texts cut to 10 letters 60 % reach the confidence, of 40 letters 88 %.
"""
_SHARED = ("LATIN", "CYRILLIC", "ARABIC", "DEVANAGARI")
"""Scripts of many languages."""
_WEIGHT = 3
"""Of a letter of another script: four of these tell more than ten Latin ones."""


@dataclass(frozen=True)
class Verdict:
    """The language of a text.

    Attributes:
        language: code of the likeliest language.
        confidence: in [0, 1], among the languages that were possible.
    """

    language: str
    confidence: float

    def contradicts(self, claimed: str) -> bool:
        """Whether the text is, with confidence, in another language than the claimed one.

        >>> Verdict("fr", 0.95).contradicts("es"), Verdict("fr", 0.5).contradicts("es")
        (True, False)
        """
        return self.language != base_language(claimed) and self.confidence >= SURE


def identify_languages(
    texts: Sequence[str], candidates: Iterable[str], *, shortest: int = SHORTEST
) -> list[Verdict | None]:
    """The likeliest language of each text, or None where it has less than `shortest` letters (`letters`).

    >>> [found and found.language for found in identify_languages(["Die Antwort ist richtig.", "#### 18"], ["de"])]
    ['de', None]
    """
    chosen = {base_language(code) for code in (*candidates, *DEFAULT_LANGUAGES)} & set(_by_code())
    long_enough = [number for number, text in enumerate(texts) if letters(text) >= shortest]
    verdicts: list[Verdict | None] = [None] * len(texts)
    if long_enough:
        found = _likeliest([texts[number][:_LONGEST] for number in long_enough], chosen)
        for number, verdict in zip(long_enough, found, strict=True):
            verdicts[number] = verdict
    return verdicts


def _likeliest(texts: Sequence[str], possible: Iterable[str]) -> list[Verdict]:
    """What lingua says of each text, among these languages (base codes that it knows)."""
    known = _by_code()
    detector = _lingua().LanguageDetectorBuilder.from_languages(*(known[code] for code in sorted(possible))).build()
    if _process_with_threads() == os.getpid():
        found = detector.compute_language_confidence_values_in_parallel(list(texts))
    else:
        found = [detector.compute_language_confidence_values(text) for text in texts]
    return [Verdict(values[0].language.iso_code_639_1.name.lower(), values[0].value) for values in found]


@cache
def _process_with_threads() -> int:
    """The process that asked first: lingua's threads run in it, and one that is forked off it would wait for them."""
    return os.getpid()


def known_languages(codes: Iterable[str]) -> tuple[str, ...]:
    """Those of the languages that lingua can identify."""
    known = _by_code()
    return tuple(code for code in codes if base_language(code) in known)


def letters(text: str) -> int:
    """How much of a text tells its language: 1 for a letter of a script of many languages, 3 for any other letter.

    >>> letters("She makes $18."), letters("答案是十八")
    (8, 15)
    """
    return sum(_weight(character) for character in text[:_LONGEST] if character.isalpha())


def _weight(letter: str) -> int:
    return 1 if letter.isascii() or unicodedata.name(letter, "").startswith(_SHARED) else _WEIGHT


def _by_code() -> dict[str, Any]:
    return {language.iso_code_639_1.name.lower(): language for language in _lingua().Language.all()}


def _lingua() -> Any:
    try:
        import lingua
    except ImportError as error:
        raise MissingPackageError.of(
            "lingua-language-detector", purpose="telling which language a text is in", extra="data"
        ) from error
    return lingua


def base_language(code: str) -> str:
    """The language without its script or region: "pt-BR" → "pt"."""
    return code.split("-")[0]

"""Is a text in the language that it claims? (lingua, told which languages come into question; decision 0006, 0015)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import MissingPackageError
from ..languages import DEFAULT_LANGUAGES

SHORTEST = 10
"""Letters, as `letters` counts them, that a text needs before it is judged: digits and signs are in no language."""
_SHARED = ("LATIN", "CYRILLIC", "ARABIC", "DEVANAGARI")
_WEIGHT = 3
"""Of a letter of another script: four of these tell more than ten Latin ones (measured: decision 0030)."""
LONGEST = 2000
"""Characters looked at: more do not make it surer."""
SURE = 0.9
"""Confidence from which another language than the claimed one is believed.

On all 12,750 questions of MGSM (eleven languages) and MSVAMP (ten), whole or cut to 10, 15, 20, 30 or 40 letters, these
two bars gave no false alarm. They miss: of texts cut to 10 letters 60 % reach the confidence, of 40 letters 88 %.
"""


@dataclass(frozen=True)
class Verdict:
    """What was made out of a text.

    Attributes:
        language: code of the likeliest language.
        confidence: in [0, 1], among the languages that came into question.
    """

    language: str
    confidence: float

    def contradicts(self, claimed: str) -> bool:
        """Whether the text is, with confidence, in another language than the claimed one."""
        return self.language != _base(claimed) and self.confidence >= SURE


def known_languages(codes: Iterable[str]) -> tuple[str, ...]:
    """Those of the languages that lingua can tell."""
    known = _by_code()
    return tuple(code for code in codes if _base(code) in known)


def letters(text: str) -> int:
    """How much there is to judge a text by: 1 for a letter of a script that many languages share, 3 for any other."""
    return sum(_weight(character) for character in text[:LONGEST] if character.isalpha())


def identify_languages(texts: Sequence[str], candidates: Iterable[str]) -> list[Verdict | None]:
    """The likeliest language of each text, or None where it is too short to say.

    Args:
        texts: any number.
        candidates: the languages that may occur; the default ten come into question beside them, so that a text in
            a language that nobody claimed is seen too.

    Raises:
        MissingPackageError: lingua is not installed.
    """
    known = _by_code()
    chosen = {_base(code) for code in (*candidates, *DEFAULT_LANGUAGES)} & set(known)
    graded = [number for number, text in enumerate(texts) if letters(text) >= SHORTEST]
    verdicts: list[Verdict | None] = [None] * len(texts)
    if graded:
        detector = _lingua().LanguageDetectorBuilder.from_languages(*(known[code] for code in sorted(chosen))).build()
        found = detector.compute_language_confidence_values_in_parallel([texts[n][:LONGEST] for n in graded])
        for number, values in zip(graded, found, strict=True):
            verdicts[number] = Verdict(values[0].language.iso_code_639_1.name.lower(), values[0].value)
    return verdicts


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


def _base(code: str) -> str:
    """The language without its script or region: "pt-BR" → "pt"."""
    return code.split("-")[0]

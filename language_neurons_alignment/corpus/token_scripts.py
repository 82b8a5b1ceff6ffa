"""Scripts and languages of single tokens.

A token tells little. Its script is that of its first letter. Its language is one of those that are possible and are
written in this script: the only one, or, in a script of several, the one that lingua is sure of, where the token has
letters enough. Else it is ambiguous.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

import langcodes

from .language_id import SURE, confident_languages, known_languages

LETTERS = 4
"""A token needs that many letters before lingua is asked."""
NO_SCRIPT = "none"
"""The script of a token without letters."""
_SEVERAL = {
    "Jpan": ("han", "hiragana", "katakana"),
    "Kore": ("hangul", "han"),
    "Hans": ("han",),
    "Hant": ("han",),
    "Hani": ("han",),
    "Beng": ("bengali",),  # as Unicode names their letters; CLDR says Bangla and Odia
    "Orya": ("oriya",),
}
_NAMES = {"cjk": "han", "katakana-hiragana": "katakana", "halfwidth": "katakana", "fullwidth": "latin"}


def script_of(text: str) -> str:
    """The script of a text's first letter, in small letters; "none" for a text without letters.

    >>> [script_of(text) for text in (" water", "วัน", "水", "みず", "Вода", " 18.")]
    ['latin', 'thai', 'han', 'hiragana', 'cyrillic', 'none']
    """
    if text.startswith("⟨") and text.endswith("⟩"):  # parts of a character (`pieces.token_text`)
        return NO_SCRIPT
    letter = next((one for one in text if one.isalpha()), None)
    return NO_SCRIPT if letter is None else _script(letter)


@lru_cache(maxsize=65536)
def _script(letter: str) -> str:
    first = unicodedata.name(letter, "unknown").split(" ")[0].lower()
    return _NAMES.get(first, first)


def scripts_of_language(code: str) -> tuple[str, ...]:
    """The scripts in which a language is usually written.

    >>> scripts_of_language("ja"), scripts_of_language("sr-Latn")
    (('han', 'hiragana', 'katakana'), ('latin',))
    """
    script = langcodes.Language.get(code).maximize().script or ""
    return _SEVERAL.get(script) or (langcodes.Language.make(script=script).script_name().split(" ")[0].lower(),)


def check_lingua(candidates: Iterable[str]) -> None:
    """Raise MissingPackageError where `languages_by_script` may need lingua and there is none: call it before work."""
    scripts = [script for code in dict.fromkeys(candidates) for script in scripts_of_language(code)]
    if len(set(scripts)) < len(scripts):
        known_languages(())


def languages_by_script(texts: Sequence[str], candidates: Iterable[str]) -> list[str | None]:
    """The language of each token's text among `candidates`; None where it is ambiguous, or in none of them.

    >>> languages_by_script([" water", "วัน", "18", "水"], ["en", "th", "zh", "ja"])
    ['en', 'th', None, None]

    Raises:
        MissingPackageError: several candidates share a script, and lingua is not installed.
    """
    written = {code: scripts_of_language(code) for code in dict.fromkeys(candidates)}
    found: list[str | None] = [None] * len(texts)
    shared: dict[tuple[str, ...], list[int]] = {}
    for number, text in enumerate(texts):
        script = script_of(text)
        possible = tuple(code for code, scripts in written.items() if script in scripts)
        if len(possible) == 1:
            found[number] = possible[0]
        elif possible and sum(one.isalpha() for one in text) >= LETTERS:
            shared.setdefault(possible, []).append(number)
    for possible, numbers in shared.items():
        verdicts = confident_languages([texts[number].strip() for number in numbers], possible, least=SURE)
        for number, language in zip(numbers, verdicts, strict=True):
            found[number] = language
    return found

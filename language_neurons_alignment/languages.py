"""Languages: the default ten, in the order that mask files rely on, and any other by name or code."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from .errors import SettingsError

LANGUAGE_NAMES = {
    "en": "English",
    "ru": "Russian",
    "es": "Spanish",
    "fr": "French",
    "de": "German",
    "zh": "Chinese",
    "ja": "Japanese",
    "bn": "Bengali",
    "th": "Thai",
    "sw": "Swahili",
}

DEFAULT_LANGUAGES = tuple(LANGUAGE_NAMES)
"""The paper's ten, in the order of a mask file. Never reorder."""


@cache
def language_code(name: str) -> str:
    """The code of a language given by code ("en", "EN", "pt-BR") or by English name ("English", "Telugu").

    Raises:
        SettingsError: no such language.
    """
    wanted = name.strip()
    for code, english in LANGUAGE_NAMES.items():
        if wanted.lower() in (code, english.lower()):
            return code
    return _code_from_registry(wanted)


def parse_languages(names: str | Iterable[str]) -> tuple[str, ...]:
    """Codes of "en,es,fr" or of a list of names, in the order given.

    Raises:
        SettingsError: an unknown language, one given twice, or none at all.
    """
    listed = names.split(",") if isinstance(names, str) else list(names)
    codes = tuple(language_code(name) for name in listed if name.strip())
    repeated = sorted({code for code in codes if codes.count(code) > 1})
    if repeated:
        raise SettingsError(f"language given twice: {', '.join(repeated)}; name each language once")
    if not codes:
        raise SettingsError("no language given: name at least one, for example --langs en,es,fr")
    return codes


def in_default_order(codes: Iterable[str]) -> tuple[str, ...]:
    """Each of these languages once: the default ten in their order, then the others as they come."""
    there = dict.fromkeys(codes)
    return (*(code for code in DEFAULT_LANGUAGES if code in there), *(c for c in there if c not in DEFAULT_LANGUAGES))


def language_name(code: str) -> str:
    """The English name of a language, for tables and figures; the code itself where there is no name."""
    if code in LANGUAGE_NAMES:
        return LANGUAGE_NAMES[code]
    import langcodes

    return langcodes.Language.get(code).display_name()


def _code_from_registry(wanted: str) -> str:
    import langcodes  # here, not above: only languages outside the ten need the registry

    for by_name in (False, True):
        try:
            language = langcodes.find(wanted) if by_name else langcodes.Language.get(wanted)
        except (LookupError, ValueError):
            continue
        # names are matched loosely there: a misspelt one must not become some other language
        meant = not by_name or language.display_name("en").casefold() == wanted.casefold()
        if meant and language.is_valid() and not (language.language or "und").startswith(("und", "x-")):
            return language.to_tag()
    examples = ", ".join(f"{code} ({name})" for code, name in list(LANGUAGE_NAMES.items())[:3])
    raise SettingsError(f"unknown language {wanted!r}: give an ISO 639 code or an English name, for example {examples}")

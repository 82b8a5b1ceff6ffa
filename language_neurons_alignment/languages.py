"""Languages: the default ten, in the order that mask files rely on, and any other by name, code or tag.

`language_code` decides what a language given in any spelling is called everywhere else: in corpora, on the command
line, in data sets that are read, and in the names of files.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from .errors import SettingsError

if TYPE_CHECKING:
    from langcodes import Language

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


LONGEST_CODE = 35
"""Characters of a code: the standard of language tags asks programs to take as many."""
_LONGEST_NAME = 80
"""Characters of a language's name."""


@cache
def language_code(name: str) -> str:
    """The one code of a language, however it is written: by code, tag or name.

    A three-letter code becomes the two-letter one, and the member of a macrolanguage that stands for it becomes it
    (swh → sw, cmn → zh). A script or region that the rest of the tag implies is left out (ben-Beng → bn, zh-CN → zh,
    zh-TW → zh-Hant); any other stays (sr-Latn, es-MX). Names are English or the language's own; their words may
    be joined as in chinese_simplified.

    >>> [language_code(name) for name in ("EN", "zho_Hans", "cmn", "zh-CN", "Chinese (Simplified)", "Deutsch")]
    ['en', 'zh', 'zh', 'zh', 'zh', 'de']

    Raises:
        SettingsError: no such language, or a code that stands for none (mul, und).
    """
    wanted = name.strip()
    for code, english in LANGUAGE_NAMES.items():
        if wanted.lower() in (code, english.lower()):
            return code
    if (special := re.fullmatch(rf"({'|'.join(_NO_LANGUAGE)})([-_].*)?", wanted.lower())) is not None:
        raise SettingsError(
            f"{wanted[:_LONGEST_NAME]!r} stands for {_NO_LANGUAGE[special[1]]}, not for a language: give the code or "
            "English name of the one that the text is in, for example en or English, or leave the text out"
        )
    code = _from_registry(wanted) if wanted and wanted.isprintable() and len(wanted) <= _LONGEST_NAME else None
    if code is None or len(code) > LONGEST_CODE:
        shown = wanted if len(wanted) <= _LONGEST_NAME else f"{wanted[:_LONGEST_NAME]}…"
        examples = ", ".join(f"{code} ({name})" for code, name in list(LANGUAGE_NAMES.items())[:3])
        raise SettingsError(
            f"unknown language {shown!r}: give an ISO 639 code or an English name, for example {examples}"
        )
    return code


def code_or_name(name: str) -> str:
    """The code of a language; what is none stays as it is, such as the "unnamed" language of a published mask."""
    try:
        return language_code(name)
    except SettingsError:
        return name


def parse_languages(names: str | Iterable[str]) -> tuple[str, ...]:
    """Codes of "en,es,fr" or of a list of names, in the order given.

    Raises:
        SettingsError: an unknown language, one given twice, or none at all.
    """
    listed = names.split(",") if isinstance(names, str) else list(names)
    given = [name.strip() for name in listed if name.strip()]
    codes = tuple(map(language_code, given))
    repeated = sorted({code for code in codes if codes.count(code) > 1})
    if repeated:
        written = [" and ".join(n for n, one in zip(given, codes, strict=True) if one == code) for code in repeated]
        shown = ", ".join(f"{code} ({names})" for code, names in zip(repeated, written, strict=True))
        raise SettingsError(f"language given twice: {shown}; name each language once")
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
    if " " in code:  # of a set that was made of several languages' neurons
        return code
    import langcodes

    return langcodes.Language.get(code).display_name()


# Outside the ten: what the registry of language tags and CLDR know, and what they lack.

_NO_LANGUAGE = {
    "mul": "several languages",
    "mis": "a language without a code",
    "und": "an unknown language",
    "zxx": "no linguistic content",
}
"""Codes of ISO 639 that are valid, and name no language."""
_ONE_LANGUAGE = {"no": "nb", "pbt": "ps"}
"""Codes that are written for the same language; langcodes has all others."""
_OWN_LANGUAGE = ("tw",)
"""Members of a macrolanguage that data sets list beside it."""
_USUAL_SCRIPT = dict.fromkeys(("acm", "acq", "ajp", "azb", "ps", "uzs"), "Arab") | {"ko": "Hang"}
"""Scripts that data sets write behind a code though there is no choice, and that CLDR does not know as usual."""
_WORLD = "001"
_BOTH_WAYS = ("pt-BR",)
"""Regions that CLDR implies, and that are kept: the bare code is written for another country's language as well."""


def _from_registry(wanted: str) -> str | None:
    """The code of a tag or name; None for what is neither."""
    import langcodes  # here, not above: only languages outside the ten need the registry

    try:
        language = langcodes.Language.get(wanted)
    except ValueError:  # no tag
        language = None
    if language is None or not language.is_valid():
        name = unicodedata.normalize("NFC", wanted)
        language = _by_name(name) or _by_name(re.sub(r"\b[-_]\b|_", " ", name))
    if language is None or not language.is_valid() or (language.language or "und").startswith(("x-", *_NO_LANGUAGE)):
        return None
    if language.language not in _OWN_LANGUAGE:
        language = langcodes.Language.get(langcodes.standardize_tag(language, macro=True))
    if language.extlangs:  # of another language: hi_rom is not Hindi in Romany, nor roa-rup Romance in Aromanian
        return None
    return _shortest(language)


def _shortest(language: Language) -> str:
    """The tag without a script or region that the rest of it implies."""
    code = _ONE_LANGUAGE.get(language.language or "", language.language)
    script = None if language.script == _USUAL_SCRIPT.get(code or "") else language.script
    region = None if language.territory == _WORLD else language.territory
    language = language.update_dict({"language": code, "script": script, "territory": region})
    if language.to_tag() in _BOTH_WAYS:
        return language.to_tag()
    whole = language.maximize()
    for kept in ((), ("script",), ("territory",)):
        parts = {part: getattr(whole, part) if part in kept else None for part in ("script", "territory")}
        shorter = language.update_dict(parts)
        if shorter.maximize() == whole:
            return shorter.to_tag()
    return language.to_tag()


def _by_name(name: str) -> Language | None:
    """The language of "Telugu", "Deutsch", "Chinese (Simplified)", "Serbian Latin" or "Spanish (Mexico)"."""
    if name.strip("-_") != name:  # langcodes would find "en-", without the hyphen, as the name of another language
        return None
    whole = _named("language", name)
    if whole is not None:
        return whole
    in_brackets = re.fullmatch(r"([^()]+)\(([^()]+)\)", name)
    words = name.split()
    splits = [(" ".join(words[:k]), " ".join(words[k:])) for k in range(1, len(words))]
    for base, details in [in_brackets.groups()] if in_brackets else splits:
        language = _named("language", base)
        found = None if language is None else _with_details(language, details.split(","))
        if found is not None:
            return found
    return None


def _with_details(language: Language, details: Sequence[str]) -> Language | None:
    """The language in a script or region; as it is where its code or another name stands there; None where neither."""
    for detail in details:
        part = _named("script", detail.removesuffix(" script")) or _named("territory", detail)
        if part is not None:
            language = language.update(part)
            continue
        if code_or_name(detail) != code_or_name(language.to_tag()):
            return None
    return language


def _named(kind: str, name: str) -> Language | None:
    """What has this name in English, or the language that calls itself so; None where that is not one alone.

    langcodes also takes a name that only begins like a known one, or that some third language uses: a misspelt name
    must not become some other language.
    """
    english = _found(kind, name, "en")
    anywhere = _found(kind, name, "und")
    if kind != "language" or anywhere is None:
        return english
    if english is not None:
        return english if code_or_name(english.to_tag()) == code_or_name(anywhere.to_tag()) else None
    own = _found(kind, name, anywhere.language or "und")
    return anywhere if own == anywhere or anywhere.autonym().casefold() == name.strip().casefold() else None


def _found(kind: str, name: str, spoken: str) -> Language | None:
    """What has exactly this name in a language; in "und", in any."""
    import langcodes
    from language_data import names

    try:
        one = langcodes.Language.find_name(kind, name, spoken)
    except (LookupError, ValueError, OSError):  # no such name, or no names in that language
        return None
    return one if names.normalize_name(name) in names.TRIES[f"{spoken}/name_to_{kind}"] else None

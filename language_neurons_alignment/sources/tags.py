"""Languages as data sets name them: "EN", "Bengali", "eng_Latn", "swh_Latn", "cmn_Hans"."""

from __future__ import annotations

from functools import cache

from ..errors import SettingsError
from ..languages import language_code

_PART_OF = {"Kore": "Hang"}
"""Korean's usual script, "Hangul and Han", is written as Hangul alone in data sets."""


@cache
def language_of_tag(tag: str) -> str:
    """The code that this toolkit uses for a language named in any of the usual ways.

    A three-letter code becomes the two-letter one, a member of a macrolanguage that stands for it becomes it
    (swh → sw, cmn → zh, npi → ne), and a script is dropped where it is the language's usual one (eng_Latn → en).

    Raises:
        SettingsError: no such language.
    """
    try:
        return language_code(_standard(tag))
    except (LookupError, ValueError):  # not a tag: a name; langcodes' own errors are these
        return language_code(tag)


def _standard(tag: str) -> str:
    import langcodes

    language = langcodes.Language.get(langcodes.standardize_tag(tag.strip(), macro=True))
    usual = langcodes.Language.get(language.language or "und").maximize().script
    if language.script and language.script in (usual, _PART_OF.get(usual or "")):
        language = language.update_dict({"script": None})
    return language.to_tag()


def same_language(tag: str, code: str) -> bool:
    """Whether a tag that may be no language at all means this language."""
    try:
        return language_of_tag(tag) == code
    except SettingsError:
        return False

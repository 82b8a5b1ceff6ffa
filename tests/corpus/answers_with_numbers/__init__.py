"""Answers as models write them, and the number that a reader takes from each: (language asked in, answer, number)."""

from __future__ import annotations

from .bengali import BENGALI
from .chinese import CHINESE
from .elsewhere import ELSEWHERE
from .english import ENGLISH
from .french import FRENCH
from .german import GERMAN
from .japanese import JAPANESE
from .russian import RUSSIAN
from .spanish import SPANISH
from .swahili import SWAHILI
from .thai import THAI

_TABLES = {
    "en": ENGLISH,
    "ru": RUSSIAN,
    "es": SPANISH,
    "fr": FRENCH,
    "de": GERMAN,
    "zh": CHINESE,
    "ja": JAPANESE,
    "bn": BENGALI,
    "th": THAI,
    "sw": SWAHILI,
}

ANSWERS = [*((code, text, number) for code, table in _TABLES.items() for text, number in table), *ELSEWHERE]

"""How languages write numbers in words: what num2words writes, other spellings of it, and Swahili, which it lacks.

`writer` and `swahili` write; the tables say which words are no numbers, or mean something else besides. `spelt` reads
by them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

PARTS = re.compile(
    r"hal(?:f|ves)|thirds?|quarters?|halb\w*|hälften?|\w*(?:drittel|viertel|zehntel|stel)|medi[oa]s?|mitad|tercios?|cuartos?|demie?s?|"
    r"moitié|tiers|quarts?|половин\w*|трет[иь]\w*|четверт\w*|полтора|пол|nusu|theluthi|robo|metade|meio|meia|metà|mezz[oa]|terzi|quarti|"
    r"terços?|quartos?|helft|derde|kwart|połow\w*|ćwierci?|yarı\w*|çeyrek|buçuk|setengah|perempat|rưỡi|nửa"
)
"""Words for halves, thirds and quarters that are no ordinals."""
DOZEN = re.compile(
    r"dozens?|dutzend\w*|douzaines?|docenas?|dúzias?|dozzin[ae]|дюжин\w*|dozijn(?:en)?|tuzin\w*|tucet\w*|lusin|düzine|dussin|dusin|tá|couple|pairs?"
)
"""Words for groups: 2 of them are not 2."""
ALSO_OTHER_WORDS = {
    "de": {"acht"},
    "fr": {"neuf"},
    "it": {"sei"},
    "da": {"to", "elleve"},
    "nb": {"to"},
    "no": {"to"},
    "tr": {"yedi", "altı", "on", "yüz", "bin", "kırk"},
    "az": {"on", "yüz", "min", "yeddi"},
    "kk": {"он", "жүз"},
    "vi": {"năm", "ba", "chín", "tư", "không"},
    "fa": {"ده", "سی", "نه"},
    "he": {"שש", "שבע"},
    "hu": {"hat", "nulla"},
    "fi": {"kuusi"},
    "sl": {"nič"},
    "lt": {"du"},
    "sw": {"nne", "saba"},
}
"""Number words that are common in other meanings: alone, they count only where the answer is announced."""

OTHER_NAMES = {"kk": "kz", "nb": "no"}
"""What num2words calls a language."""
OTHER_REGIONS = {"pt": ("pt", "pt_BR"), "fr": ("fr", "fr_CH"), "en": ("en", "en_IN")}
"""Regions whose words can only be read one way, so that they are read everywhere: dezasseis, septante, lakh."""
CLASSIFIERS = {"bn": re.compile("(?:টি|টা|টির|টার|জন|খানা|খানি)$")}
"""Words for what is counted that are glued to a number."""
IRREGULAR = {"he", "hu", "it", "tr"}
"""Languages whose hundreds change the words behind them (centotto)."""
NOT_READ = {"am", "cy", "tet", "ja", "ko", "th"}
"""num2words never ends on some Amharic numbers; Welsh words mutate in more ways than it knows; Tetum is ambiguous, as
"elfu kumi na mbili" is. The others put no blanks between words. `east_asian` reads Japanese numerals.
"""

_FORMS = {
    "ru": [{"gender": gender} for gender in "mfn"]
    + [{"case": case, "gender": gender} for case in "gdaip" for gender in "mf"],
    "be": [{"gender": gender} for gender in "mfn"],
    "uk": [
        {"case": case, "gender": gender}
        for case in ("nominative", "genitive", "dative", "accusative", "instrumental", "locative")
        for gender in ("masculine", "feminine")
    ],
    "sr": [{"feminine": feminine} for feminine in (False, True)],
    "he": [{"gender": gender} for gender in "fm"],
}
"""What makes num2words inflect."""
_ONE_OF = r"^(?:ein|ett|et|en )(?=hundert|tausend|hundr|tusen|tusind)"
_ALSO_WRITTEN = {
    "en": [(" and ", " ")],
    "de": [(_ONE_OF, ""), ("ü", "ue"), ("ö", "oe")],
    "sv": [(_ONE_OF, "")],
    "no": [(_ONE_OF, ""), ("tjue", "tyve"), ("tretti", "tredve"), (r"sju\b", "syv")],
    "da": [(_ONE_OF, ""), ("å", "aa")],
    "nl": [("ë", "e"), ("é", "e")],
    "it": [("tré", "tre"), (r"(?<=\w)tre\b", "tré")],  # num2words writes some with and some without the accent
    "es": [("ientos", "ientas"), ("dós", "dos"), ("trés", "tres"), ("séis", "seis"), (r"uno\b", "una")],
    "pt": [("entos", "entas"), ("dois", "duas"), (r"\bum\b", "uma"), ("catorze", "quatorze"), ("três", "tres")],
    "fr": [
        ("huitante", "octante"),
        (r"(?<= cent)\b(?! mille)", "s"),
        (r"(?<=cent)s\b", ""),
        (r"(?<=vingt)s\b", ""),
        (r"un$", "une"),
    ],
    "ca": [("dos", "dues"), ("cents", "centes")],
    "ro": [("doi", "două"), ("ș", "ş")],
    "pl": [(r"dwa\b", "dwie")],
    "cs": [(r"dva\b", "dvě")],
    "sk": [(r"dva\b", "dve")],
    "hu": [("kettő", "két")],
    "ar": [("مائة", "مئة"), ("ون", "ين"), (r"(?:(?<=مئت)|(?<=ألف)|(?<=ثن))ان", "ين")],
    "vi": [
        ("lẻ", "linh"),
        ("nghìn", "ngàn"),
        (r"(?:(?<=mươi )|(?<=linh )|(?<=lẻ ))bốn", "tư"),
        ("lăm", "nhăm"),
        ("bảy", "bẩy"),
        ("tỷ", "tỉ"),
    ],
    "bn": [
        ("শত", "শ"),
        (r"শ(?=\s|$)", "শো"),
        ("দুই(?=শ)", "দু"),
        ("লাখ", "লক্ষ"),
        ("ঁ", ""),
        ("^উন", "ঊন"),
        (r"\bত্রিশ", "তিরিশ"),
    ],
}
"""What may be written otherwise than num2words does: other genders, spellings and words that may be left out.

Every one is made from the forms before it, so that several may be combined.
"""
_BENGALI = [
    ("বিশ", "কুড়ি"), ("ষোল", "ষোলো"), ("সতের", "সতেরো"), ("পনের", "পনেরো"), ("আঠারো", "আঠার"), ("এগারো", "এগার"),
    ("তেরো", "তের"),
    ("চৌদ্দ", "চোদ্দ"), ("ছিষট্টি", "ছেষট্টি"), ("চৌচল্লিশ", "চুয়াল্লিশ"), ("উনআশি", "উনাশি"), ("নব্বই", "নব্বুই"),
    ("পঁইত্রিশ", "পঁয়ত্রিশ"),
    ("সাতত্রিশ", "সাঁইত্রিশ"), ("তিপ্পান্ন", "তেপ্পান্ন"), ("বাহান্ন", "বায়ান্ন"),
]  # fmt: skip
_ALSO_WRITTEN["bn"] = [*((f"{word}$", other) for word, other in _BENGALI), *_ALSO_WRITTEN["bn"]]


def writer(name: str, cardinal: Callable[..., str]) -> Callable[[int], Iterable[str]]:
    """How num2words writes a number, and the other ways to write it."""
    others = [(re.compile(pattern), other) for pattern, other in _ALSO_WRITTEN.get(name[:2], [])]

    @lru_cache(maxsize=4096)
    def write(number: int) -> tuple[str, ...]:
        forms = dict.fromkeys(cardinal(number, **options) for options in _FORMS.get(name, [{}]))
        for pattern, other in others:
            forms |= dict.fromkeys(pattern.sub(other, form) for form in forms)
        return tuple(forms)

    return write


_UNITS = ("sifuri", "moja", "mbili", "tatu", "nne", "tano", "sita", "saba", "nane", "tisa")
_TENS = ("", "kumi", "ishirini", "thelathini", "arobaini", "hamsini", "sitini", "sabini", "themanini", "tisini")


def swahili(number: int) -> Iterator[str]:
    """A Swahili number: "elfu mbili mia tatu na tano". "na" may stand before any part but the first.

    12,000 and 10,002 are both "elfu kumi na mbili", so above 9999 only 10,000, 20,000, … 100,000, … are written.
    """
    if number > 9999 and number % 10 ** (len(str(number)) - 1):
        return
    if not number:
        yield _UNITS[0]
        return
    parts: list[str] = []
    for word, scale in (("milioni", 10**6), ("elfu", 1000), ("mia", 100)):
        factor, number = divmod(number, scale)
        if factor:
            parts.append(f"{word} {next(swahili(factor))}")
    tens, units = divmod(number, 10)
    parts += [part for part in (_TENS[tens], _UNITS[units] if units else "") if part]
    if units and tens:
        parts[-2:] = [f"{parts[-2]} na {parts[-1]}"]
    for form in dict.fromkeys((" ".join(parts), " na ".join(parts), " na ".join([" ".join(parts[:-1]), parts[-1]]))):
        form = form.removeprefix(" na ")
        yield form
        stem = _AGREEING.search(form)
        if stem is None:
            continue
        for prefix in ("wa", "ma", "vi", "mi", "m", "ki"):
            yield form[: stem.start()] + prefix + _STEMS.get(stem[0], stem[0])


_AGREEING = re.compile("(?:moja|mbili|tatu|nne|tano|nane)$")
_STEMS = {"mbili": "wili"}
"""The units agree with what they count: watoto wawili, mayai mawili, vitabu viwili."""

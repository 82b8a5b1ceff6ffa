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
    be joined as in chinese_simplified. A glottocode means the language for which FLORES+ lists it.

    >>> [language_code(name) for name in ("EN", "zho_Hans", "cmn", "zh-CN", "Chinese (Simplified)", "stan1295")]
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
            f"{_of_country(wanted)}"
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
_GLOTTOCODES: dict[str, str] = dict(
    re.findall(
        r"(\S+)\s+(\S+)",
        """
    achi1257 ace meso1252 acm taiz1242 acq tuni1259 aeb afri1274 afr tosk1239 als amha1245 amh nort3139 apc sout3123
    apc khar1296 apd stan1318 arb arag1245 arg najd1235 ars moro1292 ary egyp1253 arz assa1263 asm astu1245 ast
    awad1243 awa cent2142 ayr sout2697 azb nort2697 azj bash1264 bak bamb1269 bam bali1278 ban bela1254 bel bemb1257
    bem beng1280 ben bhoj1244 bho banj1239 bjn utsa1239 bod bosn1245 bos bodo1269 brx bugi1244 bug bulg1262 bul
    stan1289 cat vale1252 cat cebu1242 ceb czec1258 ces chuv1255 chv chok1245 cjk cent1972 ckb mand1415 cmn beij1234
    cmn_Hans taib1240 cmn_Hant crim1257 crh wels1247 cym dani1285 dan darg1241 dar stan1295 deu dogr1250 dgo
    sout2832 dik dyul1238 dyu dzon1239 dzo esto1258 ekk mode1248 ell stan1293 eng espe1235 epo basq1248 eus ewee1241
    ewe faro1244 fao fiji1243 fij fili1244 fil finn1318 fin fonn1241 fon stan1290 fra east2271 fur nige1253 fuv
    west2721 gaz scot1245 gla iris1253 gle gali1258 glg goan1235 gom para1311 gug guja1252 guj hait1244 hat haus1257
    hau hebr1245 heb hind1269 hin chha1249 hne croa1245 hrv hung1274 hun nucl1235 hye nucl1417 ibo ilok1237 ilo
    indo1316 ind icel1247 isl ital1282 ita java1254 jav nucl1643 jpn kara1467 kaa kaby1243 kab kach1280 kac kamb1297
    kam nucl1305 kan kash1277 kas nucl1302 kat kaza1248 kaz kabi1261 kbp kabu1256 kea halh1238 khk cent1989 khm
    kiku1240 kik kiny1244 kin kirg1245 kir khak1248 kjh kimb1241 kmb nort2641 kmr cent2050 knc kore1280 kor kitu1246
    ktu laoo1244 lao geno1240 lij limb1263 lim ling1263 lin lith1251 lit gard1241 lld ladi1250 lld lomb1257 lmo
    east2282 ltg luxe1241 ltz luba1249 lua gand1255 lug luok1236 luo lush1249 lus stan1325 lvs maga1260 mag mait1250
    mai mala1464 mal mara1378 mar mori1278 mfe gras1239 mhr mina1268 min mace1250 mkd malt1254 mlt mani1292 mni
    moss1236 mos maor1246 mri nucl1310 mya erzy1239 myv dutc1256 nld norw1262 nno norw1259 nob nepa1254 npi nkoa1234
    nqo pedi1238 nso nuer1246 nus nyan1308 nya aran1260 oci occi1239 oci oriy1255 ory pang1290 pag panj1256 pan
    papi1253 pap sout2649 pbt west2369 pes plat1254 plt poli1260 pol braz1246 por port1283 por dari1249 prs ayac1239
    quy roma1327 ron rund1242 run russ1263 rus sang1328 sag sans1269 san sant1410 sat sici1248 scn shan1277 shn
    sinh1246 sin slov1269 slk slov1268 slv samo1305 smo shon1251 sna sind1272 snd soma1255 som sout2807 sot amer1254
    spa stan1288 spa sard1257 srd serb1264 srp swat1243 ssw sund1252 sun swed1254 swe swah1253 swh sile1253 szl
    tami1289 tam tama1365 taq tata1255 tat telu1262 tel taji1245 tgk thai1261 tha tigr1271 tir tokp1240 tpi tswa1253
    tsn tson1249 tso turk1304 tuk tumb1250 tum nucl1301 tur akua1239 twi asan1239 twi tuvi1240 tyv udmu1245 udm
    uigh1240 uig ukra1253 ukr umbu1257 umb urdu1245 urd nort2690 uzn sout2699 uzs vene1259 vec viet1252 vie cent2033
    vmw wara1300 war nucl1347 wol suhu1238 wuu xhos1239 xho east2295 ydd yoru1245 yor xian1255 yue stan1324 zgh
    stan1306 zsm zulu1248 zul
    """,
    )
)
"""Glottolog's codes as FLORES+ lists them, each with the language there; and mand1415, port1283 and stan1288 above its
varieties."""
_GLOTTOCODE = re.compile(
    r"(?:(?P<tag>[a-z]{2,3}(?:[-_][a-z]{4})?)[-_])?(?P<code>[a-z]{4}[0-9]{4})(?:[-_](?P<script>[a-z]{4}))?",
    re.IGNORECASE,
)
"""stan1293, kash1277_Deva, or with a tag in front of it, as configurations of FLORES+ are called: cat_Latn_vale1252."""
_ENDONYMS = {
    "汉语": "zh", "漢語": "zh", "华语": "zh", "華語": "zh", "espanol": "es", "castellano": "es", "francais": "fr",
    "portugues": "pt", "ภาษาไทย": "th", "हिंदी": "hi", "한국말": "ko", "عربي": "ar", "turkce": "tr", "tieng viet": "vi",
}  # fmt: skip
"""Names that speakers use and CLDR does not have, and some without the accents that keyboards lack."""
_WORLD = "001"
_BOTH_WAYS = ("pt-BR",)
"""Regions that CLDR implies, and that are kept: the bare code is written for another country's language as well."""


def _from_registry(wanted: str) -> str | None:
    """The code of a tag or name; None for what is neither."""
    import langcodes  # here, not above: only languages outside the ten need the registry

    wanted = re.sub(r"\.utf-?8$", "", wanted, flags=re.IGNORECASE)  # en_US.UTF-8, as systems call it
    if found := _GLOTTOCODE.fullmatch(wanted):
        return _of_glottocode(**found.groupdict())
    if wanted.casefold() in _ENDONYMS:
        return _ENDONYMS[wanted.casefold()]
    try:
        language = langcodes.Language.get(wanted)
    except ValueError:  # no tag
        language = None
    if (language is None or not language.is_valid()) and not re.fullmatch("[A-Za-z]{2}", wanted):  # "ua" is no name
        name = unicodedata.normalize("NFC", wanted)
        language = _by_name(name) or _by_name(re.sub(r"\b[-_]\b|_", " ", name))
    if language is None or not language.is_valid() or (language.language or "und").startswith(("x-", *_NO_LANGUAGE)):
        return None
    if language.language not in _OWN_LANGUAGE:
        language = langcodes.Language.get(langcodes.standardize_tag(language, macro=True))
    if language.extlangs:  # of another language: hi_rom is not Hindi in Romany, nor roa-rup Romance in Aromanian
        return None
    return _shortest(language)


def _of_glottocode(code: str, tag: str | None, script: str | None) -> str | None:
    """The language of a glottocode; with a tag in front, the tag's, if it is of the same language."""
    known = _GLOTTOCODES.get(code.lower())
    if known is None or (tag and script):
        return None
    if tag:
        own = code_or_name(tag)
        return own if own.split("-")[0] == language_code(known).split("-")[0] else None
    return language_code(f"{known.split('_')[0]}_{script}" if script else known)


def _of_country(code: str) -> str:
    """A hint for who gave the code of a country instead of a language's; empty for what is neither."""
    if not re.fullmatch("[A-Za-z]{2}", code):
        return ""
    import langcodes

    country = langcodes.Language.make(territory=code.upper())
    spoken = country.maximize().language
    named = country.territory_name()
    if named.startswith("Unknown") or not spoken or spoken == "und":
        return ""
    return f"; {code} is the code of a country, {named}, and its language may be {language_code(spoken)}"


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

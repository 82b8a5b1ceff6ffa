"""Languages by code and by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from language_neurons_alignment import config
from language_neurons_alignment.corpus.records import read_corpus
from language_neurons_alignment.errors import CorpusError, SettingsError
from language_neurons_alignment.languages import (
    _GLOTTOCODES,
    DEFAULT_LANGUAGES,
    LANGUAGE_NAMES,
    code_or_name,
    in_default_order,
    language_code,
    language_name,
    parse_languages,
)


def test_the_ten_stand_in_the_order_that_mask_files_rely_on() -> None:
    assert DEFAULT_LANGUAGES == ("en", "ru", "es", "fr", "de", "zh", "ja", "bn", "th", "sw")
    assert config.DEFAULT_LANGUAGES is DEFAULT_LANGUAGES


def test_the_ten_come_first_in_their_order_and_others_as_they_come() -> None:
    assert in_default_order(["te", "sw", "hi", "en", "te", "sw"]) == ("en", "sw", "te", "hi")
    assert in_default_order(reversed(DEFAULT_LANGUAGES)) == DEFAULT_LANGUAGES
    assert in_default_order([]) == ()


@pytest.mark.parametrize("code", [*LANGUAGE_NAMES, "ko", "te", "pt-BR", "hi", "yo"])
def test_code_and_name_lead_back_to_each_other(code: str) -> None:
    assert language_code(code) == language_code(code.upper()) == code
    if "-" not in code:
        assert language_code(language_name(code)) == code


@pytest.mark.parametrize(
    "name",
    [
        "", " ", "xx", "x-private", "no such language", "Frenchy", "Fala", "1", "en/../../etc", "😀", "Toki Pona",
        "en-", "no_such_language", "Multiple languages", "hi_rom", "roa-rup", "fiu-vro", "Chinese_Klingon",
        "abcd1234", "stan12930", "fra_Latn_stan1293", "cat_Latn_stan1289_Arab", "nob_Latn_radical",
    ],
)  # fmt: skip
def test_what_is_no_language_is_refused_by_name(name: str) -> None:
    with pytest.raises(SettingsError, match="unknown language"):
        language_code(name)


@pytest.mark.parametrize("name", ["zxx", "mul", "und", "mis", "MUL", "und-Latn", "zxx_Latn"])
def test_a_code_that_stands_for_no_language_is_refused_with_what_to_write(name: str) -> None:
    with pytest.raises(
        SettingsError, match=rf"^'{name}' stands for .*: give the code or English name .* en or English"
    ):
        language_code(name)


def test_special_codes_are_refused_in_a_corpus_and_on_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'mul' stands for several languages"):
        parse_languages("en,mul")
    path = tmp_path / "corpus.json"
    path.write_text('[{"lang": "zxx", "instruction": "1 + 1", "answers": [{"generated": "2"}]}]')
    with pytest.raises(CorpusError, match="'zxx' stands for no linguistic content"):
        read_corpus(path)


def test_a_list_keeps_its_order_and_refuses_repetition_and_nothing() -> None:
    assert parse_languages("sw, English,fr") == ("sw", "en", "fr")
    assert parse_languages(["de", "en"]) == ("de", "en")
    with pytest.raises(SettingsError, match="given twice: en"):
        parse_languages("en,fr,English")
    for nothing in ("", ",", []):
        with pytest.raises(SettingsError, match="no language given"):
            parse_languages(nothing)


CHINESE = [
    "Zh", "ZH_cn", "汉语", "beij1234", "mand1415", "cmn_Hans_beij1234",
    "zh", "ZH", "zho", "chi", "cmn", "zh-CN", "zh_CN", "zh-Hans", "zho_Hans", "cmn_Hans", "zh-Hans-CN", "zh-cmn",
    "Chinese", "Chinese (Simplified)", "Simplified Chinese", "Chinese Simplified", "Chinese (China)", "Mandarin",
    "Mandarin Chinese", "中文", "简体中文", "Chinese_Simplified", "chinese-simplified", "Simplified_Chinese",
    "Chinese (zh)",
]  # fmt: skip


@pytest.mark.parametrize("name", CHINESE)
def test_chinese_is_zh_however_it_is_written(name: str) -> None:
    assert language_code(name) == "zh"


SAME = {
    "ca": ["stan1289", "cat_Latn_vale1252", "vale1252"],
    "ks-Deva": ["kas_Deva", "kash1277_Deva"],
    "apc": ["apc_Arab_nort3139", "sout3123"],
    "ar": ["stan1318", "عربي", "arb", "arb_Arab", "Standard Arabic", "Modern Standard Arabic", "ar-001", "ar-EG"],
    "bn": ["ben", "ben_Beng", "bn-BD", "Bengali", "Bangla", "বাংলা"],
    "de": ["deu", "ger", "deu_Latn", "de-DE", "Deutsch", "German"],
    "en": [
        "stan1293",
        "eng_Latn_stan1293",
        "en_US.UTF-8",
        "eng",
        "eng_Latn",
        "en-US",
        "en_US",
        "English (United States)",
    ],
    "es": ["amer1254", "castellano", "espanol", "spa_Latn", "es-ES", "español", "Castilian"],
    "et": ["ekk", "ekk_Latn", "est_Latn", "Estonian"],
    "fa": ["pes", "pes_Arab", "Farsi", "Persian (Farsi)", "Western Persian"],
    "fil": ["tl", "tgl", "tgl_Latn", "fil_Latn", "Tagalog"],
    "he": ["iw", "heb_Hebr", "Hebrew"],
    "id": ["in", "ind_Latn", "Bahasa Indonesia"],
    "ja": ["jpn_Jpan", "ja-JP", "日本語"],
    "ko": ["kor_Hang", "ko-Kore", "ko-KR", "Korean (South Korea)"],
    "lv": ["lvs", "lvs_Latn"],
    "mg": ["plt_Latn"],
    "mn": ["khk_Cyrl", "Halh Mongolian"],
    "ms": ["zsm", "zsm_Latn", "Standard Malay"],
    "my": ["mya_Mymr", "Burmese", "Myanmar (Burmese)"],
    "nb": ["no", "nob", "nob_Latn", "Norwegian", "Norwegian (Bokmål)"],
    "ne": ["npi", "npi_Deva"],
    "nn": ["nno_Latn"],
    "or": ["ory_Orya", "Oriya", "Odia"],
    "ps": ["pbt_Arab", "pus"],
    "ro": ["mo", "ron_Latn"],
    "sq": ["als", "als_Latn", "Tosk Albanian"],
    "sw": ["swh", "swh_Latn", "sw-TZ", "Swahili (macrolanguage)", "Kiswahili"],
    "th": ["tha_Thai", "ไทย"],
    "uz": ["uzn_Latn", "Northern Uzbek"],
    "acm": ["acm_Arab"],
    "azb": ["azb_Arab"],
    "tw": ["twi_Latn", "Twi"],
    "ak": ["aka_Latn"],
    "zh-Hant": [
        "taib1240",
        "zho_Hant",
        "cmn_Hant",
        "zh-TW",
        "zh-Hant-TW",
        "Chinese (Traditional)",
        "Traditional Chinese",
        "Chinese-Traditional",
        "chinese_traditional",
    ],
    "zh-HK": ["zh-Hant-HK", "Chinese (Hong Kong)"],
    "sr-Latn": ["sh", "Serbian (Latin)", "Serbian Latin", "serbian_latin"],
    "sr": ["serbian_cyrillic", "srp_Cyrl"],
    "gd": ["scottish_gaelic", "gla_Latn"],
    "jv": ["jw"],
    "ku": ["kmr_Latn", "Kurmanji"],
    "quc": ["K'iche'"],
    "ary": ["ary_Arab", "Moroccan Arabic", "Moroccan Arabic (ary)"],
    "pa-Arab": ["pa-PK", "Punjabi (Arabic)"],
    "pt-BR": ["pt_br", "Brazilian Portuguese", "Portuguese (Brazil)", "por-Latn-BR", "brazilian_portuguese"],
    "es-MX": ["Mexican Spanish", "Spanish (Mexico)", "spa_Latn_MX"],
    "en-GB": ["British English", "English (UK)"],
    "de-CH": ["Swiss High German", "deu_Latn_CH"],
}
"""Codes, and spellings that mean the same."""


@pytest.mark.parametrize(("code", "name"), [(code, name) for code, names in SAME.items() for name in names])
def test_spellings_of_a_language_have_one_code(code: str, name: str) -> None:
    assert language_code(name) == language_code(f" {name.upper()} ") == language_code(code) == code


APART = [
    "zh", "zh-Hant", "zh-HK", "zh-SG", "yue", "wuu", "nan", "sr", "sr-Latn", "uz", "uz-Cyrl", "pa", "pa-Arab", "pt",
    "pt-BR", "pt-PT", "es", "es-MX", "es-419", "de", "de-CH", "gsw", "en", "en-GB", "en-IN", "fr", "fr-CA", "nb", "nn",
    "ar", "ary", "arz", "ar-SA", "ar-Latn", "fa", "fa-AF", "ckb", "ku", "az", "azb", "kk", "kk-Latn", "ak", "tw",
    "de-1996",
]  # fmt: skip


def test_what_is_written_or_counted_differently_stays_apart() -> None:
    assert [language_code(code) for code in APART] == APART


FLORES = [
    "ace_Arab", "ace_Latn", "acm_Arab", "acq_Arab", "aeb_Arab", "afr_Latn", "aka_Latn", "als_Latn", "amh_Ethi",
    "apc_Arab", "arb_Arab", "arb_Latn", "ars_Arab", "ary_Arab", "arz_Arab", "asm_Beng", "ast_Latn", "awa_Deva",
    "ayr_Latn", "azb_Arab", "azj_Latn", "bak_Cyrl", "bam_Latn", "ban_Latn", "bel_Cyrl", "bem_Latn", "ben_Beng",
    "bho_Deva", "bjn_Arab", "bjn_Latn", "bod_Tibt", "bos_Latn", "bug_Latn", "bul_Cyrl", "cat_Latn", "ceb_Latn",
    "ces_Latn", "cjk_Latn", "ckb_Arab", "crh_Latn", "cym_Latn", "dan_Latn", "deu_Latn", "dik_Latn", "dyu_Latn",
    "dzo_Tibt", "ell_Grek", "eng_Latn", "epo_Latn", "est_Latn", "eus_Latn", "ewe_Latn", "fao_Latn", "fij_Latn",
    "fin_Latn", "fon_Latn", "fra_Latn", "fur_Latn", "fuv_Latn", "gaz_Latn", "gla_Latn", "gle_Latn", "glg_Latn",
    "grn_Latn", "guj_Gujr", "hat_Latn", "hau_Latn", "heb_Hebr", "hin_Deva", "hne_Deva", "hrv_Latn", "hun_Latn",
    "hye_Armn", "ibo_Latn", "ilo_Latn", "ind_Latn", "isl_Latn", "ita_Latn", "jav_Latn", "jpn_Jpan", "kab_Latn",
    "kac_Latn", "kam_Latn", "kan_Knda", "kas_Arab", "kas_Deva", "kat_Geor", "kaz_Cyrl", "kbp_Latn", "kea_Latn",
    "khk_Cyrl", "khm_Khmr", "kik_Latn", "kin_Latn", "kir_Cyrl", "kmb_Latn", "kmr_Latn", "knc_Arab", "knc_Latn",
    "kon_Latn", "kor_Hang", "lao_Laoo", "lij_Latn", "lim_Latn", "lin_Latn", "lit_Latn", "lmo_Latn", "ltg_Latn",
    "ltz_Latn", "lua_Latn", "lug_Latn", "luo_Latn", "lus_Latn", "lvs_Latn", "mag_Deva", "mai_Deva", "mal_Mlym",
    "mar_Deva", "min_Arab", "min_Latn", "mkd_Cyrl", "mlt_Latn", "mni_Beng", "mos_Latn", "mri_Latn", "mya_Mymr",
    "nld_Latn", "nno_Latn", "nob_Latn", "npi_Deva", "nso_Latn", "nus_Latn", "nya_Latn", "oci_Latn", "ory_Orya",
    "pag_Latn", "pan_Guru", "pap_Latn", "pbt_Arab", "pes_Arab", "plt_Latn", "pol_Latn", "por_Latn", "prs_Arab",
    "quy_Latn", "ron_Latn", "run_Latn", "rus_Cyrl", "sag_Latn", "san_Deva", "sat_Olck", "scn_Latn", "shn_Mymr",
    "sin_Sinh", "slk_Latn", "slv_Latn", "smo_Latn", "sna_Latn", "snd_Arab", "som_Latn", "sot_Latn", "spa_Latn",
    "srd_Latn", "srp_Cyrl", "ssw_Latn", "sun_Latn", "swe_Latn", "swh_Latn", "szl_Latn", "tam_Taml", "taq_Latn",
    "taq_Tfng", "tat_Cyrl", "tel_Telu", "tgk_Cyrl", "tgl_Latn", "tha_Thai", "tir_Ethi", "tpi_Latn", "tsn_Latn",
    "tso_Latn", "tuk_Latn", "tum_Latn", "tur_Latn", "twi_Latn", "tzm_Tfng", "uig_Arab", "ukr_Cyrl", "umb_Latn",
    "urd_Arab", "uzn_Latn", "vec_Latn", "vie_Latn", "war_Latn", "wol_Latn", "xho_Latn", "ydd_Hebr", "yor_Latn",
    "yue_Hant", "zho_Hans", "zho_Hant", "zsm_Latn", "zul_Latn",
]  # fmt: skip
"""The tags of FLORES-200."""


def test_each_language_of_flores_has_a_code_of_its_own_that_means_itself() -> None:
    codes = {tag: language_code(tag) for tag in FLORES}
    assert len(set(codes.values())) == len(FLORES)
    assert all(language_code(code) == code for code in codes.values())
    written = {"ace", "bjn", "kas", "knc", "min", "arb", "taq", "zho"}  # twice in FLORES, in two scripts
    odd = {tag for tag, code in codes.items() if len(code) > 3 and tag[:3] not in written}
    assert odd == {"prs_Arab", "crh_Latn", "tzm_Tfng"}


@pytest.mark.parametrize(
    "name",
    ["Germann", "Frensh", "Englisch", "Chineese", "Thaii", "Spainish", "Mandrin", "francés", "Malayo", "Latin script",
     "Hakka dialect", "Spanish language", "Chinese (Simplifed)", "Arabic (Egyptian)", "Chinese (French)",
     "simplified", "zh-Hasn", "zho_Hans_x_y_z!", "README", "data", "test"],
)  # fmt: skip
def test_a_misspelt_name_does_not_become_another_language(name: str) -> None:
    with pytest.raises(SettingsError, match="unknown language"):
        language_code(name)
    assert code_or_name(name) == name


@pytest.mark.parametrize(("country", "language"), [("cn", "zh"), ("JP", "ja"), ("ua", "uk"), ("vn", "vi")])
def test_the_code_of_a_country_is_no_language_and_the_message_says_which_one_it_may_be(
    country: str, language: str
) -> None:
    with pytest.raises(SettingsError, match=rf"{country} is the code of a country, .*may be {language}$"):
        language_code(country)


@pytest.mark.parametrize("glottocode", list(_GLOTTOCODES)[::10])
def test_a_glottocode_and_the_tag_beside_it_are_one_language(glottocode: str) -> None:
    tag = _GLOTTOCODES[glottocode]
    assert language_code(glottocode) == language_code(glottocode.upper()) == language_code(tag)


@pytest.mark.parametrize(
    "name", ["e\0n", "\0", "en\x1b[31m", "en\u202e", "en\nfr", "\ud83d", "a" * 10_000, "en-x" + "-a" * 500]
)
def test_control_characters_and_endless_names_are_refused_in_one_short_line(name: str) -> None:
    with pytest.raises(SettingsError, match="unknown language") as refused:
        language_code(name)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 250


def test_two_spellings_in_a_list_are_one_language_given_twice() -> None:
    with pytest.raises(SettingsError, match=r"language given twice: zh \(zho_Hans and zh-CN\)"):
        parse_languages("en,zho_Hans,zh-CN")

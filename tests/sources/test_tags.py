"""Languages as data sets name them."""

from __future__ import annotations

import pytest

from language_neurons_alignment.errors import SettingsError
from language_neurons_alignment.languages import LANGUAGE_NAMES
from language_neurons_alignment.sources.tables import language_of_tag, same_language

FLORES = {
    "eng_Latn": "en", "rus_Cyrl": "ru", "spa_Latn": "es", "fra_Latn": "fr", "deu_Latn": "de", "cmn_Hans": "zh",
    "jpn_Jpan": "ja", "ben_Beng": "bn", "tha_Thai": "th", "swh_Latn": "sw", "tel_Telu": "te", "kor_Hang": "ko",
    "zho_Hans": "zh", "arb_Arab": "ar", "npi_Deva": "ne", "pes_Arab": "fa", "zsm_Latn": "ms",
}  # fmt: skip
"""FLORES' tags of the ten, of some others, and of members that stand for a macrolanguage."""


@pytest.mark.parametrize(("tag", "code"), FLORES.items())
def test_flores_tags_become_the_codes_of_this_toolkit(tag: str, code: str) -> None:
    assert language_of_tag(tag) == code


@pytest.mark.parametrize(("tag", "code"), [("cmn_Hant", "zh-Hant"), ("ary_Arab", "ary"), ("pt-BR", "pt-BR")])
def test_a_script_region_or_dialect_that_means_something_else_is_kept(tag: str, code: str) -> None:
    assert language_of_tag(tag) == code


@pytest.mark.parametrize("code", [*LANGUAGE_NAMES, "te", "ko"])
def test_codes_stay_what_they_are_in_any_case(code: str) -> None:
    assert language_of_tag(code) == language_of_tag(code.upper()) == language_of_tag(f" {code} ") == code


@pytest.mark.parametrize(("name", "code"), [(name, code) for code, name in LANGUAGE_NAMES.items()] + [("TELUGU", "te")])
def test_names_become_codes(name: str, code: str) -> None:
    assert language_of_tag(name) == code


@pytest.mark.parametrize("tag", ["README", "data", "test", "", "1", "eng_Latn_x_y_z!"])
def test_what_is_no_language_is_refused_and_means_none(tag: str) -> None:
    with pytest.raises(SettingsError, match="unknown language"):
        language_of_tag(tag)
    assert not same_language(tag, "en")

"""Languages by code and by name."""

from __future__ import annotations

import pytest

from language_neurons_alignment import config
from language_neurons_alignment.errors import SettingsError
from language_neurons_alignment.languages import (
    DEFAULT_LANGUAGES,
    LANGUAGE_NAMES,
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
    "name", ["", " ", "xx", "und", "x-private", "no such language", "Frenchy", "Fala", "1", "en/../../etc", "😀"]
)
def test_what_is_no_language_is_refused_by_name(name: str) -> None:
    with pytest.raises(SettingsError, match="unknown language"):
        language_code(name)


def test_a_list_keeps_its_order_and_refuses_repetition_and_nothing() -> None:
    assert parse_languages("sw, English,fr") == ("sw", "en", "fr")
    assert parse_languages(["de", "en"]) == ("de", "en")
    with pytest.raises(SettingsError, match="given twice: en"):
        parse_languages("en,fr,English")
    for nothing in ("", ",", []):
        with pytest.raises(SettingsError, match="no language given"):
            parse_languages(nothing)

"""The number that an answer comes to: real-looking answers, published targets and worked examples, round trips."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from language_neurons_alignment.corpus.numbers import final_number, same_number
from language_neurons_alignment.errors import CorpusError
from language_neurons_alignment.languages import DEFAULT_LANGUAGES
from language_neurons_alignment.sources.benchmarks import BENCHMARKS, read_benchmark
from tests.conftest import shared_folder
from tests.corpus.answers_with_numbers import ANSWERS

INTEGERS = st.integers(min_value=-(10**15), max_value=10**15)
NATIVE_DIGITS = {
    "bn": "০১২৩৪৫৬৭৮৯",
    "th": "๐๑๒๓๔๕๖๗๘๙",
    "hi": "०१२३४५६७८९",
    "ar": "٠١٢٣٤٥٦٧٨٩",
    "fa": "۰۱۲۳۴۵۶۷۸۹",
    "zh": "０１２３４５６７８９",
}
GROUPED_BY = {"ru": "\u00a0", "es": ".", "fr": "\u202f", "de": "."}
ANNOUNCED = {
    "en": "The answer is {}.",
    "ru": "Ответ: {}.",
    "es": "La respuesta es {}.",
    "fr": "La réponse est {}.",
    "de": "Die Antwort ist {}.",
    "zh": "答案是{}。",
    "ja": "答えは{}です。",
    "bn": "উত্তর হল {}।",
    "th": "คำตอบคือ {}",
    "sw": "Jibu ni {}.",
}


@pytest.mark.parametrize(("language", "answer", "number"), ANSWERS)
def test_an_answer_comes_to_its_number(language: str, answer: str, number: str | None) -> None:
    assert final_number(answer, language) == (None if number is None else Fraction(number))


def test_the_table_of_answers_is_wide() -> None:
    answers = Counter(language for language, *_ in ANSWERS)
    assert sum(answers.values()) >= 500
    assert all(answers[language] >= 40 for language in DEFAULT_LANGUAGES)


@pytest.mark.parametrize(("name", "languages"), [("mgsm", (*DEFAULT_LANGUAGES, "te")), ("msvamp", DEFAULT_LANGUAGES)])
def test_every_published_target_is_itself_in_every_language(name: str, languages: tuple[str, ...]) -> None:
    records = read_benchmark(BENCHMARKS[name], languages, folder=shared_folder(f"data/{name}")).records
    assert len(records) == (2750 if name == "mgsm" else 10_000)
    for language, target in {(record.language, record.target) for record in records}:
        assert target is not None
        plain = Fraction(target.replace(",", ""))
        assert final_number(target, "en") == final_number(target, language) == plain
        assert same_number(ANNOUNCED.get(language, "{}").format(plain), target, language)


def test_the_worked_examples_of_mgsm_come_to_what_they_say() -> None:
    worked = json.loads((shared_folder("data/mgsm") / "exemplars.json").read_text())
    expected = [11, 29, 39, 9, 33, 8, 8, 5]
    assert len(worked) == 11
    for language, examples in worked.items():
        assert [final_number(one["a"], language) for one in examples.values()] == expected


def test_a_model_that_goes_on_with_a_question_of_its_own_has_answered_before() -> None:
    """Few-shot prompts teach it: every pair of neighbouring worked examples, in the eleven languages' own headings."""
    worked = json.loads((shared_folder("data/mgsm") / "exemplars.json").read_text())
    for language, examples in worked.items():
        texts = list(examples.values())
        for one, following in pairwise(texts):
            babble = f"{one['a']}\n\n{following['q']}\n{following['a']}"
            assert final_number(babble, language) == final_number(one["a"], language), babble
        restated = f"{texts[0]['q']}\n{texts[0]['a']}"
        assert final_number(restated, language) == 11, restated


@given(INTEGERS, st.sampled_from(DEFAULT_LANGUAGES), st.booleans())
def test_an_integer_in_a_languages_own_grouping_is_that_integer(number: int, language: str, announced: bool) -> None:
    written = f"{number:,}".replace(",", GROUPED_BY.get(language, ","))
    text = ANNOUNCED[language].format(written) if announced else f"= {written}"
    assert final_number(text, language) == number


@given(INTEGERS, st.sampled_from(sorted(NATIVE_DIGITS)))
def test_native_digits_are_digits(number: int, language: str) -> None:
    native = f"{number:,}".translate(str.maketrans("0123456789", NATIVE_DIGITS[language]))
    assert final_number(f"= {native}", language) == number


@given(st.integers(0, 10**9), st.integers(0, 99), st.sampled_from(DEFAULT_LANGUAGES))
def test_amounts_with_two_decimals_are_read_in_every_convention(whole: int, cents: int, language: str) -> None:
    value = whole + Fraction(cents, 100)
    plain = f"{whole:,}.{cents:02d}"
    swapped = plain.translate(str.maketrans(",.", ".,"))
    for written in (plain, swapped, plain.replace(",", " "), plain.replace(",", "'")):
        assert final_number(f"= {written} €", language) == value


@given(st.integers(0, 999), st.integers(1, 999), st.integers(1, 999))
def test_fractions_stay_exact(whole: int, top: int, bottom: int) -> None:
    assert final_number(f"#### {top}/{bottom}", "en") == Fraction(top, bottom)
    assert final_number(rf"\boxed{{{whole}\frac{{{top}}}{{{bottom}}}}}", "en") == whole + Fraction(top, bottom)


@given(st.text(max_size=200), st.sampled_from(DEFAULT_LANGUAGES))
def test_whatever_a_model_writes_is_read_or_left(text: str, language: str) -> None:
    number = final_number(text, language)
    assert number is None or isinstance(number, Fraction)


@given(st.text(alphabet="0123456789.,/^ -−%$¼½千万十#\\boxedfrac{}=:×", max_size=60))
def test_no_mess_of_marks_is_an_error(text: str) -> None:
    number = final_number(text, "de")
    assert number is None or isinstance(number, Fraction)


@pytest.mark.parametrize("target", ["18", "18.0", "18.00", "36/2", "$18"])
def test_targets_may_be_written_in_several_ways(target: str) -> None:
    assert same_number("The answer is 18 eggs.", target, "en")
    assert not same_number("The answer is 19 eggs.", target, "en")
    assert not same_number("No idea.", target, "en")


def test_a_target_without_a_number_is_refused() -> None:
    with pytest.raises(CorpusError, match="holds no number"):
        same_number("18", "eighteen", "en")


def test_a_run_of_digits_without_end_is_no_number() -> None:
    assert final_number("The answer is 18. " + "7" * 5000, "en") == 18
    assert final_number("3" * 5000, "en") is None

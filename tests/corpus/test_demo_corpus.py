"""The demo corpus: the same arithmetic word problems, each with one worked answer, in ten languages."""

import json
import re
from collections import Counter
from fractions import Fraction
from functools import cache
from pathlib import Path

import pytest
from lingua import Language, LanguageDetectorBuilder

CORPUS = Path(__file__).resolve().parents[2] / "datasets" / "demo.json"
MINIMUM_OF_PROBLEMS = 16

LANGUAGES = {
    "English": Language.ENGLISH,
    "Russian": Language.RUSSIAN,
    "Spanish": Language.SPANISH,
    "French": Language.FRENCH,
    "German": Language.GERMAN,
    "Chinese": Language.CHINESE,
    "Japanese": Language.JAPANESE,
    "Bengali": Language.BENGALI,
    "Thai": Language.THAI,
    "Swahili": Language.SWAHILI,
}

NUMBER = re.compile(r"[0-9]+")
SIDE = r"[0-9]+(?: [-+×÷] [0-9]+)*"
EQUATION = re.compile(rf"{SIDE}(?: = {SIDE})+")


@cache
def records():
    return json.loads(CORPUS.read_text(encoding="utf-8"))


def question(record):
    return record["instruction"]


def answer(record):
    return record["answers"][0]["generated"]


def name(record):
    return f"{record['id']} in {record['lang']}"


def numbers(text):
    return [int(digits) for digits in NUMBER.findall(text)]


def value(side):
    """The value of `a + b × c …`, products before sums, without rounding."""
    total, sign, product, operator = Fraction(0), 1, None, None
    for token in side.split(" "):
        if token in ("+", "-"):
            total += sign * product
            sign, product = (1 if token == "+" else -1), None
        elif token in ("×", "÷"):
            operator = token
        elif product is None:
            product = Fraction(int(token))
        elif operator == "×":
            product *= int(token)
        else:
            product /= int(token)
    return total + sign * product


def sides(equation):
    return equation.split(" = ")


def versions_by_problem():
    versions = {}
    for record in records():
        versions.setdefault(record["id"], []).append(record)
    return versions


def problems_whose_numbers_differ(text_of):
    return {
        problem: {record["lang"]: sorted(numbers(text_of(record))) for record in versions}
        for problem, versions in versions_by_problem().items()
        if len({frozenset(Counter(numbers(text_of(record))).items()) for record in versions}) != 1
    }


@pytest.fixture(scope="module")
def detector():
    return LanguageDetectorBuilder.from_languages(*LANGUAGES.values()).build()


def records_taken_for_another_language(detector, text_of):
    found = {name(record): detector.detect_language_of(text_of(record)) for record in records()}
    return {
        name(record): found[name(record)] for record in records() if found[name(record)] != LANGUAGES[record["lang"]]
    }


def test_the_file_is_a_list_of_records_of_the_expected_shape_and_ends_in_exactly_one_newline():
    text = CORPUS.read_bytes().decode("utf-8")
    assert text.endswith("]\n")
    assert "\\u" not in text
    assert isinstance(records(), list)
    for record in records():
        assert set(record) == {"id", "lang", "instruction", "answers"}
        assert len(record["answers"]) == 1
        assert set(record["answers"][0]) == {"generated"}


def test_there_are_enough_problems_and_each_one_exists_once_in_each_of_the_ten_languages():
    versions = versions_by_problem()
    assert len(versions) >= MINIMUM_OF_PROBLEMS
    for problem, version in versions.items():
        assert sorted(record["lang"] for record in version) == sorted(LANGUAGES), problem


def test_the_records_go_language_by_language_and_within_a_language_problem_by_problem():
    problems = sorted(versions_by_problem())
    expected = [(language, problem) for language in LANGUAGES for problem in problems]
    assert [(record["lang"], record["id"]) for record in records()] == expected


def test_questions_and_answers_are_not_empty_and_carry_no_stray_white_space():
    for record in records():
        assert question(record), name(record)
        assert question(record) == question(record).strip(), name(record)
        assert answer(record).startswith("\n"), name(record)
        assert answer(record)[1:], name(record)
        assert answer(record)[1:] == answer(record).strip(), name(record)


def test_no_two_records_share_a_question_or_an_answer():
    assert [text for text, times in Counter(map(question, records())).items() if times > 1] == []
    assert [text for text, times in Counter(map(answer, records())).items() if times > 1] == []


def test_numbers_are_written_as_plain_ascii_integers_in_every_language():
    for record in records():
        for text in (question(record), answer(record)):
            assert [sign for sign in text if sign.isdigit() and not sign.isascii()] == [], name(record)
            assert re.findall(r"[0-9][.,'\u00a0\u202f][0-9]", text) == [], name(record)
            assert numbers(text) != [], name(record)


def test_the_numbers_of_a_question_agree_across_its_ten_versions():
    assert problems_whose_numbers_differ(question) == {}


def test_the_numbers_of_an_answer_agree_across_its_ten_versions():
    assert problems_whose_numbers_differ(answer) == {}


def test_the_equations_of_an_answer_agree_across_its_ten_versions():
    for problem, versions in versions_by_problem().items():
        assert len({tuple(EQUATION.findall(answer(record))) for record in versions}) == 1, problem


def test_every_equation_is_recognised_and_arithmetically_right():
    for record in records():
        equations = EQUATION.findall(answer(record))
        assert equations != [], name(record)
        assert sum(equation.count("=") for equation in equations) == answer(record).count("="), name(record)
        for equation in equations:
            assert len({value(side) for side in sides(equation)}) == 1, f"{name(record)}: {equation}"


def test_every_number_of_a_question_is_used_by_the_equations_of_its_answer():
    for record in records():
        used = Counter(number for equation in EQUATION.findall(answer(record)) for number in numbers(equation))
        assert Counter(numbers(question(record))) - used == Counter(), name(record)


def test_the_last_number_of_an_answer_is_the_result_of_its_last_equation():
    for record in records():
        last_equation = EQUATION.findall(answer(record))[-1]
        assert numbers(answer(record))[-1] == value(sides(last_equation)[-1]), name(record)
        end_of_last_equation = answer(record).rindex(last_equation) + len(last_equation)
        assert numbers(answer(record)[end_of_last_equation:]) != [], f"{name(record)} does not state its result"


def test_every_question_is_identified_as_the_language_it_claims(detector):
    assert records_taken_for_another_language(detector, question) == {}


def test_every_answer_is_identified_as_the_language_it_claims(detector):
    assert records_taken_for_another_language(detector, answer) == {}

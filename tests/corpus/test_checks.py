"""Checks of a corpus: each kind of problem planted, nothing found where nothing is wrong, and the size of a corpus."""

from __future__ import annotations

from dataclasses import replace

import pytest

from language_neurons_alignment.corpus.checks import (
    LanguageSummary,
    Problem,
    duplicates,
    empty_texts,
    missing_ids,
    other_languages,
    summarize,
)
from language_neurons_alignment.corpus.records import Record
from tests.tiny_models import tiny_tokenizer
from tests.workspace import SAYINGS

CODES = ("en", "es", "fr")
MORE = {"en": "The tall tree stands behind the old school.", "es": "El árbol alto está detrás de la vieja escuela.",
        "fr": "Le grand arbre se trouve derrière la vieille école."}  # fmt: skip
GOOD = [
    record
    for code in CODES
    for record in (
        Record(code, "".join(SAYINGS[code]), SAYINGS[code][1:], id="1"),
        Record(code, MORE[code], (), id="2"),
    )
]


def numbered(records: list[Record]) -> list[tuple[Record, str]]:
    return [(record, f"c.json, record {n}") for n, record in enumerate(records, start=1)]


def changed(position: int, **change: object) -> list[tuple[Record, str]]:
    return numbered([replace(one, **change) if n == position else one for n, one in enumerate(GOOD)])  # type: ignore[arg-type]


@pytest.mark.parametrize("check", [empty_texts, duplicates, missing_ids, other_languages])
def test_a_good_corpus_has_no_problem(check: object) -> None:
    assert list(check(numbered(GOOD))) == []  # type: ignore[operator]


def test_a_question_of_spaces_is_an_error_and_an_empty_answer_a_warning() -> None:
    assert list(empty_texts(changed(1, instruction=" \n\u3000"))) == [
        Problem("empty", "c.json, record 2: the question is nothing but spaces", error=True)
    ]
    assert list(empty_texts(changed(0, answers=("", " ", "Two.")))) == [
        Problem("empty", "c.json, record 1: 2 of 3 answers are empty")
    ]
    (found,) = empty_texts(changed(1, instruction="### Instruction:\n\n", question=" "))
    assert found.error  # the template around an empty question does not hide it


def test_an_id_twice_in_a_language_is_an_error() -> None:
    assert list(duplicates(changed(1, id="1"))) == [
        Problem("duplicate", "c.json, record 2: the id '1' is there twice in 'en', first at record 1", error=True)
    ]


def test_a_question_twice_in_a_language_and_one_text_in_two_languages_are_warnings() -> None:
    assert list(duplicates(changed(1, instruction=GOOD[0].instruction))) == [
        Problem("duplicate", "c.json, record 2: the same question in 'en' as record 1")
    ]
    assert list(duplicates(changed(3, instruction=GOOD[0].instruction))) == [
        Problem("duplicate", "c.json, record 4: the same text in 'es' as in 'en'")
    ]


def test_ids_that_a_language_lacks_are_named() -> None:
    assert list(missing_ids(numbered([*GOOD[:3], *GOOD[4:]]))) == [Problem("missing", "Spanish lacks 1 of 2 ids: 2")]
    assert list(missing_ids(numbered([replace(one, id=None) for one in GOOD]))) == []


def test_a_text_in_another_language_is_a_warning_and_most_of_a_language_an_error() -> None:
    (found,) = other_languages(changed(3, instruction=MORE["fr"], id="2"))
    assert not found.error
    assert found.message.startswith("c.json, record 4: looks like French (")
    assert "not Spanish: Le grand arbre" in found.message
    swapped = [replace(one, language="es") if one.language == "fr" else one for one in GOOD if one.language != "es"]
    errors = [one for one in other_languages(numbered(swapped)) if one.error]
    assert [one.message for one in errors] == [
        "Spanish: 2 of 2 questions that are long enough to tell are in another language"
    ]


def test_an_answer_in_another_language_is_a_warning_that_says_which_answer() -> None:
    wrong = SAYINGS["fr"][1] + " " + MORE["fr"]
    (found,) = other_languages(changed(0, answers=(SAYINGS["en"][1], wrong)))
    assert not found.error
    assert found.message.startswith("c.json, record 1, answer 2: looks like French")


def test_the_bare_question_is_checked_and_not_the_english_around_it() -> None:
    prompt = "Below is an instruction that describes a task. Write a response.\n\n### Instruction:\n"
    templated = [replace(one, instruction=prompt + one.instruction, question=one.instruction) for one in GOOD]
    assert list(other_languages(numbered(templated))) == []


def test_a_language_that_cannot_be_identified_is_a_warning() -> None:
    amharic = Record("am", "ቤቱ ሁለት በሮች አሉት።", ())
    assert list(other_languages(numbered([*GOOD, amharic]))) == [
        Problem("language", "Amharic cannot be identified, so its texts are not checked")
    ]


SUMMARIZED = [Record("en", "xa", ("bx", "y")), Record("en", "été", ()), Record("en", "zz", ("zzzz",))]
"""The tiny tokenizer puts BOS in front, merges a + b, and splits everything else but é into bytes."""


def test_without_a_tokenizer_texts_are_counted_instructions_once() -> None:
    assert summarize(SUMMARIZED) == LanguageSummary("en", records=3, answers=3, characters=2 + 2 + 1 + 3 + 2 + 4)
    assert summarize(SUMMARIZED).tokens_per_character is None


def test_with_a_tokenizer_tokens_are_counted_as_the_counting_step_sees_them() -> None:
    one = summarize(SUMMARIZED, tokenizer=tiny_tokenizer(), max_length=5)
    prefixes = (1 + 2) + (1 + 3) + (1 + 2)  # été: é is one token of two bytes
    answers = (4 - 3) + (4 - 3) + 4  # x ab x has 4 with BOS: the merge across the border
    assert (one.tokens, one.merges) == (prefixes + answers, 1)
    assert one.tokens_per_character == (prefixes + answers) / 14
    assert one.overlong == 1  # BOS zz zzzz


def test_a_language_with_no_answers_is_counted_all_the_same() -> None:
    one = summarize([SUMMARIZED[1]], tokenizer=tiny_tokenizer(), max_length=3)
    assert (one.answers, one.tokens, one.overlong, one.merges) == (0, 4, 1, 0)

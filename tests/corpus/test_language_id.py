"""Is a text in the language that it claims?"""

from __future__ import annotations

import os
import sys
from multiprocessing import get_context

import pytest

from language_neurons_alignment.corpus.language_id import (
    SHORTEST,
    SURE,
    Verdict,
    identify_languages,
    known_languages,
    letters,
)
from language_neurons_alignment.errors import MissingPackageError
from language_neurons_alignment.sources.benchmarks import BENCHMARKS, read_benchmark
from tests.conftest import shared_folder
from tests.workspace import SAYINGS, TEN

TELUGU = "జనెత్ బాతులు ప్రతిరోజూ 16 గుడ్లు పెడతాయి."


def test_ten_languages_and_telugu_are_told_apart() -> None:
    verdicts = identify_languages([*("".join(SAYINGS[code]) for code in TEN), TELUGU], ("te",))
    assert [verdict and verdict.language for verdict in verdicts] == [*TEN, "te"]


@pytest.mark.parametrize("text", ["", "12 × 3 = 36", "x = y + 2z", "∑ 1/n² = π²/6", "a" * (SHORTEST - 1), "答案是18"])
def test_a_text_of_few_letters_is_in_no_language(text: str) -> None:
    assert identify_languages([text], ("en", "fr")) == [None]


def test_letters_of_scripts_of_few_languages_count_three_times() -> None:
    assert letters("She makes $18.") == letters("Еще 18 дней.") + 1 == 8
    assert letters("答えは18です。") == letters("答案是十八") == 15
    assert letters("18 × 2 = 36 ％") == 0


def test_a_text_in_a_language_that_nobody_claimed_is_seen_too() -> None:
    (verdict,) = identify_languages([SAYINGS["fr"][0] + SAYINGS["fr"][1]], ("en", "es"))
    assert verdict is not None
    assert verdict.contradicts("es")
    assert not verdict.contradicts("fr")


def test_a_verdict_that_is_not_sure_contradicts_nobody_and_regions_do_not_matter() -> None:
    assert not Verdict("fr", SURE - 0.01).contradicts("es")
    assert Verdict("fr", SURE).contradicts("es")
    assert not Verdict("pt", 1.0).contradicts("pt-BR")
    assert known_languages(("en", "te", "zh-Hant", "am", "bo")) == ("en", "te", "zh-Hant")


@pytest.mark.slow
@pytest.mark.parametrize("letters", [10, None])
def test_no_real_question_raises_a_false_alarm_whole_or_cut(letters: int | None) -> None:
    mgsm = read_benchmark(BENCHMARKS["mgsm"], (*TEN, "te"), folder=shared_folder("data/mgsm")).records
    records = mgsm + read_benchmark(BENCHMARKS["msvamp"], TEN, folder=shared_folder("data/msvamp")).records
    texts = [first_letters(record.instruction, letters) for record in records]
    verdicts = identify_languages(texts, (*TEN, "te"))
    assert len(records) == 12_750
    assert [r.id for r, v in zip(records, verdicts, strict=True) if v and v.contradicts(r.language)] == []


def first_letters(text: str, letters: int | None) -> str:
    """A text up to so many letters."""
    seen = 0
    for position, character in enumerate(text, start=1):
        seen += character.isalpha()
        if seen == letters:
            return text[:position]
    return text


def test_a_process_that_was_forked_off_another_one_does_not_wait_for_its_threads() -> None:
    def found() -> list[str]:
        return [one.language for one in identify_languages([text for text, _ in SAYINGS.values()], TEN) if one]

    expected = found()
    child = get_context("fork").Process(target=lambda: os._exit(found() != expected))
    child.start()
    child.join(60)
    child.kill()
    assert child.exitcode == 0


def test_without_lingua_the_error_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lingua", None)
    with pytest.raises(MissingPackageError, match=r"lingua.*pip install 'language_neurons_alignment\[data\]'"):
        known_languages(("en",))

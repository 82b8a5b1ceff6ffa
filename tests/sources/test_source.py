"""A part of a source: the same questions in every language."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from language_neurons_alignment.corpus.records import Record
from language_neurons_alignment.errors import CorpusError, SettingsError
from language_neurons_alignment.sources.source import choose, of_languages

LANGUAGES = ("en", "te", "sw")


def records(languages: tuple[str, ...] = LANGUAGES, questions: int = 20, *, ids: bool = True) -> list[Record]:
    return [Record(code, f"{code} {n}", (), id=str(n) if ids else None) for n in range(questions) for code in languages]


def chosen(kept: list[Record]) -> dict[str, list[str]]:
    return {code: [one.instruction.split()[1] for one in kept if one.language == code] for code in LANGUAGES}


@given(st.integers(1, 25), st.none() | st.integers())
def test_every_language_keeps_the_same_ids_and_no_more_than_the_limit(limit: int, seed: int | None) -> None:
    by_language = chosen(choose(records(), limit=limit, seed=seed))
    assert len({tuple(ids) for ids in by_language.values()}) == 1
    assert len(by_language["en"]) == len(set(by_language["en"])) == min(limit, 20)


@given(st.integers(1, 20), st.integers(0, 5))
def test_a_larger_limit_keeps_what_a_smaller_one_chose(limit: int, seed: int) -> None:
    fewer, more = (chosen(choose(records(), limit=n, seed=seed))["en"] for n in (limit, limit + 3))
    assert set(fewer) <= set(more)


def test_without_a_seed_the_first_are_kept_and_a_seed_chooses_others_the_same_ones_each_time() -> None:
    assert chosen(choose(records(), limit=4, seed=None))["te"] == ["0", "1", "2", "3"]
    picks = {tuple(chosen(choose(records(), limit=4, seed=seed))["te"]) for seed in range(20)}
    assert len(picks) > 10
    assert choose(records(), limit=4, seed=1) == choose(records(), limit=4, seed=1)


def test_the_choice_depends_neither_on_the_order_nor_on_how_many_languages_there_are() -> None:
    one = chosen(choose(records(("te",)), limit=5, seed=3))["te"]
    assert sorted(chosen(choose(records()[::-1], limit=5, seed=3))["te"]) == sorted(one)


def test_an_id_that_a_language_lacks_is_never_chosen() -> None:
    holed = [one for one in records() if (one.language, one.id) not in {("te", "0"), ("sw", "1")}]
    assert chosen(choose(holed, limit=2, seed=None)) == {code: ["2", "3"] for code in LANGUAGES}
    with pytest.raises(CorpusError, match="no id is there in every language"):
        choose([Record("en", "a", (), id="1"), Record("te", "b", (), id="2")], limit=1, seed=None)


def test_without_ids_the_number_within_the_language_stands_in() -> None:
    assert chosen(choose(records(ids=False), limit=2, seed=None)) == {code: ["0", "1"] for code in LANGUAGES}


def test_a_limit_below_one_and_a_seed_without_a_limit_are_wrong_usage() -> None:
    with pytest.raises(SettingsError, match="--limit must be at least 1"):
        choose(records(), limit=0, seed=None)
    with pytest.raises(SettingsError, match="--seed 3"):
        choose(records(), limit=None, seed=3)
    assert choose(records(), limit=None, seed=None) == records()


def test_languages_come_in_the_order_wanted_and_one_that_is_not_there_is_an_error() -> None:
    assert list(dict.fromkeys(one.language for one in of_languages(records(), ("sw", "en")))) == ["sw", "en"]
    with pytest.raises(CorpusError, match="nothing in ko: it has en, te, sw"):
        of_languages(records(), ("en", "ko"))

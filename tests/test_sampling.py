"""What decides an answer, checked before anything runs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from language_neurons_alignment.config import GREEDY, Sampling
from language_neurons_alignment.errors import SettingsError


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -0.1}, {"temperature": math.nan}, {"temperature": math.inf}, {"top_p": 0}, {"top_p": 1.1},
     {"top_p": math.nan}, {"max_new_tokens": 0}, {"stop": ("a", "")}],
)  # fmt: skip
def test_choices_that_are_none_are_refused_by_their_flag(wrong: dict[str, object]) -> None:
    flag = "--" + next(iter(wrong)).replace("_", "-")
    with pytest.raises(SettingsError, match=flag):
        Sampling(**wrong)  # type: ignore[arg-type]


def test_a_nucleus_that_would_do_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match="would do nothing at --temperature 0"):
        Sampling(top_p=0.9)
    assert Sampling(top_p=0.9, temperature=0.1).top_p == 0.9


def test_greedy_decoding_has_one_answer() -> None:
    GREEDY.check_answers(1)
    Sampling(temperature=0.5).check_answers(3)
    with pytest.raises(SettingsError, match="3 times the same answer"):
        GREEDY.check_answers(3)
    with pytest.raises(SettingsError, match="-n must be at least 1"):
        GREEDY.check_answers(0)


prompts = st.lists(st.integers(0, 5), max_size=3).map(tuple)
asked = st.tuples(st.integers(0, 3), prompts, st.integers(0, 3))


@given(asked, asked)
def test_each_prompt_number_and_seed_has_a_seed_of_its_own(one: tuple, other: tuple) -> None:
    seeds = [Sampling(seed=seed).seed_for(tokens, number) for seed, tokens, number in (one, other)]
    assert (seeds[0] == seeds[1]) == (one == other)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_do_not_change_between_versions_or_machines() -> None:
    assert Sampling(seed=1).seed_for((1, 2, 3), 0) == 300639193439487886
    assert Sampling(seed=1, temperature=0.9).seed_for([1, 2, 3], 0) == Sampling(seed=1).seed_for((1, 2, 3), 0)

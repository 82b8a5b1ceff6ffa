"""Each token position is fed once, and counts as often as the corpus says."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from language_neurons_alignment.corpus.encode import PromptGroup, ScoredText, Tokens
from language_neurons_alignment.engines.generation import batches
from language_neurons_alignment.engines.transformers.plan import BatchRow, Job, fed_tokens, job_batches, plan

tokens = st.lists(st.integers(0, 2), max_size=6).map(tuple)
"""Few tokens, so that sequences often share their beginnings."""


@st.composite
def groups(draw: st.DrawFn) -> PromptGroup:
    prefix = draw(tokens)
    answer = st.one_of(tokens.map(lambda rest: prefix + rest), tokens, st.just(prefix[:-1]))
    return PromptGroup(prefix, tuple(draw(st.lists(answer, max_size=6))))


def counted(jobs: list[Job]) -> tuple[Counter, Counter]:
    """How often each position counts, a position being known by the tokens up to it: (for full, for prefix)."""
    full, prefix = Counter(), Counter()
    for job in jobs:
        for row, before in ((job.first, ()), *((row, job.first.tokens) for row in job.rest)):
            for position in range(len(row.tokens)):
                seen = before + row.tokens[: position + 1]
                full[seen] += row.full
                prefix[seen] += row.prefix if position < row.prefix_length else 0
    return +full, +prefix


def wanted(sequences: list[Tokens]) -> Counter:
    return Counter(one[: position + 1] for one in sequences for position in range(len(one)))


@given(groups(), st.none() | st.integers(0, 8))
def test_every_position_counts_as_often_as_it_occurs(group: PromptGroup, switch: int | None) -> None:
    full, prefix = counted(plan(group, switch=switch))
    assert full == wanted(list(group.full))
    assert prefix == wanted([group.prefix] * len(group.full))


@given(groups())
def test_nothing_is_fed_that_need_not_be(group: PromptGroup) -> None:
    jobs = plan(group)
    assert all(row.tokens for job in jobs for row in (job.first, *job.rest))
    assert fed_tokens(jobs) <= len(group.prefix) + sum(map(len, set(group.full)))
    if group.full and not group.boundary_cases:
        assert fed_tokens(jobs) == len(group.prefix) + sum(len(full) - len(group.prefix) for full in set(group.full))


def test_a_prefix_shared_by_ten_answers_is_fed_once() -> None:
    prefix = tuple(range(100))
    answers = tuple((*prefix, 200 + n, 300 + n) for n in range(10))
    assert plan(PromptGroup(prefix, answers)) == [
        Job(BatchRow(prefix, 10, 10, 100), tuple(BatchRow(answer[100:], 1) for answer in answers))
    ]


def test_a_merge_across_the_border_costs_its_own_tokens_alone() -> None:
    group = PromptGroup((1, 2, 3, 4), ((1, 2, 3, 4, 5), (1, 2, 3, 9, 5)))
    assert plan(group) == [Job(BatchRow((1, 2, 3), 2, 2, 3), (BatchRow((4, 5), 1, 2, 1), BatchRow((9, 5), 1)))]


def test_one_answer_far_from_the_prefix_does_not_take_it_from_the_others() -> None:
    prefix = tuple(range(50))
    clean = tuple((*prefix, 100 + n) for n in range(5))
    odd = (0, 77, 78)
    jobs = plan(PromptGroup(prefix, (*clean, odd)))
    assert jobs == [
        Job(BatchRow(prefix, 5, 6, 50), tuple(BatchRow(one[50:], 1) for one in clean)),
        Job(BatchRow(odd, 1)),
    ]


def test_sequences_on_two_sides_of_a_rope_switch_share_nothing() -> None:
    group = PromptGroup((1, 2, 3), ((1, 2, 3, 4), (1, 2, 3, 4, 5, 6)))
    assert {row.first.tokens for row in plan(group, switch=4)} == {group.prefix, *group.full}
    assert not any(job.rest for job in plan(group, switch=4))
    assert any(job.rest for job in plan(group, switch=6))


@given(
    st.lists(st.integers(1, 30), max_size=30), st.integers(1, 64), st.integers(0, 10), st.none() | st.integers(1, 30)
)
def test_batches_hold_everything_once_and_keep_to_the_budget(
    lengths: list[int], budget: int, before: int, switch: int | None
) -> None:
    made = list(batches(lengths, length=lambda n: n, budget=budget, before=before, switch=switch))
    assert [n for batch in made for n in batch] == sorted(lengths, reverse=True)
    assert all(len(batch) == 1 or len(batch) * (before + max(batch)) <= budget for batch in made)
    if switch is not None:
        assert all(len({before + n <= switch for n in batch}) == 1 for batch in made)


@given(st.lists(st.integers(1, 5), max_size=20), st.integers(1, 20))
def test_jobs_whose_first_rows_have_one_length_share_a_batch(lengths: list[int], budget: int) -> None:
    jobs = [Job(BatchRow((7,) * n, 1, 1, n), (BatchRow((index,), 1),)) for index, n in enumerate(lengths)]
    made = list(job_batches(jobs, budget=budget))
    assert Counter(job.rest[0].tokens for batch in made for job in batch) == Counter((i,) for i in range(len(lengths)))
    for batch in made:
        assert len({len(job.first.tokens) for job in batch}) == 1
        assert len(batch) == 1 or fed_tokens(Job(job.first) for job in batch) <= budget


def test_a_group_without_answers_has_nothing_to_count() -> None:
    assert plan(PromptGroup((1, 2, 3), ())) == []
    assert plan(PromptGroup((), ((),))) == []


@pytest.mark.parametrize(("start", "scored"), [(0, 3), (1, 3), (2, 2), (4, 0), (9, 0)])
def test_the_first_token_is_never_scored(start: int, scored: int) -> None:
    assert ScoredText((5, 6, 7, 8), start).scored_tokens == scored

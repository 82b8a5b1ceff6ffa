"""Entropy, peak and score: theory first, then cases worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from language_neurons_alignment.core.counts import activation_probability, answer_counts
from language_neurons_alignment.core.selection import activation_threshold, normalised_entropy, normalised_peak, score

counts = st.lists(st.integers(0, 1000), min_size=2, max_size=12)


@given(counts)
def test_entropy_lies_between_0_and_1(row: list[int]) -> None:
    entropy = normalised_entropy(torch.tensor([row], dtype=torch.float32) / 1000)
    assert 0.0 <= float(entropy) <= 1.0


@given(counts, st.randoms())
def test_permuting_languages_changes_neither_entropy_nor_peak(row: list[int], random) -> None:
    shuffled = random.sample(row, len(row))
    one, other = (torch.tensor([values], dtype=torch.float32) / 1000 for values in (row, shuffled))
    torch.testing.assert_close(normalised_entropy(one), normalised_entropy(other))
    assert torch.equal(normalised_peak(one), normalised_peak(other))


@given(counts, st.floats(0.01, 1.0))
def test_entropy_does_not_depend_on_the_scale_of_the_probabilities(row: list[int], factor: float) -> None:
    p = torch.tensor([row], dtype=torch.float64) / 1000
    torch.testing.assert_close(normalised_entropy(p), normalised_entropy(p * factor))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0.7, 0.0, 0.0, 0.0], 0.0),  # one language
        ([0.2, 0.2, 0.2, 0.2], 1.0),  # all alike
        ([0.5, 0.5, 0.0, 0.0], 0.5),  # two of four: ln 2 / ln 4
        ([0.0, 0.0, 0.0, 0.0], 1.0),  # silent everywhere: uniform by definition
        ([0.6, 0.3, 0.1, 0.0], -(0.6 * math.log(0.6) + 0.3 * math.log(0.3) + 0.1 * math.log(0.1)) / math.log(4)),
    ],
)
def test_entropy_of_cases_worked_out_by_hand(row: list[float], expected: float) -> None:
    assert float(normalised_entropy(torch.tensor([row], dtype=torch.float64))) == pytest.approx(expected, abs=1e-12)


def test_the_peak_is_measured_in_means_of_the_first_reciprocals() -> None:
    # K = 2: m = (1 + 1/2) / 2 = 0.75; K = 4: m = (1 + 1/2 + 1/3 + 1/4) / 4 = 25/48
    assert float(normalised_peak(torch.tensor([[0.3, 0.6]], dtype=torch.float64))) == pytest.approx(0.8)
    assert float(normalised_peak(torch.tensor([[0.5, 0.1, 0.0, 0.2]], dtype=torch.float64))) == pytest.approx(0.96)


def test_the_score_is_entropy_less_lambda_times_the_peak() -> None:
    entropy, peak = torch.tensor([[0.9, 0.2]]).double(), torch.tensor([[1.5, 0.5]]).double()
    torch.testing.assert_close(score(entropy, peak, lam=0.2), torch.tensor([[0.6, 0.1]]).double())
    assert torch.equal(score(entropy, peak, lam=0.0), entropy)


def test_the_threshold_is_the_value_of_that_rank_counting_from_1() -> None:
    p = torch.tensor([[[0.4, 0.1], [0.3, 0.2]]])
    assert [activation_threshold(p, rank=rank) for rank in (1, 2, 4)] == pytest.approx([0.1, 0.2, 0.4])


def test_probability_is_the_share_of_answer_tokens() -> None:
    c = torch.tensor([[[3, 0], [6, 5]]])
    expected = torch.tensor([[[0.5, 0.0], [1.0, 0.5]]])
    assert torch.equal(activation_probability(c, tokens=torch.tensor([6, 10])), expected)


def test_a_language_without_answer_tokens_has_probability_0() -> None:
    p = activation_probability(torch.zeros(1, 2, 1, dtype=torch.int64), tokens=torch.tensor([0]))
    assert torch.equal(p, torch.zeros(1, 2, 1))


def test_answer_counts_are_cut_at_0() -> None:
    assert answer_counts(torch.tensor([5, 1]), torch.tensor([3, 2])).tolist() == [2, 0]

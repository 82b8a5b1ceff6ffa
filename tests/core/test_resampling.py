"""Intervals and tests, against scipy's own and against what they promise."""

import numpy as np
import pytest
import torch
from scipy import stats

from language_neurons_alignment.core.resampling import (
    adjusted,
    control_range,
    interval,
    mcnemar,
    one_question,
    resampling_weights,
)
from language_neurons_alignment.errors import SettingsError


def test_every_draw_has_as_many_items_as_there_are_and_depends_on_the_seed_alone() -> None:
    weights = resampling_weights(30, draws=50, seed=3)
    assert (weights.sum(dim=1) == 30).all()
    torch.rand(7)
    assert torch.equal(weights, resampling_weights(30, draws=50, seed=3))
    assert not torch.equal(weights, resampling_weights(30, draws=50, seed=4))


def test_an_interval_is_scipys_percentile_bootstrap() -> None:
    values = torch.tensor(np.random.default_rng(0).normal(size=60))
    ours = interval(resampling_weights(60, draws=20_000) @ values / 60)
    theirs = stats.bootstrap((values.numpy(),), np.mean, n_resamples=20_000, method="percentile", rng=1)
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert float(ours.low) == pytest.approx(theirs.confidence_interval.low, abs=0.03 * width)
    assert float(ours.high) == pytest.approx(theirs.confidence_interval.high, abs=0.03 * width)


def test_intervals_cover_the_truth() -> None:
    """400 corpora of 250 questions of which 60 % are right: 95 % of the intervals hold 0.6, give or take chance."""
    generator = np.random.default_rng(5)
    right = torch.tensor(generator.random((250, 400)) < 0.6, dtype=torch.float64)
    found = interval(resampling_weights(250, draws=1000) @ right / 250)
    assert 0.92 <= float(found.holds(torch.full((400,), 0.6, dtype=torch.float64)).double().mean()) <= 0.98


@pytest.mark.parametrize("sets", [2, 3, 5, 20])
def test_one_more_control_lies_in_the_range_in_95_of_100_cases(sets: int) -> None:
    drawn = torch.randn(sets + 1, 20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(sets))
    assert float(control_range(drawn[:-1]).holds(drawn[-1]).double().mean()) == pytest.approx(0.95, abs=0.005)


@pytest.mark.parametrize("share", [0.0005, 0.002, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("asked", [20, 250])
def test_where_hardly_a_question_turns_one_more_control_lies_in_the_range_too(asked: int, share: float) -> None:
    """Without the one question, the range of five sets in which none turned is a point: 5 to 8 of 100 lie outside."""
    torch.manual_seed(1)
    turned = torch.distributions.Binomial(asked, torch.full((6, 20_000), share)).sample().double()
    points = 100 * turned / asked
    held = control_range(points[:-1], least=float(one_question(torch.tensor(asked)))).holds(points[-1])
    assert float(held.double().mean()) > 0.945


@pytest.mark.parametrize("asked", [3, 7, 20, 49, 250])
def test_a_change_of_one_question_is_inside_and_of_two_is_not_where_no_control_changed_any(asked: int) -> None:
    none, right = torch.zeros(5, 2, dtype=torch.float64), torch.tensor([asked - 1, asked - 2], dtype=torch.float64)
    span = control_range(none, least=one_question(torch.tensor([asked, asked])))
    assert span.holds(100 * (right / asked - 1)).tolist() == [True, False]


def test_a_range_needs_two_sets() -> None:
    with pytest.raises(SettingsError, match="at least 2 sets, got 1"):
        control_range(torch.zeros(1, 3, dtype=torch.float64))


def test_mcnemar_is_the_binomial_test_of_the_questions_that_turned() -> None:
    pairs = [(b, a) for b in range(12) for a in range(12) if a + b]
    before, after = (torch.tensor(side) for side in zip(*pairs, strict=True))
    expected = [stats.binomtest(b, b + a).pvalue for b, a in pairs]
    assert mcnemar(before, after).tolist() == pytest.approx(expected, rel=1e-12)
    assert float(mcnemar(torch.tensor(0), torch.tensor(0))) == 1.0


def test_adjusted_p_by_hand() -> None:
    p = torch.tensor([[0.01, 0.02], [0.03, 0.5]], dtype=torch.float64)
    assert adjusted(p).tolist() == [pytest.approx([0.04, 0.04]), pytest.approx([0.04, 0.5])]

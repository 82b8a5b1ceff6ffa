"""Moments add up, and give the means and variances of the tokens that they are of."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from language_neurons_alignment.core.counts import LanguageCounts, LanguageMoments, SpanCounts, SpanMoments, check_tally
from language_neurons_alignment.errors import IncompatibleError, TallyError


def activations(tokens: int, *, seed: int = 0) -> Tensor:
    """[token, layer, neuron], of several sizes and means."""
    drawn = torch.randn(tokens, 2, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn * torch.tensor([0.1, 1.0, 10.0, 3.0, 0.0]) + torch.tensor([0.0, 5.0, -1.0, 100.0, 0.5])


def moments(values: Tensor) -> SpanMoments:
    return SpanMoments(len(values), values.sum(0), values.square().sum(0))


def test_mean_and_variance_are_torch_s_of_the_same_values() -> None:
    values = activations(500)
    found = moments(values)
    torch.testing.assert_close(found.mean, values.mean(0))
    torch.testing.assert_close(found.variance, values.var(0, correction=0), rtol=1e-9, atol=1e-9)


def test_a_part_is_added_and_taken_away() -> None:
    question, answer = moments(activations(40)), moments(activations(70, seed=1))
    whole = question + answer
    assert whole.total_tokens == 110
    torch.testing.assert_close(whole.sum, activations(40).sum(0) + activations(70, seed=1).sum(0))
    left = LanguageMoments(whole, question).answer
    assert left.total_tokens == 70
    torch.testing.assert_close(left.mean, answer.mean)
    torch.testing.assert_close(left.variance, answer.variance, rtol=1e-9, atol=1e-9)


def test_no_text_is_the_neutral_element_and_has_no_mean() -> None:
    some, nothing = moments(activations(9)), SpanMoments.zero(2, 5)
    assert torch.equal((some + nothing).sum, some.sum)
    assert not nothing.mean.any()
    assert not nothing.variance.any()


def test_a_variance_is_never_below_zero() -> None:
    constant = torch.full((3, 1, 1), 0.1, dtype=torch.float64)
    assert float(moments(constant).variance) >= 0


def test_other_models_do_not_go_together() -> None:
    with pytest.raises(IncompatibleError, match=r"\(2, 5\) and \(2, 6\)"):
        _ = moments(activations(3)) + SpanMoments.zero(2, 6)


def counted() -> LanguageCounts:
    full, prefix = activations(60), activations(20)
    spans = [SpanCounts(len(one), (one > 0).sum(0)) for one in (full, prefix)]
    return LanguageCounts(spans[0], spans[1], LanguageMoments(moments(full), moments(prefix)))


def test_counts_with_moments_and_without_are_not_added() -> None:
    with_moments, without = counted(), replace(counted(), moments=None)
    assert (without + without).moments is None
    doubled = (with_moments + with_moments).moments
    assert doubled is not None
    assert doubled.full.total_tokens == 120
    for one, other in ((with_moments, without), (without, with_moments)):
        with pytest.raises(IncompatibleError, match="--moments"):
            _ = one + other


def test_moments_of_the_same_tokens_tally() -> None:
    check_tally(counted(), full_tokens=60, prefix_tokens=20)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda span: replace(span, total_tokens=61), "full moments are of 61 tokens, the counts of 60"),
        (lambda span: replace(span, sum=span.sum * torch.inf), "not finite"),
        (lambda span: replace(span, sum_of_squares=span.sum_of_squares * torch.nan), "not finite"),
    ],
)
def test_moments_of_other_tokens_are_noticed(change: object, says: str) -> None:
    counts = counted()
    assert counts.moments is not None
    wrong = LanguageMoments(change(counts.moments.full), counts.moments.prefix)  # type: ignore[operator]
    with pytest.raises(TallyError, match=says):
        check_tally(replace(counts, moments=wrong), full_tokens=60, prefix_tokens=20)


def test_a_neuron_that_never_fired_cannot_add_up_to_more_than_nothing() -> None:
    counts = counted()
    silent = SpanCounts(60, torch.zeros_like(counts.full.over_zero))
    with pytest.raises(TallyError, match="never fired"):
        check_tally(replace(counts, full=silent), full_tokens=60, prefix_tokens=20)

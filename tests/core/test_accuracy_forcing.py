"""The forcing table against a count by hand, scipy's bootstrap, and what must not change it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from language_neurons_alignment.core.accuracy import Asked, forcing_table


def random_answers(items: int, seed: int, *, sets: int = 3) -> Asked:
    generator = torch.Generator().manual_seed(seed)
    before, after = (torch.rand(2, items, generator=generator) < share for share in (0.2, 0.6))
    return Asked(before, after, torch.rand(sets, 2, items, generator=generator) < 0.25)


def test_shares_changes_and_p_are_those_of_a_count_by_hand() -> None:
    before = torch.tensor([[1, 0, 0, 0, 0, 0, 0, 0]], dtype=torch.bool)
    after = torch.tensor([[0, 1, 1, 1, 1, 1, 1, 0]], dtype=torch.bool)
    controls = torch.stack([before, torch.zeros_like(before)])
    found = forcing_table([Asked(before, after, controls)])
    assert found.undisturbed.item() == 1 / 8
    assert found.steered.item() == 6 / 8
    assert found.change.item() == 62.5
    assert found.p.item() == pytest.approx(stats.binomtest(1, 7).pvalue)
    assert found.control is not None
    reach = stats.t.ppf(0.975, 1) * np.std([0, -12.5], ddof=1) * 1.5**0.5
    assert found.control.high.item() == pytest.approx(-6.25 + reach)
    assert found.inside is not None
    assert found.inside.item()


def test_intervals_are_scipys_bootstrap_of_paired_questions() -> None:
    one = random_answers(120, seed=3)
    found = forcing_table([one], draws=20_000)
    for target in range(2):
        difference = one.steered[target].double().numpy() - one.undisturbed[target].double().numpy()
        theirs = stats.bootstrap((difference,), np.mean, n_resamples=20_000, method="percentile", rng=1)
        ends = found.interval.low[0, target].item(), found.interval.high[0, target].item()
        assert ends == pytest.approx([100 * end for end in theirs.confidence_interval], abs=1.0)


def test_languages_asked_with_other_numbers_of_questions_do_not_change_one_another() -> None:
    few, many = random_answers(15, seed=1), random_answers(40, seed=2)
    both, alone = forcing_table([few, many]), forcing_table([many])
    assert torch.equal(both.change[1:], alone.change)
    assert torch.equal(both.interval.low[1:], alone.interval.low)
    assert both.control is not None
    assert alone.control is not None
    assert torch.equal(both.control.low[1:], alone.control.low)


def test_without_controls_there_is_no_range_and_nothing_changed_is_no_change() -> None:
    same = random_answers(10, seed=5, sets=0)
    found = forcing_table([Asked(same.undisturbed, same.undisturbed, same.controls)])
    assert found.control is None
    assert found.inside is None
    assert torch.equal(found.change, torch.zeros_like(found.change))
    assert torch.equal(found.interval.high, found.interval.low)
    assert torch.equal(found.p, torch.ones_like(found.p))

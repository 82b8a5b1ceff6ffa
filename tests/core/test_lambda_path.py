"""The λ path against a selection at each λ: random λ, ties, λ at which lines meet, and the exact sweep's λ."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from language_neurons_alignment.core import lambda_path as contest
from language_neurons_alignment.core.lambda_path import LambdaPath, lambda_path
from language_neurons_alignment.core.selection import NeuronStatistics, appear, neuron_statistics, select
from language_neurons_alignment.core.sweep import exact_lambda
from language_neurons_alignment.errors import SettingsError, SweepError
from tests.core.test_sweep import planted, random_statistics


def identified(statistics: NeuronStatistics, top_rate: float, lam: float) -> list[int]:
    chosen = select(statistics, top_rate=top_rate, lam=lam)
    return appear(statistics.languages_above, chosen, languages=statistics.member.shape[-1]).tolist()


def coarse_statistics(seed: int, *, neurons: int = 40, languages: int = 3, tokens: int = 4) -> NeuronStatistics:
    """So few different probabilities that many lines are the same and many meet in one point."""
    generator = torch.Generator().manual_seed(seed)
    probability = torch.randint(0, tokens + 1, (1, neurons, languages), generator=generator) / tokens
    return neuron_statistics(probability, bar=0.6)


def far_from_edges(path: LambdaPath, lam: float) -> bool:
    return bool((path.edges - lam).abs().min() > 1e-9)


@pytest.mark.parametrize("few", [2, contest.FEW])
@settings(max_examples=50)
@given(
    seed=st.integers(0, 10_000), coarse=st.booleans(), lam=st.floats(0.0, 2.0), top_rate=st.sampled_from([0.05, 0.3])
)
def test_the_path_is_what_a_selection_at_each_lambda_counts(
    few: int, seed: int, coarse: bool, lam: float, top_rate: float
) -> None:
    statistics = coarse_statistics(seed) if coarse else random_statistics(seed, languages=4)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(contest, "FEW", few)
        path = lambda_path(statistics, top_rate=top_rate, lo=0.0, hi=2.0)
    expected = identified(statistics, top_rate, lam)
    assert path.at(lam) == expected
    if far_from_edges(path, lam):
        assert path.appear[path.piece(lam)].tolist() == expected
    assert (path.edges[0], path.edges[-1]) == (0.0, 2.0)
    assert bool((path.edges.diff() > 0).all())
    assert bool((path.appear.diff(dim=0) != 0).any(dim=1).all()), "neighbouring pieces differ"


@pytest.mark.parametrize("seed", range(20))
def test_at_an_edge_and_a_float_beside_it_flat_indices_decide_as_they_do_in_a_selection(seed: int) -> None:
    statistics = coarse_statistics(seed)
    path = lambda_path(statistics, top_rate=0.3, lo=0.0, hi=2.0)
    for edge in path.edges.tolist():
        for lam in (edge, math.nextafter(edge, 3), math.nextafter(edge, -1)):
            if 0.0 <= lam <= 2.0:
                assert path.at(lam) == identified(statistics, 0.3, lam)


@pytest.mark.parametrize("seed", range(20))
def test_the_path_ends_being_fine_where_the_exact_sweep_says(seed: int) -> None:
    statistics = random_statistics(seed)
    path = lambda_path(statistics, top_rate=0.1, lo=0.0, hi=2.0)
    fine = (path.appear[:, -1] == 0).nonzero().flatten()
    if not len(fine):
        with pytest.raises(SweepError):
            exact_lambda(statistics, top_rate=0.1, lo=0.0, hi=2.0)
        return
    supremum = float(path.edges[int(fine[-1]) + 1])
    assert exact_lambda(statistics, top_rate=0.1, lo=0.0, hi=2.0).lam == pytest.approx(supremum, abs=1e-9)


def test_a_path_drawn_by_hand() -> None:
    # the plain line is lowest up to 0.2, then the universal one, from 1 on the other plain one
    statistics = planted([(0.3, 0.0), (0.5, 1.0), (1.5, 2.0), (9.0, 0.0)], [False, True, False, False])
    path = lambda_path(statistics, top_rate=0.25, lo=0.0, hi=3.0)
    assert path.edges.tolist() == pytest.approx([0.0, 0.2, 1.0, 3.0])
    assert path.appear.tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 0]]
    assert path.columns()["appear_2"] == [0, 1, 0]
    lams, sampled = path.sampled(4)
    assert lams.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert sampled[:, 2].tolist() == [0, 0, 0, 0]


def test_neurons_that_are_all_alike_never_change_places() -> None:
    statistics = planted([(0.5, 1.0)] * 400, [number % 2 == 0 for number in range(400)])
    path = lambda_path(statistics, top_rate=0.25, lo=0.0, hi=1.0)
    assert path.appear.tolist() == [[50, 0, 50]]


def test_many_lines_that_fan_out_from_one_point_are_followed_without_end() -> None:
    # all meet at λ = 0, where indices decide; above 0 the steepest are lowest
    lines = [(0.0, float(number)) for number in range(300)]
    statistics = planted(lines, [number >= 200 for number in range(300)])
    path = lambda_path(statistics, top_rate=0.5, lo=0.0, hi=1.0)
    assert path.appear.tolist() == [[50, 0, 100]]
    assert path.at(0.0) == [150, 0, 0]


def test_a_range_of_one_point_is_a_path_of_one_piece() -> None:
    statistics = random_statistics(3)
    path = lambda_path(statistics, top_rate=0.3, lo=0.5, hi=0.5)
    assert path.at(0.5) == path.appear[0].tolist() == identified(statistics, 0.3, 0.5)


def test_a_lambda_outside_the_path_is_refused() -> None:
    path = lambda_path(random_statistics(0), top_rate=0.3, lo=0.0, hi=1.0)
    for ask in (path.at, path.piece):
        with pytest.raises(SettingsError, match=r"\[0.0, 1.0\], got 1.5"):
            ask(1.5)
    with pytest.raises(SettingsError, match="0 <= lo <= hi"):
        lambda_path(random_statistics(0), top_rate=0.3, lo=1.0, hi=0.0)

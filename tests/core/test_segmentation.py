"""The cut into stages: against every possible cut, on profiles whose stages are known, and on noise."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from language_neurons_alignment.core.profiles import ClassProfile
from language_neurons_alignment.core.segmentation import Segmentation, segment, segment_profile, stage_p_value
from language_neurons_alignment.errors import SettingsError

CLASSES = ("specific", "related", "general")


def cost_of(values: torch.Tensor, cuts: tuple[int, ...]) -> float:
    """Squared distances to the means of the stages, one stage after the other."""
    ends = (0, *cuts, len(values))
    stages = [values[start:end] for start, end in pairwise(ends)]
    return sum(float(((stage - stage.mean(0)) ** 2).sum()) for stage in stages)


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 3))
def test_no_cut_is_better_than_the_one_found(seed: int, layers: int, features: int) -> None:
    values = torch.randn(layers, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    most = min(layers, 6)
    best, cuts = segment(values, most=most)
    for m in range(1, most + 1):
        every = [cost_of(values, inner) for inner in combinations(range(1, layers), m - 1)]
        assert float(best[m - 1]) == pytest.approx(min(every), abs=1e-9)
        assert cost_of(values, cuts[m - 1]) == pytest.approx(min(every), abs=1e-9)
        assert len(cuts[m - 1]) == m - 1


def profile_of(stages: list[tuple[int, list[int]]], *, noise: int = 0, seed: int = 0) -> ClassProfile:
    """Stages of so many layers with these numbers of neurons, and noise on top."""
    rows = torch.tensor([row for layers, row in stages for _ in range(layers)])
    generator = torch.Generator().manual_seed(seed)
    shaken = rows + torch.randint(-noise, noise + 1, rows.shape, generator=generator)
    return ClassProfile(CLASSES, shaken.clamp(min=0), d_mlp=1000)


FOUR = [(8, [90, 60, 20]), (14, [10, 15, 80]), (8, [60, 80, 30]), (2, [20, 30, 200])]


def test_four_planted_stages_are_found_and_a_fifth_is_worth_nothing() -> None:
    found = segment_profile(profile_of(FOUR, noise=6))
    assert found.stages(4) == [(0, 8), (8, 22), (22, 30), (30, 32)]
    assert found.best == 4
    assert found.supported() == 4
    assert float(found.explained[3]) > 0.95
    assert float(found.gain[4]) < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_noise_has_one_stage(seed: int) -> None:
    found = segment_profile(profile_of([(32, [50, 50, 50])], noise=20, seed=seed))
    assert (found.best, found.supported(level=0.01)) == (1, 1)


def test_the_p_value_of_noise_is_small_no_more_often_than_it_says() -> None:
    small = 0
    for seed in range(120):
        values = torch.randn(16, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        small += stage_p_value(values, cuts=(), permutations=99, seed=seed) <= 0.1
    assert small <= 22  # of 120 at 10 %: 12 expected, 22 or more in 3 of 1,000 cases


def test_more_stages_never_explain_less_and_the_criterion_charges_for_them() -> None:
    found = segment_profile(profile_of(FOUR, noise=10))
    assert bool((found.gain[1:] >= -1e-12).all())
    assert float(found.explained[0]) == 0.0
    n, d = found.layers * 3, 3
    for m in range(1, 7):
        expected = n * math.log(float(found.cost[m - 1]) / n) + (m * d + m - 1) * math.log(n)
        assert float(found.bic[m - 1]) == pytest.approx(expected)


def test_every_class_weighs_the_same_whatever_its_size() -> None:
    small = profile_of(FOUR, noise=6)
    large = ClassProfile(small.classes, small.counts * torch.tensor([1, 100, 1]), small.d_mlp)
    one, other = segment_profile(small, permutations=9), segment_profile(large, permutations=9)
    assert one.cuts == other.cuts
    assert torch.allclose(one.cost, other.cost)


def test_a_class_that_is_the_same_in_every_layer_is_left_out() -> None:
    profile = profile_of([(3, [5, 1, 7]), (3, [9, 1, 3])])
    found = segment_profile(profile)
    assert found.classes == ("specific", "general")
    assert found.stages(2) == [(0, 3), (3, 6)]
    assert float(found.explained[1]) == pytest.approx(1.0)
    flat = segment_profile(profile_of([(4, [1, 1, 1])]))
    assert flat.classes == ()
    assert flat.best == 1
    assert math.isnan(float(flat.explained[0]))


def test_a_model_of_few_layers_has_at_most_as_many_stages() -> None:
    found = segment_profile(profile_of([(1, [5, 1, 7]), (1, [9, 1, 3]), (1, [2, 8, 3])]))
    assert found.stages(3) == [(0, 1), (1, 2), (2, 3)]
    with pytest.raises(SettingsError, match="1 to 3 stages, not 4"):
        found.stages(4)


def test_the_same_seed_gives_the_same_table() -> None:
    first, second = (segment_profile(profile_of(FOUR, noise=10)) for _ in range(2))
    assert isinstance(first, Segmentation)
    assert first.to_frame().equals(second.to_frame())
    assert list(first.to_frame().columns) == ["stages", "cuts", "cost", "explained", "gain", "bic", "p"]

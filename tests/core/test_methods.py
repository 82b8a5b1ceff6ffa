"""Other ways to find language neurons, each against its definition read aloud in plain Python or numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from language_neurons_alignment.core.methods import (
    effect_size,
    equal_n,
    lape,
    mean_difference,
    random_anywhere,
    random_like,
)
from language_neurons_alignment.core.selection import neuron_statistics
from language_neurons_alignment.errors import SettingsError
from tests.lape_reference import lape_by_numpy


def probabilities(seed: int, shape: tuple[int, int, int] = (4, 60, 5)) -> torch.Tensor:
    """Uneven, with neurons that never fire, and many ties."""
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(shape, generator=generator) ** 3
    p[torch.rand(shape[:2], generator=generator) < 0.1] = 0
    return (p * 50).round() / 50 if seed % 2 else p


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("top_rate", "bar"), [(0.05, 0.9), (0.3, 0.95), (1.0, 0.5)])
def test_lape_is_its_definition(seed: int, top_rate: float, bar: float) -> None:
    p = probabilities(seed)
    ours = lape(neuron_statistics(p, bar=bar), top_rate=top_rate)
    assert np.array_equal(ours.numpy(), lape_by_numpy(p.numpy(), top_rate=top_rate, bar=bar))


def test_lape_takes_no_neuron_that_is_above_the_threshold_nowhere() -> None:
    p = torch.zeros(1, 10, 3)
    p[0, 0] = torch.tensor([0.9, 0.0, 0.0])
    p[0, 1] = torch.tensor([0.1, 0.0, 0.0])  # as selective as the first, but hardly ever fires
    mask = lape(neuron_statistics(p, bar=0.98), top_rate=0.5)
    assert mask.nonzero().tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("rate", [0.0, 1.5, math.nan, 1e-9])
def test_a_rate_that_names_no_neuron_is_refused(rate: float) -> None:
    with pytest.raises(SettingsError, match="top_rate"):
        lape(neuron_statistics(probabilities(0), bar=0.9), top_rate=rate)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("neurons", [1, 7, 100_000])
def test_equal_n_is_what_sorting_the_candidates_of_each_language_gives(seed: int, neurons: int) -> None:
    p = probabilities(seed)
    statistics = neuron_statistics(p, bar=0.8)
    mask = equal_n(statistics, neurons=neurons).flatten(0, 1)
    rows, entropy = p.flatten(0, 1).tolist(), statistics.entropy.flatten().tolist()
    for k in range(5):
        candidates = [i for i, row in enumerate(rows) if row[k] > statistics.threshold]
        expected = sorted(sorted(candidates, key=lambda i: (entropy[i], i))[:neurons])
        assert mask[:, k].nonzero().flatten().tolist() == expected


def test_the_effect_is_cohens_d_for_two_languages() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(1000, dtype=torch.float64), torch.randn(1000, dtype=torch.float64) * 3 + 2
    mean = torch.stack([a.mean(), b.mean()]).view(1, 1, 2)
    variance = torch.stack([a.var(correction=0), b.var(correction=0)]).view(1, 1, 2)
    d = (float(b.mean()) - float(a.mean())) / math.sqrt((float(a.var(correction=0)) + float(b.var(correction=0))) / 2)
    assert effect_size(mean, variance).flatten().tolist() == pytest.approx([-d, d], rel=1e-12)


def test_mean_difference_finds_the_planted_neurons_and_is_blind_to_scale_and_offset() -> None:
    generator = torch.Generator().manual_seed(1)
    mean = 0.05 * torch.randn(3, 200, 4, generator=generator, dtype=torch.float64)
    planted = torch.zeros(3, 200, 4, dtype=torch.bool)
    for k in range(4):
        planted[k % 3, 10 * k : 10 * k + 8, k] = True
    mean = mean + planted * 2.0
    variance = torch.ones_like(mean)
    assert torch.equal(mean_difference(effect_size(mean, variance), neurons=8), planted)
    scale = 10 ** torch.randn(3, 200, 1, generator=generator, dtype=torch.float64)
    offset = torch.randn(3, 200, 1, generator=generator, dtype=torch.float64)
    moved = effect_size(mean * scale + offset, variance * scale**2)
    assert torch.equal(mean_difference(moved, neurons=8), planted)


def test_a_neuron_of_a_language_is_more_active_in_it_and_one_without_spread_comes_first() -> None:
    mean = torch.tensor([[[1.0, 1.0], [2.0, 0.0], [0.5, 0.0]]], dtype=torch.float64)
    variance = torch.tensor([[[0.0, 0.0], [4.0, 4.0], [0.0, 0.0]]], dtype=torch.float64)
    effect = effect_size(mean, variance)
    assert effect.tolist() == [[[0.0, 0.0], [1.0, -1.0], [math.inf, -math.inf]]]
    assert mean_difference(effect, neurons=1).nonzero().tolist() == [[0, 2, 0]]
    assert mean_difference(effect, neurons=3).sum(dim=1).tolist() == [[2, 0]], "no language has neurons that avoid it"


@given(st.integers(0, 10**6), st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=5))
def test_random_sets_have_the_sizes_asked_for_and_the_seed_decides_them(seed: int, sizes: list[list[int]]) -> None:
    wanted = torch.tensor(sizes)
    mask = random_like(wanted, d_mlp=9, seed=seed)
    assert torch.equal(mask.sum(dim=1), wanted)
    assert torch.equal(mask, random_like(wanted, d_mlp=9, seed=seed))


def test_another_seed_and_another_language_draw_other_neurons() -> None:
    sizes = torch.full((4, 3), 30)
    masks = [random_like(sizes, d_mlp=300, seed=seed) for seed in range(2)]
    assert not torch.equal(*masks)
    assert not torch.equal(masks[0][..., 0], masks[0][..., 1])


def test_random_neurons_are_drawn_evenly_from_all_layers() -> None:
    masks = [random_anywhere(4, 50, languages=2, neurons=20, seed=seed) for seed in range(400)]
    assert all(mask.sum(dim=(0, 1)).tolist() == [20, 20] for mask in masks)
    often = torch.stack(masks).double().mean(dim=0)  # each place is drawn with probability 1/10
    assert float(often.mean()) == pytest.approx(0.1)
    assert float((often - 0.1).abs().max()) < 5 * math.sqrt(0.1 * 0.9 / 400)

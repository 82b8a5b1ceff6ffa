"""Layers of different width: every result is that of the list of real neurons, laid end to end in one layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from language_neurons_alignment._controls import Controls
from language_neurons_alignment.config import EQUAL_N, LAPE, MEAN_DIFFERENCE, RANDOM, Selection, SweepRange
from language_neurons_alignment.core.counts import AnswerBlocks, LanguageCounts, SpanCounts, check_tally, pair_fault
from language_neurons_alignment.core.find import find, notes_on
from language_neurons_alignment.core.flow import class_flow
from language_neurons_alignment.core.lambda_path import lambda_path
from language_neurons_alignment.core.methods import random_anywhere
from language_neurons_alignment.core.model import ModelInfo
from language_neurons_alignment.core.profiles import class_members, class_profile, count_languages_above
from language_neurons_alignment.core.selection import appear, neuron_statistics
from language_neurons_alignment.core.stability import inclusion, probability_interval, split_halves
from language_neurons_alignment.core.sweep import bisect_lambda, exact_lambda
from language_neurons_alignment.core.widths import is_neuron, widths_fault
from language_neurons_alignment.errors import SettingsError, SweepError, TallyError
from language_neurons_alignment.store.masks import Mask

K = 4


@dataclass(frozen=True)
class Ragged:
    """Probabilities and effects of a model whose layers differ, with nonsense at the places that are no neurons."""

    widths: tuple[int, ...]
    real: Tensor
    p: Tensor
    effect: Tensor

    @classmethod
    def drawn(cls, widths: tuple[int, ...], seed: int) -> Ragged:
        generator = torch.Generator().manual_seed(seed)
        shape, real = (len(widths), max(widths), K), is_neuron(widths, max(widths))
        p = torch.rand(shape, generator=generator) ** 3
        p[torch.rand(shape[:2], generator=generator) < 0.1] = 0
        if seed % 2:
            p = (p * 30).round() / 30  # ties
        p[~real] = torch.rand(int((~real).sum()), K, generator=generator) ** 0.2  # would be selected, and raise τ
        effect = torch.randn(shape, generator=generator).double()
        effect[~real] = 0  # as moments of nothing give it
        return cls(tuple(widths), real, p, effect)

    def listed(self, table: Tensor) -> Tensor:
        """The real neurons of a table, end to end, as one layer."""
        return table[self.real].unsqueeze(0)


WIDTHS = st.lists(st.integers(6, 40), min_size=2, max_size=5).filter(lambda one: len(set(one)) > 1).map(tuple)
SEEDS = st.integers(0, 2**20)
SEARCH = SweepRange(hi=3.0)


@settings(deadline=None, max_examples=30)
@given(
    widths=WIDTHS,
    seed=SEEDS,
    rate=st.floats(0.2, 1.0),
    bar=st.floats(0.2, 1.0),
    chosen=st.sampled_from(
        [
            {"lam": 0.1},
            {"lam": None, "search": SEARCH},
            {"method": LAPE},
            {"method": EQUAL_N, "neurons": 5},
            {"method": MEAN_DIFFERENCE, "neurons": 6},
            {"method": MEAN_DIFFERENCE},
        ]
    ),
)
def test_the_neurons_found_are_those_of_the_list_of_real_neurons(
    widths: tuple[int, ...], seed: int, rate: float, bar: float, chosen: dict[str, Any]
) -> None:
    model = Ragged.drawn(widths, seed)
    selection = Selection(bar=bar, **({} if "neurons" in chosen else {"top_rate": rate}), **chosen)
    found = find(model.p, selection, effect=model.effect, widths=model.widths)
    expected = find(model.listed(model.p), selection, effect=model.listed(model.effect))
    values = np.sort(model.p[model.real].numpy(), axis=None)
    assert found.threshold == expected.threshold == float(values[round(bar * values.size) - 1])
    assert found.lam == expected.lam or (found.lam != found.lam and expected.lam != expected.lam)
    assert found.neurons == expected.neurons
    assert torch.equal(model.listed(found.mask), expected.mask)
    assert torch.equal(model.listed(found.selected), expected.selected)
    assert not found.selected[~model.real].any()
    assert not found.mask[~model.real].any()
    assert found.classes.sizes() == expected.classes.sizes()
    for neurons in vars(found.classes).values():
        assert not neurons[~model.real].any()
    histograms = [appear(one.above, one.selected, languages=K).tolist() for one in (found, expected)]
    assert histograms[0] == histograms[1]
    codes = ("a", "b", "c", "d")
    assert notes_on(found.statistics, model.p * model.real[..., None], codes) == notes_on(
        expected.statistics, model.listed(model.p), codes
    )
    counted = [
        count_languages_above(one.statistics.languages_above, one.selected, languages=K, widths=of)
        for one, of in ((found, widths), (expected, None))
    ]
    assert counted[0].all.sum(dim=1).tolist() == list(model.widths)
    assert torch.equal(counted[0].all.sum(dim=0), counted[1].all.sum(dim=0))
    assert torch.equal(counted[0].selected.sum(dim=0), counted[1].selected.sum(dim=0))
    members, listed = class_members(found.classes), class_members(expected.classes)
    profile = class_profile(members, widths=model.widths)
    assert profile.totals() == class_profile(listed).totals()
    assert profile.neurons == sum(model.widths) == class_profile(listed).neurons
    flow = class_flow(members, members, widths=model.widths)
    assert torch.equal(flow.total, class_flow(listed, listed).total)
    assert flow.counts.sum(dim=(1, 2)).tolist() == list(model.widths)


@settings(deadline=None, max_examples=15)
@given(widths=WIDTHS, seed=SEEDS, rate=st.floats(0.1, 1.0))
def test_the_path_and_the_search_of_lambda_are_those_of_the_list_of_real_neurons(
    widths: tuple[int, ...], seed: int, rate: float
) -> None:
    model = Ragged.drawn(widths, seed)
    ragged = neuron_statistics(model.p, bar=0.6, widths=model.widths)
    listed = neuron_statistics(model.listed(model.p), bar=0.6)
    path, expected = (lambda_path(one, top_rate=rate, lo=0.0, hi=3.0) for one in (ragged, listed))
    assert torch.equal(path.edges, expected.edges)
    assert torch.equal(path.appear, expected.appear)
    for search in (exact_lambda, bisect_lambda):
        ways = {"top_rate": rate, "lo": 0.0, "hi": 3.0} | ({"eps": 1e-3} if search is bisect_lambda else {})
        said = []
        for one in (ragged, listed):
            try:
                found = search(one, **ways)
                said.append((found.lam, found.appear))
            except SweepError as error:
                said.append(str(error))
        assert said[0] == said[1]


@pytest.mark.parametrize("seed", range(4))
def test_random_neurons_are_real_ones_each_equally_often(seed: int) -> None:
    model = Ragged.drawn((5, 30, 12), seed)
    like = find(model.p, Selection(0.3, method=RANDOM, lam=0.0, bar=0.5, seed=seed), widths=model.widths).mask
    own = find(model.p, Selection(0.3, 0.0, 0.5), widths=model.widths).mask
    assert torch.equal(like.sum(dim=1), own.sum(dim=1))
    assert not like[~model.real].any()
    every = random_anywhere(3, 30, languages=2, neurons=47, seed=seed, widths=model.widths)
    assert torch.equal(every, model.real.unsqueeze(-1).expand(-1, -1, 2))
    with pytest.raises(SettingsError, match="--neurons 48 is more than the 47 that the model has"):
        random_anywhere(3, 30, languages=2, neurons=48, seed=seed, widths=model.widths)
    often = sum(
        random_anywhere(3, 30, languages=1, neurons=10, seed=1000 * seed + one, widths=model.widths)[..., 0].long()
        for one in range(400)
    )
    assert isinstance(often, Tensor)
    assert (often[model.real] - 400 * 10 / 47).abs().max() < 6 * (400 * 10 / 47 * 37 / 47) ** 0.5
    assert not often[~model.real].any()


def test_controls_are_drawn_from_real_neurons() -> None:
    widths = (6, 20)
    model = ModelInfo("nowhere", "X", 2, 20, max_length=9, dtype="float32", widths=widths)
    tensor = torch.zeros(2, 20, 1, dtype=torch.bool)
    tensor[0, :3], tensor[1, 5:8] = True, True
    controls = Controls(Mask(("en",), tensor), activity=torch.rand(2, 20, generator=torch.Generator().manual_seed(0)))
    for number in range(1, 30):
        drawn = controls.swap(model, "en", number)(tensor[..., 0])
        assert drawn.sum(dim=1).tolist() == [3, 3]
        assert drawn[0].nonzero().flatten().tolist() == [3, 4, 5]  # the only ones left in the narrow layer
    tensor[0, 3] = True
    with pytest.raises(SettingsError, match="layer 0 has 2 neurons of no language, a control of 4 needs as many"):
        controls.swap(model, "en", 1)(tensor[..., 0])


def test_resampled_corpora_find_what_the_list_of_real_neurons_gives() -> None:
    model = Ragged.drawn((7, 25, 12), 3)
    counts = torch.randint(0, 40, (8, K, 3, 25), generator=torch.Generator().manual_seed(4)).float()
    counts[:, :, ~model.real] = 0
    tokens = torch.full((8, K), 40)
    ragged = AnswerBlocks(counts, tokens, model.widths)
    listed = AnswerBlocks(counts[:, :, model.real].unsqueeze(2), tokens)
    ways = {"languages": ("a", "b", "c", "d"), "seed": 1}
    selection = Selection(0.2, None, 0.6, search=SweepRange(hi=3.0))
    own, expected = (inclusion(one, selection, draws=12, **ways) for one in (ragged, listed))
    assert torch.equal(model.listed(own.probability), expected.probability)
    assert own.columns() == expected.columns()
    numbers = 2 + 4 + K  # λ, τ, classes and masks; then come the layers
    assert torch.equal(own.numbers[:, :numbers].nan_to_num(), expected.numbers[:, :numbers].nan_to_num())
    halves, of_list = (split_halves(one, selection, splits=3, **ways) for one in (ragged, listed))
    torch.testing.assert_close(halves.jaccard, of_list.jaccard, equal_nan=True)
    interval, plain = probability_interval(ragged), probability_interval(listed)
    torch.testing.assert_close(interval.low[model.real], plain.low[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(interval.high[model.real], plain.high[0], rtol=0, atol=1e-12)
    assert not interval.high[~model.real].any()


def test_nothing_may_be_counted_beyond_a_width() -> None:
    def counts(table: list[list[int]]) -> LanguageCounts:
        return LanguageCounts(SpanCounts(9, torch.tensor(table)), SpanCounts(2, torch.zeros(2, 3, dtype=torch.int64)))

    tally = {"full_tokens": 9, "prefix_tokens": 2, "widths": (2, 3)}
    check_tally(counts([[7, 7, 0], [1, 2, 3]]), **tally)
    with pytest.raises(TallyError, match=r"full counts are wrong: layer 0 has 2 neurons \(0\.\.1\), but a number at"):
        check_tally(counts([[7, 7, 1], [1, 2, 3]]), **tally)
    said = pair_fault(counts([[9, 7, 0], [1, 2, 3]]), widths=(2, 3))
    assert said is not None
    assert "1 of 5 neurons" in said


@pytest.mark.parametrize("widths", [[2], [3, 3], [2, 4], [2, 2], [-1, 3], [True, 3], "23", None, [2.0, 3]])
def test_widths_that_no_such_table_has(widths: Any) -> None:
    assert widths_fault([2, 3], 2, 3) is None
    assert "expected those of 2 layers, not all alike, the widest with 3" in (widths_fault(widths, 2, 3) or "")

"""Selection, thresholds, membership and the histogram."""

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from language_neurons_alignment.core.selection import (
    appear,
    classify,
    from_mask_list,
    language_mask,
    lowest,
    neuron_statistics,
    neurons_of_language,
    rank_of_share,
    select,
    to_mask_list,
)
from language_neurons_alignment.errors import ArtifactError, SettingsError


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.data())
def test_the_lowest_are_those_that_sorting_by_value_and_index_puts_first(values: list[int], data) -> None:
    count = data.draw(st.integers(1, len(values)))
    expected = sorted(sorted(range(len(values)), key=lambda i: (values[i], i))[:count])
    taken = lowest(torch.tensor(values, dtype=torch.float64), count=count)
    assert taken.nonzero().flatten().tolist() == expected


def loop_over_neurons(p: list[list[list[float]]], *, top_rate: float, lam: float, bar: float):
    """The definition of the selection, neuron by neuron, in plain Python: another way to the same sets."""
    layers, width, k = len(p), len(p[0]), len(p[0][0])
    flat = sorted(value for layer in p for row in layer for value in row)
    tau = flat[round(bar * len(flat)) - 1]
    m = sum(1 / j for j in range(1, k + 1)) / k
    scores = []
    for layer in p:
        for row in layer:
            total = math.fsum(row)
            q = [value / total for value in row] if total else [1 / k] * k
            entropy = -math.fsum(value * math.log(value) for value in q if value) / math.log(k)
            scores.append(entropy - lam * max(row) / m)
    order = sorted(range(len(scores)), key=lambda i: (scores[i], i))[: round(top_rate * layers * width)]
    member = {i: [value > tau for value in p[i // width][i % width]] for i in order}
    histogram = [sum(sum(row) == j for row in member.values()) for j in range(k + 1)]
    return tau, sorted(order), member, histogram


@pytest.mark.parametrize("seed", range(5))
def test_vectorised_selection_agrees_with_a_loop_over_neurons(seed: int) -> None:
    torch.manual_seed(seed)
    probability = torch.rand(4, 50, 5) ** 3
    rates = {"top_rate": 0.13, "lam": 0.07, "bar": 0.9}
    tau, order, member, histogram = loop_over_neurons(probability.tolist(), **rates)
    statistics = neuron_statistics(probability, bar=rates["bar"])
    selected = select(statistics, top_rate=rates["top_rate"], lam=rates["lam"])
    assert statistics.threshold == pytest.approx(tau, abs=0)
    assert selected.flatten().nonzero().flatten().tolist() == order
    mask = language_mask(statistics, selected).flatten(0, 1)
    assert {i: mask[i].tolist() for i in order} == member
    assert appear(statistics.languages_above, selected, languages=5).tolist() == histogram


def test_permuting_languages_permutes_the_masks() -> None:
    torch.manual_seed(3)
    probability = torch.rand(3, 40, 6)
    order = random.Random(1).sample(range(6), 6)
    masks = []
    for p in (probability, probability[..., order]):
        statistics = neuron_statistics(p, bar=0.9)
        masks.append(language_mask(statistics, select(statistics, top_rate=0.2, lam=0.05)))
    assert torch.equal(masks[0][..., order], masks[1])


def test_belonging_is_strict() -> None:
    probability = torch.tensor([[[0.1, 0.5], [0.5, 0.2]]])
    statistics = neuron_statistics(probability, bar=0.75)  # the third smallest of four: 0.5
    assert statistics.threshold == 0.5
    assert not statistics.member.any()


@pytest.mark.parametrize("share", [float("nan"), float("inf"), 0.0, -0.1, 1.0001])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(SettingsError, match="above 0 and at most 1"):
        rank_of_share(share, 100, "bar")


def test_a_share_that_rounds_to_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match="less than one"):
        rank_of_share(0.001, 100, "top_rate")


def test_classes_are_disjoint_and_general_neurons_come_from_all_neurons() -> None:
    above = torch.tensor([[0, 1, 2, 3, 3, 1]])
    selected = torch.tensor([[True, True, True, False, True, False]])
    classes = classify(above, selected, languages=3)
    assert classes.sizes() == {"specific": 1, "related": 1, "general": 2, "unassigned": 1}
    assert classes.general.tolist() == [[False, False, False, True, True, False]]
    assert not (classes.specific & classes.related).any()


def test_the_stored_form_of_a_mask_reads_back() -> None:
    torch.manual_seed(0)
    mask = torch.rand(3, 20, 4) > 0.8
    stored = to_mask_list(mask)
    assert len(stored) == 4
    assert len(stored[0]) == 3
    assert stored[2][1].dtype == torch.int64
    assert stored[2][1].tolist() == sorted(stored[2][1].tolist())
    assert torch.equal(from_mask_list(stored, d_mlp=20), mask)


def test_a_mask_of_another_model_is_refused() -> None:
    stored = to_mask_list(torch.ones(2, 10, 3, dtype=torch.bool))
    with pytest.raises(ArtifactError, match=r"0\.\.9, the model has 0\.\.7"):
        from_mask_list(stored, d_mlp=8)
    with pytest.raises(ArtifactError, match="same number of layers"):
        from_mask_list([stored[0], stored[1][:1]], d_mlp=10)


def test_specific_and_related_together_are_a_languages_mask() -> None:
    torch.manual_seed(1)
    mask = torch.rand(2, 30, 4) > 0.6
    general = torch.rand(2, 30) > 0.9
    both = neurons_of_language(mask, 1, classes=("specific", "related"))
    assert torch.equal(both, mask[..., 1])
    specific = neurons_of_language(mask, 1, classes=("specific",))
    assert torch.equal(specific, mask[..., 1] & (mask.sum(-1) == 1))
    assert torch.equal(neurons_of_language(mask, 1, classes=("general",), general=general), general)


def test_an_unknown_class_is_refused_and_general_needs_the_general_neurons() -> None:
    mask = torch.ones(1, 2, 2, dtype=torch.bool)
    with pytest.raises(SettingsError, match="unknown neuron class odd"):
        neurons_of_language(mask, 0, classes=("odd",))
    with pytest.raises(SettingsError, match="activation counts"):
        neurons_of_language(mask, 0, classes=("general",))

"""The strongest tokens are those of a plain sort, however they were batched; the rest are plain counts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from language_neurons_alignment.core.readings import (
    BINS,
    EDGES,
    LanguageReadings,
    Readings,
    margins,
    nearest,
    pack,
    read_out,
    unpack,
)

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=40)
@given(st.lists(FLOATS, min_size=2, max_size=9), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 10))
def test_packed_numbers_order_as_activations_do_and_come_out_again(values: list[float], seed: int, first: int) -> None:
    activation, numbers = torch.tensor(values), torch.arange(first, first + len(values))
    packed = pack(activation, numbers, seed=seed)
    assert len(packed.unique()) == len(values), "no two tokens are equal"
    assert torch.equal(activation[packed.argsort()], activation.sort().values)
    found, again = unpack(packed, seed=seed)
    assert torch.equal(found, activation + 0.0)
    assert torch.equal(again, numbers)


def readings_of(
    rows: torch.Tensor, numbers: torch.Tensor, lengths: list[int], *, sizes: list[int], keep: int, seed: int = 0
) -> LanguageReadings:
    """The same rows in batches of these sizes, each padded to its longest row."""
    readings, start = Readings(rows.shape[2], keep=keep, window=2, seed=seed), 0
    for size in sizes:
        some = slice(start, start + size)
        longest = max(lengths[some])
        readings.add(rows[some, :longest], numbers[some, :longest], lengths=torch.tensor(lengths[some]))
        start += size
    return readings.result()


@pytest.mark.parametrize("keep", [1, 3, 40])
@pytest.mark.parametrize("ties", [False, True])
def test_contexts_are_those_of_a_sort_of_all_activations_in_any_batches(keep: int, ties: bool) -> None:
    generator = torch.Generator().manual_seed(keep)
    lengths = [7, 3, 5, 6]
    rows = torch.randn(4, 7, 5, generator=generator)
    if ties:
        rows = rows.round()  # few values, most of them several times
    numbers = torch.full((4, 7), -1)
    offsets = [0, 7, 10, 15]
    for row, (length, offset) in enumerate(zip(lengths, offsets, strict=True)):
        numbers[row, 1:length] = torch.arange(offset + 1, offset + length)  # the first token of each is not counted
    found = readings_of(rows, numbers, lengths, sizes=[4], keep=keep)
    for sizes in ([1, 1, 1, 1], [1, 3], [2, 2]):
        other = readings_of(rows, numbers, lengths, sizes=sizes, keep=keep)
        for name in ("numbers", "activation", "windows", "histogram"):
            assert torch.equal(getattr(found, name).nan_to_num(9e9), getattr(other, name).nan_to_num(9e9)), name
    flat = {int(n): (r, p) for r, row in enumerate(numbers) for p, n in enumerate(row) if n >= 0}
    assert found.tokens == len(flat) == 17
    for neuron in range(5):
        values = sorted((float(rows[at][neuron]) for at in flat.values()), reverse=True)[:keep]
        assert found.activation[neuron, : len(values)].tolist() == values
        kept = found.numbers[neuron][found.numbers[neuron] >= 0].tolist()
        assert len(set(kept)) == len(kept) == min(keep, 17)
        for k, number in enumerate(kept):
            row, position = flat[number]
            assert float(rows[row, position, neuron]) == values[k]
            for step, value in zip(range(-2, 3), found.windows[neuron, k].tolist(), strict=True):
                inside = 0 <= position + step < lengths[row]
                assert value == float(rows[row, position + step, neuron]) if inside else value != value
    assert found.histogram.sum(dim=1).tolist() == [17] * 5
    assert found.fired.tolist() == [sum(float(rows[at][n]) > 0 for at in flat.values()) for n in range(5)]


def test_ties_are_decided_by_the_seed_and_by_nothing_else() -> None:
    rows, numbers = torch.ones(1, 50, 1), torch.arange(50)[None]
    drawn = [readings_of(rows, numbers, [50], sizes=[1], keep=5, seed=seed).numbers[0].tolist() for seed in range(40)]
    assert drawn[0] == readings_of(rows, numbers, [50], sizes=[1], keep=5, seed=0).numbers[0].tolist()
    assert len(set(map(tuple, drawn))) > 30
    seen = {number for one in drawn for number in one}
    assert len(seen) > 45, "every token has its chance"


def test_a_bin_holds_its_upper_edge_and_not_its_lower_one() -> None:
    values = torch.tensor([-1.0, 0.0, EDGES[0], EDGES[0] * 1.001, EDGES[-1], EDGES[-1] * 2])
    readings = Readings(1, keep=1, window=0)
    readings.add(values[None, :, None], torch.arange(6)[None], lengths=torch.tensor([6]))
    expected = torch.zeros(BINS, dtype=torch.int64)
    expected[[0, 1, 2, BINS - 2, BINS - 1]] = torch.tensor([2, 1, 1, 1, 1])
    assert torch.equal(readings.result().histogram[0], expected)


def test_scripts_partners_and_factors_are_counted_on_firings() -> None:
    activation = torch.tensor([[[1.0, 1.0], [-1.0, 2.0], [3.0, 3.0], [4.0, -1.0]]])
    partners = torch.tensor([[1], [0]])
    readings = Readings(2, keep=1, window=0, kinds=2, partners=partners, factors=True)
    kinds = torch.tensor([[0, 1, 1, -1]])
    positive = torch.tensor([[[True, False], [True, True], [False, True], [True, True]]])
    readings.add(activation, torch.arange(4)[None], lengths=torch.tensor([4]), kinds=kinds, positive=positive)
    found = readings.result()
    assert found.scripts.tolist() == [[1, 1], [1, 2]]
    assert found.together.tolist() == [[2], [2]]
    assert found.positive is not None
    assert found.positive.tolist() == [2, 2]


def test_nearest_and_readout_equal_whole_matrices_cut_into_any_blocks() -> None:
    generator = torch.Generator().manual_seed(0)
    directions, unembedding = (torch.randn(n, 6, generator=generator) for n in (9, 2000))
    near, cosine = nearest(directions, most=3, block=4)
    whole = torch.nn.functional.cosine_similarity(directions[:, None], directions[None], dim=-1)
    whole.fill_diagonal_(-9)
    assert torch.equal(near, whole.topk(3).indices)
    torch.testing.assert_close(cosine, whole.topk(3).values)
    found = read_out(directions, unembedding, most=4, languages=[torch.arange(5), torch.arange(7, 90)], scale=0.5)
    logits = 0.5 * directions @ unembedding.T
    assert torch.equal(found.promoted, logits.topk(4).indices)
    assert torch.equal(found.suppressed, (-logits).topk(4).indices)
    torch.testing.assert_close(found.suppressed_logits, -(-logits).topk(4).values)
    torch.testing.assert_close(found.mean_logit, logits.mean(dim=1))
    means = torch.stack([unembedding[:5].mean(0), unembedding[7:90].mean(0)])
    expected = torch.nn.functional.cosine_similarity(directions[:, None], (means - means.mean(0))[None], dim=-1)
    torch.testing.assert_close(found.cosine, expected)


def test_a_margin_is_the_least_of_the_own_less_the_most_of_the_others() -> None:
    probability = torch.tensor([[0.9, 0.7, 0.2], [0.9, 0.7, 0.2], [0.9, 0.7, 0.2]])
    own = torch.tensor([[True, True, False], [True, True, True], [False, False, False]])
    torch.testing.assert_close(margins(probability, own), torch.tensor([0.5, 0.2, -0.9]))

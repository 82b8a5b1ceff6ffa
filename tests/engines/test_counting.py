"""Counting in lanes is exact, and a hook that sees other tokens than those fed is an error."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from language_neurons_alignment.engines.transformers.counting import (
    FiringCounter,
    Lanes,
    Scratch,
    add_firings,
    firings,
    from_bits,
    from_comparison,
)
from language_neurons_alignment.engines.transformers.plan import CACHED, Batch, BatchRow
from language_neurons_alignment.engines.transformers.sites import NeuronSite
from language_neurons_alignment.errors import EngineError, SilentHookError, TallyError

CPU = torch.device("cpu")
EDGES = [0.0, -0.0, 1e-45, -1e-45, 1e-40, 6e-8, -6e-8, 1.0, -1.0, float("inf"), float("-inf"), 3e38, -3e38]
MAKERS = [lambda x: from_bits(x, Scratch()), from_comparison, lambda x: firings(x, Scratch())]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_firing_is_an_activation_above_zero_to_the_last_bit(make: object, dtype: torch.dtype) -> None:
    every_16_bits = torch.arange(-(2**15), 2**15).to(torch.int16)
    values = every_16_bits.view(dtype) if dtype.itemsize == 2 else torch.tensor(EDGES, dtype=dtype)
    values = values[~values.isnan()]
    assert torch.equal(make(values[None, None])[0, 0].bool(), values > 0)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("neurons", [8, 13, 24])
@pytest.mark.parametrize("positions", [1, 255, 256, 700])
def test_sums_are_exact_where_every_neuron_fires(
    make: object, dtype: torch.dtype, neurons: int, positions: int
) -> None:
    lanes = Lanes(make(torch.ones(2, positions, neurons, dtype=dtype)))
    assert (lanes.per_row(0, positions) == positions).all()


def test_lanes_of_16_bits_do_not_overflow() -> None:
    lanes = Lanes(from_bits(torch.ones(1, 70_000, 4, dtype=torch.bfloat16), Scratch()))
    assert lanes.per_row(0, 70_000).tolist() == [[70_000] * 4]


rows = st.lists(
    st.tuples(st.integers(1, 12), st.integers(0, 3), st.integers(0, 4), st.integers(0, 12)).map(
        lambda t: BatchRow((7,) * t[0], t[1], t[2], min(t[0], t[3]))
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(rows, st.sampled_from([8, 5]), st.sampled_from([0, 1]), st.sampled_from([1, 20, 40]), st.integers(0, 1000))
def test_positions_count_by_their_weights_and_padding_never(
    some: list[BatchRow], neurons: int, make: int, tokens_in_a_block: int, seed: int
) -> None:
    batch = Batch.of(some, CPU, d_mlp=CACHED // tokens_in_a_block)
    activation = torch.randn(*batch.tokens.shape, neurons, generator=torch.Generator().manual_seed(seed)).relu()
    full, prefix = torch.zeros(neurons, dtype=torch.int64), torch.zeros(neurons, dtype=torch.int64)
    for block in batch.blocks:
        add_firings(Lanes(MAKERS[make](activation[block.rows, : block.longest])), block, full, prefix)
    fired = activation > 0
    assert torch.equal(full, _sum(row.full * fired[i, : len(row.tokens)].sum(0) for i, row in enumerate(some)))
    assert torch.equal(prefix, _sum(row.prefix * fired[i, : row.prefix_length].sum(0) for i, row in enumerate(some)))
    assert batch.full_tokens == sum(row.full * len(row.tokens) for row in some)
    assert batch.prefix_tokens == sum(row.prefix * row.prefix_length for row in some)


def _sum(parts: object) -> Tensor:
    return torch.stack(list(parts)).sum(0)


def two_layers() -> FiringCounter:
    return FiringCounter([NeuronSite(layer, nn.Identity(), 8, "act", "down") for layer in (0, 1)], CPU)


def counter() -> FiringCounter:
    made = two_layers()
    made.expect(Batch.of([BatchRow((1, 2, 3), 1, 1, 2)], CPU))
    return made


def fire(made: FiringCounter, layer: int, *shape: int) -> None:
    module, hook = made.hooks()[layer]
    hook(module, (), torch.ones(*shape))


def test_what_fired_in_every_layer_is_counted_once() -> None:
    made = counter()
    fire(made, 0, 1, 3, 8)
    fire(made, 1, 3, 8)  # as OPT has it: rows and positions in one
    made.settle(torch.zeros(1))
    counts = made.counts()
    assert (counts.full.total_tokens, counts.prefix.total_tokens) == (3, 2)
    assert counts.full.over_zero.tolist() == [[3] * 8] * 2
    assert counts.prefix.over_zero.tolist() == [[2] * 8] * 2


def test_a_layer_that_stays_silent_is_an_error() -> None:
    made = counter()
    fire(made, 0, 1, 3, 8)
    with pytest.raises(SilentHookError, match=r"1 of 2 .*layer 1: 0 times"):
        made.settle(torch.zeros(1))


def test_a_layer_that_fires_twice_is_an_error() -> None:
    made = counter()
    for layer in (0, 0, 1):
        fire(made, layer, 1, 3, 8)
    with pytest.raises(SilentHookError, match="layer 0: 2 times"):
        made.settle(torch.zeros(1))


@pytest.mark.parametrize("shape", [(1, 2, 8), (2, 3, 8), (1, 3, 4)])
def test_a_layer_that_sees_other_tokens_or_neurons_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(TallyError, match="1 × 3 tokens and 8 neurons were expected"):
        fire(counter(), 0, *shape)


def test_a_forward_that_was_not_asked_for_is_an_error() -> None:
    with pytest.raises(TallyError, match="nothing was fed"):
        fire(two_layers(), 0, 1, 3, 8)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_an_error_with_a_remedy(value: float) -> None:
    made = counter()
    for layer in (0, 1):
        fire(made, layer, 1, 3, 8)
    made.settle(torch.tensor([0.0, value]))
    with pytest.raises(EngineError, match=r"NaN or infinite .* --dtype bfloat16"):
        made.counts()

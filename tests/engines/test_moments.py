"""Adding up activations: exact weights, no padding, in blocks, and without touching what the model computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from language_neurons_alignment.engines import moments as summing
from language_neurons_alignment.engines.moments import MomentSums, language_moments
from language_neurons_alignment.engines.transformers.plan import CACHED, Batch, BatchRow
from language_neurons_alignment.engines.vllm.firing import ActivationSums
from language_neurons_alignment.engines.vllm.sites import RankSite
from tests.engines.test_counting import CPU, rows
from tests.engines.test_vllm_worker import SiluAndMul


@given(rows, st.sampled_from([1, 20, 40]), st.integers(0, 1000))
def test_positions_add_by_their_weights_and_padding_never(
    some: list[BatchRow], tokens_in_a_block: int, seed: int
) -> None:
    batch = Batch.of(some, CPU, d_mlp=CACHED // tokens_in_a_block)
    activation = torch.randn(*batch.tokens.shape, 5, generator=torch.Generator().manual_seed(seed))
    sums = MomentSums(2, 5, CPU)
    for block in batch.blocks:
        sums.add(1, activation[block.rows, : block.longest].flatten(0, 1), block.weights)
    total, seen = sums.total(), activation.double().numpy()
    assert not total[0].any()
    for power in (0, 1):
        values = seen ** (power + 1)
        full = sum(row.full * values[i, : len(row.tokens)].sum(0) for i, row in enumerate(some))
        prefix = sum(row.prefix * values[i, : row.prefix_length].sum(0) for i, row in enumerate(some))
        np.testing.assert_allclose(total[1, power].numpy(), [full, prefix], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_blocks_and_precisions_make_no_difference_and_activations_stay(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    activation = (torch.randn(300, 7) * 100).to(dtype)
    before, weights = activation.clone(), torch.randint(0, 9, (2, 300))
    expected = torch.stack([weights.double() @ activation.double() ** power for power in (1, 2)])
    for block in (2**18, 7 * 16):
        monkeypatch.setitem(summing.BLOCK, "cpu", block)
        sums = MomentSums(1, 7, CPU)
        sums.add(0, activation, weights)
        torch.testing.assert_close(sums.total()[0], expected, rtol=1e-13, atol=1e-9)
    assert torch.equal(activation, before)


def test_sums_become_moments_in_their_places() -> None:
    sums = torch.arange(2 * 2 * 2 * 3, dtype=torch.float64).reshape(2, 2, 2, 3)
    made = language_moments(sums, full_tokens=9, prefix_tokens=4)
    assert (made.full.total_tokens, made.prefix.total_tokens) == (9, 4)
    for span, moments in enumerate((made.full, made.prefix)):
        assert torch.equal(moments.sum, sums[:, 0, span])
        assert torch.equal(moments.sum_of_squares, sums[:, 1, span])


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("touched", [True, False])
def test_a_rank_adds_act_of_the_gate_as_it_was_changed(merged: bool, touched: bool) -> None:
    module = SiluAndMul() if merged else nn.SiLU()
    gate = torch.randn(50, 4)
    activation = nn.functional.silu(gate)
    changed = None
    if touched:
        activation[:, [1, 3]] = torch.randn(50, 2)
        changed = (torch.tensor([1, 3]), activation[:, [1, 3]])
    site = RankSite(7, nn.Identity(), module, merged)
    sums = ActivationSums([site], 4, CPU)
    weights = np.random.default_rng(0).integers(0, 5, (2, 45))  # the last five rows are padding
    sums.weigh(weights)
    sums.add(site, gate if merged else activation, changed=changed)
    values = activation[:45].double().numpy()
    np.testing.assert_allclose(sums.total()[0].numpy(), [weights @ values, weights @ values**2], rtol=1e-6)

"""Activations and their squares, added up in float64, layer by layer, on the device where they are.

    sum[layer, span, neuron] = Σ_row weight[span, row] · a[row, neuron]        and the same of a²

as matrix products over blocks of rows. Float64 holds activations of 16 or 32 bits, their squares, and weights up to 2⁵³
exactly, so only the sum itself is rounded, at the sixteenth digit.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ..core.counts import LanguageMoments, SpanMoments

BLOCK = {"cpu": 2**18, "cuda": 2**24}
"""Activations in a block of rows, by device: what fits a CPU's cache, or fills a GPU."""

POWERS = SPANS = 2


class MomentSums:
    """The sums so far of activations and of their squares, over the full and over the prefix sequences."""

    def __init__(self, layers: int, neurons: int, device: torch.device) -> None:
        """Start at 0."""
        where = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
        self._sums = torch.zeros(layers, POWERS, SPANS, neurons, dtype=torch.float64, device=where)
        self._buffer = torch.empty(0, dtype=torch.float64, device=where)

    def add(self, layer: int, activation: Float[Tensor, "row neuron"], weights: Int64[Tensor, "span row"]) -> None:
        """Add one layer's activations, which stay as they are.

        Args:
            layer: its place among the layers given at the start.
            activation: the output of the neurons' site.
            weights: how often each row counts for the full and for the prefix sequences.
        """
        times, sums = weights.to(self._sums), self._sums[layer]
        rows, neurons = activation.shape
        for start, stop in blocks(rows, neurons, activation.device):
            values = self._room(activation[start:stop]).copy_(activation[start:stop])
            sums[0].addmm_(times[:, start:stop], values)
            sums[1].addmm_(times[:, start:stop], values.square_())

    def total(self) -> Float64[Tensor, "layer power span neuron"]:
        """The sums, on the CPU."""
        return self._sums.cpu()

    def _room(self, like: Tensor) -> Tensor:
        """Memory that every block uses again: on CPUs, fresh pages cost more than the sums."""
        if self._buffer.numel() < like.numel():
            self._buffer = self._buffer.new_empty(like.numel())
        return self._buffer[: like.numel()].view(like.shape)


def blocks(rows: int, neurons: int, device: torch.device) -> list[tuple[int, int]]:
    """Rows in blocks that suit the device's memory, each as (start, stop)."""
    step = max(16, BLOCK.get(device.type, BLOCK["cuda"]) // neurons)
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def language_moments(
    sums: Float64[Tensor, "layer power span neuron"], *, full_tokens: int, prefix_tokens: int
) -> LanguageMoments:
    """The sums as a language's moments, over the tokens that the hooks saw."""
    (full, prefix), (full_squares, prefix_squares) = sums.permute(1, 2, 0, 3).contiguous().unbind()
    return LanguageMoments(
        SpanMoments(full_tokens, full, full_squares), SpanMoments(prefix_tokens, prefix, prefix_squares)
    )

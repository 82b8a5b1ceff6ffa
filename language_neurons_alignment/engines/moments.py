"""Activations and their squares, added up in float64, layer by layer, on the device where they are.

    sum[layer, span, neuron] = Σ_row weight[span, row] · a[row, neuron]        and the same of a²

as matrix products over blocks of rows. Float64 holds activations of 16 or 32 bits, their squares, and weights up to 2⁵³
exactly, so only the sum itself is rounded, at the sixteenth digit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ..core.counts import LanguageMoments, SpanMoments

BLOCK = {"cpu": 2**18, "cuda": 2**24}
"""Activations in a block of rows, by device: what fits a CPU's cache, or fills a GPU."""

POWERS = SPANS = 2


class Scratch:
    """Memory that every layer uses again: on CPUs, fresh pages cost more than counting."""

    def __init__(self, device: torch.device | None = None) -> None:
        self._buffer = torch.empty(0, dtype=torch.int64, device=device)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """An uninitialised tensor; it is valid until the next call."""
        size = math.prod(shape)
        words = -(-size * dtype.itemsize // 8)
        if self._buffer.numel() < words:
            self._buffer = self._buffer.new_empty(words)
        return self._buffer.view(dtype)[:size].view(*shape)


class MomentSums:
    """The sums so far of activations and of their squares, over the full and over the prefix sequences."""

    def __init__(self, layers: int, neurons: int, device: torch.device) -> None:
        where = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
        self._sums = torch.zeros(layers, POWERS, SPANS, neurons, dtype=torch.float64, device=where)
        self._scratch = Scratch(where)

    def add(
        self,
        layer: int,
        activation: Float[Tensor, "row neuron"],
        weights: Int64[Tensor, "span row"],
        *,
        start: int = 0,
    ) -> None:
        """Add activations of one layer's neurons from `start` on, as they are, each row as often as it counts."""
        rows, neurons = activation.shape
        times, sums = weights.to(self._sums), self._sums[layer, ..., start : start + neurons]
        for start, stop in blocks(rows, neurons, activation.device):
            values = self._scratch.empty((stop - start, neurons), torch.float64).copy_(activation[start:stop])
            sums[0].addmm_(times[:, start:stop], values)
            sums[1].addmm_(times[:, start:stop], values.square_())

    def total(self) -> Float64[Tensor, "layer power span neuron"]:
        """The sums, on the CPU."""
        return self._sums.cpu()


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

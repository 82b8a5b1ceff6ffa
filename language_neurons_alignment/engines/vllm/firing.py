"""Counting firings in the layers of one rank, and changing activations there.

    over_zero[span, layer, neuron] = Σ_row weight[span, row] · [activation[row, neuron] > 0]

The sum is a matrix product in float32, and it is exact. Float32 holds every integer up to 2²⁴, so weights are split into
digits below 2¹⁰ (which TF32 holds too), rows into pieces of 2¹⁴, and a layer's sums move to int64 before they reach 2²⁴:
one piece adds at most (2¹⁰ − 1) · 2¹⁴ < 2²⁴.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ...core.interventions import LayerIntervention
from ..moments import MomentSums, blocks
from .sites import RankSite

DIGIT = 2**10
PIECE = 2**14
"""Rows added up in float32 at a time."""

_EXACT = 2**24
_BLOCK = {"cpu": 2**18, "cuda": 2**24}
"""Activations looked at in one go, by device: what a cache holds, or what fills a GPU."""


@dataclass(frozen=True)
class RowWeights:
    """How often each row of a step counts.

    Attributes:
        digits: [plane, row]: full, prefix, then full / 2¹⁰, prefix / 2¹⁰, …
        largest: for each piece of `PIECE` rows, the largest sum over its rows in any plane.
    """

    digits: Tensor
    largest: tuple[int, ...]

    @classmethod
    def of(cls, weights: Int64[np.ndarray, "span row"], *, planes: int, device: torch.device) -> RowWeights:
        """The weights of a step's rows, in as many planes as the whole tree needs."""
        digits = np.concatenate([weights // DIGIT**power % DIGIT for power in range(planes // 2)])
        starts = range(0, digits.shape[1], PIECE)
        largest = tuple(int(digits[:, start : start + PIECE].sum(axis=1).max()) for start in starts)
        return cls(torch.from_numpy(digits.astype(np.float32)).to(device, non_blocking=True), largest)


class FiringSums:
    """The firings counted so far in this rank's layers."""

    def __init__(
        self, sites: Sequence[RankSite], weights: Int64[np.ndarray, "span node"], *, device: torch.device
    ) -> None:
        """Start from zero.

        Args:
            sites: the rank's layers.
            weights: of all nodes, for the number of digits that they need.
            device: where the model computes.
        """
        largest = int(weights.max(initial=0))
        self.planes = 2 * max(1, -(-largest.bit_length() // 10))
        self._row = {site.layer: index for index, site in enumerate(sites)}
        self._device = device
        self._sums: Tensor | None = None
        self._total: Tensor | None = None
        self._held = [0] * len(sites)
        self._fired: Tensor | None = None

    def add(
        self, layer: int, activation: Tensor, weights: RowWeights, *, changed: tuple[Tensor, Tensor] | None
    ) -> None:
        """Count one layer's firings in one step.

        Args:
            layer: by its number in the model.
            activation: [row, neuron]: anything of the activation's sign.
            weights: of the first rows; the rest is padding.
            changed: neurons whose activation was changed, and what it is now.
        """
        rows, neurons = weights.digits.shape[1], activation.shape[1]
        self._make(neurons)
        block = max(16, _BLOCK.get(activation.device.type, _BLOCK["cuda"]) // neurons)
        for piece, coming in enumerate(weights.largest):
            sums = self._with_room(self._row[layer], coming)
            end = min((piece + 1) * PIECE, rows)
            for start in range(piece * PIECE, end, block):
                stop = min(start + block, end)
                here = torch.gt(activation[start:stop], 0, out=self._buffer(stop - start, neurons))
                if changed is not None:
                    here[:, changed[0]] = (changed[1][start:stop] > 0).to(here.dtype)
                sums.addmm_(weights.digits[:, start:stop], here)

    def total(self, neurons: int) -> Int64[Tensor, "layer span neuron"]:
        """Everything counted, on the CPU."""
        _, total = self._make(neurons)
        for row in range(len(self._row)):
            self._flush(row)
        return total.cpu()

    def _with_room(self, row: int, coming: int) -> Tensor:
        """A layer's sums in float32, emptied first if what is coming could bring one to 2²⁴."""
        if self._held[row] + coming >= _EXACT:
            self._flush(row)
        self._held[row] += coming
        assert self._sums is not None  # made by _make
        return self._sums[row]

    def _flush(self, row: int) -> None:
        """Move what float32 holds of a layer to int64."""
        assert self._sums is not None  # made by _make
        assert self._total is not None
        for power in range(self.planes // 2):
            self._total[row] += self._sums[row, 2 * power : 2 * power + 2].to(torch.int64) * DIGIT**power
        self._sums[row].zero_()
        self._held[row] = 0

    def _make(self, neurons: int) -> tuple[Tensor, Tensor]:
        if self._sums is None or self._total is None:
            self._sums = torch.zeros(len(self._row), self.planes, neurons, device=self._device)
            self._total = torch.zeros(len(self._row), 2, neurons, dtype=torch.int64, device=self._device)
        return self._sums, self._total

    def _buffer(self, rows: int, neurons: int) -> Tensor:
        if self._fired is None or self._fired.shape[0] < rows:
            self._fired = torch.empty(rows, neurons, device=self._device)
        return self._fired[:rows]


def change_(site: RankSite, inputs: Tensor, output: Tensor, change: LayerIntervention) -> Tensor:
    """Put an intervention on a layer's activations, in place in what its module returned.

        merged  out[:, i] ← (s · act(gate[:, i]) + b) · up[:, i]
        plain   out[:, i] ← s · out[:, i] + b

    act is the module itself with up = 1, so it is the model's own function in the model's own precision.

    Returns:
        The changed activations, [row, touched].
    """
    index = change.neurons
    if not site.merged:
        activation = output[:, index]
        _affine_(activation, change)
        output[:, index] = activation
        return activation
    neurons = inputs.shape[1] // 2
    gate = inputs[:, :neurons][:, index]
    activation = act(site, gate)
    _affine_(activation, change)
    output[:, index] = activation * inputs[:, neurons:][:, index]
    return activation


def act(site: RankSite, gate: Tensor) -> Tensor:
    """The activations that a merged module multiplies by up: what it gives where up = 1."""
    return site.module.forward(torch.cat([gate, torch.ones_like(gate)], dim=-1))


def _affine_(activation: Tensor, change: LayerIntervention) -> None:
    everything = torch.arange(activation.shape[-1], device=activation.device)
    LayerIntervention(everything, change.scale, change.shift).apply_(activation)


def flat(tensor: Tensor) -> Tensor:
    """[…, neuron] as [row, neuron]: vLLM's transformers backend keeps a batch axis."""
    return tensor.view(-1, tensor.shape[-1])


# ── Adding up the activations themselves in the layers of one rank.


class ActivationSums:
    """The moments so far of this rank's neurons."""

    def __init__(self, sites: Sequence[RankSite], neurons: int, device: torch.device) -> None:
        """Start from zero."""
        self._place = {site.layer: index for index, site in enumerate(sites)}
        self._sums = MomentSums(len(sites), neurons, device)
        self._weights = torch.zeros(2, 0, dtype=torch.int64, device=device)

    def weigh(self, weights: Int64[np.ndarray, "span row"]) -> None:
        """A step begins: how often each of its rows counts; rows beyond these are padding."""
        self._weights = torch.from_numpy(weights).to(self._weights.device, non_blocking=True)

    def add(self, site: RankSite, given: Tensor, *, changed: tuple[Tensor, Tensor] | None) -> None:
        """Add one layer's activations in one step.

        Args:
            site: the layer.
            given: [row, neuron]: the gate where the layer's module is merged, else what the module gave.
            changed: neurons whose activation was changed, and what it is now.
        """
        layer, rows = self._place[site.layer], self._weights.shape[1]
        for start, stop in blocks(given[:rows]):
            here = given[start:stop]
            if site.merged:  # else what the module gave is what it was changed to
                here = act(site, here)
                if changed is not None:
                    here[:, changed[0]] = changed[1][start:stop]
            self._sums.add(layer, here, self._weights[:, start:stop])

    def total(self) -> Float64[Tensor, "layer power span neuron"]:
        """Everything added up, on the CPU."""
        return self._sums.total()

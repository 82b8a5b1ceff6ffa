"""Sums of firings and of activations in the layers of one rank, and interventions on its activations.

    over_zero[span, layer, neuron] = Σ_row weight[span, row] · [activation[row, neuron] > 0]

The sum is a matrix product in float32, and it is exact. Float32 holds every integer up to 2²⁴, so weights are split
into digits below 2¹⁰ (which TF32 holds too), rows into pieces of 2¹⁴, and a layer's sums move to int64 before they
could reach 2²⁴: one piece adds at most (2¹⁰ − 1) · 2¹⁴ < 2²⁴.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ...core.interventions import LayerIntervention
from ..moments import MomentSums, Scratch, blocks
from .sites import RankSite

DIGIT = 2**10
PIECE = 2**14
"""The most rows whose weights are added up in float32 before the sums are checked."""

_EXACT = 2**24


@dataclass(frozen=True)
class RowWeights:
    """How often each row of a step counts."""

    digits: Tensor  # [plane, row]: full, prefix, then full / 2¹⁰, prefix / 2¹⁰, …
    largest: tuple[int, ...]  # for each piece of `PIECE` rows, the largest sum over its rows in any plane

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
        self, sites: Sequence[RankSite], neurons: int, weights: Int64[np.ndarray, "span node"], *, device: torch.device
    ) -> None:
        self.planes = 2 * max(1, -(-int(weights.max(initial=0)).bit_length() // 10))
        self._place = places(sites)
        self._sums = torch.zeros(len(self._place), self.planes, neurons, dtype=torch.float32, device=device)
        self._total = torch.zeros(len(self._place), 2, neurons, dtype=torch.int64, device=device)
        self._held = [0] * len(self._place)
        self._scratch = Scratch(device)

    def add(self, site: RankSite, given: Tensor, weights: RowWeights, *, changed: tuple[Tensor, Tensor] | None) -> None:
        """Count one layer's firings in one step: `given` is the gate where the module is merged, else its output.

        `weights` are those of the first rows, the rest is padding; `changed` has the neurons that an intervention
        changed, and their activations now.
        """
        place, rows, neurons = self._place[site.layer], weights.digits.shape[1], given.shape[1]
        sums = self._sums[place, :, site.start : site.start + neurons]
        for piece, coming in enumerate(weights.largest):
            if self._held[place] + coming >= _EXACT:
                self._flush(place)
            self._held[place] += coming
            first = piece * PIECE
            for start, stop in blocks(min(PIECE, rows - first), neurons, given.device):
                here = slice(first + start, first + stop)
                fired = self._scratch.empty((stop - start, neurons), torch.float32)
                torch.gt(given[here] if site.signed else site.activation(given[here]), 0, out=fired)
                if changed is not None:
                    fired[:, changed[0]] = (changed[1][here] > 0).to(fired.dtype)
                sums.addmm_(weights.digits[:, here], fired)

    def add_expert(self, site: RankSite, start: int, activation: Tensor, tokens: Tensor, weights: RowWeights) -> None:
        """Count the firings of one expert of a layer, whose neurons begin at `start`, on its tokens, by row."""
        place = self._place[site.layer]
        sums = self._sums[place, :, start : start + activation.shape[1]]
        for piece, coming in enumerate(weights.largest):
            if self._held[place] + coming >= _EXACT:
                self._flush(place)
            self._held[place] += coming
            here = (tokens >= piece * PIECE) & (tokens < min((piece + 1) * PIECE, weights.digits.shape[1]))
            sums.addmm_(weights.digits[:, tokens[here]], (activation[here] > 0).to(torch.float32))

    def total(self) -> Int64[Tensor, "layer span neuron"]:
        """The counts, on the CPU."""
        for place in range(len(self._held)):
            self._flush(place)
        return self._total.cpu()

    def _flush(self, place: int) -> None:
        """Move a layer's sums from float32 to int64."""
        for power in range(self.planes // 2):
            self._total[place] += self._sums[place, 2 * power : 2 * power + 2].to(torch.int64) * DIGIT**power
        self._sums[place].zero_()
        self._held[place] = 0


class ActivationSums:
    """The moments so far of this rank's neurons."""

    def __init__(self, sites: Sequence[RankSite], neurons: int, device: torch.device) -> None:
        self._place = places(sites)
        self._sums = MomentSums(len(self._place), neurons, device)
        self._weights = torch.zeros(2, 0, dtype=torch.int64, device=device)

    def weigh(self, weights: Int64[np.ndarray, "span row"]) -> None:
        """Take how often each row of the coming step counts; rows beyond these are padding."""
        self._weights = torch.from_numpy(weights).to(self._weights.device, non_blocking=True)

    def add(self, site: RankSite, given: Tensor, *, changed: tuple[Tensor, Tensor] | None) -> None:
        """Add one layer's activations in one step: `given` is the gate where the module is merged, else its output."""
        layer, rows = self._place[site.layer], self._weights.shape[1]
        for start, stop in blocks(rows, given.shape[1], given.device):
            here = given[start:stop]
            if site.merged:  # a plain module's output holds the changes already
                here = site.activation(here)
                if changed is not None:
                    here[:, changed[0]] = changed[1][start:stop]
            self._sums.add(layer, here, self._weights[:, start:stop], start=site.start)

    def add_expert(self, site: RankSite, start: int, activation: Tensor, tokens: Tensor) -> None:
        """Add the activations of one expert of a layer, whose neurons begin at `start`, on its tokens, by row."""
        here = tokens < self._weights.shape[1]
        layer, weights = self._place[site.layer], self._weights[:, tokens[here]]
        self._sums.add(layer, activation[here], weights, start=start)

    def total(self) -> Float64[Tensor, "layer power span neuron"]:
        """The sums, on the CPU."""
        return self._sums.total()


def places(sites: Sequence[RankSite]) -> dict[int, int]:
    """The place of each layer among a rank's layers."""
    return {layer: place for place, layer in enumerate(sorted({site.layer for site in sites}))}


def change_(site: RankSite, inputs: Tensor, output: Tensor, change: LayerIntervention) -> Tensor:
    """Apply an intervention to a layer's activations, in place in its module's output, and return the changed ones.

        merged  out[:, i] ← (s · act(gate[:, i]) + b) · up[:, i]
        plain   out[:, i] ← s · out[:, i] + b

    act is the module itself with up = 1, so it is the model's own function in the model's own precision.
    """
    index = change.neurons
    activation = site.activation(inputs[:, index]) if site.merged else output[:, index]
    everything = torch.arange(activation.shape[-1], device=activation.device)
    LayerIntervention(everything, change.scale, change.shift).apply_(activation)
    up = inputs[:, inputs.shape[1] // 2 :]
    output[:, index] = activation * up[:, index] if site.merged else activation
    return activation

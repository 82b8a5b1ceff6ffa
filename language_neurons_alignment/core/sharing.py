"""Which languages share a neuron: how many, and which sets are the most common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from ..frames import Columns, Framed


@dataclass(frozen=True)
class Sharing(Framed):
    """The sets of languages that a mask's neurons serve.

    Attributes:
        languages: codes, in the order of the last axis of `sets`.
        sets: each set that some neuron serves exactly; the most common first, of equals the smaller one, then the one
            whose languages come first.
        counts: neurons that serve exactly this set.
    """

    languages: tuple[str, ...]
    sets: Bool[Tensor, "set lang"]
    counts: Int64[Tensor, " set"]

    @property
    def histogram(self) -> Int64[Tensor, " n_languages"]:
        """Neurons of the mask that serve exactly j languages, j = 0..K; from j = 2 on the related ones."""
        histogram = torch.zeros(len(self.languages) + 1, dtype=torch.int64)
        return histogram.index_add_(0, self.sets.sum(dim=1), self.counts)

    def named(self, row: int) -> tuple[str, ...]:
        """The languages of one set."""
        return tuple(code for code, inside in zip(self.languages, self.sets[row].tolist(), strict=True) if inside)

    def columns(self) -> Columns:
        """One row a set: languages (joined by +), size, neurons."""
        return {
            "languages": ["+".join(self.named(row)) for row in range(len(self.sets))],
            "size": self.sets.sum(dim=1).tolist(),
            "neurons": self.counts.tolist(),
        }


def language_sets(mask: Bool[Tensor, "layer neuron lang"], *, languages: Sequence[str]) -> Sharing:
    """Count the neurons of every set of languages that occurs in a mask."""
    neurons = mask.flatten(0, 1)
    sets, counts = torch.unique(neurons[neurons.any(dim=1)], dim=0, return_counts=True)
    rows = sets.tolist()
    order = sorted(
        range(len(rows)), key=lambda row: (-int(counts[row]), sum(rows[row]), [not one for one in rows[row]])
    )
    return Sharing(tuple(languages), sets[order], counts[order])

"""Neurons by the number of languages in which they are above τ (paper figures 5 and 15)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor

from ..frames import Columns, Framed


@dataclass(frozen=True)
class LanguagesAbove(Framed):
    """Per layer, how many neurons are above τ in exactly N languages, N = 0..K.

    Attributes:
        all: of all neurons; at N = K the general ones.
        selected: of the selected ones; summed over layers it is `appear`.
    """

    all: Int64[Tensor, "layer n_languages"]
    selected: Int64[Tensor, "layer n_languages"]

    def columns(self) -> Columns:
        """One row a layer and N: layer, languages, all, selected."""
        layers, width = self.all.shape
        return {
            "layer": [layer for layer in range(layers) for _ in range(width)],
            "languages": list(range(width)) * layers,
            "all": self.all.flatten().tolist(),
            "selected": self.selected.flatten().tolist(),
        }


def count_languages_above(
    above: Int[Tensor, "layer neuron"], selected: Bool[Tensor, "layer neuron"], *, languages: int
) -> LanguagesAbove:
    """Both histograms of N, per layer.

    Args:
        above: N, the languages in which each neuron is above τ.
        selected: the neurons of lowest score.
        languages: K.
    """
    width = languages + 1
    cell = above + width * torch.arange(above.shape[0]).unsqueeze(1)
    size = width * above.shape[0]
    everywhere, chosen = (torch.bincount(cells.flatten(), minlength=size) for cells in (cell, cell[selected]))
    return LanguagesAbove(everywhere.view(-1, width), chosen.view(-1, width))

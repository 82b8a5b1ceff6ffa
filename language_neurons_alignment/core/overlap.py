"""How many neurons languages have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from ..frames import Columns, Framed


@dataclass(frozen=True)
class Overlap(Framed):
    """Neurons that the masks of two languages share.

    Attributes:
        languages: codes, in the order of both axes.
        counts: |M_a ∩ M_b|; on the diagonal a mask's own size.
    """

    languages: tuple[str, ...]
    counts: Int64[Tensor, "lang lang"]

    @property
    def jaccard(self) -> Float64[Tensor, "lang lang"]:
        """|M_a ∩ M_b| / |M_a ∪ M_b|, in [0, 1]; NaN for two empty masks."""
        sizes = self.counts.diagonal()
        return jaccard(self.counts, sizes.unsqueeze(1), sizes.unsqueeze(0))

    def columns(self) -> Columns:
        """One row a pair of languages, in both orders: language, other, neurons, jaccard."""
        return {
            "language": [code for code in self.languages for _ in self.languages],
            "other": [code for _ in self.languages for code in self.languages],
            "neurons": self.counts.flatten().tolist(),
            "jaccard": self.jaccard.flatten().tolist(),
        }


def jaccard(
    both: Int64[Tensor, "*shape"], one: Int64[Tensor, "*#shape"], other: Int64[Tensor, "*#shape"]
) -> Float64[Tensor, "*shape"]:
    """|A ∩ B| / (|A| + |B| − |A ∩ B|); NaN where both sets are empty."""
    return both.to(torch.float64) / (one + other - both).to(torch.float64)


def language_overlap(mask: Bool[Tensor, "layer neuron lang"], *, languages: Sequence[str]) -> Overlap:
    """Count the common neurons of every two languages."""
    rows = mask.flatten(0, 1)
    rows = rows[rows.any(dim=1)].to(torch.float64)  # exact up to 2⁵³ neurons, and a fast matrix product
    return Overlap(tuple(languages), (rows.T @ rows).to(torch.int64))

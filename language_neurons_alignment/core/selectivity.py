"""Selectivity: how much of a language is lost without its neurons, and how little of the others (LangSpec-F1).

    d[t, j]      = max(base[j] − after[t, j], 0)            what language j loses without language t's neurons
    precision[t] = d[t, t] / Σ_j d[t, j]                    share of the damage that is done to t itself
    recall[t]    = d[t, t] / base[t]                        share of t that is lost
    F1[t]        = 2 · precision · recall / (precision + recall)

0 where a denominator is 0: where nothing is lost, nothing is selective. Of perplexities, what is lost is likelihood per
token, 1 / PPL.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from ..errors import IncompatibleError


@dataclass(frozen=True)
class Selectivity:
    """Of each language's neurons; leading axes are those that were given, such as draws."""

    precision: Float64[Tensor, "*draw lang"]
    recall: Float64[Tensor, "*draw lang"]
    f1: Float64[Tensor, "*draw lang"]


def selectivity(base: Float64[Tensor, "*draw lang"], after: Float64[Tensor, "*draw row column"]) -> Selectivity:
    """Precision, recall and F1 of the damage.

    Args:
        base: accuracy (or likelihood) of each language, undisturbed, not below 0.
        after: row t: with language t's neurons changed; column j: accuracy of language j.

    Raises:
        IncompatibleError: rows and columns are not the same languages.
    """
    languages = base.shape[-1]
    if after.shape[-2:] != (languages, languages):
        raise IncompatibleError(
            f"selectivity needs a row and a column for each of {languages} languages, got {tuple(after.shape[-2:])}"
        )
    lost = (base.unsqueeze(-2) - after).clamp(min=0)
    own = lost.diagonal(dim1=-2, dim2=-1)
    precision, recall = _ratio(own, lost.sum(dim=-1)), _ratio(own, base)
    return Selectivity(precision, recall, _ratio(2 * precision * recall, precision + recall))


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, 0 where whole is 0."""
    return torch.where(whole > 0, part / whole.where(whole > 0, torch.ones_like(whole)), torch.zeros_like(part))

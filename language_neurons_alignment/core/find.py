"""From probabilities to language neurons in one call, so that they can be found again in any part of a corpus."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Float64
from torch import Tensor

from ..errors import SweepError
from .profiles import UNASSIGNED, class_members, class_profile
from .selection import CLASSES, classify, language_mask, neuron_statistics, select
from .sweep import exact_lambda

STATES = (*CLASSES, UNASSIGNED)

Step = Callable[[int], None]
"""Called after so many further identifications."""


def unwatched(done: int) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class Found:
    """Language neurons, found in some corpus.

    Attributes:
        lam: the largest fine λ; NaN where there is none in the range.
        threshold: τ.
        profile: neurons of each class (`STATES`) in each layer; NaN where there was no λ to select by.
        mask: the neurons that belong to each language; then none.
    """

    lam: float
    threshold: float
    profile: Float64[Tensor, "layer class"]
    mask: Bool[Tensor, "layer neuron lang"]

    @property
    def numbers(self) -> Float64[Tensor, " number"]:
        """Everything that gets an interval in a row: λ, τ, classes, the languages' masks, classes layer by layer."""
        rates = torch.tensor([self.lam, self.threshold], dtype=torch.float64)
        classes = self.profile.sum(dim=0)
        masks = self.mask.sum(dim=(0, 1)) + 0 * classes[0]  # NaN where there is nothing
        return torch.cat([rates, classes, masks, self.profile.flatten()])


@dataclass(frozen=True)
class Procedure:
    """How language neurons are found.

    Attributes:
        top_rate: share of neurons selected.
        bar: activation bar.
        lam: λ to select by; None: the largest fine one, found anew in each corpus.
        lo: smallest λ considered.
        hi: largest λ considered.
    """

    top_rate: float
    bar: float
    lam: float | None
    lo: float
    hi: float

    def __call__(self, probability: Float32[Tensor, "layer neuron lang"]) -> Found:
        """Find them (SPEC 3 to 5)."""
        statistics = neuron_statistics(probability, bar=self.bar)
        try:
            largest = exact_lambda(statistics, top_rate=self.top_rate, lo=self.lo, hi=self.hi).lam
        except SweepError:
            largest = math.nan
        lam = largest if self.lam is None else self.lam
        if math.isnan(lam):
            profile = torch.full((len(probability), len(STATES)), math.nan, dtype=torch.float64)
            return Found(largest, statistics.threshold, profile, torch.zeros_like(statistics.member))
        selected = select(statistics, top_rate=self.top_rate, lam=lam)
        classes = classify(statistics.languages_above, selected, languages=probability.shape[-1])
        profile = class_profile(class_members(classes)).counts.to(torch.float64)
        return Found(largest, statistics.threshold, profile, language_mask(statistics, selected))

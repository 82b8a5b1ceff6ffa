"""Intervals by resampling, ranges of controls, and paired tests.

An effect is measured on a sample of all possible questions. Its interval comes from the bootstrap: draw as many
questions with replacement, many times (Efron and Tibshirani 1993). All cells of a map share the same draws, so cells
over the same questions are compared question by question.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from ..errors import SettingsError

LEVEL = 0.95  # of every interval
DRAWS = 2000


@dataclass(frozen=True)
class Interval:
    """Lower and upper ends of each cell's interval; NaN where there is none."""

    low: Float64[Tensor, "*cell"]
    high: Float64[Tensor, "*cell"]

    def holds(self, value: Float64[Tensor, "*cell"]) -> Tensor:
        """Whether each value lies in its interval, ends included; ends that differ only by rounding count as equal."""
        hair = 1e-9 * (self.low.abs() + self.high.abs())
        return (value >= self.low - hair) & (value <= self.high + hair)


def resampling_weights(items: int, *, draws: int = DRAWS, seed: int = 0) -> Float64[Tensor, "draw item"]:
    """The number of times that each bootstrap draw contains each item: a question, text or block.

    The mean of `values` over draw b is weights[b] @ values / items.

    >>> resampling_weights(4, draws=3, seed=0).sum(dim=1).tolist()
    [4.0, 4.0, 4.0]
    """
    if items < 1 or draws < 1:
        raise SettingsError(f"resampling needs at least 1 item and 1 draw, got {items} items and {draws} draws")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(items, (draws, items), generator=generator)
    weights = torch.zeros(draws, items, dtype=torch.float64)
    return weights.scatter_add_(1, drawn, torch.ones_like(weights))


def interval(draws: Float64[Tensor, "draw *cell"]) -> Interval:
    """The percentile interval: the middle `LEVEL` of the draws, cell by cell.

    >>> right = torch.tensor([1.0] * 60 + [0.0] * 40).double()  # 60 of 100 questions answered right
    >>> share = interval(resampling_weights(100) @ right / 100)
    >>> round(float(share.low), 2), round(float(share.high), 2)
    (0.5, 0.7)
    """
    tail = (1 - LEVEL) / 2
    with np.errstate(invalid="ignore"):  # interpolation between infinities gives NaN, as it should
        low, high = np.quantile(draws.numpy(), [tail, 1 - tail], axis=0)
    return Interval(torch.as_tensor(low), torch.as_tensor(high))


def control_range(effects: Float64[Tensor, "set *cell"], *, least: float | Float64[Tensor, "*cell"] = 0.0) -> Interval:
    """Where the effect of one more control would lie with probability `LEVEL`, if effects are normally distributed.

        mean ± max(t(R − 1, (1 + LEVEL) / 2) · sd · √(1 + 1 / R), least)        R sets, at least 2

    The range from the smallest to the largest control would be far too short: with 5 sets, one more control lies
    outside it in 2 of 6 cases. `least` is the smallest step that an effect can take; 0 for continuous effects. If no
    control changed a question, another one may still change one, so the range of a share always includes one question
    either way.

    >>> span = control_range(torch.tensor([0.0, -2.0, -1.0]).double())
    >>> round(float(span.low), 2), round(float(span.high), 2)
    (-5.97, 3.97)
    """
    sets = effects.shape[0]
    if sets < 2:
        raise SettingsError(f"a range of controls needs at least 2 sets, got {sets}: --controls 5")
    from scipy import stats  # here, and below: its import takes 0.7 s, and most commands need none of it

    reach = float(stats.t.ppf((1 + LEVEL) / 2, sets - 1)) * (1 + 1 / sets) ** 0.5
    middle = effects.mean(dim=0)
    around = torch.maximum(reach * effects.std(dim=0), torch.as_tensor(least, dtype=torch.float64))
    return Interval(middle - around, middle + around)


def one_question(asked: Int[Tensor, "*cell"]) -> Float64[Tensor, "*cell"]:
    """The smallest change of a share of so many questions, in percentage points."""
    return 100 / asked.double()


def mcnemar(only_before: Int[Tensor, "*cell"], only_after: Int[Tensor, "*cell"]) -> Float64[Tensor, "*cell"]:
    """The exact two-sided p of McNemar's paired test, cell by cell, from the questions right on one side only.

        n = only_before + only_after,   p = min(1, 2 · P(Bin(n, ½) ≤ min(only_before, only_after)))        1 if n = 0

    >>> mcnemar(torch.tensor([9, 3]), torch.tensor([0, 3])).tolist()
    [0.00390625, 1.0]
    """
    from scipy import stats

    fewer = torch.minimum(only_before, only_after)
    tail = stats.binom.cdf(fewer.numpy(), (only_before + only_after).numpy(), 0.5)
    return (2 * torch.as_tensor(tail, dtype=torch.float64)).clamp(max=1.0)


def adjusted(p: Float64[Tensor, "*cell"]) -> Float64[Tensor, "*cell"]:
    """p values adjusted for multiple tests; those below q contain a share q of false discoveries on average.

    >>> [round(value, 3) for value in adjusted(torch.tensor([0.01, 0.02, 0.5]).double()).tolist()]
    [0.03, 0.03, 0.5]

    Source: Benjamini and Hochberg (1995).
    """
    from scipy import stats

    flat = stats.false_discovery_control(p.flatten().numpy(), method="bh")
    return torch.as_tensor(flat, dtype=torch.float64).reshape(p.shape)

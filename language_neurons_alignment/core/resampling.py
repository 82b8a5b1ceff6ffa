"""Intervals by resampling, ranges of controls, and paired tests: what an effect is held against.

An effect is measured on questions that stand for all that could have been asked, so its interval comes from drawing as
many questions again, with replacement, many times (the bootstrap; Efron and Tibshirani 1993). One set of draws serves
every cell of a map: then two cells over the same questions are compared question by question.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int
from scipy import stats
from torch import Tensor

from ..errors import SettingsError

LEVEL = 0.95
"""Of every interval that is shown."""
DRAWS = 2000


@dataclass(frozen=True)
class Interval:
    """Lower and upper ends, cell by cell; NaN where there is none."""

    low: Float64[Tensor, "*cell"]
    high: Float64[Tensor, "*cell"]

    def holds(self, value: Float64[Tensor, "*cell"]) -> Tensor:
        """Whether each value lies in its interval, ends included, also where they were rounded another way."""
        hair = 1e-9 * (self.low.abs() + self.high.abs())
        return (value >= self.low - hair) & (value <= self.high + hair)


def resampling_weights(items: int, *, draws: int = DRAWS, seed: int = 0) -> Float64[Tensor, "draw item"]:
    """How often each item is drawn, of `items` draws with replacement; a mean over a draw is weights @ values / items.

    Args:
        items: questions, texts or blocks.
        draws: resamplings.
        seed: the same seed gives the same draws, whatever else was drawn before.

    Raises:
        SettingsError: nothing to draw from, or no draws.
    """
    if items < 1 or draws < 1:
        raise SettingsError(f"resampling needs at least 1 item and 1 draw, got {items} items and {draws} draws")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(items, (draws, items), generator=generator)
    return torch.zeros(draws, items, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones(draws, items, dtype=torch.float64)
    )


def interval(draws: Float64[Tensor, "draw *cell"], *, level: float = LEVEL) -> Interval:
    """The percentile interval: what the middle `level` of the draws spans, cell by cell."""
    tail = (1 - level) / 2
    with np.errstate(invalid="ignore"):  # between infinities there is nothing, which NaN says
        low, high = np.quantile(draws.numpy(), [tail, 1 - tail], axis=0)
    return Interval(torch.as_tensor(low), torch.as_tensor(high))


def control_range(
    effects: Float64[Tensor, "set *cell"], *, least: float | Float64[Tensor, "*cell"] = 0.0, level: float = LEVEL
) -> Interval:
    """Where the effect of one more control would lie with probability `level`, were the controls normally distributed.

        mean ± max(t(R − 1, (1 + level) / 2) · sd · √(1 + 1 / R), least)        R sets

    The smallest and the largest of a few controls span far less: one more than 5 lies outside them in 2 of 6 cases.

    Args:
        effects: of the controls.
        least: the smallest step that effects can take, 0 where they take any. Five sets in which no question turned do
            not say that none turns in a sixth: of shares, one question either way is always inside.
        level: of the range.

    Raises:
        SettingsError: fewer than two sets have no spread.
    """
    sets = effects.shape[0]
    if sets < 2:
        raise SettingsError(f"a range of controls needs at least 2 sets, got {sets}: --controls 5")
    reach = float(stats.t.ppf((1 + level) / 2, sets - 1)) * (1 + 1 / sets) ** 0.5
    middle = effects.mean(dim=0)
    around = torch.maximum(reach * effects.std(dim=0), torch.as_tensor(least, dtype=torch.float64))
    return Interval(middle - around, middle + around)


def one_question(asked: Int[Tensor, "*cell"]) -> Float64[Tensor, "*cell"]:
    """The least that a share of so many questions changes by, in percentage points."""
    return 100 / asked.double()


def mcnemar(only_before: Int[Tensor, "*cell"], only_after: Int[Tensor, "*cell"]) -> Float64[Tensor, "*cell"]:
    """The exact two-sided p of McNemar's test, cell by cell: could a fair coin have turned these questions?

        n = only_before + only_after,   p = min(1, 2 · P(Bin(n, ½) ≤ min(only_before, only_after)))        1 where n = 0

    Args:
        only_before: questions that were right before and not after.
        only_after: questions that were right after and not before.
    """
    fewer = torch.minimum(only_before, only_after)
    tail = stats.binom.cdf(fewer.numpy(), (only_before + only_after).numpy(), 0.5)
    return (2 * torch.as_tensor(tail, dtype=torch.float64)).clamp(max=1.0)


def adjusted(p: Float64[Tensor, "*cell"]) -> Float64[Tensor, "*cell"]:
    """p-values adjusted for being many: of those below a bar, that share is false at most (Benjamini–Hochberg 1995)."""
    flat = stats.false_discovery_control(p.flatten().numpy(), method="bh")
    return torch.as_tensor(flat, dtype=torch.float64).reshape(p.shape)

"""AutoSweep by bisection: the largest λ for which no selected neuron belongs to every language (SPEC 4)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from ..errors import SettingsError, SweepError
from .selection import NeuronStatistics, appear, select

Observer = Callable[[float, list[int]], None]
"""Called at each evaluation with λ and its histogram appear[0..K]."""

SMALLEST_EPS = 1e-15
"""Below this, λ is finer than the scores that it separates."""


def unobserved(lam: float, histogram: list[int]) -> None:
    """The observer that looks away."""


@dataclass(frozen=True)
class SweepResult:
    """Where AutoSweep ended.

    Attributes:
        lam: the λ found; appear[K] is 0 at it.
        appear: the histogram at `lam`: selected neurons above τ in exactly j languages, j = 0..K.
        evaluations: how many λ were evaluated.
    """

    lam: float
    appear: list[int]
    evaluations: int


def bisect_lambda(
    statistics: NeuronStatistics,
    *,
    top_rate: float,
    lo: float,
    hi: float,
    eps: float,
    observe: Observer = unobserved,
) -> SweepResult:
    """Halve [lo, hi] until it is shorter than eps, keeping the last λ with appear[K] = 0.

    lo and hi are evaluated first; if hi is fine it is the answer. Bisection takes the fine λ to be an interval that
    starts at lo; `exact_lambda` does not.

    Raises:
        SettingsError: a range or an eps that cannot be searched.
        SweepError: appear[K] > 0 at lo and at hi.
    """
    check_range(lo, hi)
    if not (math.isfinite(eps) and eps >= SMALLEST_EPS):
        raise SettingsError(f"eps must be at least {SMALLEST_EPS}, got {eps!r}: give for example 1e-3, or use --exact")
    evaluate = Evaluator(statistics, top_rate, observe)
    at_lo, at_hi = evaluate(lo), evaluate(hi)
    if at_hi[-1] == 0:
        return SweepResult(hi, at_hi, evaluate.count)
    if at_lo[-1] > 0:
        raise no_fine_lambda(lo, hi, at_lo[-1], at_hi[-1])
    # halving decimals exactly keeps λ short (0.03671875, not 0.03671875000000001), in folder names too
    fine, coarse, best = Fraction(repr(float(lo))), Fraction(repr(float(hi))), at_lo
    while coarse - fine > eps:
        middle = (fine + coarse) / 2
        histogram = evaluate(float(middle))
        if histogram[-1] == 0:
            fine, best = middle, histogram
        else:
            coarse = middle
    return SweepResult(float(fine), best, evaluate.count)


def check_range(lo: float, hi: float) -> None:
    """Raise SettingsError unless 0 ≤ lo ≤ hi are finite."""
    if not (math.isfinite(lo) and math.isfinite(hi) and 0 <= lo <= hi):
        raise SettingsError(
            f"the range of λ must be 0 <= lo <= hi, got lo {lo!r}, hi {hi!r}: give for example 0 and 0.2"
        )


def no_fine_lambda(lo: float, hi: float, at_lo: int, at_hi: int) -> SweepError:
    """The error for a range in which every λ selects neurons of all languages."""
    return SweepError(
        f"no λ in [{lo!r}, {hi!r}] gives appear[K] = 0: appear[K] is {at_lo} at lo and {at_hi} at hi; "
        "lower --lo, lower the top rate (-r), or raise the bar (-b)"
    )


class Evaluator:
    """λ → appear[0..K], each evaluation counted and observed."""

    def __init__(self, statistics: NeuronStatistics, top_rate: float, observe: Observer) -> None:
        self.statistics, self.top_rate, self.observe = statistics, top_rate, observe
        self.languages_above = statistics.languages_above
        self.count = 0

    def __call__(self, lam: float) -> list[int]:
        """The histogram at λ."""
        self.count += 1
        chosen = select(self.statistics, top_rate=self.top_rate, lam=lam)
        histogram = appear(self.languages_above, chosen, languages=self.statistics.member.shape[-1]).tolist()
        self.observe(lam, histogram)
        return histogram

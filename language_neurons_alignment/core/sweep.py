"""AutoSweep by bisection: the largest λ for which no selected neuron belongs to every language (SPEC 4)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from ..errors import SettingsError, SweepError
from .selection import NeuronStatistics, appear, rank_of_share, select

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


# ── AutoSweep solved, not searched: the supremum of the λ for which appear[K] = 0 (SPEC 4).
#
# Every score is a line in λ: s(λ) = e − λ r. The neurons above τ in all K languages are a fixed set C, and none of them
# is selected exactly while at least `count` other neurons lie below all of C's lines. The lower envelope of C's lines is
# concave, so each line outside C lies below it on one interval of λ:
#
#     s_j(λ) < s_c(λ)  ⇔  λ (r_c − r_j) < e_c − e_j      for every c on the envelope
#
# Intersect these half-lines per neuron, sort the interval ends, sweep from hi down.


class Lines(NamedTuple):
    """Score lines e − λ r, and the flat indices of their neurons."""

    entropy: Float64[Tensor, " line"]
    peak: Float64[Tensor, " line"]
    neuron: Int64[Tensor, " line"]

    def at(self, chosen: Tensor | list[int]) -> Lines:
        """Some of the lines."""
        return Lines(self.entropy[chosen], self.peak[chosen], self.neuron[chosen])


def exact_lambda(
    statistics: NeuronStatistics,
    *,
    top_rate: float,
    lo: float,
    hi: float,
    observe: Observer = unobserved,
) -> SweepResult:
    """The largest λ in [lo, hi] with appear[K] = 0, with no eps; also where the fine λ are not one interval.

    What is returned is itself fine: where the supremum is a crossing of two lines, the nearest float below it that
    is.

    Raises:
        SettingsError: a range that cannot be searched.
        SweepError: appear[K] > 0 everywhere in the range.
    """
    check_range(lo, hi)
    count = rank_of_share(top_rate, statistics.entropy.numel(), "top_rate")
    evaluate = Evaluator(statistics, top_rate, observe)
    at_hi = evaluate(hi)
    if at_hi[-1] == 0:
        return SweepResult(hi, at_hi, evaluate.count)
    for supremum in _fine_suprema(statistics, count=count, lo=lo, hi=hi):
        for lam in _floats_at_or_below(supremum, lo):
            histogram = evaluate(lam)
            if histogram[-1] == 0:
                return SweepResult(lam, histogram, evaluate.count)
    at_lo = evaluate(lo)
    if at_lo[-1] == 0:
        return SweepResult(lo, at_lo, evaluate.count)
    raise no_fine_lambda(lo, hi, at_lo[-1], at_hi[-1])


def _fine_suprema(statistics: NeuronStatistics, *, count: int, lo: float, hi: float) -> list[float]:
    """The λ, descending, just below which at least `count` neurons lie under the envelope of the universal ones."""
    general = statistics.general.flatten()
    lines = Lines(statistics.entropy.flatten(), statistics.peak.flatten(), torch.arange(general.numel()))
    starts, ends = _intervals_below(lines.at(~general), _lower_envelope(lines.at(general), lo=lo, hi=hi))
    alive = (starts < ends) & (ends > lo) & (starts < hi)
    starts, ends = starts[alive].sort().values, ends[alive].clamp(max=hi).sort().values
    candidates = ends.unique()
    covering = torch.searchsorted(starts, candidates) - torch.searchsorted(ends, candidates)
    return candidates[covering >= count].flip(0).tolist()


def _lower_envelope(lines: Lines, *, lo: float, hi: float) -> Lines:
    """The lines that are lowest somewhere in [lo, hi], walking from lo to hi.

    At lo the lowest line (of equals: the steepest, then the first); from a line to the next at the smallest crossing
    with a steeper one.
    """
    values = lines.entropy - lo * lines.peak
    current = _steepest(lines, values == values.min())
    walked = [current]
    while True:
        rise, steepness = lines.entropy - lines.entropy[current], lines.peak - lines.peak[current]
        crossing = torch.where(steepness > 0, rise / steepness, math.inf)
        if not crossing.min() <= hi:
            return lines.at(walked)
        current = _steepest(lines, crossing == crossing.min())
        walked.append(current)


def _steepest(lines: Lines, among: Bool[Tensor, " line"]) -> int:
    """Position of the steepest of some lines, of equals the first."""
    return int(lines.peak.masked_fill(~among, -math.inf).argmax())


def _intervals_below(lines: Lines, envelope: Lines) -> tuple[Float64[Tensor, " line"], Float64[Tensor, " line"]]:
    """For each line, the open interval of λ (start, end) on which it lies below every line of the envelope.

    A line equal to one of the envelope comes before it only with the lower flat index, as selection breaks ties.
    """
    start = torch.full_like(lines.entropy, -math.inf)
    end = torch.full_like(lines.entropy, math.inf)
    for entropy, peak, neuron in zip(*envelope, strict=True):
        gap, steepness = entropy - lines.entropy, peak - lines.peak
        crossing = gap / steepness
        end = torch.where(steepness > 0, torch.minimum(end, crossing), end)
        start = torch.where(steepness < 0, torch.maximum(start, crossing), start)
        never = (steepness == 0) & ((gap < 0) | ((gap == 0) & (lines.neuron > neuron)))
        end = torch.where(never, -math.inf, end)
    return start, end


def _floats_at_or_below(candidate: float, lo: float) -> list[float]:
    """A crossing and a few floats below it: at a crossing itself rounding and ties decide which line is lower."""
    spacing = math.ulp(max(candidate, 1.0))
    below = [candidate - spacing * 2**k for k in range(12)]
    return [candidate, *(lam for lam in below if lam >= lo)]

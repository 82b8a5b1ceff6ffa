"""AutoSweep solved, not searched: the supremum of the λ for which appear[K] = 0 (SPEC 4).

Every score is a line in λ: s(λ) = e − λ r. The neurons above τ in all K languages are a fixed set C, and none of them
is selected exactly while at least `count` other neurons lie below all of C's lines. The lower envelope of C's lines is
concave, so each line outside C lies below it on one interval of λ:

    s_j(λ) < s_c(λ)  ⇔  λ (r_c − r_j) < e_c − e_j      for every c on the envelope

Intersect these half-lines per neuron, sort the interval ends, sweep from hi down.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from .selection import NeuronStatistics, rank_of_share
from .sweep import Evaluator, Observer, SweepResult, check_range, no_fine_lambda, unobserved


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
    universal = statistics.universal.flatten()
    lines = Lines(statistics.entropy.flatten(), statistics.peak.flatten(), torch.arange(universal.numel()))
    starts, ends = _intervals_below(lines.at(~universal), _lower_envelope(lines.at(universal), lo=lo, hi=hi))
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

"""AutoSweep: the largest λ for which no selected neuron is general, that is, appear[K] = 0.

A λ with appear[K] = 0 is called *fine*. `bisect_lambda` halves a range, as the paper's code does; `exact_lambda` solves
for the supremum. `largest_fine_lambda` asks for no range, and `find_lambda` tells whether a range cut λ off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from ..config import FIRST_END, SweepRange
from ..errors import SettingsError, SweepError
from .selection import NeuronStatistics, appear, rank_of_share, select

Observer = Callable[[float, list[int]], None]
"""Called at each evaluation with λ and its histogram appear[0..K]."""

SMALLEST_EPS = 1e-15  # a smaller eps would be finer than the rounding of the scores


def unobserved(lam: float, histogram: list[int]) -> None:
    """An `Observer` that does nothing."""


@dataclass(frozen=True)
class SweepResult:
    """The λ that AutoSweep found, which is fine, its histogram appear[0..K], and the number of λ evaluated.

    Attributes:
        hi: the end of the range that was searched; NaN where only the λ was asked for (`find_lambda` tells).
        largest: the largest fine λ, in the range or beyond it; ∞ if every λ from some point on is fine.
    """

    lam: float
    appear: list[int]
    evaluations: int
    hi: float = math.nan
    largest: float = math.nan


class _Evaluator:
    """λ → appear[0..K]; reports each evaluation, and keeps the histograms."""

    def __init__(self, statistics: NeuronStatistics, top_rate: float, observe: Observer) -> None:
        self.statistics, self.top_rate, self.observe = statistics, top_rate, observe
        self.languages_above = statistics.languages_above
        self.seen: list[list[int]] = []

    def __call__(self, lam: float) -> list[int]:
        chosen = select(self.statistics, top_rate=self.top_rate, lam=lam)
        self.seen.append(appear(self.languages_above, chosen, languages=self.statistics.member.shape[-1]).tolist())
        self.observe(lam, self.seen[-1])
        return self.seen[-1]


def bisect_lambda(
    statistics: NeuronStatistics, *, top_rate: float, lo: float, hi: float, eps: float, observe: Observer = unobserved
) -> SweepResult:
    """Halve [lo, hi] until it is no longer than eps, keeping the last fine λ.

    lo and hi are evaluated first; a fine hi is the answer. Bisection assumes that the fine λ are an interval that
    starts at lo; `exact_lambda` does not. SettingsError if the range or eps is invalid, SweepError if neither lo nor hi
    is fine.
    """
    check_range(lo, hi)
    if not (math.isfinite(eps) and eps >= SMALLEST_EPS):
        raise SettingsError(f"eps must be at least {SMALLEST_EPS}, got {eps!r}: give for example 1e-3, or use --exact")
    evaluate = _Evaluator(statistics, top_rate, observe)
    at_lo, at_hi = evaluate(lo), evaluate(hi)
    if at_hi[-1] == 0:
        return SweepResult(hi, at_hi, 2)
    if at_lo[-1] > 0:
        raise _no_fine_lambda(lo, hi, at_lo[-1], at_hi[-1])
    # halving decimals exactly keeps λ short in folder names: 0.03671875, not 0.03671875000000001
    fine, coarse, best = Fraction(repr(float(lo))), Fraction(repr(float(hi))), at_lo
    while coarse - fine > eps:
        middle = (fine + coarse) / 2
        histogram = evaluate(float(middle))
        if histogram[-1] == 0:
            fine, best = middle, histogram
        else:
            coarse = middle
    return SweepResult(float(fine), best, len(evaluate.seen))


def check_range(lo: float, hi: float) -> None:
    """Raise SettingsError unless 0 ≤ lo ≤ hi are finite."""
    if not (math.isfinite(lo) and math.isfinite(hi) and 0 <= lo <= hi):
        raise SettingsError(
            f"the range of λ must be 0 <= lo <= hi, got lo {lo!r}, hi {hi!r}: give for example 0 and 0.2"
        )


def _no_fine_lambda(lo: float, hi: float, at_lo: int, at_hi: int) -> SweepError:
    return SweepError(
        f"no λ in [{lo!r}, {hi!r}] gives appear[K] = 0: appear[K] is {at_lo} at lo and {at_hi} at hi; "
        "lower --lo, lower the top rate (-r), or raise the bar (-b)"
    )


def exact_lambda(
    statistics: NeuronStatistics, *, top_rate: float, lo: float, hi: float, observe: Observer = unobserved
) -> SweepResult:
    """The largest fine λ in [lo, hi], without an eps and without assuming that the fine λ are one interval.

    Every score is a line in λ: s(λ) = e − λ r. Let C be the general neurons. None of them is selected if and only if at
    least `count` neurons outside C lie below all of C's lines, that is, below their lower envelope. The envelope is
    concave, so a line outside C lies below it on one interval of λ:

        s_j(λ) < s_c(λ)  ⇔  λ (r_c − r_j) < e_c − e_j      for every c on the envelope

    Intersect these half-lines for each neuron, sort the interval ends, and sweep down from hi. If the supremum is a
    crossing of two lines, the result is the nearest fine float below it. SettingsError if the range is invalid,
    SweepError if no λ in it is fine.

    >>> from language_neurons_alignment.core.selection import neuron_statistics
    >>> p = torch.tensor([[[0.9, 0.0], [0.6, 0.5], [0.1, 0.1], [0.0, 0.4]]])
    >>> statistics = neuron_statistics(p, bar=0.5)  # only the second neuron is above τ in both languages
    >>> found = exact_lambda(statistics, top_rate=0.5, lo=0.0, hi=10.0)
    >>> round(found.lam, 4), found.appear
    (3.7276, [0, 2, 0])
    """
    check_range(lo, hi)
    count = rank_of_share(top_rate, statistics.neurons, "top_rate")
    evaluate = _Evaluator(statistics, top_rate, observe)
    for lam in _candidates(statistics, count=count, lo=lo, hi=hi):
        histogram = evaluate(lam)
        if histogram[-1] == 0:
            return SweepResult(lam, histogram, len(evaluate.seen))
    raise _no_fine_lambda(lo, hi, evaluate.seen[-1][-1], evaluate.seen[0][-1])


def largest_fine_lambda(statistics: NeuronStatistics, *, top_rate: float, lo: float = 0.0) -> float:
    """The largest fine λ from lo on, wherever it lies; ∞ if every λ from some point on is fine, NaN if none is.

    >>> from language_neurons_alignment.core.selection import neuron_statistics
    >>> p = torch.tensor([[[0.9, 0.0], [0.6, 0.5], [0.1, 0.1], [0.0, 0.4]]])
    >>> round(largest_fine_lambda(neuron_statistics(p, bar=0.5), top_rate=0.5), 4)
    3.7276
    """
    count = rank_of_share(top_rate, statistics.neurons, "top_rate")
    evaluate = _Evaluator(statistics, top_rate, unobserved)
    for lam in _candidates(statistics, count=count, lo=lo, hi=math.inf):
        if math.isinf(lam) or evaluate(lam)[-1] == 0:
            return lam
    return math.nan


def fine_from(statistics: NeuronStatistics, *, top_rate: float, lo: float = 0.0) -> float:
    """The λ, at least lo, from which on every λ is fine; ∞ if there is none.

    >>> from language_neurons_alignment.core.selection import neuron_statistics
    >>> p = torch.tensor([[[0.9, 0.0], [0.6, 0.5], [0.1, 0.1], [0.0, 0.4]]])
    >>> fine_from(neuron_statistics(p, bar=0.5), top_rate=0.25)  # the first neuron alone, however large λ is
    0.0
    """
    count = rank_of_share(top_rate, statistics.neurons, "top_rate")
    starts, ends = _fine_intervals(statistics, lo=lo, hi=math.inf)
    turns = torch.cat([starts, ends, torch.tensor([math.inf], dtype=starts.dtype)]).unique()
    covering = torch.searchsorted(starts, turns) - torch.searchsorted(ends, turns)  # just below each turn
    coarse = turns[(covering < count) & (turns > lo)]
    return max(lo, float(coarse.max())) if len(coarse) else lo


def range_end(statistics: NeuronStatistics, *, top_rate: float, lo: float, largest: float) -> float:
    """Where to end the search if no end is given: at `FIRST_END`, doubled until lo and the largest fine λ are within.

    Where every λ from some point on is fine, the range ends at or after that point, and its end is fine.
    """
    needed = fine_from(statistics, top_rate=top_rate, lo=lo) if math.isinf(largest) else largest
    end = FIRST_END
    while end < lo or end < needed:
        end *= 2
    return end


def find_lambda(
    statistics: NeuronStatistics, *, top_rate: float, search: SweepRange, observe: Observer = unobserved
) -> SweepResult:
    """Bisect or solve as the settings say, in the range given, or in one whose end cuts nothing off.

    Without a given end, bisection gives a λ at most eps below the largest fine one; if it misses that one, because the
    fine λ are not one interval, the result is the exact one. Where every λ from some point on is fine, the result is
    the end of the range. Errors as of `bisect_lambda` and `exact_lambda`.

    >>> from language_neurons_alignment.core.selection import neuron_statistics
    >>> p = torch.tensor([[[0.9, 0.0], [0.6, 0.5], [0.1, 0.1], [0.0, 0.4]]])
    >>> found = find_lambda(neuron_statistics(p, bar=0.5), top_rate=0.5, search=SweepRange())
    >>> round(found.lam, 4), found.hi, round(found.largest, 4)
    (3.7273, 6.4, 3.7276)
    """
    lo, largest = search.lo, largest_fine_lambda(statistics, top_rate=top_rate)
    hi = range_end(statistics, top_rate=top_rate, lo=lo, largest=largest) if search.hi is None else search.hi
    chosen = {"top_rate": top_rate, "lo": lo, "hi": hi, "observe": observe}
    find = partial(exact_lambda, **chosen) if search.exact else partial(bisect_lambda, eps=search.eps, **chosen)
    within = search.hi is None and lo <= largest < math.inf
    try:
        found = find(statistics)
    except SweepError as error:
        if not within:
            elsewhere = "no λ outside this range does" if math.isnan(largest) else _largest_in_words(largest)
            raise SweepError(f"{error}; {elsewhere}") from None
        found = SweepResult(-math.inf, [], 2)
    if within and found.lam < largest - search.eps:
        solved = exact_lambda(statistics, **chosen)
        found = replace(solved, evaluations=found.evaluations + solved.evaluations)
    return replace(found, hi=hi, largest=largest)


def _largest_in_words(largest: float) -> str:
    if math.isinf(largest):
        return "appear[K] = 0 at every λ from some point on"
    return f"the largest λ with appear[K] = 0 is {largest:.6g}"


def notes_on_lambda(
    lam: float, *, largest: float | None, end: float | None = None, endless_from: float | None = None
) -> list[str]:
    """Say that the end of a range cut λ off, or that no λ is the largest.

    Where the range is not known, a λ of 0.2, the end in the paper's code, tells it; any other λ was chosen, and nothing
    is said.

    Args:
        lam: a fine λ.
        largest: the largest fine λ; None: unknown.
        end: the end of the range in which λ was found; None: unknown.
        endless_from: where every λ from some point on is fine, that point; None: unknown.

    >>> notes_on_lambda(0.2, largest=0.3707, end=0.2)
    ['λ = 0.2 is the end of the range that was searched; the largest λ with appear[K] = 0 is 0.3707 (--hi auto)']
    >>> notes_on_lambda(0.3703125, largest=0.3707), notes_on_lambda(0.1, largest=0.3707)
    ([], [])
    """
    if largest is None or not largest > lam:
        return []
    if lam == end:
        what = f"λ = {lam!r} is the end of the range that was searched"
    elif lam == FIRST_END and largest - lam > SweepRange.eps:
        what = f"λ = {lam!r} is the end of the range in the paper's code"
    elif math.isinf(largest) and lam > FIRST_END and math.frexp(lam / FIRST_END)[0] == 0.5:  # `range_end` doubles
        what = f"λ = {lam!r} is an end of the range"
    else:
        return []
    if math.isfinite(largest):
        return [f"{what}; {_largest_in_words(largest)} (--hi auto)"]
    point = "some point" if endless_from is None else f"{endless_from:.6g}"
    where = "every λ" if endless_from == 0 else f"every λ from {point} on"
    return [f"{what}; appear[K] = 0 at {where}, so none is the largest"]


def _candidates(statistics: NeuronStatistics, *, count: int, lo: float, hi: float) -> Iterator[float]:
    """hi, each supremum with a few floats below it, and lo; rounding decides which line is lower at a crossing."""
    if math.isfinite(hi):
        yield hi
    for supremum in _fine_suprema(statistics, count=count, lo=lo, hi=hi):
        yield supremum
        if math.isfinite(supremum):
            spacing = math.ulp(max(supremum, 1.0))
            yield from (lam for k in range(12) if (lam := supremum - spacing * 2**k) >= lo)
    yield lo


class _Lines(NamedTuple):
    """Score lines e − λ r, and the flat indices of their neurons."""

    entropy: Float64[Tensor, " line"]
    peak: Float64[Tensor, " line"]
    neuron: Int64[Tensor, " line"]

    def at(self, chosen: Tensor | list[int]) -> _Lines:
        return _Lines(self.entropy[chosen], self.peak[chosen], self.neuron[chosen])


def _fine_suprema(statistics: NeuronStatistics, *, count: int, lo: float, hi: float) -> list[float]:
    """The λ, descending, just below which at least `count` neurons lie under the envelope of the general neurons."""
    starts, ends = _fine_intervals(statistics, lo=lo, hi=hi)
    candidates = ends.unique()
    covering = torch.searchsorted(starts, candidates) - torch.searchsorted(ends, candidates)
    return candidates[covering >= count].flip(0).tolist()


def _fine_intervals(
    statistics: NeuronStatistics, *, lo: float, hi: float
) -> tuple[Float64[Tensor, " line"], Float64[Tensor, " line"]]:
    """The starts, ascending, and the ends, ascending, of the λ in [lo, hi] where a line lies under the envelope."""
    general = statistics.general.flatten()
    lines = _Lines(statistics.entropy.flatten(), statistics.peak.flatten(), torch.arange(general.numel()))
    starts, ends = _intervals_below(lines.at(~general), _lower_envelope(lines.at(general), lo=lo, hi=hi))
    alive = (starts < ends) & (ends > lo) & (starts < hi)
    return starts[alive].sort().values, ends[alive].clamp(max=hi).sort().values


def _lower_envelope(lines: _Lines, *, lo: float, hi: float) -> _Lines:
    """The lines that are lowest somewhere in [lo, hi], in the order of λ."""
    if not len(lines.entropy):
        return lines
    values = lines.entropy - lo * lines.peak
    current = _steepest(lines, values == values.min())
    walked = [current]
    while True:  # go to the steeper line with the smallest crossing
        rise, steepness = lines.entropy - lines.entropy[current], lines.peak - lines.peak[current]
        crossing = torch.where(steepness > 0, rise / steepness, math.inf)
        if not (crossing.min() <= hi and crossing.min() < math.inf):
            return lines.at(walked)
        current = _steepest(lines, crossing == crossing.min())
        walked.append(current)


def _steepest(lines: _Lines, among: Bool[Tensor, " line"]) -> int:
    """The position of the steepest of some lines; of equals the first."""
    return int(lines.peak.masked_fill(~among, -math.inf).argmax())


def _intervals_below(lines: _Lines, envelope: _Lines) -> tuple[Float64[Tensor, " line"], Float64[Tensor, " line"]]:
    """For each line, the open interval of λ (start, end) on which it lies below every line of the envelope."""
    start = torch.full_like(lines.entropy, -math.inf)
    end = torch.full_like(lines.entropy, math.inf)
    for entropy, peak, neuron in zip(*envelope, strict=True):
        gap, steepness = entropy - lines.entropy, peak - lines.peak
        crossing = gap / steepness
        end = torch.where(steepness > 0, torch.minimum(end, crossing), end)
        start = torch.where(steepness < 0, torch.maximum(start, crossing), start)
        # a line that equals one of the envelope is below it only if its flat index is lower, as in `select`
        never = (steepness == 0) & ((gap < 0) | ((gap == 0) & (lines.neuron > neuron)))
        end = torch.where(never, -math.inf, end)
    return start, end

"""The histogram that AutoSweep watches as λ runs over a range: exact, with every λ at which it changes (SPEC 3, 4)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ..errors import SettingsError
from .frames import Columns, Framed
from .selection import NeuronStatistics, lowest, rank_of_share
from .sweep import check_range

# ── Score lines that compete for the last places of the selection while λ runs over an interval.
#
# Every score s(λ) = e − λ r falls as λ grows (r ≥ 0), and so does the level, the score of the last neuron selected.
# In [a, b] a line is therefore
#
#     never selected     where s(b) > level(a)
#     always selected    where s(a) < level(b)
#
# and only the rest compete. Rounding keeps the order of numbers, so this holds for the scores as computed too, not only
# in theory.

FEW = 80
"""So few different lines are compared pair by pair."""
MANY = 4096
"""More lines than this are not looked at together, alike or not."""
RESOLUTION = 1e-12
"""Below this, λ is finer than the scores that it separates."""
_SAME_SCORE = 1e-12


@dataclass(frozen=True)
class Contest:
    """The lines that compete in an interval of λ, in the order of their flat indices, which decides ties.

    Attributes:
        lo: the interval's start.
        hi: its end.
        entropy: e of each line.
        peak: r of each line, not negative.
        above: N, the languages in which the line's neuron is above τ.
        places: how many of the lines are selected.
        certain: histogram of N over the neurons selected in the whole interval, j = 0..K.
    """

    lo: float
    hi: float
    entropy: Float64[np.ndarray, " line"]
    peak: Float64[np.ndarray, " line"]
    above: Int64[np.ndarray, " line"]
    places: int
    certain: Int64[np.ndarray, " n_languages"]

    def narrowed(self) -> Contest:
        """Without the lines whose selection does not depend on λ here."""
        at_lo, at_hi = self.scores(self.lo), self.scores(self.hi)
        level_lo, level_hi = (np.partition(at, self.places - 1)[self.places - 1] for at in (at_lo, at_hi))
        always = at_lo < level_hi
        rest = ~always & (at_hi <= level_lo)
        return replace(
            self,
            entropy=self.entropy[rest],
            peak=self.peak[rest],
            above=self.above[rest],
            places=self.places - int(always.sum()),
            certain=self.certain + np.bincount(self.above[always], minlength=len(self.certain)),
        )

    def halves(self) -> tuple[Contest, Contest]:
        """The same lines over the first and the second half of the interval."""
        middle = (self.lo + self.hi) / 2
        return replace(self, hi=middle), replace(self, lo=middle)

    def scores(self, lam: float) -> Float64[np.ndarray, " line"]:
        """The scores at one λ, rounded as selection rounds them."""
        return self.entropy - lam * self.peak

    def appear(self, lams: Float64[np.ndarray, " lam"]) -> Int64[np.ndarray, "lam n_languages"]:
        """The histogram of all selected neurons at each of a few λ, ties by flat index."""
        scores = self.entropy - lams[:, None] * self.peak
        first = np.argsort(scores, axis=1, kind="stable")[:, : self.places]
        width = len(self.certain)
        cells = self.above[first] + width * np.arange(len(lams))[:, None]
        return self.certain + np.bincount(cells.ravel(), minlength=width * len(lams)).reshape(-1, width)

    def settled(self) -> bool:
        """Whether the histogram is the same in the whole open interval.

        All lines' neurons have the same N; or the lines keep their order. Just after lo, of lines that meet there, the
        steeper one is lower; just before hi the less steep one.
        """
        if self.hi - self.lo < RESOLUTION or len(self.above) == 0 or bool((self.above == self.above[0]).all()):
            return True
        if self.few():
            return False
        after_lo = np.lexsort((-self.peak, self.scores(self.lo)))
        before_hi = np.lexsort((self.peak, self.scores(self.hi)))
        return bool((after_lo == before_hi).all())

    def few(self) -> bool:
        """Whether there are few different lines: neurons that hardly ever fire share theirs with hundreds of others."""
        return len(self.above) <= FEW or (len(self.above) <= MANY and len(self._different()) <= FEW)

    def turns(self) -> Float64[np.ndarray, " turn"]:
        """The λ inside the interval at which lines cross for the last place, ascending; for few different lines.

        Lines i and j cross at (e_i − e_j) / (r_i − r_j). It changes the selection only where, of the lines that meet
        there, some are selected and some are not: fewer than `places` lines lie below, and more below or in it.
        """
        different = self._different()
        i, j = (different[side] for side in np.triu_indices(len(different), k=1))
        steeper = self.peak[i] - self.peak[j]
        i, j, steeper = i[steeper != 0], j[steeper != 0], steeper[steeper != 0]
        crossing = (self.entropy[i] - self.entropy[j]) / steeper
        inside = (crossing > self.lo) & (crossing < self.hi)
        i, crossing = i[inside], crossing[inside]
        height = (self.entropy[i] - crossing * self.peak[i])[:, None]
        scores = self.entropy - crossing[:, None] * self.peak
        below = (scores < height - _SAME_SCORE).sum(axis=1)
        met = (scores <= height + _SAME_SCORE).sum(axis=1)
        turns = np.sort(crossing[(below < self.places) & (self.places < met)])
        return turns[np.diff(turns, prepend=self.lo) > RESOLUTION]

    def _different(self) -> Int64[np.ndarray, " different"]:
        """One line of each kind."""
        return np.unique(self.entropy + 1j * self.peak, return_index=True)[1]


@dataclass(frozen=True)
class LambdaPath(Framed):
    """appear[j] for all λ in [lo, hi]: a piecewise constant function of λ.

    Attributes:
        edges: lo, the λ at which the histogram changes, ascending, and hi. At an edge itself lines meet, and flat
            indices decide, which `at` knows.
        appear: selected neurons above τ in exactly j languages, j = 0..K, between an edge and the next.
        contest: the neurons whose selection depends on λ in the range.
    """

    edges: Float64[Tensor, " edge"]
    appear: Int64[Tensor, "piece n_languages"]
    contest: Contest

    def at(self, lam: float) -> list[int]:
        """The histogram at one λ, as an identification at it counts it.

        Raises:
            SettingsError: λ is outside the range.
        """
        self._check(lam)
        competing = self.contest
        won = lowest(torch.from_numpy(competing.scores(float(lam))), count=competing.places).numpy()
        histogram = np.bincount(competing.above[won], minlength=len(competing.certain))
        return (competing.certain + histogram).tolist()

    def piece(self, lam: float) -> int:
        """The piece in which λ lies; of an edge, the one that follows.

        Raises:
            SettingsError: λ is outside the range.
        """
        self._check(lam)
        position = int(torch.searchsorted(self.edges, float(lam), right=True)) - 1
        return min(position, len(self.appear) - 1)

    def sampled(self, points: int) -> tuple[Float64[Tensor, " point"], Int64[Tensor, "point n_languages"]]:
        """The path at evenly spaced λ, for a figure that cannot show every piece."""
        lams = torch.linspace(float(self.edges[0]), float(self.edges[-1]), points, dtype=torch.float64)
        return lams, self.appear[[self.piece(lam) for lam in lams.tolist()]]

    def columns(self) -> Columns:
        """One row a piece: lam_from, lam_to, appear_0 … appear_K."""
        edges = self.edges.tolist()
        by_number = {f"appear_{j}": column.tolist() for j, column in enumerate(self.appear.T)}
        return {"lam_from": edges[:-1], "lam_to": edges[1:], **by_number}

    def _check(self, lam: float) -> None:
        lo, hi = float(self.edges[0]), float(self.edges[-1])
        if not lo <= lam <= hi:
            raise SettingsError(f"the path runs over λ in [{lo!r}, {hi!r}], got {lam!r}: follow it over a longer range")


def lambda_path(statistics: NeuronStatistics, *, top_rate: float, lo: float, hi: float) -> LambdaPath:
    """Follow appear[0..K] from lo to hi.

    The interval is halved until few enough lines compete for the last places that all their crossings can be looked at;
    at each level of halving most lines drop out, selected for sure or never.

    Args:
        statistics: of every neuron.
        top_rate: share of neurons selected.
        lo: smallest λ.
        hi: largest λ.

    Raises:
        SettingsError: a range or a rate that there is not.
    """
    check_range(lo, hi)
    above = statistics.languages_above.flatten().numpy()
    whole = Contest(
        lo=float(lo),
        hi=float(hi),
        entropy=statistics.entropy.flatten().numpy(),
        peak=statistics.peak.flatten().numpy(),
        above=above,
        places=rank_of_share(top_rate, above.size, "top_rate"),
        certain=np.zeros(statistics.member.shape[-1] + 1, dtype=np.int64),
    ).narrowed()
    edges, appear = _follow(whole)
    return LambdaPath(torch.tensor([*edges, float(hi)], dtype=torch.float64), torch.tensor(np.stack(appear)), whole)


def _follow(whole: Contest) -> tuple[list[float], list[Int64[np.ndarray, " n_languages"]]]:
    """The starts of the pieces, in ascending order, and their histograms; no two neighbours are the same."""
    edges: list[float] = []
    appear: list[Int64[np.ndarray, " n_languages"]] = []
    waiting = [whole]
    while waiting:
        contest = waiting.pop().narrowed()
        settled = contest.settled()
        if not settled and not contest.few():
            waiting += reversed(contest.halves())
            continue
        starts = np.array([contest.lo] if settled else [contest.lo, *contest.turns()])
        middles = (starts + np.append(starts[1:], contest.hi)) / 2
        for start, histogram in zip(starts.tolist(), contest.appear(middles), strict=True):
            if not appear or (histogram != appear[-1]).any():
                edges.append(start)
                appear.append(histogram)
    return edges, appear

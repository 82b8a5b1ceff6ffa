"""The histogram appear[0..K] as a function of λ: exact, with every λ at which it changes.

Every score s(λ) = e − λ r falls as λ grows (r ≥ 0), and so does level(λ), the score of the last neuron selected. In an
interval [a, b], a neuron's line is therefore

    never selected     if s(b) > level(a)
    always selected    if s(a) < level(b)

and only the other lines compete. Rounding preserves the order of numbers, so this also holds for computed scores.
`lambda_path` halves the range until few enough lines compete that all of their crossings can be computed.
"""

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

FEW = 80  # up to this many different lines are compared pair by pair
MANY = 4096  # more lines than this are halved again before equal lines are looked for
RESOLUTION = 1e-12  # the shortest interval of λ: a shorter one would be finer than the rounding of the scores
_SAME_SCORE = 1e-12


@dataclass(frozen=True)
class Contest:
    """The lines, by flat index, that compete in [lo, hi] for `places`; `certain` is the histogram of sure winners."""

    lo: float
    hi: float
    entropy: Float64[np.ndarray, " line"]
    peak: Float64[np.ndarray, " line"]
    above: Int64[np.ndarray, " line"]
    places: int
    certain: Int64[np.ndarray, " n_languages"]

    def narrowed(self) -> Contest:
        """The same without the lines whose selection does not depend on λ here."""
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

    def scores(self, lam: float) -> Float64[np.ndarray, " line"]:
        """The scores at one λ, rounded as selection rounds them."""
        return self.entropy - lam * self.peak

    def appear(self, lams: Float64[np.ndarray, " lam"]) -> Int64[np.ndarray, "lam n_languages"]:
        """The histogram of all selected neurons at each of a few λ."""
        scores = self.entropy - lams[:, None] * self.peak
        first = np.argsort(scores, axis=1, kind="stable")[:, : self.places]
        width = len(self.certain)
        cells = self.above[first] + width * np.arange(len(lams))[:, None]
        return self.certain + np.bincount(cells.ravel(), minlength=width * len(lams)).reshape(-1, width)

    def settled(self) -> bool:
        """Whether the histogram is constant in the open interval: all lines have the same N, or keep their order."""
        if self.hi - self.lo < RESOLUTION or len(self.above) == 0 or bool((self.above == self.above[0]).all()):
            return True
        if self.few():
            return False
        after_lo = np.lexsort((-self.peak, self.scores(self.lo)))  # of lines that meet at lo, the steeper is lower
        before_hi = np.lexsort((self.peak, self.scores(self.hi)))  # of lines that meet at hi, the less steep is
        return bool((after_lo == before_hi).all())

    def few(self) -> bool:
        """Whether few lines are different; neurons that hardly ever fire share a line with hundreds of others."""
        return len(self.above) <= FEW or (len(self.above) <= MANY and len(self._different()) <= FEW)

    def turns(self) -> Float64[np.ndarray, " turn"]:
        """The λ inside the interval at which a crossing changes the selection, ascending; for few different lines.

            λ = (e_i − e_j) / (r_i − r_j)

        Fewer than `places` lines must lie below the crossing, and more than `places` below it or in it.
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
        """The position of one line of each kind."""
        return np.unique(self.entropy + 1j * self.peak, return_index=True)[1]


@dataclass(frozen=True)
class LambdaPath(Framed):
    """appear[j] for all λ in [lo, hi]: a piecewise constant function.

    `edges` are lo, the λ at which the histogram changes, ascending, and hi; `appear` is the histogram between each edge
    and the next. At an edge lines meet and flat indices decide; `at` takes this into account.
    """

    edges: Float64[Tensor, " edge"]
    appear: Int64[Tensor, "piece n_languages"]
    contest: Contest

    def at(self, lam: float) -> list[int]:
        """The histogram at one λ, as `find` gives it; SettingsError if λ is outside the range."""
        self._check(lam)
        competing = self.contest
        won = lowest(torch.from_numpy(competing.scores(float(lam))), count=competing.places).numpy()
        return (competing.certain + np.bincount(competing.above[won], minlength=len(competing.certain))).tolist()

    def piece(self, lam: float) -> int:
        """The piece that contains λ, or that follows an edge; SettingsError if λ is outside the range."""
        self._check(lam)
        return min(int(torch.searchsorted(self.edges, float(lam), right=True)), len(self.appear)) - 1

    def sampled(self, points: int) -> tuple[Float64[Tensor, " point"], Int64[Tensor, "point n_languages"]]:
        """The histogram at evenly spaced λ, for a figure that cannot show every piece."""
        lams = torch.linspace(float(self.edges[0]), float(self.edges[-1]), points, dtype=torch.float64)
        return lams, self.appear[[self.piece(lam) for lam in lams.tolist()]]

    def columns(self) -> Columns:
        """A row for each piece: lam_from, lam_to, appear_0 … appear_K."""
        edges = self.edges.tolist()
        by_number = {f"appear_{j}": column.tolist() for j, column in enumerate(self.appear.T)}
        return {"lam_from": edges[:-1], "lam_to": edges[1:], **by_number}

    def _check(self, lam: float) -> None:
        lo, hi = float(self.edges[0]), float(self.edges[-1])
        if not lo <= lam <= hi:
            raise SettingsError(f"the path runs over λ in [{lo!r}, {hi!r}], got {lam!r}: follow it over a longer range")


def lambda_path(statistics: NeuronStatistics, *, top_rate: float, lo: float, hi: float) -> LambdaPath:
    """appear[0..K] for every λ from lo to hi; SettingsError if the range or the rate is invalid.

    >>> from language_neurons_alignment.core.selection import neuron_statistics
    >>> p = torch.tensor([[[0.9, 0.0], [0.6, 0.5], [0.1, 0.1], [0.0, 0.4]]])
    >>> path = lambda_path(neuron_statistics(p, bar=0.5), top_rate=0.5, lo=0.0, hi=10.0)
    >>> [round(edge, 3) for edge in path.edges.tolist()], path.appear.tolist()
    ([0.0, 3.728, 10.0], [[0, 2, 0], [0, 1, 1]])
    """
    check_range(lo, hi)
    whole = Contest(
        lo=float(lo),
        hi=float(hi),
        entropy=statistics.entropy.flatten().numpy(),
        peak=statistics.peak.flatten().numpy(),
        above=statistics.languages_above.flatten().numpy(),
        places=rank_of_share(top_rate, statistics.neurons, "top_rate"),
        certain=np.zeros(statistics.member.shape[-1] + 1, dtype=np.int64),
    ).narrowed()
    edges, appear = _follow(whole)
    return LambdaPath(torch.tensor([*edges, float(hi)], dtype=torch.float64), torch.tensor(np.stack(appear)), whole)


def _follow(whole: Contest) -> tuple[list[float], list[Int64[np.ndarray, " n_languages"]]]:
    """The starts of the pieces, ascending, and their histograms; neighbouring pieces differ."""
    edges: list[float] = []
    appear: list[Int64[np.ndarray, " n_languages"]] = []
    waiting = [whole]
    while waiting:
        contest = waiting.pop().narrowed()
        settled = contest.settled()
        if not settled and not contest.few():
            middle = (contest.lo + contest.hi) / 2
            waiting += replace(contest, lo=middle), replace(contest, hi=middle)
            continue
        starts = np.array([contest.lo] if settled else [contest.lo, *contest.turns()])
        middles = (starts + np.append(starts[1:], contest.hi)) / 2
        for start, histogram in zip(starts.tolist(), contest.appear(middles), strict=True):
            if not appear or (histogram != appear[-1]).any():
                edges.append(start)
                appear.append(histogram)
    return edges, appear

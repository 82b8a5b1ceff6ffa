"""The histogram appear[0..K] as a function of λ: exact, with every λ at which it changes.

Every score s(λ) = e − λ r falls as λ grows (r ≥ 0), and so does level(λ), the score of the last neuron selected. In an
interval [a, b], a neuron's line is therefore

    never selected     if s(b) > level(a)
    always selected    if s(a) < level(b)

and only the other lines compete. Rounding preserves the order of numbers, so this also holds for computed scores.
`lambda_path` halves the range until few enough lines compete that all of their crossings can be computed. It works on
many intervals at once, as rows of arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from ..errors import SettingsError
from .frames import Columns, Framed
from .selection import NeuronStatistics, rank_of_share
from .sweep import check_range

FEW = 32  # up to this many different lines are compared pair by pair
CELLS = 1 << 16  # about so many numbers are worked on at once: more would leave the cache
SHRUNK = 0.75  # an interval that loses more of its lines is halved again, without a closer look
RESOLUTION = 1e-12  # the shortest interval of λ: a shorter one would be finer than the rounding of the scores
_SAME_SCORE = 1e-12


@dataclass(frozen=True)
class Contests:
    """Intervals [lo, hi] of λ, and the lines that compete in each for its `places`.

    `certain` is the histogram of sure winners. Rows with fewer lines than others end in e = ∞, r = 0, which never win.
    """

    lo: Float64[np.ndarray, " contest"]
    hi: Float64[np.ndarray, " contest"]
    entropy: Float64[np.ndarray, "contest line"]
    peak: Float64[np.ndarray, "contest line"]
    above: Int64[np.ndarray, "contest line"]
    places: Int64[np.ndarray, " contest"]
    certain: Int64[np.ndarray, "contest n_languages"]

    def __len__(self) -> int:
        return len(self.lo)

    def of(self, rows: np.ndarray) -> Contests:
        """Some of the contests, by their numbers or by a mask."""
        return Contests(**{name: values[rows] for name, values in vars(self).items()})

    def halved(self) -> Contests:
        """Both halves of every interval."""
        middle = (self.lo + self.hi) / 2
        twice = self.of(np.tile(np.arange(len(self)), 2))
        return replace(twice, lo=np.append(self.lo, middle), hi=np.append(middle, self.hi))

    def narrowed(self) -> Contests:
        """The same without the lines whose selection does not depend on λ in their interval."""
        at_lo, at_hi = self.scores(self.lo), self.scores(self.hi)
        always = at_lo < self._level(at_hi)
        row, line = (~always & (at_hi <= self._level(at_lo))).nonzero()
        return replace(
            self,
            entropy=_in_rows(row, self.entropy[row, line], fill=np.inf),
            peak=_in_rows(row, self.peak[row, line]),
            above=_in_rows(row, self.above[row, line]),
            places=self.places - always.sum(axis=1),
            certain=self.certain + self._by_number(always),
        )

    def scores(self, lam: Float64[np.ndarray, " contest"]) -> Float64[np.ndarray, "contest line"]:
        """The scores at one λ of each interval, rounded as selection rounds them."""
        return self.entropy - lam[:, None] * self.peak

    def appear(self, lam: Float64[np.ndarray, " contest"]) -> Int64[np.ndarray, "contest n_languages"]:
        """The histogram of all selected neurons at one λ of each interval; the lower flat index wins a tie."""
        scores = self.scores(lam)
        level = self._level(scores)
        won, tied = scores < level, scores == level
        won |= tied & (tied.cumsum(axis=1) <= (self.places - won.sum(axis=1))[:, None])
        return self.certain + self._by_number(won)

    def settled(self) -> Bool[np.ndarray, " contest"]:
        """Whether the histogram is constant in the open interval, as all lines have the same N."""
        alike = (self.above == self.above[:, :1]) | np.isinf(self.entropy)
        return alike.all(axis=1) | (self.hi - self.lo < RESOLUTION)

    def ordered(self) -> Bool[np.ndarray, " contest"]:
        """Whether the histogram is constant in the open interval, as all lines keep their order."""
        after_lo = np.lexsort((-self.peak, self.scores(self.lo)))  # of lines that meet at lo, the steeper is lower
        before_hi = np.lexsort((self.peak, self.scores(self.hi)))  # of lines that meet at hi, the less steep is
        return (after_lo == before_hi).all(axis=1)

    def lines(self) -> Int64[np.ndarray, " contest"]:
        """How many lines compete in each."""
        return np.isfinite(self.entropy).sum(axis=1)

    def few(self) -> Bool[np.ndarray, " contest"]:
        """Whether few lines are different; neurons that hardly ever fire share a line with hundreds of others."""
        few = self.lines() <= FEW
        few[~few] = (self.of(~few)._kinds()[2] > 0).sum(axis=1) <= FEW
        return few

    def turns(self) -> tuple[Int64[np.ndarray, " turn"], Float64[np.ndarray, " turn"]]:
        """The λ at which a crossing changes the selection, ascending in each contest, after its number.

            λ = (e_i − e_j) / (r_i − r_j)

        Fewer than `places` lines must lie below the crossing, and more than `places` below it or in it. For few
        different lines.
        """
        entropy, peak, neurons = self._kinds()
        with np.errstate(divide="ignore", invalid="ignore"):  # parallel lines do not cross
            crossing = (entropy[:, :, None] - entropy[:, None]) / (peak[:, :, None] - peak[:, None])
        row, i, j = ((crossing > self.lo[:, None, None]) & (crossing < self.hi[:, None, None])).nonzero()
        row, i, j = row[i < j], i[i < j], j[i < j]
        crossing, places = crossing[row, i, j], self.places[row]
        height = (entropy[row, i] - crossing * peak[row, i])[:, None]
        scores = entropy[row] - crossing[:, None] * peak[row]
        below = np.where(scores < height - _SAME_SCORE, neurons[row], 0).sum(axis=1)
        met = np.where(scores <= height + _SAME_SCORE, neurons[row], 0).sum(axis=1)
        turning = (below < places) & (places < met)
        row, crossing = row[turning], crossing[turning]
        order = np.lexsort((crossing, row))
        row, crossing = row[order], crossing[order]
        before = np.where(np.diff(row, prepend=-1) > 0, self.lo[row], np.append(0.0, crossing)[:-1])
        apart = crossing - before > RESOLUTION
        return row[apart], crossing[apart]

    def _kinds(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The different lines of each contest, ascending by e and then r: e, r, and how many neurons have it."""
        order = np.lexsort((self.peak, self.entropy))
        entropy, peak = (np.take_along_axis(values, order, axis=1) for values in (self.entropy, self.peak))
        real = np.isfinite(entropy)
        first = real.copy()
        first[:, 1:] &= (entropy[:, 1:] != entropy[:, :-1]) | (peak[:, 1:] != peak[:, :-1])
        row = first.nonzero()[0]
        neurons = np.bincount(first.cumsum()[real.ravel()] - 1)
        return _in_rows(row, entropy[first], fill=np.inf), _in_rows(row, peak[first]), _in_rows(row, neurons)

    def _level(self, scores: Float64[np.ndarray, "contest line"]) -> Float64[np.ndarray, "contest 1"]:
        """The score of the last neuron selected."""
        last = self.places - 1
        # with different places, short rows are sorted sooner than they are partitioned at every one of them
        ordered = np.sort(scores, axis=1) if len(self) > 8 else np.partition(scores, np.unique(last), axis=1)
        return np.take_along_axis(ordered, last[:, None], axis=1)

    def _by_number(self, chosen: Bool[np.ndarray, "contest line"]) -> Int64[np.ndarray, "contest n_languages"]:
        """The histogram of some of the lines by N."""
        contests, width = self.certain.shape
        cells = self.above + width * np.arange(contests)[:, None]
        return np.bincount(cells[chosen], minlength=contests * width).reshape(contests, width)


def _in_rows(row: Int64[np.ndarray, " value"], values: np.ndarray, fill: float = 0.0) -> np.ndarray:
    """Values in rows of the same length, by the number of the row of each, ascending; every row has a value."""
    length = np.bincount(row)
    rows = np.full((len(length), length.max(initial=0)), fill, dtype=values.dtype)
    rows[row, np.arange(len(row)) - np.repeat(length.cumsum() - length, length)] = values
    return rows


@dataclass(frozen=True)
class LambdaPath(Framed):
    """appear[j] for all λ in [lo, hi]: a piecewise constant function.

    `edges` are lo, the λ at which the histogram changes, ascending, and hi; `appear` is the histogram between each edge
    and the next. At an edge lines meet and flat indices decide; `at` takes this into account.
    """

    edges: Float64[Tensor, " edge"]
    appear: Int64[Tensor, "piece n_languages"]
    contests: Contests

    def at(self, lam: float) -> list[int]:
        """The histogram at one λ, as `find` gives it; SettingsError if λ is outside the range."""
        self._check(lam)
        return self.contests.appear(np.array([lam], dtype=np.float64))[0].tolist()

    def piece(self, lam: float) -> int:
        """The piece that contains λ, or that follows an edge; SettingsError if λ is outside the range."""
        self._check(lam)
        return min(int(torch.searchsorted(self.edges, float(lam), right=True)), len(self.appear)) - 1

    def sampled(self, points: int) -> tuple[Float64[Tensor, " point"], Int64[Tensor, "point n_languages"]]:
        """The histogram at evenly spaced λ, for a figure that cannot show every piece."""
        lams = torch.linspace(float(self.edges[0]), float(self.edges[-1]), points, dtype=torch.float64)
        pieces = torch.searchsorted(self.edges, lams, right=True).clamp(max=len(self.appear)) - 1
        return lams, self.appear[pieces]

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
    languages = statistics.member.shape[-1]
    whole = Contests(
        lo=np.array([lo], dtype=np.float64),
        hi=np.array([hi], dtype=np.float64),
        entropy=statistics.entropy.flatten().numpy()[None],
        peak=statistics.peak.flatten().numpy()[None],
        above=statistics.languages_above.flatten().numpy()[None],
        places=np.array([rank_of_share(top_rate, statistics.neurons, "top_rate")]),
        certain=np.zeros((1, languages + 1), dtype=np.int64),
    )
    edges, appear = _follow(whole)
    edges = torch.from_numpy(np.append(edges, np.float64(hi)))
    return LambdaPath(edges, torch.from_numpy(appear), whole.narrowed())


def _follow(whole: Contests) -> tuple[Float64[np.ndarray, " piece"], Int64[np.ndarray, "piece n_languages"]]:
    """The starts of the pieces, ascending, and their histograms; neighbouring pieces differ."""
    found, waiting = [], [whole]
    while waiting:
        before = waiting.pop()
        contests = before.narrowed()
        lines = contests.lines()
        many = (lines > FEW) & (lines < SHRUNK * before.lines())
        settled, few = contests.settled(), ~many
        few[few] = contests.of(few).few()
        rest = ~many & ~few & ~settled
        settled[rest] = contests.of(rest).ordered()
        found += [_pieces(part, cut=True) for part in _parts(contests.of(few & ~settled), FEW * FEW)]
        found += [_pieces(part, cut=False) for part in _parts(contests.of(settled))]
        waiting += [part.halved() for part in _parts(contests.of(~few & ~settled))]
    edges, appear = map(np.concatenate, zip(*found, strict=True))
    order = np.argsort(edges)
    edges, appear = edges[order], appear[order]
    new = np.append(True, (appear[1:] != appear[:-1]).any(axis=1))
    return edges[new], appear[new]


def _pieces(contests: Contests, *, cut: bool) -> tuple[np.ndarray, np.ndarray]:
    """The starts of the pieces of each interval, which its turns cut if there are any, and their histograms."""
    row, turns = contests.turns() if cut else (np.arange(0), np.zeros(0))
    row, start = np.append(np.arange(len(contests)), row), np.append(contests.lo, turns)
    order = np.lexsort((start, row))
    row, start = row[order], start[order]
    end = np.where(np.diff(row, append=len(contests)) > 0, contests.hi[row], np.append(start, 0.0)[1:])
    return start, contests.of(row).appear((start + end) / 2)


def _parts(contests: Contests, cells: int = 0) -> list[Contests]:
    """The contests in groups of about `CELLS` numbers."""
    number = len(contests) * max(cells, contests.entropy.shape[1]) // CELLS + 1
    return [contests.of(rows) for rows in np.array_split(np.argsort(contests.lines()), number) if len(rows)]

"""The histogram that AutoSweep watches as λ runs over a range: exact, with every λ at which it changes (SPEC 3, 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ..errors import SettingsError
from ..frames import Columns, Framed
from .contest import Contest
from .selection import NeuronStatistics, lowest, rank_of_share
from .sweep import check_range


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

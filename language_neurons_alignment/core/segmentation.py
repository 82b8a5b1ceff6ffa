"""Cut the layers into contiguous stages, and test how many stages the class profile supports.

The paper sees four stages in its figure 3. Let x_l be the profile of layer l, with every class standardised to mean 0
and variance 1. The best m stages have the least cost; dynamic programming over the last cut finds them:

    cost(i, j)  = Σ_{i ≤ l < j} |x_l − mean(x_i … x_{j−1})|²
    best(1, j)  = cost(0, j)
    best(m, j)  = min_{i < j} best(m − 1, i) + cost(i, j)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ..config import CLASSES
from ..errors import SettingsError
from .frames import Columns, Framed
from .profiles import ClassProfile

Stage = tuple[int, int]
"""A stage's first layer, and the layer after its last one."""


@dataclass(frozen=True)
class Segmentation(Framed):
    """The best cut of the layers into m stages, for m = 1, 2, …, and what each further stage gains.

        explained[m] = 1 − cost[m] / cost[1]
        gain[m]      = explained[m] − explained[m − 1]
        bic[m]       = n ln(cost[m] / n) + (m·d + m − 1) ln n,   n = layers · d values; the lowest is the best
        p[m]         = how often noise alone gains as much as the m-th stage (`stage_p_value`); NaN for m = 1

    Both criteria treat residuals within a stage as independent noise. A profile that changes smoothly over the layers
    gains by every further cut, so they tend to give too many stages rather than too few.

    Attributes:
        classes: the d classes whose profile is cut; a class that is the same in every layer is left out.
        cuts: for each m, the first layers of all stages but the first.
        cost: the sum of squares within the stages.
    """

    classes: tuple[str, ...]
    layers: int
    cuts: tuple[tuple[int, ...], ...]
    cost: Float64[Tensor, " m"]
    p: Float64[Tensor, " m"]

    @property
    def explained(self) -> Float64[Tensor, " m"]:
        """The share of the profile's variance that m stages explain; NaN for a constant profile."""
        return 1.0 - self.cost / self.cost[0]

    @property
    def gain(self) -> Float64[Tensor, " m"]:
        """The share that the m-th stage adds; NaN for m = 1."""
        return torch.cat([torch.tensor([math.nan], dtype=torch.float64), self.explained.diff()])

    @property
    def bic(self) -> Float64[Tensor, " m"]:
        """The Bayesian information criterion of m stages; −∞ if they explain everything."""
        features = len(self.classes)
        m, n = torch.arange(1, len(self.cost) + 1, dtype=torch.float64), self.layers * features
        return n * (self.cost / n).log() + (m * features + m - 1) * math.log(max(n, 1))

    @property
    def best(self) -> int:
        """The number of stages of lowest BIC."""
        return int(self.bic.nan_to_num(nan=math.inf).argmin()) + 1

    def supported(self, *, level: float = 0.05) -> int:
        """The largest number of stages such that it and every smaller number from 2 on has p ≤ level."""
        return 1 + int((self.p[1:] <= level).long().cumprod(dim=0).sum())

    def stages(self, count: int) -> list[Stage]:
        """The best `count` stages; SettingsError if this number was not computed."""
        if not 1 <= count <= len(self.cuts):
            raise SettingsError(
                f"the layers were cut into 1 to {len(self.cuts)} stages, not {count}: name one of these"
            )
        return list(pairwise((0, *self.cuts[count - 1], self.layers)))

    def columns(self) -> Columns:
        """A row for each number of stages: stages, cuts (joined by spaces), cost, explained, gain, bic, p."""
        return {
            "stages": list(range(1, len(self.cuts) + 1)),
            "cuts": [" ".join(map(str, cuts)) for cuts in self.cuts],
            **{name: getattr(self, name).tolist() for name in ("cost", "explained", "gain", "bic", "p")},
        }


def segment_profile(
    profile: ClassProfile, *, classes: Sequence[str] = CLASSES, most: int = 6, permutations: int = 499, seed: int = 0
) -> Segmentation:
    """Cut a class profile into 1 to `most` stages, at most one per layer.

    >>> profile = ClassProfile(("specific",), torch.tensor([[9], [8], [1], [2], [1]]), d_mlp=10)
    >>> segment_profile(profile, permutations=9).stages(2)
    [(0, 2), (2, 5)]
    """
    counted = {name: profile.of(name).to(torch.float64) for name in classes if name in profile.classes}
    varying = {name: column for name, column in counted.items() if bool((column != column[0]).any())}
    standard = [(column - column.mean()) / column.std(correction=0) for column in varying.values()]
    values = torch.stack(standard, dim=1) if standard else torch.zeros(len(profile.counts), 0, dtype=torch.float64)
    cost, cuts = segment(values, most=min(most, len(values)))
    p = [stage_p_value(values, cuts=fewer, permutations=permutations, seed=seed) for fewer in cuts[:-1]]
    return Segmentation(
        tuple(varying), len(values), tuple(cuts), cost, torch.tensor([math.nan, *p], dtype=torch.float64)
    )


def segment(
    values: Float64[Tensor, "layer feature"], *, most: int
) -> tuple[Float64[Tensor, " m"], list[tuple[int, ...]]]:
    """The least cost of 1 … `most` stages, and their cuts; the earliest of equally good cuts."""
    best, origins = _optima(_stage_costs(values), most=most)
    cuts: list[tuple[int, ...]] = []
    for m in range(most):
        end, backwards = len(values), []
        for origin in reversed(origins[:m]):
            end = int(origin[end])
            backwards.append(end)
        cuts.append(tuple(reversed(backwards)))
    return best, cuts


def stage_p_value(
    values: Float64[Tensor, "layer feature"], *, cuts: Sequence[int], permutations: int, seed: int
) -> float:
    """How often one more stage would gain as much if the profile had only these m stages.

        F = cost[m] / cost[m + 1],   p = (1 + #{F* ≥ F}) / (1 + permutations)

    F* is F after the residuals of the m stages are permuted over the layers; both costs are minimised again. p = 1 if m
    stages explain everything.
    """
    stages = values.tensor_split(list(cuts))
    fitted = torch.cat([stage.mean(dim=0, keepdim=True).expand_as(stage) for stage in stages])
    residual = values - fitted
    if not residual.any():
        return 1.0
    order = torch.rand(permutations, len(values), generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
    shuffled = torch.cat([values.unsqueeze(0), fitted + residual[order]])
    best, _ = _optima(_stage_costs(shuffled), most=len(cuts) + 2)
    ratio = best[:, -2] / best[:, -1]
    return float((1 + (ratio[1:] >= ratio[0]).sum()) / (1 + permutations))


def _stage_costs(values: Float64[Tensor, "*many layer feature"]) -> Float64[Tensor, "*many start end"]:
    """cost(i, j) of every stage, from cumulative sums of values and of squares; ∞ for an empty stage."""
    zero = torch.zeros_like(values[..., :1, :])
    sums = torch.cat([zero, values.cumsum(dim=-2)], dim=-2)
    squares = torch.cat([zero, (values**2).cumsum(dim=-2)], dim=-2).sum(dim=-1)
    places = torch.arange(sums.shape[-2])
    length = places.unsqueeze(0) - places.unsqueeze(1)
    between = (sums.unsqueeze(-3) - sums.unsqueeze(-2)).square().sum(dim=-1)
    cost = (squares.unsqueeze(-2) - squares.unsqueeze(-1) - between / length.clamp(min=1)).clamp(min=0.0)
    return cost.masked_fill(length < 1, math.inf)


def _optima(
    costs: Float64[Tensor, "*many start end"], *, most: int
) -> tuple[Float64[Tensor, "*many m"], list[Int64[Tensor, "*many end"]]]:
    """best(m, layers) for m = 1 … `most`; and for m ≥ 2, where the last stage of the first j layers begins."""
    best, origins = [costs[..., 0, :]], []
    for _ in range(most - 1):
        shortest = (best[-1].unsqueeze(-1) + costs).min(dim=-2)
        best.append(shortest.values)
        origins.append(shortest.indices)
    return torch.stack([one[..., -1] for one in best], dim=-1), origins

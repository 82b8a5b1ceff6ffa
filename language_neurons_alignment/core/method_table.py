"""Ways to find language neurons, side by side: what their masks do to perplexity, and what they have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from ..frames import Columns, Framed
from .overlap import jaccard
from .perplexity_effects import resampled
from .perplexity_map import PerplexityMap, change_of
from .resampling import Interval, interval
from .selectivity import selectivity

MEASURES = ("own", "elsewhere", "f1")


@dataclass(frozen=True)
class MethodTable(Framed):
    """One row a method; a mean is over languages, and its interval over other texts of the same kind.

    Attributes:
        methods: names.
        languages: codes, in the order of the last axis.
        neurons: of each language's mask.
        means: of each of `MEASURES`: the change of a language's perplexity without its own neurons [%], the change of
            the others' [%], and the selectivity F1.
        intervals: of the means; NaN where cells know only their sums.
        f1: selectivity of each language's neurons.
        jaccard: mean over languages of |A ∩ B| / |A ∪ B| with the reference mask; NaN where all are empty.
    """

    methods: tuple[str, ...]
    languages: tuple[str, ...]
    neurons: Int64[Tensor, "method lang"]
    means: Float64[Tensor, "method measure"]
    intervals: Interval
    f1: Float64[Tensor, "method lang"]
    jaccard: Float64[Tensor, " method"]

    def columns(self) -> Columns:
        """One row a method: means and intervals, then the neurons and the F1 of each language."""
        columns: Columns = {"method": list(self.methods), "neurons": self.neurons.double().mean(dim=1).tolist()}
        for k, name in enumerate(MEASURES):
            columns[name] = self.means[:, k].tolist()
            columns[f"{name}_low"] = self.intervals.low[:, k].tolist()
            columns[f"{name}_high"] = self.intervals.high[:, k].tolist()
        columns["jaccard"] = self.jaccard.tolist()
        for name, values in (("neurons", self.neurons), ("f1", self.f1)):
            columns |= {f"{name}_{code}": values[:, k].tolist() for k, code in enumerate(self.languages)}
        return columns


def method_table(
    maps: Mapping[str, PerplexityMap],
    masks: Mapping[str, Bool[Tensor, "layer neuron lang"]],
    *,
    reference: Bool[Tensor, "layer neuron lang"],
) -> MethodTable:
    """Compare methods by what switching their neurons off does.

        own        mean_k   change[k, k]
        elsewhere  mean_k,j≠k change[k, j]
        F1         mean_k   F1 of language k (`core.selectivity`), of likelihood, 1 / PPL

    Args:
        maps: method → perplexity map, all over the same languages, a row and a column for each.
        masks: method → its mask.
        reference: the mask that overlap is measured with.

    Raises:
        IncompatibleError: a map misses cells.
    """
    languages = next(iter(maps.values())).languages
    means = torch.stack([_means(one.values()) for one in maps.values()])
    ends = [interval(_means(resampled(one))) for one in maps.values()]
    return MethodTable(
        methods=tuple(maps),
        languages=languages,
        neurons=torch.stack([masks[name].sum(dim=(0, 1)) for name in maps]),
        means=means,
        intervals=Interval(torch.stack([one.low for one in ends]), torch.stack([one.high for one in ends])),
        f1=torch.stack([_f1(one.values()) for one in maps.values()]),
        jaccard=torch.stack([mean_jaccard(masks[name], reference) for name in maps]),
    )


def mean_jaccard(
    one: Bool[Tensor, "layer neuron lang"], other: Bool[Tensor, "layer neuron lang"]
) -> Float64[Tensor, ""]:
    """The mean over languages of the Jaccard index of two masks; languages that are empty in both have none."""
    both, size, others = (which.sum(dim=(0, 1)) for which in (one & other, one, other))
    return jaccard(both, size, others).nanmean()


def _means(values: Float64[Tensor, "*draw row lang"]) -> Float64[Tensor, "*draw measure"]:
    """`MEASURES`, from perplexities whose first row is the undisturbed one."""
    change = change_of(values, scale="percent")
    languages = change.shape[-1]
    own = change.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    elsewhere = change[..., ~torch.eye(languages, dtype=torch.bool)].mean(dim=-1)
    return torch.stack([own, elsewhere, _f1(values).mean(dim=-1)], dim=-1)


def _f1(values: Float64[Tensor, "*draw row lang"]) -> Float64[Tensor, "*draw lang"]:
    likelihood = 1 / values
    found = selectivity(likelihood[..., 0, :], likelihood[..., 1:, :]).f1
    return found.where(~values.isnan().any(dim=-1).any(dim=-1, keepdim=True), torch.nan)

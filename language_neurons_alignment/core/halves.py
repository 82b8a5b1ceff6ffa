"""Language neurons found in halves and quarters of a corpus, many times: do they agree, and where does size lead?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from ..errors import SettingsError
from ..frames import Columns, Framed
from .blocks import AnswerBlocks
from .overlap import jaccard
from .procedure import Found, Procedure, Step, unwatched

ALL = "all"


@dataclass(frozen=True)
class Halves(Framed):
    """What random halves of the blocks have in common, and what is found in quarters.

    Blocks that make no whole half or quarter are left out of a split.

    Attributes:
        languages: codes.
        jaccard: of the two halves' masks, |A ∩ B| / |A ∪ B|; last, over all languages together. NaN where both are
            empty.
        blocks: in a half, and in a quarter.
        numbers: the means of `Found.numbers` over the halves, and over the quarters; NaN where there were none.
    """

    languages: tuple[str, ...]
    jaccard: Float64[Tensor, "split set"]
    blocks: tuple[int, int]
    numbers: Float64[Tensor, "size number"]

    @property
    def endless(self) -> Float64[Tensor, " number"]:
        """The numbers of an endless corpus, as halves (of m₁ blocks) and quarters (of m₂) say.

            (m₁ · halves − m₂ · quarters) / (m₁ − m₂)        cut at 0: none of them is negative

        The noise of p makes a class larger or smaller in proportion to its variance, which goes as 1/m: a straight
        line in 1/m through both means, prolonged to 0. The whole corpus's number is left out: it is no mean over
        corpora and would make the line less sure. NaN with fewer than 4 blocks.
        """
        half, quarter = self.blocks
        if quarter == 0:
            return torch.full_like(self.numbers[0], math.nan)
        return ((half * self.numbers[0] - quarter * self.numbers[1]) / (half - quarter)).clamp(min=0)

    def columns(self) -> Columns:
        """One row a language, and all: Jaccard's mean, smallest and largest over the splits."""
        return {
            "language": [*self.languages, ALL],
            "jaccard": self.jaccard.nanmean(dim=0).tolist(),
            "low": self.jaccard.amin(dim=0).tolist(),
            "high": self.jaccard.amax(dim=0).tolist(),
        }


def split_halves(
    blocks: AnswerBlocks,
    procedure: Procedure,
    *,
    languages: Sequence[str],
    splits: int,
    seed: int = 0,
    step: Step = unwatched,
) -> Halves:
    """Cut the blocks at random into two halves and into four quarters, find neurons in all, and compare.

    Args:
        blocks: the corpus.
        procedure: how neurons are found.
        languages: codes.
        splits: how often.
        seed: of the splits.
        step: told of each identification.

    Raises:
        SettingsError: no split.
    """
    if splits < 1:
        raise SettingsError(f"--splits must be at least 1, got {splits}: give for example 50")
    generator = torch.Generator().manual_seed(seed)
    common, numbers = [], []
    for _ in range(splits):
        order = torch.randperm(len(blocks), generator=generator)
        halves, quarters = (
            [procedure(blocks.probability(part)) for part in _parts(order, number)] for number in (2, 4)
        )
        common.append(_jaccard(*(half.mask for half in halves)))
        numbers.append(torch.stack([_mean(halves), _mean(quarters) if quarters else _mean(halves) * math.nan]))
        step(len(halves) + len(quarters))
    sizes = (len(blocks) // 2, len(blocks) // 4)
    return Halves(tuple(languages), torch.stack(common), sizes, torch.stack(numbers).nanmean(dim=0))


def identifications(blocks: int, *, splits: int) -> int:
    """How often neurons are found: in two halves, and in four quarters where there are so many blocks."""
    return splits * (6 if blocks >= 4 else 2)


def _parts(order: Int64[Tensor, " block"], number: int) -> Float64[Tensor, "part block"]:
    """The weights that cut the blocks into so many parts of one size; none where a part would have no block."""
    size = len(order) // number
    parts = torch.zeros(number if size else 0, len(order), dtype=torch.float64)
    for which, part in enumerate(parts):
        part[order[which::number][:size]] = 1.0
    return parts


def _mean(found: Sequence[Found]) -> Float64[Tensor, " number"]:
    """The mean of the numbers of several parts; those that are not there are left out."""
    return torch.stack([each.numbers for each in found]).nanmean(dim=0)


def _jaccard(one: Bool[Tensor, "layer neuron lang"], other: Bool[Tensor, "layer neuron lang"]) -> Tensor:
    """Of each language's neurons, and of all languages' together (a neuron counts once for each of its languages)."""
    sizes = []
    for neurons in (one & other, one, other):
        own = neurons.sum(dim=(0, 1))
        sizes.append(torch.cat([own, own.sum().unsqueeze(0)]))
    return jaccard(*sizes)

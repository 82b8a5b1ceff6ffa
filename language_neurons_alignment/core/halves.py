"""Language neurons found in two halves of a corpus, many times: do they find the same neurons?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from ..errors import SettingsError
from ..frames import Columns, Framed
from .blocks import AnswerBlocks
from .overlap import jaccard
from .procedure import Procedure, Step, unwatched

ALL = "all"


@dataclass(frozen=True)
class Halves(Framed):
    """What random halves of the blocks have in common. With an odd number of blocks, one is left out of each split.

    Attributes:
        languages: codes.
        jaccard: of the two halves' masks, |A ∩ B| / |A ∪ B|; last, over all languages together. NaN where both are
            empty.
        numbers: `Found.numbers` of both halves.
    """

    languages: tuple[str, ...]
    jaccard: Float64[Tensor, "split set"]
    numbers: Float64[Tensor, "split half number"]

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
    """Cut the blocks at random into two halves, find neurons in both, and compare.

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
    common, numbers = [], []
    for halves in _halves(len(blocks), splits, seed):
        found = [procedure(blocks.probability(half.to(torch.float64))) for half in halves]
        one, other = (each.mask for each in found)
        common.append(_jaccard(one, other))
        numbers.append(torch.stack([each.numbers for each in found]))
        step(len(found))
    return Halves(tuple(languages), torch.stack(common), torch.stack(numbers))


def _halves(blocks: int, splits: int, seed: int) -> list[Bool[Tensor, "half block"]]:
    """Which blocks are in the first and which in the second half, split by split."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for _ in range(splits):
        order = torch.randperm(blocks, generator=generator)
        half = torch.zeros(2, blocks, dtype=torch.bool)
        for which in range(2):
            half[which, order[which::2][: blocks // 2]] = True
        drawn.append(half)
    return drawn


def _jaccard(one: Bool[Tensor, "layer neuron lang"], other: Bool[Tensor, "layer neuron lang"]) -> Tensor:
    """Of each language's neurons, and of all languages' together (a neuron counts once for each of its languages)."""
    sizes = []
    for neurons in (one & other, one, other):
        own = neurons.sum(dim=(0, 1))
        sizes.append(torch.cat([own, own.sum().unsqueeze(0)]))
    return jaccard(*sizes)

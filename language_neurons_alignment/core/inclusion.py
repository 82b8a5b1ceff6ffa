"""The corpus drawn again: how surely each neuron is in its language's mask, and how much every number varies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Float64
from scipy import stats
from torch import Tensor

from ..errors import SettingsError
from ..frames import Columns, Framed
from .blocks import AnswerBlocks
from .procedure import Procedure, Step, unwatched
from .resampling import LEVEL, Interval, resampling_weights

SURE, LIKELY = 0.95, 0.5


@dataclass(frozen=True)
class Inclusion(Framed):
    """Each neuron's probability of being in each mask.

    Attributes:
        languages: codes, in the order of the last axis.
        probability: share of the resampled corpora in which it is.
        mask: the masks of the corpus as it is.
        numbers: `Found.numbers` of every resampled corpus.
    """

    languages: tuple[str, ...]
    probability: Float32[Tensor, "layer neuron lang"]
    mask: Bool[Tensor, "layer neuron lang"]
    numbers: Float64[Tensor, "draw number"]

    def columns(self) -> Columns:
        """One row a language: its mask's neurons, their mean probability, how many are sure, and how many likely.

        Sure is 0.95 or more, likely 0.5 or more; `likely_outside` are the neurons outside the mask that are likely.
        """
        own = [(self.probability[..., k], self.mask[..., k]) for k in range(len(self.languages))]
        return {
            "language": list(self.languages),
            "neurons": [int(mask.sum()) for _, mask in own],
            "mean": [float(p[mask].mean()) for p, mask in own],
            "sure": [int((p[mask] >= SURE).sum()) for p, mask in own],
            "likely": [int((p[mask] >= LIKELY).sum()) for p, mask in own],
            "likely_outside": [int((p[~mask] >= LIKELY).sum()) for p, mask in own],
        }


def inclusion(
    blocks: AnswerBlocks,
    procedure: Procedure,
    *,
    languages: Sequence[str],
    draws: int,
    seed: int = 0,
    step: Step = unwatched,
) -> Inclusion:
    """Draw as many blocks as there are, with replacement, again and again, and find the neurons in each.

        P(i in mask of k) = share of the draws in which it is

    One draw takes the same blocks of every language, so that parallel questions stay together. A draw in which no λ is
    fine has empty masks.

    Args:
        blocks: the corpus.
        procedure: how neurons are found.
        languages: codes.
        draws: how often.
        seed: of the draws.
        step: told of each identification.

    Raises:
        SettingsError: fewer than two draws have no spread.
    """
    if draws < 2:
        raise SettingsError(f"--draws must be at least 2, got {draws}: give for example 400")
    mask = procedure(blocks.probability()).mask
    often = torch.zeros(mask.shape, dtype=torch.int32)
    numbers = []
    for weights in resampling_weights(len(blocks), draws=draws, seed=seed):
        found = procedure(blocks.probability(weights))
        often += found.mask
        numbers.append(found.numbers)
        step(1)
    return Inclusion(tuple(languages), often.to(torch.float32) / draws, mask, torch.stack(numbers))


def number_interval(
    whole: Float64[Tensor, " number"],
    drawn: Float64[Tensor, "draw number"],
    endless: Float64[Tensor, " number"],
    *,
    blocks: int,
    level: float = LEVEL,
) -> Interval:
    """Where the numbers of an endless corpus lie.

        endless ± t(B − 1, (1 + level) / 2) · √(B / (B − 1) · var(drawn) + (whole − endless)²)

    cut at 0: none of them is negative. Noise in p makes classes smaller or larger on average, so the interval lies
    around what the corpus's parts, extrapolated, say of an endless one. The line's last piece, beyond the corpus
    itself, is seen by nobody: how far it leads counts as a standard error of its own.

    Args:
        whole: the numbers of the corpus as it is.
        drawn: those of the resampled ones; NaN where there was nothing to find, which is left out. Their middle is
            shifted twice by the noise; only their spread is used.
        endless: `Halves.endless`.
        blocks: B.
        level: of the interval.
    """
    there = drawn.isfinite()
    often = there.sum(dim=0)
    middle = drawn.nanmean(dim=0)
    square = torch.where(there, drawn - middle, 0.0).square().sum(dim=0)
    variance = square / (often - 1) * blocks / (blocks - 1)  # NaN where it was found once or never
    error = float(stats.t.ppf((1 + level) / 2, blocks - 1)) * (variance + (whole - endless).square()).sqrt()
    return Interval((endless - error).clamp(min=0), endless + error)

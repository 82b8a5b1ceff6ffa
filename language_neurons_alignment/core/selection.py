"""Which neurons are language neurons, and of which languages (SPEC 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Float64, Int
from torch import Tensor

from ..errors import SettingsError
from .scoring import activation_threshold, normalised_entropy, normalised_peak, score


@dataclass(frozen=True)
class NeuronStatistics:
    """What selection needs of each neuron, whatever λ and top rate are.

    Attributes:
        entropy: e, normalised entropy over languages, in [0, 1].
        peak: r, normalised largest probability; the score is e − λ · r.
        member: p > τ, whether the neuron is above the threshold in a language.
        threshold: τ.
    """

    entropy: Float64[Tensor, "layer neuron"]
    peak: Float64[Tensor, "layer neuron"]
    member: Bool[Tensor, "layer neuron lang"]
    threshold: float

    @property
    def languages_above(self) -> Int[Tensor, "layer neuron"]:
        """N: in how many languages each neuron is above τ."""
        return self.member.sum(dim=-1)

    @property
    def universal(self) -> Bool[Tensor, "layer neuron"]:
        """Neurons above τ in every language; AutoSweep keeps them out of the selection."""
        return self.member.all(dim=-1)


def neuron_statistics(probability: Float32[Tensor, "layer neuron lang"], *, bar: float) -> NeuronStatistics:
    """Entropy, peak and membership of every neuron.

    Args:
        probability: activation probabilities.
        bar: activation bar; τ is the round(bar · layers · d_mlp · K)-th smallest of all p.

    Raises:
        SettingsError: a bar outside (0, 1], or so small that it names no probability.
    """
    rank = rank_of_share(bar, probability.numel(), "bar")
    threshold = activation_threshold(probability, rank=rank)
    return NeuronStatistics(
        entropy=normalised_entropy(probability),
        peak=normalised_peak(probability),
        member=probability > threshold,
        threshold=threshold,
    )


def select(statistics: NeuronStatistics, *, top_rate: float, lam: float) -> Bool[Tensor, "layer neuron"]:
    """The round(top_rate · layers · d_mlp) neurons of lowest score; ties by flat index, lower first."""
    scores = score(statistics.entropy, statistics.peak, lam=lam)
    return lowest(scores, count=rank_of_share(top_rate, scores.numel(), "top_rate"))


def lowest(values: Float64[Tensor, "*shape"], *, count: int) -> Bool[Tensor, "*shape"]:
    """A mask of the `count` smallest values, ties by flat index, lower first."""
    flat = values.flatten()
    largest_taken = flat.kthvalue(count).values
    taken = flat < largest_taken
    ties = (flat == largest_taken).nonzero().flatten()
    taken[ties[: count - int(taken.sum())]] = True
    return taken.view(values.shape)


def appear(
    languages_above: Int[Tensor, "layer neuron"], selected: Bool[Tensor, "layer neuron"], *, languages: int
) -> Int[Tensor, " n_languages"]:
    """The histogram that AutoSweep watches: appear[j] = selected neurons above τ in exactly j languages, j = 0..K."""
    return torch.bincount(languages_above[selected], minlength=languages + 1)


def rank_of_share(share: float, total: int, name: str) -> int:
    """round(share · total), as the method rounds, for a share in (0, 1].

    Raises:
        SettingsError: not a number, outside (0, 1], or so small that it rounds to nothing.
    """
    if not (math.isfinite(share) and 0.0 < share <= 1.0):
        raise SettingsError(f"{name} must be a share above 0 and at most 1, got {share!r}: give for example 0.01")
    rank = round(share * total)
    if rank < 1:
        raise SettingsError(f"{name} {share!r} of {total} is less than one: give at least {1 / total:.3g}")
    return rank

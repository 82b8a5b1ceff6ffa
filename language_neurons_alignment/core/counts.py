"""Activation counts: what an engine hands back, what adds up, what is stored (SPEC 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from ..errors import IncompatibleError, TallyError
from .moments import LanguageMoments, SpanMoments


@dataclass(frozen=True)
class SpanCounts:
    """On how many tokens of some text each neuron fired.

    Attributes:
        total_tokens: tokens counted.
        over_zero: tokens on which the activation was above 0.
    """

    total_tokens: int
    over_zero: Int64[Tensor, "layer neuron"]

    @classmethod
    def zero(cls, layers: int, d_mlp: int) -> SpanCounts:
        """Counts of no text at all: the neutral element of addition."""
        return cls(0, torch.zeros(layers, d_mlp, dtype=torch.int64))

    def __add__(self, other: SpanCounts) -> SpanCounts:
        """Counts of two disjoint texts together, exactly.

        Raises:
            IncompatibleError: counts of models of different shapes.
        """
        if self.over_zero.shape != other.over_zero.shape:
            raise IncompatibleError(
                f"cannot add activation counts of shape {tuple(self.over_zero.shape)} and "
                f"{tuple(other.over_zero.shape)}: they come from different models"
            )
        return SpanCounts(self.total_tokens + other.total_tokens, self.over_zero + other.over_zero)


@dataclass(frozen=True)
class LanguageCounts:
    """One language's counts: over whole texts, and over the prefixes (the instructions) alone.

    Attributes:
        full: of whole texts.
        prefix: of the prefixes.
        moments: sums of the activations over the same tokens, where they were asked for.
    """

    full: SpanCounts
    prefix: SpanCounts
    moments: LanguageMoments | None = None

    @classmethod
    def zero(cls, layers: int, d_mlp: int, *, moments: bool = False) -> LanguageCounts:
        """Counts of no text at all, with moments or without."""
        nothing = LanguageMoments.zero(layers, d_mlp) if moments else None
        return cls(SpanCounts.zero(layers, d_mlp), SpanCounts.zero(layers, d_mlp), nothing)

    def __add__(self, other: LanguageCounts) -> LanguageCounts:
        """Counts of two disjoint corpora together, exactly.

        Raises:
            IncompatibleError: counts of models of different shapes, or with moments and without.
        """
        return LanguageCounts(self.full + other.full, self.prefix + other.prefix, self._moments_with(other))

    def _moments_with(self, other: LanguageCounts) -> LanguageMoments | None:
        if self.moments is None and other.moments is None:
            return None
        if self.moments is None or other.moments is None:
            raise IncompatibleError(
                "cannot add counts with moments and counts without: collect all of them with "
                "`lna activation --moments`, or none"
            )
        return self.moments + other.moments


def check_tally(counts: LanguageCounts, *, full_tokens: int, prefix_tokens: int) -> None:
    """Hold the tokens that an engine saw against the tokens of the corpus.

    Raises:
        TallyError: a token missing or counted twice, a neuron that fired more often than there were tokens, or
            moments that cannot be those of the same activations.
    """
    moments = counts.moments
    for name, span, expected, summed in (
        ("full", counts.full, full_tokens, moments and moments.full),
        ("prefix", counts.prefix, prefix_tokens, moments and moments.prefix),
    ):
        if span.total_tokens != expected:
            raise _wrong(
                f"the {name} tally is wrong: the engine counted {span.total_tokens} tokens, the corpus holds {expected}"
            )
        largest = int(span.over_zero.max()) if span.over_zero.numel() else 0
        if largest > expected:
            raise _wrong(f"the {name} counts are wrong: a neuron fired on {largest} of {expected} tokens")
        if summed is not None:
            _check_moments(name, summed, span)


def _check_moments(name: str, summed: SpanMoments, span: SpanCounts) -> None:
    if summed.total_tokens != span.total_tokens:
        raise _wrong(f"the {name} moments are of {summed.total_tokens} tokens, the counts of {span.total_tokens}")
    finite = torch.isfinite(summed.sum) & torch.isfinite(summed.sum_of_squares)
    if not bool(finite.all()):
        raise _wrong(f"the {name} moments are wrong: those of {int((~finite).sum())} neurons are not finite")
    never = (span.over_zero == 0) & (summed.sum > 0)
    if bool(never.any()):
        raise _wrong(f"the {name} moments are wrong: {int(never.sum())} neurons never fired, and add up to more than 0")


def _wrong(what: str) -> TallyError:
    return TallyError(f"{what}; nothing was written: please report this with the model and the engine's versions")

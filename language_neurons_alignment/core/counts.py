"""Activation counts: what an engine hands back, what adds up, what is stored (SPEC 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from ..errors import IncompatibleError, TallyError


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
    """One language's counts: over whole texts, and over the prefixes (the instructions) alone."""

    full: SpanCounts
    prefix: SpanCounts

    @classmethod
    def zero(cls, layers: int, d_mlp: int) -> LanguageCounts:
        """Counts of no text at all."""
        return cls(SpanCounts.zero(layers, d_mlp), SpanCounts.zero(layers, d_mlp))

    def __add__(self, other: LanguageCounts) -> LanguageCounts:
        """Counts of two disjoint corpora together, exactly."""
        return LanguageCounts(self.full + other.full, self.prefix + other.prefix)


def check_tally(counts: LanguageCounts, *, full_tokens: int, prefix_tokens: int) -> None:
    """Hold the tokens that an engine saw against the tokens of the corpus.

    Raises:
        TallyError: a token missing or counted twice, or a neuron that fired more often than there were tokens.
    """
    for name, span, expected in (("full", counts.full, full_tokens), ("prefix", counts.prefix, prefix_tokens)):
        if span.total_tokens != expected:
            raise TallyError(
                f"the {name} tally is wrong: the engine counted {span.total_tokens} tokens, "
                f"the corpus holds {expected}; nothing was written: "
                "please report this with the model and the engine's versions"
            )
        largest = int(span.over_zero.max()) if span.over_zero.numel() else 0
        if largest > expected:
            raise TallyError(
                f"the {name} counts are wrong: a neuron fired on {largest} of {expected} tokens; "
                "nothing was written: please report this with the model and the engine's versions"
            )

"""Sums and sums of squares of activations: additive like counts, and what means and variances are made of (SPEC 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from ..errors import IncompatibleError


@dataclass(frozen=True)
class SpanMoments:
    """How strongly each neuron was active on the tokens of some text.

        sum[l, i] = Σ_token a[l, i]      sum_of_squares[l, i] = Σ_token a[l, i]²

    where a is what the neuron's site gives (SPEC, words): act(gate x), and act(fc1 x) where there is no gate.

    Attributes:
        total_tokens: tokens added up.
        sum: of the activations.
        sum_of_squares: of the activations.
    """

    total_tokens: int
    sum: Float64[Tensor, "layer neuron"]
    sum_of_squares: Float64[Tensor, "layer neuron"]

    @classmethod
    def zero(cls, layers: int, d_mlp: int) -> SpanMoments:
        """Of no text at all: the neutral element of addition."""
        nothing = torch.zeros(layers, d_mlp, dtype=torch.float64)
        return cls(0, nothing, nothing.clone())

    def __add__(self, other: SpanMoments) -> SpanMoments:
        """Of two disjoint texts together.

        Raises:
            IncompatibleError: moments of models of different shapes.
        """
        self._check_shape(other)
        return SpanMoments(
            self.total_tokens + other.total_tokens,
            self.sum + other.sum,
            self.sum_of_squares + other.sum_of_squares,
        )

    def __sub__(self, other: SpanMoments) -> SpanMoments:
        """Of what is left of a text without a part of it.

        Raises:
            IncompatibleError: moments of models of different shapes.
        """
        self._check_shape(other)
        return SpanMoments(
            self.total_tokens - other.total_tokens,
            self.sum - other.sum,
            self.sum_of_squares - other.sum_of_squares,
        )

    @property
    def mean(self) -> Float64[Tensor, "layer neuron"]:
        """The mean activation, Σ a / tokens; 0 where there are no tokens."""
        return self.sum / max(self.total_tokens, 1)

    @property
    def variance(self) -> Float64[Tensor, "layer neuron"]:
        """The variance over the tokens, Σ a² / tokens − mean², never below 0; 0 where there are no tokens."""
        return (self.sum_of_squares / max(self.total_tokens, 1) - self.mean.square()).clamp(min=0)

    def _check_shape(self, other: SpanMoments) -> None:
        if self.sum.shape != other.sum.shape:
            raise IncompatibleError(
                f"activation moments of shape {tuple(self.sum.shape)} and {tuple(other.sum.shape)} do not go together: "
                "they come from different models"
            )


@dataclass(frozen=True)
class LanguageMoments:
    """One language's moments: over whole texts, and over the prefixes (the instructions) alone."""

    full: SpanMoments
    prefix: SpanMoments

    @classmethod
    def zero(cls, layers: int, d_mlp: int) -> LanguageMoments:
        """Of no text at all."""
        return cls(SpanMoments.zero(layers, d_mlp), SpanMoments.zero(layers, d_mlp))

    def __add__(self, other: LanguageMoments) -> LanguageMoments:
        """Of two disjoint corpora together."""
        return LanguageMoments(self.full + other.full, self.prefix + other.prefix)

    @property
    def answer(self) -> SpanMoments:
        """Over the answers alone: full − prefix, as of counts (SPEC 3)."""
        return self.full - self.prefix

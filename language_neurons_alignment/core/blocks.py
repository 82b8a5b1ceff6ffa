"""Counts kept in blocks of a corpus: what adds up to the whole, and what intervals come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Int64, Integer
from torch import Tensor

from ..errors import IncompatibleError
from .counts import LanguageCounts, SpanCounts
from .probability import activation_probability

FEWEST = 2
"""So many blocks there must be for anything to vary."""
_EXACT_FLOAT32 = 2**24
"""Whole numbers up to here are exact in float32."""


@dataclass(frozen=True)
class SpanBlocks:
    """On how many tokens of each block of some text each neuron fired.

    Attributes:
        total_tokens: tokens counted.
        over_zero: tokens on which the activation was above 0; whole numbers of any width.
    """

    total_tokens: Int64[Tensor, " block"]
    over_zero: Integer[Tensor, "block layer neuron"]

    @property
    def total(self) -> SpanCounts:
        """The counts of the whole text: the sum over blocks, exactly."""
        return SpanCounts(int(self.total_tokens.sum()), self.over_zero.sum(dim=0, dtype=torch.int64))

    def __add__(self, other: SpanBlocks) -> SpanBlocks:
        """Blocks of two disjoint texts together, the first with the first and so on.

        Raises:
            IncompatibleError: another number of blocks, or models of different shapes.
        """
        if self.over_zero.shape != other.over_zero.shape:
            raise IncompatibleError(
                f"cannot add blocks of shape {tuple(self.over_zero.shape)} and {tuple(other.over_zero.shape)}: "
                "count all parts with the same model and --blocks"
            )
        return SpanBlocks(self.total_tokens + other.total_tokens, self.over_zero.to(torch.int64) + other.over_zero)

    @classmethod
    def of(cls, spans: Sequence[SpanCounts]) -> SpanBlocks:
        """Counts of disjoint texts as blocks."""
        return cls(torch.tensor([span.total_tokens for span in spans]), torch.stack([span.over_zero for span in spans]))


@dataclass(frozen=True)
class LanguageBlocks:
    """One language's counts in blocks: over whole texts, and over the prefixes (the instructions) alone."""

    full: SpanBlocks
    prefix: SpanBlocks

    def __len__(self) -> int:
        return len(self.full.total_tokens)

    @classmethod
    def of(cls, parts: Sequence[LanguageCounts]) -> LanguageBlocks:
        """Counts of disjoint parts of a language's records as blocks."""
        return cls(SpanBlocks.of([part.full for part in parts]), SpanBlocks.of([part.prefix for part in parts]))

    def __add__(self, other: LanguageBlocks) -> LanguageBlocks:
        """Blocks of two disjoint corpora together."""
        return LanguageBlocks(self.full + other.full, self.prefix + other.prefix)


@dataclass(frozen=True)
class AnswerBlocks:
    """The answer counts of several languages, block by block, ready to be weighted.

    Attributes:
        counts: c_full − c_prefix. Below 0 in a block where the tokenizer merges across the border; only a weighted sum
            is cut at 0, as the whole is.
        tokens: t_full − t_prefix.
    """

    counts: Float[Tensor, "block lang layer neuron"]
    tokens: Int64[Tensor, "block lang"]

    @classmethod
    def of(cls, languages: Sequence[LanguageBlocks]) -> AnswerBlocks:
        """Several languages side by side, in float32 where every weighted sum is exact in it, else in float64.

        Raises:
            IncompatibleError: languages of other shapes or numbers of blocks.
        """
        shapes = {tuple(one.full.over_zero.shape) for one in languages}
        if len(shapes) > 1:
            raise IncompatibleError(
                f"the blocks of the languages have shapes {', '.join(map(str, sorted(shapes)))}, expected one: count "
                "all languages of one model with the same --blocks"
            )
        blocks, layers, d_mlp = shapes.pop()
        largest = blocks * max(int(one.full.total_tokens.max()) for one in languages)  # one block, drawn every time
        dtype = torch.float32 if largest < _EXACT_FLOAT32 else torch.float64
        counts = torch.empty(blocks, len(languages), layers, d_mlp, dtype=dtype)
        for k, one in enumerate(languages):
            torch.sub(one.full.over_zero.to(dtype), one.prefix.over_zero.to(dtype), out=counts[:, k])
        tokens = torch.stack([one.full.total_tokens - one.prefix.total_tokens for one in languages], dim=1)
        return cls(counts, tokens)

    def __len__(self) -> int:
        return len(self.counts)

    def probability(self, weights: Float[Tensor, " block"] | None = None) -> Float32[Tensor, "layer neuron lang"]:
        """The activation probabilities where block b stands `weights[b]` times in the corpus.

            p = max(Σ_b w_b c_b, 0) / max(Σ_b w_b t_b, 1)

        Weights are whole numbers; without any, each block stands once and p is that of the whole corpus, bit for bit.
        """
        given = torch.ones(len(self), dtype=torch.float64) if weights is None else weights
        counts = given.to(self.counts.dtype) @ self.counts.flatten(1)
        tokens = (given.to(torch.float64) @ self.tokens.to(torch.float64)).to(torch.int64)
        whole = counts.clamp_(min=0).to(torch.int64).view(self.counts.shape[1:]).permute(1, 2, 0)
        return activation_probability(whole, tokens=tokens)

    def without(self, block: int) -> Bool[Tensor, " block"]:
        """The weights that leave one block out."""
        return torch.arange(len(self)) != block

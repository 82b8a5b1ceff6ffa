"""Activation counts: what an engine hands back, what adds up, what is stored (SPEC 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64, Integer
from torch import Tensor

from ..errors import IncompatibleError, TallyError

# ── Sums and sums of squares of activations: additive like counts, and what means and variances are made of (SPEC 2).


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


# ── From counts to activation probabilities (SPEC 3; paper eq. 4).


def activation_probability(
    counts: Int[Tensor, "layer neuron lang"], *, tokens: Int[Tensor, " lang"]
) -> Float[Tensor, "layer neuron lang"]:
    """The share of a language's answer tokens on which each neuron fires.

        p[l, i, k] = counts[l, i, k] / max(tokens[k], 1)

    Args:
        counts: answer counts, c_full − c_prefix, none negative (`answer_counts`).
        tokens: answer tokens per language, t_full − t_prefix.

    Returns:
        float32, the precision in which thresholds are compared. In [0, 1] for counts that tally; counts made
        elsewhere (the published Mistral ones) pass 1 by a few tokens in ten thousand, and are left as they are.
    """
    return counts.to(torch.float32) / tokens.clamp(min=1).to(torch.float32)


def answer_counts(full: Int[Tensor, "*shape"], prefix: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """The counts on answers alone: max(c_full − c_prefix, 0) (SPEC 3).

    Where the tokenizer merges across the border a prefix may fire more often than the text it begins; that is
    cut at 0.
    """
    return (full - prefix).clamp(min=0)


# ── Counts kept in blocks of a corpus: what adds up to the whole, and what intervals come from.

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

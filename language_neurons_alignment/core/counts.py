"""Activation counts: what an engine returns, how counts add up, and the probabilities they give.

A *span* is a set of tokens. Each language has two: `full`, its whole texts, and `prefix`, the instructions alone. Their
difference is the answers. Counts are sums over tokens, so counts of disjoint corpora add up exactly; moments (sums of
activations) and blocks (counts of each part of a corpus) are additive in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64, Integer
from torch import Tensor

from ..errors import CorpusError, IncompatibleError, TallyError
from .routing import Experts, LanguageRouting, routing_fault
from .widths import Widths, beyond, neurons_among


def _check_same_shape(what: str, one: Tensor, other: Tensor, reason: str = "they come from different models") -> None:
    if one.shape != other.shape:
        raise IncompatibleError(f"cannot add {what} of shapes {tuple(one.shape)} and {tuple(other.shape)}: {reason}")


@dataclass(frozen=True)
class SpanCounts:
    """The number of tokens of a span, and the number on which each neuron's activation was above 0."""

    total_tokens: int
    over_zero: Int64[Tensor, "layer neuron"]

    @classmethod
    def zero(cls, layers: int, d_mlp: int) -> SpanCounts:
        """Counts of no tokens, the neutral element of addition."""
        return cls(0, torch.zeros(layers, d_mlp, dtype=torch.int64))

    def __add__(self, other: SpanCounts) -> SpanCounts:
        """The counts of two disjoint spans together; IncompatibleError if the models have different shapes."""
        _check_same_shape("activation counts", self.over_zero, other.over_zero)
        return SpanCounts(self.total_tokens + other.total_tokens, self.over_zero + other.over_zero)


@dataclass(frozen=True)
class SpanMoments:
    """Sums over the tokens of a span, from which means and variances of activations follow.

        sum[l, i] = Σ_token a[l, i]      sum_of_squares[l, i] = Σ_token a[l, i]²

    a is the neuron's activation: act(gate x), or act(fc1 x) in an MLP without a gate.
    """

    total_tokens: int
    sum: Float64[Tensor, "layer neuron"]
    sum_of_squares: Float64[Tensor, "layer neuron"]

    @classmethod
    def zero(cls, layers: int, d_mlp: int) -> SpanMoments:
        """Moments of no tokens, the neutral element of addition."""
        return cls(0, *(torch.zeros(layers, d_mlp, dtype=torch.float64) for _ in range(2)))

    def __add__(self, other: SpanMoments) -> SpanMoments:
        """The moments of two disjoint spans together; IncompatibleError if the models have different shapes."""
        _check_same_shape("activation moments", self.sum, other.sum)
        return SpanMoments(
            self.total_tokens + other.total_tokens, self.sum + other.sum, self.sum_of_squares + other.sum_of_squares
        )

    def __sub__(self, part: SpanMoments) -> SpanMoments:
        """The moments of the tokens that are not in `part`."""
        return self + SpanMoments(-part.total_tokens, -part.sum, -part.sum_of_squares)

    @property
    def mean(self) -> Float64[Tensor, "layer neuron"]:
        """The mean activation, Σ a / tokens; 0 without tokens."""
        return self.sum / max(self.total_tokens, 1)

    @property
    def variance(self) -> Float64[Tensor, "layer neuron"]:
        """The variance over tokens, Σ a² / tokens − mean², never below 0; 0 without tokens."""
        return (self.sum_of_squares / max(self.total_tokens, 1) - self.mean.square()).clamp(min=0)


@dataclass(frozen=True)
class LanguageMoments:
    """One language's moments over whole texts and over prefixes."""

    full: SpanMoments
    prefix: SpanMoments

    def __add__(self, other: LanguageMoments) -> LanguageMoments:
        """The moments of two disjoint corpora together."""
        return LanguageMoments(self.full + other.full, self.prefix + other.prefix)

    @property
    def answer(self) -> SpanMoments:
        """Moments over the answers alone: full − prefix."""
        return self.full - self.prefix


@dataclass(frozen=True)
class LanguageCounts:
    """One language's counts over whole texts and over prefixes.

    `moments` of the same tokens are there if requested, `routing` if the model is a mixture of experts.
    """

    full: SpanCounts
    prefix: SpanCounts
    moments: LanguageMoments | None = None
    routing: LanguageRouting | None = None

    @classmethod
    def zero(cls, layers: int, d_mlp: int, *, moments: bool = False, experts: Experts | None = None) -> LanguageCounts:
        """Counts of no text, with or without moments; with routing where the model has `experts`."""
        full, prefix = (SpanMoments.zero(layers, d_mlp) for _ in range(2))
        sums = LanguageMoments(full, prefix) if moments else None
        routing = experts and LanguageRouting.zero(experts, layers=layers)
        return cls(SpanCounts.zero(layers, d_mlp), SpanCounts.zero(layers, d_mlp), sums, routing)

    @property
    def answer_tokens(self) -> int:
        """t_full − t_prefix; below 0 where the tokenizer merges answers into their instructions."""
        return self.full.total_tokens - self.prefix.total_tokens

    def __add__(self, other: LanguageCounts) -> LanguageCounts:
        """The counts of two disjoint corpora together; IncompatibleError if only one side has moments or routing."""
        if (self.moments is None) != (other.moments is None):
            raise IncompatibleError(
                "cannot add counts with moments to counts without: collect all of them with "
                "`lna activation --moments`, or none"
            )
        if (self.routing is None) != (other.routing is None):
            raise IncompatibleError(
                "cannot add counts with the routing of experts to counts without: they come from different models"
            )
        moments = self.moments + other.moments if self.moments and other.moments else None
        routing = self.routing + other.routing if self.routing and other.routing else None
        return LanguageCounts(self.full + other.full, self.prefix + other.prefix, moments, routing)


@dataclass(frozen=True)
class Excess:
    """Neurons whose counts no common pass over text and prefix gives; none where all are possible.

    Attributes:
        prefix: how many fire more often in the prefix than in the text.
        answer: how many fire more often in the answers than these have tokens.
        largest: by how much at most.
    """

    prefix: int
    answer: int
    largest: int

    @property
    def neurons(self) -> int:
        """How many in all."""
        return self.prefix + self.answer


def excess(counts: LanguageCounts, *, unshared: int = 0) -> Excess:
    """Find the neurons that break what must hold where each prefix token is also counted in its text.

        c_prefix ≤ c_full        c_full − c_prefix ≤ t_full − t_prefix

    Args:
        counts: a language's.
        unshared: prefix tokens that may be counted apart from the text's; both sides may differ by as many.
    """
    answer = counts.full.over_zero - counts.prefix.over_zero
    room = counts.full.total_tokens - counts.prefix.total_tokens
    low, high = map(int, answer.aminmax())
    below, above = -unshared - low, high - room - unshared
    if below <= 0 and above <= 0:  # the usual case takes one pass
        return Excess(0, 0, 0)
    few, many = (int(torch.count_nonzero(wrong)) for wrong in (answer < -unshared, answer > room + unshared))
    return Excess(few, many, max(below, above))


def span_fault(total_tokens: int, over_zero: Integer[Tensor, "layer neuron"]) -> str | None:
    """Say what is impossible about counts of one span, whole numbers of any width; None where nothing is."""
    smallest, largest = map(int, over_zero.aminmax()) if over_zero.numel() else (0, 0)
    if smallest < 0 or largest > total_tokens:
        return f"over_zero spans {smallest}..{largest} for {total_tokens} tokens"
    return None


def pair_fault(counts: LanguageCounts, *, unshared: int = 0, widths: Widths | None = None) -> str | None:
    """Say what is impossible about full and prefix counts together; None where nothing is (`excess`)."""
    full, prefix = counts.full.total_tokens, counts.prefix.total_tokens
    if prefix > full + unshared:
        return f"the prefix has {prefix} tokens, more than the whole text ({full})"
    found = excess(counts, unshared=unshared)
    where = [
        (found.prefix, "fire more often in the prefix than in the text"),
        (found.answer, f"fire more often in the answers than these have tokens ({full - prefix})"),
    ]
    layers, d_mlp = counts.full.over_zero.shape
    neurons = neurons_among(layers, d_mlp, widths)
    said = [f"{number} of {neurons} neurons {what}" for number, what in where if number]
    return f"{' and '.join(said)}, by up to {found.largest}" if said else None


def moments_fault(moments: LanguageMoments, counts: LanguageCounts, *, unshared: int = 0) -> str | None:
    """Say what is impossible about moments beside the counts of the same tokens; None where nothing is.

        (Σ a)² ≤ t Σ a²        Σ a ≤ 0 where it never fired, ≥ 0 where it always did        Σ a² > 0 where it fired

    on whole texts, on prefixes and, where each prefix token is also counted in its text (`unshared` is 0), on answers.
    """
    spans = (("full", moments.full, counts.full), ("prefix", moments.prefix, counts.prefix))
    for name, sums, span in spans:
        if sums.total_tokens != span.total_tokens:
            return f"the {name} moments are of {sums.total_tokens} tokens, the counts of {span.total_tokens}"
        fired = span.over_zero
        wrong = (
            (~(torch.isfinite(sums.sum) & torch.isfinite(sums.sum_of_squares)), "are not finite"),
            (sums.sum_of_squares < 0, "have a negative sum of squares"),
            ((fired == 0) & (sums.sum > 0), "never fired but sum to more than 0"),
            ((fired == span.total_tokens) & (sums.sum < 0), "always fired but sum to less than 0"),
            ((fired > 0) & (sums.sum_of_squares == 0), "fired but have no squares"),
            (_exceeds_squares(sums, of=sums), "have a sum that their sum of squares does not allow"),
        )
        for neurons, what in wrong:
            if number := int(neurons.sum()):
                return f"the {name} moments are wrong: {number} neurons {what}"
    if not unshared:
        answer = moments.answer
        less = answer.sum_of_squares < -_rounding(answer.total_tokens, moments.full)
        if number := int((less | _exceeds_squares(answer, of=moments.full)).sum()):
            return f"the full and prefix moments do not go together: {number} neurons have impossible answers"
    return None


def _rounding(tokens: int, of: SpanMoments) -> Float64[Tensor, "layer neuron"]:
    """How far a sum of squares may be off, in float64 and in any order of adding."""
    return (of.total_tokens + 16) * 2.0**-50 * of.sum_of_squares + max(tokens, 1) * 1e-300


def _exceeds_squares(sums: SpanMoments, *, of: SpanMoments) -> Bool[Tensor, "layer neuron"]:
    """Where (Σ a)² is above t Σ a², beyond the rounding of the sums `of` which these are."""
    tokens, off = max(sums.total_tokens, 0), _rounding(sums.total_tokens, of)
    # an error of ε Σa² in the sum of squares goes with one of √(t ε ε' Σa²) in the sum itself
    slack = ((of.total_tokens + 16) * 2.0**-50) * (of.total_tokens * of.sum_of_squares).sqrt()
    return (sums.sum.abs() - slack).clamp(min=0).square() > tokens * (sums.sum_of_squares + off) * (1 + 2.0**-40)


def check_tally(
    counts: LanguageCounts, *, full_tokens: int, prefix_tokens: int, unshared: int = 0, widths: Widths | None = None
) -> None:
    """Compare counts with the corpus, full with prefix, and moments with counts; TallyError where they cannot be right.

    Args:
        counts: what an engine counted.
        full_tokens: of the corpus.
        prefix_tokens: of the corpus.
        unshared: how many of the prefix tokens may be computed apart from those of the texts
            (`EncodedCorpus.unshared_prefix_tokens`).
        widths: the neurons of each layer, where layers differ; nothing may be counted beyond them.

    Routing, where there is any, must send each token to top-k experts (`core.routing.routing_fault`).
    """
    for name, span, expected in (("full", counts.full, full_tokens), ("prefix", counts.prefix, prefix_tokens)):
        if span.total_tokens != expected:
            raise _wrong(
                f"the {name} tally is wrong: the engine counted {span.total_tokens} tokens, the corpus holds {expected}"
            )
        largest = int(span.over_zero.max()) if span.over_zero.numel() else 0
        if largest > expected:
            raise _wrong(f"the {name} counts are wrong: a neuron fired on {largest} of {expected} tokens")
        if fault := span_fault(span.total_tokens, span.over_zero):
            raise _wrong(f"the {name} counts are wrong: {fault}")
        if widths is not None and (fault := beyond(span.over_zero, widths)):
            raise _wrong(f"the {name} counts are wrong: {fault}")
    fault = counts.moments and moments_fault(counts.moments, counts, unshared=unshared)
    if counts.routing is not None:
        fault = fault or routing_fault(counts.routing, full_tokens=full_tokens, prefix_tokens=prefix_tokens)
    if fault := fault or pair_fault(counts, unshared=unshared, widths=widths):
        raise _wrong(fault)


def _wrong(what: str) -> TallyError:
    return TallyError(f"{what}; nothing was written: please report this with the model and the engine's versions")


def answer_counts(full: Int[Tensor, "*shape"], prefix: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """The counts on answers alone: max(c_full − c_prefix, 0).

    A prefix can fire more often than its text where the tokenizer merges across the border of instruction and answer.
    """
    return (full - prefix).clamp(min=0)


def check_answer_tokens(tokens: Mapping[str, int], *, flag: str = " (--skip-empty)", others: bool = True) -> None:
    """Raise CorpusError where a language has no answer token, for its probabilities would be 0/0.

    tokens: language → t_full − t_prefix; below 0 where the tokenizer merges answers into their instructions.
    flag: of the command, if it has one that leaves such languages out.
    others: whether there are languages with answer tokens, so that some are left when these are left out.
    """
    empty = {language: count for language, count in tokens.items() if count < 1}
    if empty:
        seen = ", ".join(f"{language} ({count})" for language, count in empty.items())
        raise CorpusError(
            f"the answers have no token in {seen}, expected t_full − t_prefix of at least 1: count answers that are "
            f"not empty{f', or leave such languages out{flag}' if others else ''}"
        )


def check_block_tokens(tokens: Mapping[str, Sequence[int]]) -> None:
    """Raise CorpusError where a block has no answer token in a language: a sample of the blocks may then have none.

    tokens: language → t_full − t_prefix of each block.
    """
    for language, blocks in tokens.items():
        empty = [number for number, count in enumerate(blocks, start=1) if count < 1]
        if empty:
            raise CorpusError(
                f"{len(empty)} of {len(blocks)} blocks have no answer token in {language} (the first is block "
                f"{empty[0]}), so a sample of the blocks may have none: count in fewer blocks (`lna activation "
                "--blocks N --force`), or leave the language out (--langs)"
            )


def activation_probability(
    counts: Int[Tensor, "layer neuron lang"], *, tokens: Int[Tensor, " lang"]
) -> Float[Tensor, "layer neuron lang"]:
    """The share of a language's answer tokens on which each neuron fires.

        p[l, i, k] = counts[l, i, k] / max(tokens[k], 1)        tokens = t_full − t_prefix

    >>> activation_probability(torch.tensor([[[3, 0], [1, 8]]]), tokens=torch.tensor([4, 16])).tolist()
    [[[0.75, 0.0], [0.25, 0.5]]]

    `counts` are those of answers, none negative (`answer_counts`). The result is float32, the precision in which
    thresholds are compared. Counts that tally give values in [0, 1]; the published Mistral counts exceed 1 by a few
    tokens in ten thousand and are not clamped.

    Source: equation 4 of the paper.
    """
    return counts.to(torch.float32) / tokens.clamp(min=1).to(torch.float32)


@dataclass(frozen=True)
class SpanBlocks:
    """The counts of each block of a span; integers of any width."""

    total_tokens: Int64[Tensor, " block"]
    over_zero: Integer[Tensor, "block layer neuron"]

    @classmethod
    def of(cls, spans: Sequence[SpanCounts]) -> SpanBlocks:
        """Counts of disjoint spans as blocks."""
        return cls(torch.tensor([span.total_tokens for span in spans]), torch.stack([span.over_zero for span in spans]))

    @property
    def total(self) -> SpanCounts:
        """The counts of the whole span: the exact sum over blocks."""
        return SpanCounts(int(self.total_tokens.sum()), self.over_zero.sum(dim=0, dtype=torch.int64))

    def __add__(self, other: SpanBlocks) -> SpanBlocks:
        """Two disjoint spans, added block by block; IncompatibleError if blocks or models differ in shape."""
        _check_same_shape("blocks", self.over_zero, other.over_zero, "count all parts with the same model and --blocks")
        return SpanBlocks(self.total_tokens + other.total_tokens, self.over_zero.to(torch.int64) + other.over_zero)


@dataclass(frozen=True)
class LanguageBlocks:
    """One language's counts in blocks, over whole texts and over prefixes."""

    full: SpanBlocks
    prefix: SpanBlocks

    @classmethod
    def of(cls, parts: Sequence[LanguageCounts]) -> LanguageBlocks:
        """Counts of disjoint parts of a language's records as blocks."""
        return cls(SpanBlocks.of([part.full for part in parts]), SpanBlocks.of([part.prefix for part in parts]))

    def __len__(self) -> int:
        return len(self.full.total_tokens)

    def __add__(self, other: LanguageBlocks) -> LanguageBlocks:
        """The blocks of two disjoint corpora, added block by block."""
        return LanguageBlocks(self.full + other.full, self.prefix + other.prefix)


_EXACT_FLOAT32 = 2**24  # float32 holds every integer up to here


@dataclass(frozen=True)
class AnswerBlocks:
    """The answer counts of several languages in each block, ready to be weighted.

    A count, c_full − c_prefix, can be negative in a block where the tokenizer merges across the border, so only a
    weighted sum is cut at 0.
    """

    counts: Float[Tensor, "block lang layer neuron"]
    tokens: Int64[Tensor, "block lang"]
    widths: Widths | None = None  # of the layers where they differ

    @classmethod
    def of(cls, languages: Sequence[LanguageBlocks], *, widths: Widths | None = None) -> AnswerBlocks:
        """Put languages of one shape side by side, in float32 if every weighted sum is exact in it, else in float64."""
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
        return cls(counts, tokens, widths)

    def __len__(self) -> int:
        return len(self.counts)

    def probability(self, weights: Float[Tensor, " block"] | None = None) -> Float32[Tensor, "layer neuron lang"]:
        """The activation probabilities of a corpus that contains block b `weights[b]` times, an integer.

            p = max(Σ_b w_b c_b, 0) / max(Σ_b w_b t_b, 1)

        Without weights, each block counts once, which gives the p of the whole corpus bit for bit.
        """
        given = torch.ones(len(self), dtype=torch.float64) if weights is None else weights
        counts = given.to(self.counts.dtype) @ self.counts.flatten(1)
        tokens = (given.to(torch.float64) @ self.tokens.to(torch.float64)).to(torch.int64)
        whole = counts.clamp_(min=0).to(torch.int64).view(self.counts.shape[1:]).permute(1, 2, 0)
        return activation_probability(whole, tokens=tokens)

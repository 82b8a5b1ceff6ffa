"""Language neurons found in halves and quarters of a corpus, many times: do they agree, and where does size lead?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Float64, Int64
from scipy import stats
from scipy.special import digamma, polygamma
from torch import Tensor

from ..errors import SettingsError
from .counts import AnswerBlocks
from .find import Found, Procedure, Step, unwatched
from .flow import LanguageFlow, language_flow
from .frames import Columns, Framed
from .profiles import jaccard
from .resampling import LEVEL, Interval, resampling_weights

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


# ── How alike the tokens of a block are: for how many independent ones they stand.

_OFTEN = 20
"""A neuron that fired, and did not fire, on so many tokens tells something of its design effect."""
_ALIKE = 1e-3
"""Design effects whose logarithms differ by less than this variance are taken for one: d₀ is 2,000."""


def jackknife_variance(blocks: AnswerBlocks) -> Float64[Tensor, "layer neuron lang"]:
    """The variance of each activation probability as an estimate, from leaving out one block at a time.

        p_(b) = (c − c_b) / (t − t_b),   var = (B − 1) / B · Σ_b (p_(b) − mean p_(·))²

    Blocks are what is independent: the tokens of an answer are alike, so counting them as independent draws would make
    the variance several times too small.
    """
    number, tokens = len(blocks), blocks.tokens.sum(dim=0)
    variance = torch.empty(blocks.counts.shape[1:], dtype=torch.float64)
    for k in range(len(tokens)):
        counts = blocks.counts[:, k]
        whole = counts.sum(dim=0, dtype=torch.float64)
        shift, square = torch.zeros_like(whole), torch.zeros_like(whole)
        for count, here in zip(counts, blocks.tokens[:, k], strict=True):
            left_out = (whole - count) / (tokens[k] - here).clamp(min=1) - whole / tokens[k].clamp(min=1)
            shift += left_out
            square += left_out.square_()
        variance[k] = (number - 1) / number * (square - shift.square_() / number)
    return variance.clamp_(min=0).permute(1, 2, 0)


def design_effects(blocks: AnswerBlocks) -> tuple[Float64[Tensor, "layer neuron lang"], Float64[Tensor, " lang"]]:
    """How many tokens of each neuron and language say as much as one independent token, and how surely that is known.

        own    = var / (p (1 − p) / tokens)                          1 where no block differs (p = 0 or 1)
        effect = max(own, (d₀ s₀ + d own) / (d₀ + d), 1)             d = B − 1
        degrees of freedom: d₀ + d

    A neuron that hardly fires, and that in a few questions, seems to vary little where those were not asked: its own
    spread is low just where its p is. So it is drawn towards what is typical of its language, `typical_effect`, as
    far as the language's neurons are alike.

    Source: Smyth (2004), moderated variances; here they only lengthen.
    """
    p = blocks.probability().to(torch.float64).clamp_(0, 1)
    tokens = blocks.tokens.sum(dim=0).clamp(min=1).to(torch.float64)
    variance, binomial = jackknife_variance(blocks), p * (1 - p) / tokens
    own = torch.where((variance > 0) & (binomial > 0), variance / binomial, 1.0)
    told = (torch.minimum(p, 1 - p) * tokens >= _OFTEN) & (variance > 0)
    freedom = float(len(blocks) - 1)
    known = []
    for k in range(len(tokens)):
        typical, prior = typical_effect(own[..., k][told[..., k]], freedom=freedom)
        drawn = (prior * typical + freedom * own[..., k]) / (prior + freedom)
        own[..., k] = own[..., k].maximum(drawn)
        known.append(prior + freedom)
    return own.clamp_(min=1), torch.tensor(known, dtype=torch.float64)


def typical_effect(own: Float64[Tensor, " neuron"], *, freedom: float) -> tuple[float, float]:
    """The design effect s₀ that neurons have in common, and how much each is like it: as d₀ blocks more would tell.

        z = ln own,   ψ'(d₀ / 2) = var(z) − ψ'(d / 2)
        ln s₀ = mean(z) − ψ(d / 2) + ln(d / 2) + ψ(d₀ / 2) − ln(d₀ / 2)

    Args:
        own: each neuron's, above 0. Of fewer than two nothing is known in common, and d₀ is 0.
        freedom: d.
    """
    if len(own) < 2:
        return 1.0, 0.0
    logs = own.log()
    between = max(float(logs.var()) - float(polygamma(1, freedom / 2)), _ALIKE)
    prior = 2 * _inverse_trigamma(between)
    return math.exp(float(logs.mean()) - _log_bias(freedom) + _log_bias(prior)), prior


def _log_bias(freedom: float) -> float:
    """How far the logarithm of an estimated variance lies above the variance's own, on average: below 0."""
    return float(digamma(freedom / 2)) - math.log(freedom / 2)


def _inverse_trigamma(value: float) -> float:
    """The x with ψ'(x) = value, by Newton's steps on 1 / ψ', which is convex and nearly straight (Smyth 2004)."""
    x = 0.5 + 1 / value
    for _ in range(20):
        there = float(polygamma(1, x))
        x += there * (1 - there / value) / float(polygamma(2, x))
    return x


# ── The corpus drawn again: how surely each neuron is in its language's mask, and how much every number varies.

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


# ── How well a corpus in blocks knows each activation probability.


def probability_interval(blocks: AnswerBlocks, *, level: float = LEVEL) -> Interval:
    """An interval for each activation probability: Wilson's, of as many tokens as blocks say are independent.

        n = tokens / effect       effective tokens; `design_effects` gives effect and its degrees of freedom
        t = Student's t(degrees of freedom, (1 + level) / 2)
        (p + t²/2n ± t √(p (1 − p) / n + t²/4n²)) / (1 + t²/n)

    It stays within [0, 1] and is not empty for a neuron that never fired.

    Source: Wilson (1927) with the effective sample of Korn and Graubard (1998).
    """
    p = blocks.probability().to(torch.float64).clamp_(0, 1)
    tokens = blocks.tokens.sum(dim=0).clamp(min=1).to(torch.float64)
    effects, freedom = design_effects(blocks)
    effective = (tokens / effects).clamp_(min=1)
    reach = torch.from_numpy(stats.t.ppf((1 + level) / 2, freedom.numpy()))
    shrink = 1 + reach**2 / effective
    middle = (p + reach**2 / (2 * effective)) / shrink
    half = reach * (p * (1 - p) / effective + (reach / (2 * effective)).square()).sqrt() / shrink
    return Interval((middle - half).clamp_(min=0), (middle + half).clamp_(max=1))


# ── The neurons that two corpora find in one model, and how many of them are the same (paper table 4).

ALL_LANGUAGES, MEAN = "all", "mean"


@dataclass(frozen=True)
class CorpusOverlap(Framed):
    """What one model's masks on two corpora have in common.

    Attributes:
        datasets: the two corpora.
        languages: each language's specific neurons, related ones and mask in both.
        whole: the same without languages: neurons that are specific to any, related to some, in any mask.
    """

    datasets: tuple[str, str]
    languages: LanguageFlow
    whole: Int64[Tensor, "count set"]

    def columns(self) -> Columns:
        """One row a language and set; then the mean over languages and the whole model (`all`).

        first and second are the neurons in each corpus, shared those in both; of_first = shared / first, of_smaller =
        shared / min(first, second), jaccard = shared / (first + second − shared).
        """
        flow, sets = self.languages, self.languages.sets
        counts = torch.stack([getattr(flow, name).sum(dim=0) for name in ("before", "after", "kept")])
        counts = torch.cat([counts, self.whole.unsqueeze(1)], dim=1).flatten(1)
        first, second, shared = counts.to(torch.float64)
        numbers = torch.stack(
            [
                first,
                second,
                shared,
                shared / first,
                shared / torch.minimum(first, second),
                jaccard(counts[2], counts[0], counts[1]),
            ]
        ).unflatten(1, (-1, len(sets)))
        means = numbers[:, :-1].nanmean(dim=1, keepdim=True)
        rows = torch.cat([numbers[:, :-1], means, numbers[:, -1:]], dim=1).flatten(1).tolist()
        names = ("first", "second", "shared", "of_first", "of_smaller", "jaccard")
        return {
            "language": [code for code in (*flow.languages, MEAN, ALL_LANGUAGES) for _ in sets],
            "set": list(sets) * (len(flow.languages) + 2),
            **dict(zip(names, rows, strict=True)),
        }


def corpus_overlap(
    one: Bool[Tensor, "layer neuron lang"],
    other: Bool[Tensor, "layer neuron lang"],
    *,
    datasets: tuple[str, str],
    languages: Sequence[str],
) -> CorpusOverlap:
    """Compare the masks that two corpora give one model.

    A neuron is specific in a mask where it belongs to one language, related where to several.
    """
    sets = [[(n == 1), (n > 1), (n > 0)] for n in (mask.sum(dim=-1) for mask in (one, other))]
    both = [a & b for a, b in zip(*sets, strict=True)]
    whole = torch.tensor([[int(neurons.sum()) for neurons in kind] for kind in (*sets, both)])
    return CorpusOverlap(datasets, language_flow(one, other, languages=languages), whole)

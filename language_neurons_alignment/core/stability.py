"""How much of a set of language neurons is chance: the corpus in blocks, resampled, halved, and extrapolated.

Blocks are groups of questions. The tokens of one answer are alike, but blocks are independent, so all uncertainty is
measured between blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Float64, Int64
from scipy import stats
from scipy.special import digamma, polygamma
from torch import Tensor

from ..config import CLASSES, Selection
from ..errors import SettingsError
from .counts import AnswerBlocks
from .find import Found, find, fine_lambda
from .flow import ALL
from .frames import Columns, Framed
from .model import SILENT, Progress
from .profiles import UNASSIGNED, class_members, class_profile, jaccard
from .resampling import LEVEL, Interval, resampling_weights
from .widths import is_neuron

STATES = (*CLASSES, UNASSIGNED)
SURE, LIKELY = 0.95, 0.5  # the least probabilities of sure and of likely neurons


def numbers(found: Found, selection: Selection) -> Float64[Tensor, " number"]:
    """Everything that gets an interval, in a row.

    λ* (the largest fine λ, whatever λ selects), τ, the neurons of each class (`STATES`), the size of each language's
    mask, and the neurons of each class in each layer. NaN where no λ is fine and nothing could be selected.
    """
    assert found.lam is not None  # the selection is by entropy-λ
    largest = found.lam if selection.lam is None else fine_lambda(found.statistics, selection)
    unknown = math.nan if math.isnan(found.lam) else 0.0
    profile = class_profile(class_members(found.classes)).counts.double() + unknown
    rates = torch.tensor([largest, found.threshold], dtype=torch.float64)
    masks = found.mask.sum(dim=(0, 1)).double() + unknown
    return torch.cat([rates, profile.sum(dim=0), masks, profile.flatten()])


@dataclass(frozen=True)
class Inclusion(Framed):
    """The probability that each neuron is in each mask, the mask itself, and `numbers` of every resampled corpus."""

    languages: tuple[str, ...]
    probability: Float32[Tensor, "layer neuron lang"]
    mask: Bool[Tensor, "layer neuron lang"]
    numbers: Float64[Tensor, "draw number"]

    def columns(self) -> Columns:
        """A row for each language: neurons in its mask, their mean probability, and how many are sure and likely."""
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
    selection: Selection,
    *,
    languages: Sequence[str],
    draws: int,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Inclusion:
    """Bootstrap: draw as many blocks as there are, with replacement, and find the neurons in each draw.

        P(i in mask of k) = share of the draws in which it is

    A draw contains the same blocks of every language, so parallel questions stay together. Without λ in the selection,
    it is found anew in each draw; a draw in which no λ is fine has empty masks. `progress` advances at each draw.
    """
    if draws < 2:
        raise SettingsError(f"--draws must be at least 2, got {draws}: give for example 400")
    mask = find(blocks.probability(), selection, widths=blocks.widths).mask
    often = torch.zeros(mask.shape, dtype=torch.int32)
    drawn = []
    for weights in resampling_weights(len(blocks), draws=draws, seed=seed):
        found = find(blocks.probability(weights), selection, widths=blocks.widths)
        often += found.mask
        drawn.append(numbers(found, selection))
        progress(1)
    return Inclusion(tuple(languages), often.to(torch.float32) / draws, mask, torch.stack(drawn))


@dataclass(frozen=True)
class Halves(Framed):
    """What random halves of the blocks have in common, and what halves and quarters find.

    Blocks that do not fill a half or quarter are left out of a split. `jaccard` is of the two halves' masks, for each
    language and last for all together; `blocks` and `numbers` are for a half and for a quarter, NaN without quarters.
    """

    languages: tuple[str, ...]
    jaccard: Float64[Tensor, "split set"]
    blocks: tuple[int, int]
    numbers: Float64[Tensor, "size number"]

    @property
    def endless(self) -> Float64[Tensor, " number"]:
        """The numbers of an infinitely large corpus, extrapolated from halves (m₁ blocks) and quarters (m₂ blocks).

            (m₁ · halves − m₂ · quarters) / (m₁ − m₂)        cut at 0, because no number is negative

        Noise in p biases the size of a class in proportion to its variance, and so to 1/m: this is the line through
        both means as a function of 1/m, at 1/m = 0. The number of the whole corpus is not used, because it is a single
        value and no mean over corpora. NaN with fewer than 4 blocks.
        """
        half, quarter = self.blocks
        if quarter == 0:
            return torch.full_like(self.numbers[0], math.nan)
        return ((half * self.numbers[0] - quarter * self.numbers[1]) / (half - quarter)).clamp(min=0)

    def columns(self) -> Columns:
        """A row for each language and for all: mean, smallest and largest Jaccard index over the splits."""
        return {
            "language": [*self.languages, ALL],
            "jaccard": self.jaccard.nanmean(dim=0).tolist(),
            "low": self.jaccard.amin(dim=0).tolist(),
            "high": self.jaccard.amax(dim=0).tolist(),
        }


def split_halves(
    blocks: AnswerBlocks,
    selection: Selection,
    *,
    languages: Sequence[str],
    splits: int,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Halves:
    """Split the blocks at random into two halves and into four quarters, and find the neurons in each."""
    if splits < 1:
        raise SettingsError(f"--splits must be at least 1, got {splits}: give for example 50")
    generator = torch.Generator().manual_seed(seed)
    common, means = [], []
    for _ in range(splits):
        order = torch.randperm(len(blocks), generator=generator)
        halves, quarters = (
            [find(blocks.probability(part), selection, widths=blocks.widths) for part in _parts(order, number)]
            for number in (2, 4)
        )
        common.append(_jaccard(*(half.mask for half in halves)))
        of_halves, of_quarters = ([numbers(found, selection) for found in parts] for parts in (halves, quarters))
        of_quarters = of_quarters or [torch.full_like(of_halves[0], math.nan)]
        means.append(torch.stack([torch.stack(of_parts).nanmean(dim=0) for of_parts in (of_halves, of_quarters)]))
        progress(len(halves) + len(quarters))
    sizes = (len(blocks) // 2, len(blocks) // 4)
    return Halves(tuple(languages), torch.stack(common), sizes, torch.stack(means).nanmean(dim=0))


def identifications(blocks: int, *, splits: int) -> int:
    """How often `split_halves` finds neurons: in 2 halves, and in 4 quarters if there are enough blocks."""
    return splits * (6 if blocks >= 4 else 2)


def _parts(order: Int64[Tensor, " block"], number: int) -> Float64[Tensor, "part block"]:
    """The weights that divide the blocks into equal parts; no parts if there are fewer blocks than parts."""
    size = len(order) // number
    parts = torch.zeros(number if size else 0, len(order), dtype=torch.float64)
    for which, part in enumerate(parts):
        part[order[which::number][:size]] = 1.0
    return parts


def _jaccard(one: Bool[Tensor, "layer neuron lang"], other: Bool[Tensor, "layer neuron lang"]) -> Tensor:
    """Of each language's neurons, and of all languages' together (a neuron counts once for each of its languages)."""
    own = (neurons.sum(dim=(0, 1)) for neurons in (one & other, one, other))
    return jaccard(*(torch.cat([size, size.sum().unsqueeze(0)]) for size in own))


def number_interval(
    whole: Float64[Tensor, " number"],
    drawn: Float64[Tensor, "draw number"],
    endless: Float64[Tensor, " number"],
    *,
    blocks: int,
) -> Interval:
    """Intervals for the numbers of an infinitely large corpus.

        endless ± t(B − 1, (1 + LEVEL) / 2) · √(B / (B − 1) · var(drawn) + (whole − endless)²)        B blocks

    cut at 0, because no number is negative. Noise in p biases the sizes of classes, so the interval is centred at the
    extrapolated number (`Halves.endless`); the length of the extrapolated part, from the whole corpus on, is added as a
    further standard error. Noise shifts the mean of the drawn numbers twice, so only their spread is used.
    """
    there = drawn.isfinite()
    often = there.sum(dim=0)
    middle = drawn.nanmean(dim=0)
    square = torch.where(there, drawn - middle, 0.0).square().sum(dim=0)
    variance = square / (often - 1) * blocks / (blocks - 1)  # NaN if fewer than two draws have the number
    error = float(stats.t.ppf((1 + LEVEL) / 2, blocks - 1)) * (variance + (whole - endless).square()).sqrt()
    return Interval((endless - error).clamp(min=0), endless + error)


def probability_interval(blocks: AnswerBlocks) -> Interval:
    """An interval for each activation probability: Wilson's, with the effective number of tokens.

        n = tokens / effect       `design_effects` gives the effect and its degrees of freedom
        t = Student's t(degrees of freedom, (1 + LEVEL) / 2)
        (p + t²/2n ± t √(p (1 − p) / n + t²/4n²)) / (1 + t²/n)

    It stays within [0, 1], and has a positive length even for a neuron that never fired. Both ends are 0 at places that
    are no neurons.

    >>> blocks = AnswerBlocks(torch.zeros(20, 1, 1, 1), torch.full((20, 1), 100))  # a silent neuron, 2000 tokens
    >>> round(float(probability_interval(blocks).high), 4)
    0.0022

    Source: Wilson (1927) with the effective sample size of Korn and Graubard (1998).
    """
    p = blocks.probability().to(torch.float64).clamp_(0, 1)
    tokens = blocks.tokens.sum(dim=0).clamp(min=1).to(torch.float64)
    effects, freedom = design_effects(blocks)
    effective = (tokens / effects).clamp_(min=1)
    reach = torch.from_numpy(stats.t.ppf((1 + LEVEL) / 2, freedom.numpy()))
    shrink = 1 + reach**2 / effective
    middle = (p + reach**2 / (2 * effective)) / shrink
    half = reach * (p * (1 - p) / effective + (reach / (2 * effective)).square()).sqrt() / shrink
    interval = Interval((middle - half).clamp_(min=0), (middle + half).clamp_(max=1))
    if blocks.widths is not None:
        outside = ~is_neuron(blocks.widths, p.shape[1]).unsqueeze(-1)
        interval.low.masked_fill_(outside, 0.0)
        interval.high.masked_fill_(outside, 0.0)
    return interval


_OFTEN = 20  # a neuron's design effect is estimated only if it fired, and did not fire, on at least so many tokens
_ALIKE = 1e-3  # the smallest variance of log design effects; below it they count as equal (d₀ is then 2,000)


def design_effects(blocks: AnswerBlocks) -> tuple[Float64[Tensor, "layer neuron lang"], Float64[Tensor, " lang"]]:
    """How many tokens are worth one independent token, for each neuron and language, and the degrees of freedom.

        own    = var / (p (1 − p) / tokens)                          1 where no block differs (p = 0 or 1)
        effect = max(own, (d₀ s₀ + d own) / (d₀ + d), 1)             d = B − 1
        degrees of freedom: d₀ + d

    A neuron that fires rarely, in a few questions only, shows little variance when those questions are missing, just
    when its p is too low. Its own effect is therefore shrunk towards its language's typical effect s₀, the more the
    neurons of the language are alike (`typical_effect`).

    Source: moderated variances of Smyth (2004), here used only to lengthen intervals.
    """
    p = blocks.probability().to(torch.float64).clamp_(0, 1)
    tokens = blocks.tokens.sum(dim=0).clamp(min=1).to(torch.float64)
    variance, binomial = jackknife_variance(blocks), p * (1 - p) / tokens
    own = torch.where((variance > 0) & (binomial > 0), variance / binomial, 1.0)
    informative = (torch.minimum(p, 1 - p) * tokens >= _OFTEN) & (variance > 0)
    freedom = float(len(blocks) - 1)
    known = []
    for k in range(len(tokens)):
        typical, prior = typical_effect(own[..., k][informative[..., k]], freedom=freedom)
        shrunk = (prior * typical + freedom * own[..., k]) / (prior + freedom)
        own[..., k] = own[..., k].maximum(shrunk)
        known.append(prior + freedom)
    return own.clamp_(min=1), torch.tensor(known, dtype=torch.float64)


def jackknife_variance(blocks: AnswerBlocks) -> Float64[Tensor, "layer neuron lang"]:
    """The variance of each estimated activation probability, from leaving out one block at a time.

        p_(b) = (c − c_b) / (t − t_b),   var = (B − 1) / B · Σ_b (p_(b) − mean p_(·))²

    Treating the tokens of an answer as independent would make the variance several times too small.
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


def typical_effect(own: Float64[Tensor, " neuron"], *, freedom: float) -> tuple[float, float]:
    """The typical design effect s₀ of neurons, and the degrees of freedom d₀ that it is worth.

        z = ln own,   ψ'(d₀ / 2) = var(z) − ψ'(d / 2)        own > 0, with d degrees of freedom
        ln s₀ = mean(z) − ψ(d / 2) + ln(d / 2) + ψ(d₀ / 2) − ln(d₀ / 2)

    For fewer than two neurons, s₀ = 1 and d₀ = 0.
    """
    if len(own) < 2:
        return 1.0, 0.0
    logs = own.log()
    between = max(float(logs.var()) - float(polygamma(1, freedom / 2)), _ALIKE)
    prior = 2 * _inverse_trigamma(between)
    return math.exp(float(logs.mean()) - _log_bias(freedom) + _log_bias(prior)), prior


def _log_bias(freedom: float) -> float:
    """The expected logarithm of an estimated variance, minus the logarithm of the true one; negative."""
    return float(digamma(freedom / 2)) - math.log(freedom / 2)


def _inverse_trigamma(value: float) -> float:
    """The x with ψ'(x) = value, by Newton's method on 1 / ψ', which is convex and nearly straight (Smyth 2004)."""
    x = 0.5 + 1 / value
    for _ in range(20):
        there = float(polygamma(1, x))
        x += there * (1 - there / value) / float(polygamma(2, x))
    return x

"""How alike the tokens of a block are: for how many independent ones they stand."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64
from scipy.special import digamma, polygamma
from torch import Tensor

from .blocks import AnswerBlocks

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

"""How well a corpus in blocks knows each activation probability."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from scipy import stats
from torch import Tensor

from .blocks import AnswerBlocks
from .resampling import LEVEL, Interval


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


def probability_interval(blocks: AnswerBlocks, *, level: float = LEVEL) -> Interval:
    """An interval for each activation probability: Wilson's, of as many tokens as blocks say are independent.

        n = min(p (1 − p) / var, tokens)       effective tokens; all of them where no block differs (p = 0 or 1)
        t = Student's t(B − 1, (1 + level) / 2)
        (p + t²/2n ± t √(p (1 − p) / n + t²/4n²)) / (1 + t²/n)

    It stays within [0, 1] and is not empty for a neuron that never fired. `jackknife_variance` gives var.

    Source: Wilson (1927) with the effective sample of Korn and Graubard (1998).
    """
    p = blocks.probability().to(torch.float64).clamp_(0, 1)
    tokens = blocks.tokens.sum(dim=0).clamp(min=1).to(torch.float64)
    variance, spread = jackknife_variance(blocks), p * (1 - p)
    effective = torch.where(variance > 0, spread / variance, tokens).minimum(tokens).clamp_(min=1)
    reach = float(stats.t.ppf((1 + level) / 2, len(blocks) - 1))
    shrink = 1 + reach**2 / effective
    middle = (p + reach**2 / (2 * effective)) / shrink
    half = reach * (spread / effective + (reach / (2 * effective)).square()).sqrt() / shrink
    return Interval((middle - half).clamp_(min=0), (middle + half).clamp_(max=1))

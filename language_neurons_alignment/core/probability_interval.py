"""How well a corpus in blocks knows each activation probability."""

from __future__ import annotations

import torch
from scipy import stats

from .blocks import AnswerBlocks
from .design_effect import design_effects
from .resampling import LEVEL, Interval


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

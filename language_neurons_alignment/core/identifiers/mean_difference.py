"""Mean difference: the neurons that are more active in one language than in the others, by their means.

Language arithmetics adds μ_k − mean_{j≠k} μ_j to a neuron to steer to language k (FIELD); here the same difference, in
units of the neuron's own spread, says whose neuron it is.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from ..selection import lowest


def effect_size(
    mean: Float64[Tensor, "layer neuron lang"], variance: Float64[Tensor, "layer neuron lang"]
) -> Float64[Tensor, "layer neuron lang"]:
    """How far a neuron's mean activation in a language lies above that in the others, in standard deviations.

        d_k = (μ_k − mean_{j≠k} μ_j) / s,   s² = (1/K) Σ_j σ_j²

    Every language has the same weight in s, whatever number of tokens its text was cut into. 0 where there is no
    difference; ∞ where there is one and no spread.

    Args:
        mean: μ, over a language's answer tokens.
        variance: σ², likewise.
    """
    languages = mean.shape[-1]
    others = (mean.sum(dim=-1, keepdim=True) - mean) / max(languages - 1, 1)
    difference = mean - others
    spread = variance.mean(dim=-1, keepdim=True).clamp(min=0).sqrt()
    return torch.where(difference == 0, 0.0, difference / spread)


def mean_difference(effect: Float64[Tensor, "layer neuron lang"], *, neurons: int) -> Bool[Tensor, "layer neuron lang"]:
    """For each language the N neurons of largest effect, of those above 0; ties by flat index, lower first.

    Args:
        effect: d (`effect_size`).
        neurons: N.
    """
    count = min(neurons, effect[..., 0].numel())
    chosen = [lowest(-of_language, count=count) & (of_language > 0) for of_language in effect.unbind(dim=-1)]
    return torch.stack(chosen, dim=-1)

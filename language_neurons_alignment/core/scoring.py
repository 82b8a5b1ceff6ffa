"""How evenly a neuron fires over the languages, and how strongly (SPEC 3; paper eq. 5)."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor


def normalised_entropy(probability: Float[Tensor, "*shape lang"]) -> Float64[Tensor, "*shape"]:
    """The entropy of a neuron's probabilities over languages, as a share of the largest possible.

        q = p / Σ_k p   (uniform where Σ_k p = 0)
        e = −Σ_k q ln q / ln K

    0: fires for one language only; 1: for all alike. With one language there is nothing to compare, and e = 1.
    """
    languages = probability.shape[-1]
    if languages == 1:
        return torch.ones(probability.shape[:-1], dtype=torch.float64)
    q = probability.to(torch.float64)
    total = q.sum(dim=-1)
    q = q / total.unsqueeze(-1)
    entropy = torch.special.entr(q).sum(dim=-1) / math.log(languages)
    return torch.where(total > 0, entropy, 1.0).clamp(0.0, 1.0)


def normalised_peak(probability: Float[Tensor, "*shape lang"]) -> Float64[Tensor, "*shape"]:
    """A neuron's largest probability over the mean of 1/j, the scale on which λ is quoted.

    r = max_k p / m,   m = (1/K) Σ_{j=1..K} 1/j
    """
    languages = probability.shape[-1]
    mean_reciprocal = sum(1.0 / j for j in range(1, languages + 1)) / languages
    return probability.amax(dim=-1).to(torch.float64) / mean_reciprocal


def score(
    entropy: Float64[Tensor, "*shape"], peak: Float64[Tensor, "*shape"], *, lam: float
) -> Float64[Tensor, "*shape"]:
    """s(λ) = e − λ · r: the lower, the more a language neuron."""
    return entropy - lam * peak


def activation_threshold(probability: Float32[Tensor, "layer neuron lang"], *, rank: int) -> float:
    """τ: the `rank`-th smallest of all probabilities, of every neuron and language (paper eq. 6)."""
    values = probability.numpy().ravel(order="K")  # in the order of memory: nothing is moved to be read
    return float(np.partition(values, rank - 1)[rank - 1])  # several times faster than torch.kthvalue

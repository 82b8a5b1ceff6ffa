"""From counts to activation probabilities (SPEC 3; paper eq. 4)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


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

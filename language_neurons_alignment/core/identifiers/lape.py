"""LAPE: the neurons whose firing is least spread over the languages, of those that fire often in some (Tang et al.)."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from ..selection import NeuronStatistics, lowest, rank_of_share


def lape(statistics: NeuronStatistics, *, top_rate: float) -> Bool[Tensor, "layer neuron lang"]:
    """The neurons of each language by language activation probability entropy.

        E = −Σ_k q_k ln q_k,  q = p / Σ p;   E = ∞ where no p_k > τ
        selected  = the round(top_rate · layers · d_mlp) neurons of lowest E; ties by flat index, lower first
        neuron belongs to language k  ⇔  selected and p_k > τ

    τ is the round(bar · layers · d_mlp · K)-th smallest of all p (`neuron_statistics`), which is what LAPE's public
    code takes (`kthvalue`). E is ordered as its share of ln K, `statistics.entropy`. A neuron that is above τ nowhere
    is taken at no rate, so there may be fewer than asked for.

    Raises:
        SettingsError: a top rate that is no share, or less than one neuron.
    """
    rank = rank_of_share(top_rate, statistics.entropy.numel(), "top_rate")
    eligible = statistics.member.any(dim=-1)
    entropy = torch.where(eligible, statistics.entropy, torch.inf)
    return (lowest(entropy, count=rank) & eligible).unsqueeze(-1) & statistics.member

"""Other ways to find language neurons, one a file: each gives the neurons of every language (FIELD).

The method of this project, entropy-λ, is `core.selection`: its parts serve AutoSweep and the λ path too.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from .selection import NeuronStatistics, lowest, rank_of_share

# ── Equal-N LAPE: as many neurons for each language, so that languages compare.


def equal_n(statistics: NeuronStatistics, *, neurons: int) -> Bool[Tensor, "layer neuron lang"]:
    """Of the neurons with p_k > τ, for each language k, the N of lowest entropy; ties by flat index, lower first.

    A language with fewer than N neurons above τ has them all. Where LAPE gives most neurons to languages whose
    tokens many neurons know, here all have N; a neuron may be among those of several languages.

    Args:
        statistics: of the probabilities; τ is in them.
        neurons: N.
    """
    count = min(neurons, statistics.entropy.numel())
    chosen = [
        lowest(torch.where(member, statistics.entropy, torch.inf), count=count) & member
        for member in statistics.member.unbind(dim=-1)
    ]
    return torch.stack(chosen, dim=-1)


# ── LAPE: the neurons whose firing is least spread over the languages, of those that fire often in some (Tang et al.).


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


# ── Mean difference: the neurons that are more active in one language than in the others, by their means.
#
# Language arithmetics adds μ_k − mean_{j≠k} μ_j to a neuron to steer to language k (FIELD); here the same difference, in
# units of the neuron's own spread, says whose neuron it is.


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


# ── Random neurons: what a method has to be better than.


def random_like(sizes: Int64[Tensor, "layer lang"], *, d_mlp: int, seed: int) -> Bool[Tensor, "layer neuron lang"]:
    """As many neurons of each layer and language as another mask has, each set of them as likely as any other.

    Languages are drawn one after the other and do not know of each other.

    Args:
        sizes: neurons per layer and language.
        d_mlp: neurons per layer.
        seed: the same seed gives the same neurons.
    """
    layers, languages = sizes.shape
    generator = torch.Generator().manual_seed(seed)
    place = torch.rand(languages, layers, d_mlp, generator=generator).argsort(dim=-1).argsort(dim=-1)
    return (place < sizes.T.unsqueeze(-1)).permute(1, 2, 0).contiguous()


def random_anywhere(
    layers: int, d_mlp: int, *, languages: int, neurons: int, seed: int
) -> Bool[Tensor, "layer neuron lang"]:
    """N neurons for each language, from anywhere in the model: layers are forgotten, and drawn from as one."""
    sizes = torch.full((1, languages), neurons)
    return random_like(sizes, d_mlp=layers * d_mlp, seed=seed).view(layers, d_mlp, languages)

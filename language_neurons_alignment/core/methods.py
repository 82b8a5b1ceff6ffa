"""Other published ways to find language neurons, and random neurons as a baseline; ties go to the lower flat index."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from ..errors import SettingsError
from .selection import NeuronStatistics, lowest, rank_of_share
from .widths import Widths, is_neuron, neurons_among


def lape(statistics: NeuronStatistics, *, top_rate: float) -> Bool[Tensor, "layer neuron lang"]:
    """LAPE: the neurons of lowest language activation probability entropy, among those that fire often somewhere.

        E = −Σ_k q_k ln q_k,  q = p / Σ p;   E = ∞ where no p_k > τ
        selected  = the round(top_rate · N) neurons of lowest E, of the model's N
        neuron belongs to language k  ⇔  selected and p_k > τ

    τ is that of `neuron_statistics`, as in LAPE's public code, and E is compared after division by ln K
    (`statistics.entropy`). Neurons above τ nowhere are never selected, so there can be fewer than requested.

    Source: Tang et al. (2024), "Language-Specific Neurons".
    """
    rank = rank_of_share(top_rate, statistics.neurons, "top_rate")
    eligible = statistics.member.any(dim=-1)
    entropy = torch.where(eligible, statistics.entropy, torch.inf)
    return (lowest(entropy, count=rank) & eligible).unsqueeze(-1) & statistics.member


def equal_n(statistics: NeuronStatistics, *, neurons: int) -> Bool[Tensor, "layer neuron lang"]:
    """Equal-N LAPE: for each language, the N neurons of lowest entropy among those with p_k > τ.

    A language with fewer than N neurons above τ gets all of them. LAPE gives most neurons to the languages that many
    neurons fire for; here every language gets N, so languages can be compared. A neuron can belong to several.
    """
    return _lowest_of_each(statistics.entropy.unsqueeze(-1), among=statistics.member, neurons=neurons)


def _lowest_of_each(
    values: Float64[Tensor, "layer neuron #lang"], *, among: Bool[Tensor, "layer neuron lang"], neurons: int
) -> Bool[Tensor, "layer neuron lang"]:
    """For each language, the neurons of lowest value among some."""
    candidates = torch.where(among, values, torch.inf).unbind(dim=-1)
    chosen = [lowest(one, count=min(neurons, one.numel())) for one in candidates]
    return torch.stack(chosen, dim=-1) & among


def effect_size(
    mean: Float64[Tensor, "layer neuron lang"], variance: Float64[Tensor, "layer neuron lang"]
) -> Float64[Tensor, "layer neuron lang"]:
    """How far a neuron's mean activation in a language lies above its mean in the others, in standard deviations.

        d_k = (μ_k − mean_{j≠k} μ_j) / s,   s² = (1/K) Σ_j σ_j²        over a language's answer tokens

    Every language has the same weight in s, whatever its number of tokens. 0 where the means are equal; ±∞ where they
    differ and s = 0. Language arithmetic adds the numerator to a neuron to steer to language k.

    >>> mean = torch.tensor([[[3.0, 1.0], [1.0, 1.0]]]).double()
    >>> effect_size(mean, torch.ones_like(mean)).tolist()
    [[[2.0, -2.0], [0.0, 0.0]]]
    """
    others = (mean.sum(dim=-1, keepdim=True) - mean) / max(mean.shape[-1] - 1, 1)
    difference = mean - others
    spread = variance.mean(dim=-1, keepdim=True).clamp(min=0).sqrt()
    return torch.where(difference == 0, 0.0, difference / spread)


def mean_difference(effect: Float64[Tensor, "layer neuron lang"], *, neurons: int) -> Bool[Tensor, "layer neuron lang"]:
    """For each language, the N neurons of largest positive effect d (`effect_size`)."""
    return _lowest_of_each(-effect, among=effect > 0, neurons=neurons)


def random_like(
    sizes: Int64[Tensor, "layer lang"], *, d_mlp: int, seed: int, widths: Widths | None = None
) -> Bool[Tensor, "layer neuron lang"]:
    """Random neurons, as many in each layer and language as another mask has; languages are drawn independently.

    >>> random_like(torch.tensor([[2, 0], [1, 3]]), d_mlp=5, seed=0).sum(dim=1).tolist()
    [[2, 0], [1, 3]]
    """
    return _drawn(sizes, None if widths is None else is_neuron(widths, d_mlp), d_mlp=d_mlp, seed=seed)


def _drawn(
    sizes: Int64[Tensor, "layer lang"], real: Bool[Tensor, "layer neuron"] | None, *, d_mlp: int, seed: int
) -> Bool[Tensor, "layer neuron lang"]:
    """So many random places in each layer and language, of those that are neurons."""
    layers, languages = sizes.shape
    generator = torch.Generator().manual_seed(seed)
    keys = torch.rand(languages, layers, d_mlp, generator=generator)
    if real is not None:
        keys = keys.masked_fill(~real, torch.inf)  # drawn last, and there are no more to draw than neurons
    place = keys.argsort(dim=-1).argsort(dim=-1)
    return (place < sizes.T.unsqueeze(-1)).permute(1, 2, 0).contiguous()


def random_anywhere(
    layers: int, d_mlp: int, *, languages: int, neurons: int, seed: int, widths: Widths | None = None
) -> Bool[Tensor, "layer neuron lang"]:
    """N random neurons for each language, from all layers; SettingsError if the model has fewer than N."""
    there = neurons_among(layers, d_mlp, widths)
    if neurons > there:
        raise SettingsError(f"--neurons {neurons} is more than the {there} that the model has: give fewer")
    sizes, real = torch.full((1, languages), neurons), None if widths is None else is_neuron(widths, d_mlp).view(1, -1)
    return _drawn(sizes, real, d_mlp=layers * d_mlp, seed=seed).view(layers, d_mlp, languages)

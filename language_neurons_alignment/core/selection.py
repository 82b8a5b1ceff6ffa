"""Which neurons are language neurons, and of which languages.

    e = H(p / Σ_k p) / ln K          how evenly a neuron fires over the K languages
    r = max_k p / m                  how strongly it fires,   m = (1/K) Σ_{j=1..K} 1/j
    s(λ) = e − λ r                   the neurons of lowest score are selected
    p > τ                            a selected neuron belongs to the languages in which this holds

Tensors of probabilities have the axes [layer, neuron, lang]; `find` puts the steps together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int
from torch import Tensor

from ..config import CLASSES
from ..errors import ArtifactError, SettingsError
from .widths import Widths, is_neuron, neurons_among

MaskList = list[list[Tensor]]
"""The stored form of a mask, List[K] of List[layers] of sorted LongTensor: neurons of each language and layer."""


def normalised_entropy(probability: Float[Tensor, "*shape lang"]) -> Float64[Tensor, "*shape"]:
    """The entropy of a neuron's probabilities over languages, as a share of the largest possible entropy.

        q = p / Σ_k p   (uniform where Σ_k p = 0)
        e = −Σ_k q ln q / ln K

    0 means that the neuron fires for one language only, 1 that it fires equally for all. With K = 1, e = 1.

    >>> normalised_entropy(torch.tensor([[0.5, 0.5, 0, 0], [0.7, 0, 0, 0], [0.1, 0.1, 0.1, 0.1]])).tolist()
    [0.5, 0.0, 1.0]

    Source: equation 5 of the paper, divided by ln K as in its code.
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
    """A neuron's largest probability, divided by the mean of 1/j; λ is quoted on this scale.

        r = max_k p / m,   m = (1/K) Σ_{j=1..K} 1/j

    >>> normalised_peak(torch.tensor([[0.25, 0.75]])).tolist()  # K = 2: m = (1 + 1/2) / 2
    [1.0]
    """
    languages = probability.shape[-1]
    mean_reciprocal = sum(1.0 / j for j in range(1, languages + 1)) / languages
    return probability.amax(dim=-1).to(torch.float64) / mean_reciprocal


def score(
    entropy: Float64[Tensor, "*shape"], peak: Float64[Tensor, "*shape"], *, lam: float
) -> Float64[Tensor, "*shape"]:
    """The selection score s(λ) = e − λ r; language neurons have low scores.

    >>> p = torch.tensor([[0.75, 0.0], [0.75, 0.75], [0.0, 0.0]])
    >>> score(normalised_entropy(p), normalised_peak(p), lam=0.25).tolist()
    [-0.25, 0.75, 1.0]
    """
    return entropy - lam * peak


def activation_threshold(probability: Float32[Tensor, "*shape lang"], *, rank: int) -> float:
    """τ: the `rank`-th smallest probability of all neurons and languages (equation 6 of the paper)."""
    values = probability.numpy().ravel(order="K")  # in memory order, so nothing is copied
    return float(np.partition(values, rank - 1)[rank - 1])  # several times faster than torch.kthvalue


@dataclass(frozen=True)
class NeuronStatistics:
    """What selection needs to know about each neuron: e, r, whether p > τ, and τ; not λ or the top rate.

    Where layers have different `widths`, the places that are no neurons have e = ∞, r = 0, and are above τ nowhere.
    """

    entropy: Float64[Tensor, "layer neuron"]
    peak: Float64[Tensor, "layer neuron"]
    member: Bool[Tensor, "layer neuron lang"]
    threshold: float
    widths: Widths | None = None

    @property
    def neurons(self) -> int:
        """N, the number of neurons of the model, of which rates are a share."""
        layers, d_mlp, *_ = self.entropy.shape
        return neurons_among(layers, d_mlp, self.widths)

    @property
    def languages_above(self) -> Int[Tensor, "layer neuron"]:
        """N, the number of languages in which each neuron is above τ."""
        return self.member.sum(dim=-1)

    @property
    def general(self) -> Bool[Tensor, "layer neuron"]:
        """The neurons above τ in every language; AutoSweep keeps them out of the selection."""
        return self.member.all(dim=-1)


def neuron_statistics(
    probability: Float32[Tensor, "layer neuron lang"], *, bar: float, widths: Widths | None = None
) -> NeuronStatistics:
    """Entropy, peak and membership of every neuron; SettingsError if the bar is outside (0, 1] or names no probability.

        τ = the round(bar · N · K)-th smallest probability        N = layers · d_mlp, or Σ widths

    >>> p = torch.tensor([[[0.9, 0.0], [0.6, 0.7], [0.1, 0.2]]])
    >>> found = neuron_statistics(p, bar=0.5)  # τ is the third smallest of six probabilities
    >>> round(found.threshold, 3), found.languages_above.tolist()
    (0.2, [[1, 2, 0]])
    """
    layers, d_mlp, languages = probability.shape
    rank = rank_of_share(bar, neurons_among(layers, d_mlp, widths) * languages, "bar")
    entropy, peak = normalised_entropy(probability), normalised_peak(probability)
    if widths is None:
        threshold = activation_threshold(probability, rank=rank)
        return NeuronStatistics(entropy, peak, probability > threshold, threshold)
    real = is_neuron(widths, d_mlp)
    threshold = activation_threshold(probability[real], rank=rank)
    entropy, peak = torch.where(real, entropy, torch.inf), torch.where(real, peak, 0.0)
    return NeuronStatistics(entropy, peak, (probability > threshold) & real.unsqueeze(-1), threshold, widths)


def select(statistics: NeuronStatistics, *, top_rate: float, lam: float) -> Bool[Tensor, "layer neuron"]:
    """Select the round(top_rate · N) neurons of lowest score, of the model's N; the lower flat index wins a tie.

    >>> statistics = neuron_statistics(torch.tensor([[[0.9, 0.0], [0.6, 0.7], [0.1, 0.2], [0.0, 0.4]]]), bar=0.5)
    >>> select(statistics, top_rate=0.5, lam=0.1).tolist()
    [[True, False, False, True]]
    """
    scores = score(statistics.entropy, statistics.peak, lam=lam)
    return lowest(scores, count=rank_of_share(top_rate, statistics.neurons, "top_rate"))


def lowest(values: Float64[Tensor, "*shape"], *, count: int) -> Bool[Tensor, "*shape"]:
    """A mask of the `count` smallest values; the lower flat index wins a tie.

    >>> lowest(torch.tensor([3.0, 1.0, 2.0, 2.0]).double(), count=2).tolist()
    [False, True, True, False]
    """
    flat = values.flatten()
    largest_taken = flat.kthvalue(count).values
    taken = flat < largest_taken
    ties = (flat == largest_taken).nonzero().flatten()
    taken[ties[: count - int(taken.sum())]] = True
    return taken.view(values.shape)


def rank_of_share(share: float, total: int, name: str) -> int:
    """round(share · total); SettingsError unless the share is in (0, 1] and rounds to at least 1.

    >>> rank_of_share(0.01, 458_752, "top_rate")
    4588
    """
    if not (math.isfinite(share) and 0.0 < share <= 1.0):
        raise SettingsError(f"{name} must be a share above 0 and at most 1, got {share!r}: give for example 0.01")
    rank = round(share * total)
    if rank < 1:
        raise SettingsError(f"{name} {share!r} of {total} is less than one: give at least {1 / total:.3g}")
    return rank


def appear(
    languages_above: Int[Tensor, "layer neuron"], selected: Bool[Tensor, "layer neuron"], *, languages: int
) -> Int[Tensor, " n_languages"]:
    """The histogram that AutoSweep watches.

        appear[j] = number of selected neurons with N = j,   j = 0..K

    >>> appear(torch.tensor([[1, 2, 0, 1]]), torch.tensor([[True, False, False, True]]), languages=2).tolist()
    [0, 2, 0]
    """
    return torch.bincount(languages_above[selected], minlength=languages + 1)


@dataclass(frozen=True)
class NeuronClasses:
    """The paper's classes, by N, the number of languages in which a neuron is above τ.

        specific      selected and N = 1
        related       selected and 1 < N < K
        general       N = K, selected or not
        unassigned    selected and N = 0; not a class of the paper, and reported separately

    They are disjoint.
    """

    specific: Bool[Tensor, "layer neuron"]
    related: Bool[Tensor, "layer neuron"]
    general: Bool[Tensor, "layer neuron"]
    unassigned: Bool[Tensor, "layer neuron"]

    def sizes(self) -> dict[str, int]:
        """The number of neurons in each class."""
        return {name: int(neurons.sum()) for name, neurons in vars(self).items()}


def classify(
    languages_above: Int[Tensor, "layer neuron"], selected: Bool[Tensor, "layer neuron"], *, languages: int
) -> NeuronClasses:
    """Sort neurons into the paper's classes. With K = 1, a selected neuron above τ is specific.

    >>> classify(torch.tensor([[1, 2, 3, 0]]), torch.tensor([[True, True, False, True]]), languages=3).sizes()
    {'specific': 1, 'related': 1, 'general': 1, 'unassigned': 1}
    """
    above = languages_above
    return NeuronClasses(
        specific=selected & (above == 1),
        related=selected & (above > 1) & (above < languages),
        general=(above == languages) & (languages > 1),
        unassigned=selected & (above == 0),
    )


def language_mask(
    statistics: NeuronStatistics, selected: Bool[Tensor, "layer neuron"]
) -> Bool[Tensor, "layer neuron lang"]:
    """The neurons that belong to each language: selected, and above τ in it."""
    return selected.unsqueeze(-1) & statistics.member


def neurons_of_language(
    mask: Bool[Tensor, "layer neuron lang"],
    language: int,
    *,
    classes: Sequence[str],
    general: Bool[Tensor, "layer neuron"] | None = None,
) -> Bool[Tensor, "layer neuron"]:
    """A language's neurons of the given classes; specific and related together are its mask.

    N of a neuron in the mask is the number of languages that it belongs to. `general` are the general neurons, which no
    mask contains. SettingsError for an unknown class, or for "general" without them.
    """
    unknown = [name for name in classes if name not in CLASSES]
    if unknown or not classes:
        raise SettingsError(f"unknown neuron class {', '.join(unknown) or '(none)'}: choose from {', '.join(CLASSES)}")
    if "general" in classes and general is None:
        raise SettingsError("the class general needs the activation counts; a mask does not contain it")
    above, own = mask.sum(dim=-1), mask[..., language]
    members = {"specific": own & (above == 1), "related": own & (above > 1)}
    if general is not None:
        members["general"] = general
    return torch.stack([members[name] for name in classes]).any(dim=0)


def to_mask_list(mask: Bool[Tensor, "layer neuron lang"]) -> MaskList:
    """The stored form of a mask."""
    layers, _, languages = mask.shape
    return [[mask[layer, :, k].nonzero().flatten() for layer in range(layers)] for k in range(languages)]


def from_mask_list(stored: MaskList, *, d_mlp: int) -> Bool[Tensor, "layer neuron lang"]:
    """A mask from its stored form; ArtifactError if it is none, or an index is outside [0, d_mlp)."""
    layers = len(stored[0]) if stored else 0
    if not stored or any(len(per_layer) != layers for per_layer in stored):
        raise ArtifactError(
            "not a mask: expected a list of languages, each a list of the same number of layers; "
            "run `lna identify` again"
        )
    mask = torch.zeros(layers, d_mlp, len(stored), dtype=torch.bool)
    for k, per_layer in enumerate(stored):
        for layer, neurons in enumerate(per_layer):
            low, high = map(int, neurons.aminmax()) if neurons.numel() else (0, 0)
            if low < 0 or high >= d_mlp:
                raise ArtifactError(
                    f"mask of language number {k}, layer {layer}: neuron indices span {low}..{high}, the model has "
                    f"0..{d_mlp - 1}; it is another model's mask"
                )
            mask[layer, neurons.long(), k] = True
    return mask

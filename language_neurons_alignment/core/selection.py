"""Which neurons are language neurons, and of which languages (SPEC 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int
from torch import Tensor

from ..errors import ArtifactError, SettingsError

# ── How evenly a neuron fires over the languages, and how strongly (SPEC 3; paper eq. 5).


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


@dataclass(frozen=True)
class NeuronStatistics:
    """What selection needs of each neuron, whatever λ and top rate are.

    Attributes:
        entropy: e, normalised entropy over languages, in [0, 1].
        peak: r, normalised largest probability; the score is e − λ · r.
        member: p > τ, whether the neuron is above the threshold in a language.
        threshold: τ.
    """

    entropy: Float64[Tensor, "layer neuron"]
    peak: Float64[Tensor, "layer neuron"]
    member: Bool[Tensor, "layer neuron lang"]
    threshold: float

    @property
    def languages_above(self) -> Int[Tensor, "layer neuron"]:
        """N: in how many languages each neuron is above τ."""
        return self.member.sum(dim=-1)

    @property
    def general(self) -> Bool[Tensor, "layer neuron"]:
        """Neurons above τ in every language; AutoSweep keeps them out of the selection."""
        return self.member.all(dim=-1)


def neuron_statistics(probability: Float32[Tensor, "layer neuron lang"], *, bar: float) -> NeuronStatistics:
    """Entropy, peak and membership of every neuron.

    Args:
        probability: activation probabilities.
        bar: activation bar; τ is the round(bar · layers · d_mlp · K)-th smallest of all p.

    Raises:
        SettingsError: a bar outside (0, 1], or so small that it names no probability.
    """
    rank = rank_of_share(bar, probability.numel(), "bar")
    threshold = activation_threshold(probability, rank=rank)
    return NeuronStatistics(
        entropy=normalised_entropy(probability),
        peak=normalised_peak(probability),
        member=probability > threshold,
        threshold=threshold,
    )


def select(statistics: NeuronStatistics, *, top_rate: float, lam: float) -> Bool[Tensor, "layer neuron"]:
    """The round(top_rate · layers · d_mlp) neurons of lowest score; ties by flat index, lower first."""
    scores = score(statistics.entropy, statistics.peak, lam=lam)
    return lowest(scores, count=rank_of_share(top_rate, scores.numel(), "top_rate"))


def lowest(values: Float64[Tensor, "*shape"], *, count: int) -> Bool[Tensor, "*shape"]:
    """A mask of the `count` smallest values, ties by flat index, lower first."""
    flat = values.flatten()
    largest_taken = flat.kthvalue(count).values
    taken = flat < largest_taken
    ties = (flat == largest_taken).nonzero().flatten()
    taken[ties[: count - int(taken.sum())]] = True
    return taken.view(values.shape)


def appear(
    languages_above: Int[Tensor, "layer neuron"], selected: Bool[Tensor, "layer neuron"], *, languages: int
) -> Int[Tensor, " n_languages"]:
    """The histogram that AutoSweep watches: appear[j] = selected neurons above τ in exactly j languages, j = 0..K."""
    return torch.bincount(languages_above[selected], minlength=languages + 1)


def rank_of_share(share: float, total: int, name: str) -> int:
    """round(share · total), as the method rounds, for a share in (0, 1].

    Raises:
        SettingsError: not a number, outside (0, 1], or so small that it rounds to nothing.
    """
    if not (math.isfinite(share) and 0.0 < share <= 1.0):
        raise SettingsError(f"{name} must be a share above 0 and at most 1, got {share!r}: give for example 0.01")
    rank = round(share * total)
    if rank < 1:
        raise SettingsError(f"{name} {share!r} of {total} is less than one: give at least {1 / total:.3g}")
    return rank


# ── Masks: which neurons belong to which language, in memory and in the stored form (SPEC 5).

MaskList = list[list[Tensor]]
"""List[K] of List[layers] of sorted LongTensor: the neurons of each language and layer."""

CLASSES = ("specific", "related", "general")
MASK_CLASSES = CLASSES[:2]
"""The classes that make up a language's mask."""


@dataclass(frozen=True)
class NeuronClasses:
    """The paper's classes; a neuron is in one of them or in none. N = languages in which it is above τ.

    Attributes:
        specific: selected and N = 1.
        related: selected and 1 < N < K.
        general: N = K, of all neurons, selected or not.
        unassigned: selected and N = 0; no class, reported on its own.
    """

    specific: Bool[Tensor, "layer neuron"]
    related: Bool[Tensor, "layer neuron"]
    general: Bool[Tensor, "layer neuron"]
    unassigned: Bool[Tensor, "layer neuron"]

    def sizes(self) -> dict[str, int]:
        """How many neurons each class has."""
        return {name: int(getattr(self, name).sum()) for name in (*CLASSES, "unassigned")}


def classify(
    languages_above: Int[Tensor, "layer neuron"], selected: Bool[Tensor, "layer neuron"], *, languages: int
) -> NeuronClasses:
    """Sort neurons into the paper's classes (SPEC 5). With one language, a neuron above τ in it is specific."""
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


def to_mask_list(mask: Bool[Tensor, "layer neuron lang"]) -> MaskList:
    """The stored form of a mask."""
    layers, _, languages = mask.shape
    return [[mask[layer, :, k].nonzero().flatten() for layer in range(layers)] for k in range(languages)]


def from_mask_list(stored: MaskList, *, d_mlp: int) -> Bool[Tensor, "layer neuron lang"]:
    """Read a mask from its stored form.

    Raises:
        ArtifactError: not List[K] of List[layers] of index tensors, ragged, or an index outside [0, d_mlp).
    """
    layers = len(stored[0]) if stored else 0
    if not stored or any(len(per_layer) != layers for per_layer in stored):
        raise ArtifactError(
            "not a mask: expected a list of languages, each a list of the same number of layers; "
            "run `lna identify` again"
        )
    mask = torch.zeros(layers, d_mlp, len(stored), dtype=torch.bool)
    for k, per_layer in enumerate(stored):
        for layer, neurons in enumerate(per_layer):
            if neurons.numel() and (int(neurons.min()) < 0 or int(neurons.max()) >= d_mlp):
                raise ArtifactError(
                    f"mask of language number {k}, layer {layer}: neuron indices span "
                    f"{int(neurons.min())}..{int(neurons.max())}, the model has 0..{d_mlp - 1}; "
                    "it is another model's mask"
                )
            mask[layer, neurons.long(), k] = True
    return mask


def neurons_of_language(
    mask: Bool[Tensor, "layer neuron lang"],
    language: int,
    *,
    classes: Sequence[str],
    general: Bool[Tensor, "layer neuron"] | None = None,
) -> Bool[Tensor, "layer neuron"]:
    """A language's neurons of the named classes; specific + related together are its whole mask (SPEC 5).

    Among the neurons of a mask, N is the number of languages that a neuron is in.

    Args:
        mask: the mask of all K languages.
        language: position of the language.
        classes: any of `CLASSES`.
        general: the general neurons, which are in no mask; needed for the class "general".

    Raises:
        SettingsError: a name that is not a class, or "general" without the general neurons.
    """
    unknown = [name for name in classes if name not in CLASSES]
    if unknown or not classes:
        raise SettingsError(f"unknown neuron class {', '.join(unknown) or '(none)'}: choose from {', '.join(CLASSES)}")
    above, own = mask.sum(dim=-1), mask[..., language]
    chosen = torch.zeros_like(own)
    if "specific" in classes:
        chosen |= own & (above == 1)
    if "related" in classes:
        chosen |= own & (above > 1)
    if "general" in classes:
        if general is None:
            raise SettingsError("the class general needs the activation counts, which a mask alone does not hold")
        chosen |= general
    return chosen

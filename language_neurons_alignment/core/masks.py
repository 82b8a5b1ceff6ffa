"""Masks: which neurons belong to which language, in memory and in the stored form (SPEC 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..errors import ArtifactError, SettingsError
from .selection import NeuronStatistics

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

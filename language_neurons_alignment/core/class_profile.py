"""Where in the model each class of neurons lies: per layer, and per language and layer (paper figures 3 and 14)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from ..frames import Columns, Framed
from .masks import CLASSES, MASK_CLASSES, NeuronClasses

UNASSIGNED = "unassigned"
NO_CLASS = "none"
"""The state of a neuron that is in no class and was not selected."""

ClassMembers = Mapping[str, Bool[Tensor, "layer neuron"]]
"""Name of a class → its neurons; the classes are disjoint."""


@dataclass(frozen=True)
class ClassProfile(Framed):
    """How many neurons of each class every layer has.

    Attributes:
        classes: names of the last axis: specific, related, general, unassigned; of a mask alone, whose general neurons
            are not known, specific and related.
        counts: neurons.
        d_mlp: neurons per layer, of any class or none.
    """

    classes: tuple[str, ...]
    counts: Int64[Tensor, "layer class"]
    d_mlp: int

    def of(self, name: str) -> Int64[Tensor, " layer"]:
        """One class over the layers."""
        return self.counts[:, self.classes.index(name)]

    def totals(self) -> dict[str, int]:
        """Neurons of each class in the whole model."""
        return dict(zip(self.classes, self.counts.sum(dim=0).tolist(), strict=True))

    def columns(self) -> Columns:
        """One row a layer: layer, and a column for each class."""
        by_class = {name: self.of(name).tolist() for name in self.classes}
        return {"layer": list(range(len(self.counts))), **by_class}


@dataclass(frozen=True)
class LanguageProfile(Framed):
    """How many specific and related neurons each language has in every layer.

    A related neuron counts for each of its languages, so languages do not add up to the class profile; specific ones
    do.

    Attributes:
        languages: codes, in the order of the second axis.
        classes: names of the last axis, specific and related: the classes that make up a language's mask.
        counts: neurons.
    """

    languages: tuple[str, ...]
    classes: tuple[str, ...]
    counts: Int64[Tensor, "layer lang class"]

    @property
    def per_language(self) -> Int64[Tensor, "lang class"]:
        """Neurons of each language in the whole model."""
        return self.counts.sum(dim=0)

    def columns(self) -> Columns:
        """One row a layer and language: layer, language, specific, related."""
        layers, languages, _ = self.counts.shape
        flat = self.counts.flatten(0, 1)
        return {
            "layer": [layer for layer in range(layers) for _ in range(languages)],
            "language": [code for _ in range(layers) for code in self.languages],
            **{name: flat[:, column].tolist() for column, name in enumerate(self.classes)},
        }


def class_members(classes: NeuronClasses) -> ClassMembers:
    """The classes by name, with the selected neurons of none."""
    return {name: getattr(classes, name) for name in (*CLASSES, UNASSIGNED)}


def mask_members(mask: Bool[Tensor, "layer neuron lang"]) -> ClassMembers:
    """The classes that a mask alone tells: among its neurons, N is the number of languages that a neuron is in."""
    languages = mask.sum(dim=-1)
    return {"specific": languages == 1, "related": languages > 1}


def class_profile(members: ClassMembers) -> ClassProfile:
    """Count the classes layer by layer."""
    counts = torch.stack([neurons.sum(dim=1) for neurons in members.values()], dim=1)
    return ClassProfile(tuple(members), counts, d_mlp=next(iter(members.values())).shape[1])


def language_profile(
    mask: Bool[Tensor, "layer neuron lang"], *, members: ClassMembers, languages: Sequence[str]
) -> LanguageProfile:
    """Count each language's specific and related neurons, layer by layer."""
    counted = [(mask & members[name].unsqueeze(-1)).sum(dim=1) for name in MASK_CLASSES]
    return LanguageProfile(tuple(languages), MASK_CLASSES, torch.stack(counted, dim=-1))

"""Where a model's language neurons lie: by class and layer, by language, and by the languages that share them.

Every result is a table too (`Framed`). The paper shows them in figures 3, 5 and 14 and table 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int, Int64
from torch import Tensor

from ..config import MASK_CLASSES
from ..errors import SettingsError
from .frames import Columns, Framed, crossed
from .selection import NeuronClasses
from .widths import Widths, is_neuron, neurons_among

UNASSIGNED = "unassigned"
NO_CLASS = "none"  # the state of a neuron that is in no class and was not selected

ClassMembers = Mapping[str, Bool[Tensor, "layer neuron"]]
"""Name of a class → its neurons; the classes are disjoint."""


def class_members(classes: NeuronClasses) -> ClassMembers:
    """The classes by name, with the unassigned neurons."""
    return dict(vars(classes))


def mask_members(mask: Bool[Tensor, "layer neuron lang"]) -> ClassMembers:
    """The classes that a mask alone determines; N is the number of languages that a neuron belongs to."""
    languages = mask.sum(dim=-1)
    return {"specific": languages == 1, "related": languages > 1}


@dataclass(frozen=True)
class ClassProfile(Framed):
    """The number of neurons of each class in every layer, of `d_mlp` (or `widths`) neurons in any class or none."""

    classes: tuple[str, ...]
    counts: Int64[Tensor, "layer class"]
    d_mlp: int
    widths: Widths | None = None

    @property
    def neurons(self) -> int:
        """All neurons of the model, in any class or none."""
        return neurons_among(len(self.counts), self.d_mlp, self.widths)

    def of(self, name: str) -> Int64[Tensor, " layer"]:
        """One class over the layers."""
        return self.counts[:, self.classes.index(name)]

    def totals(self) -> dict[str, int]:
        """The number of neurons of each class in the whole model."""
        return dict(zip(self.classes, self.counts.sum(dim=0).tolist(), strict=True))

    def columns(self) -> Columns:
        """A row for each layer: layer, and a column for each class."""
        return {"layer": list(range(len(self.counts))), **{name: self.of(name).tolist() for name in self.classes}}


def class_profile(members: ClassMembers, *, widths: Widths | None = None) -> ClassProfile:
    """Count the classes in each layer; `widths` are those of the layers where they differ.

    >>> mask = torch.tensor([[[True, False], [True, True]], [[False, True], [False, False]]])
    >>> class_profile(mask_members(mask)).columns()
    {'layer': [0, 1], 'specific': [1, 1], 'related': [1, 0]}
    """
    counts = torch.stack([neurons.sum(dim=1) for neurons in members.values()], dim=1)
    return ClassProfile(tuple(members), counts, next(iter(members.values())).shape[1], widths)


@dataclass(frozen=True)
class LanguageProfile(Framed):
    """Specific and related neurons of each language in every layer; a related one counts for each of its languages."""

    languages: tuple[str, ...]
    classes: tuple[str, ...]
    counts: Int64[Tensor, "layer lang class"]

    @property
    def per_language(self) -> Int64[Tensor, "lang class"]:
        """The number of neurons of each language in the whole model."""
        return self.counts.sum(dim=0)

    def columns(self) -> Columns:
        """A row for each layer and language: layer, language, specific, related."""
        by_class = dict(zip(self.classes, self.counts.unbind(dim=-1), strict=True))
        return crossed({"layer": range(len(self.counts)), "language": self.languages}, by_class)


def language_profile(
    mask: Bool[Tensor, "layer neuron lang"], *, members: ClassMembers, languages: Sequence[str]
) -> LanguageProfile:
    """Count each language's specific and related neurons in each layer."""
    counted = [(mask & members[name].unsqueeze(-1)).sum(dim=1) for name in MASK_CLASSES]
    return LanguageProfile(tuple(languages), MASK_CLASSES, torch.stack(counted, dim=-1))


@dataclass(frozen=True)
class GroupMeans(Framed):
    """The mean number of neurons per language, or of a change, in groups of languages (tables 2 and 3 of the paper)."""

    groups: dict[str, tuple[str, ...]]
    classes: tuple[str, ...]
    means: Float64[Tensor, "group class"]

    def columns(self) -> Columns:
        """A row for each group: group, languages (joined by +), and a column for each class."""
        return {
            "group": list(self.groups),
            "languages": ["+".join(members) for members in self.groups.values()],
            **{name: self.means[:, column].tolist() for column, name in enumerate(self.classes)},
        }


def group_means(
    counts: Int64[Tensor, "lang class"],
    *,
    languages: Sequence[str],
    classes: Sequence[str],
    groups: Mapping[str, Sequence[str]],
) -> GroupMeans:
    """Average counts, or changes of counts, over groups of languages; empty groups are left out."""
    kept = {name: tuple(members) for name, members in groups.items() if members}
    means = [counts[[languages.index(code) for code in members]].double().mean(dim=0) for members in kept.values()]
    return GroupMeans(kept, tuple(classes), torch.stack(means))


def trained_groups(languages: Sequence[str], trained: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The languages that a model was aligned on, which must be among the languages, and the others."""
    if unknown := [code for code in trained if code not in languages]:
        raise SettingsError(
            f"--trained names {', '.join(unknown)}, which is not compared: choose from {', '.join(languages)}"
        )
    return {"trained": tuple(trained), "untrained": tuple(code for code in languages if code not in trained)}


def english_groups(languages: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """English, if it is among the languages, and the others."""
    others = tuple(code for code in languages if code != "en")
    return {"English": tuple(code for code in languages if code == "en"), "others": others}


@dataclass(frozen=True)
class LanguagesAbove(Framed):
    """Histograms of N, the number of languages in which a neuron is above τ, for each layer (figures 5 and 15)."""

    all: Int64[Tensor, "layer n_languages"]
    selected: Int64[Tensor, "layer n_languages"]

    def columns(self) -> Columns:
        """A row for each layer and N: layer, languages, all, selected."""
        layers, width = self.all.shape
        return crossed({"layer": range(layers), "languages": range(width)}, vars(self))


def count_languages_above(
    above: Int[Tensor, "layer neuron"],
    selected: Bool[Tensor, "layer neuron"],
    *,
    languages: int,
    widths: Widths | None = None,
) -> LanguagesAbove:
    """Both histograms of N, for each layer; `widths` are those of the layers where they differ."""
    width = languages + 1
    cell = above + width * torch.arange(len(above)).unsqueeze(1)
    every = cell.flatten() if widths is None else cell[is_neuron(widths, above.shape[1])]
    counted = (torch.bincount(cells, minlength=width * len(above)) for cells in (every, cell[selected]))
    return LanguagesAbove(*(counts.view(-1, width) for counts in counted))


@dataclass(frozen=True)
class Overlap(Framed):
    """The number of neurons that the masks of two languages share, |M_a ∩ M_b|; the diagonal holds their sizes."""

    languages: tuple[str, ...]
    counts: Int64[Tensor, "lang lang"]

    @property
    def jaccard(self) -> Float64[Tensor, "lang lang"]:
        """|M_a ∩ M_b| / |M_a ∪ M_b|, in [0, 1]; NaN for two empty masks."""
        sizes = self.counts.diagonal()
        return jaccard(self.counts, sizes.unsqueeze(1), sizes.unsqueeze(0))

    def columns(self) -> Columns:
        """A row for each pair of languages, in both orders: language, other, neurons, jaccard."""
        pairs = {"language": self.languages, "other": self.languages}
        return crossed(pairs, {"neurons": self.counts, "jaccard": self.jaccard})


def jaccard(
    both: Int64[Tensor, "*shape"], one: Int64[Tensor, "*#shape"], other: Int64[Tensor, "*#shape"]
) -> Float64[Tensor, "*shape"]:
    """The Jaccard index |A ∩ B| / |A ∪ B| from the sizes of A ∩ B, A and B; NaN if both sets are empty.

    >>> jaccard(torch.tensor([2, 0]), torch.tensor([3, 0]), torch.tensor([3, 0])).tolist()
    [0.5, nan]
    """
    return both.to(torch.float64) / (one + other - both).to(torch.float64)


def language_overlap(mask: Bool[Tensor, "layer neuron lang"], *, languages: Sequence[str]) -> Overlap:
    """Count the common neurons of each pair of languages."""
    rows = mask.flatten(0, 1)
    rows = rows[rows.any(dim=1)].to(torch.float64)  # exact up to 2⁵³ neurons, and a fast matrix product
    return Overlap(tuple(languages), (rows.T @ rows).to(torch.int64))


@dataclass(frozen=True)
class Sharing(Framed):
    """The sets of languages that the neurons of a mask belong to, and how many belong to exactly each."""

    languages: tuple[str, ...]
    sets: Bool[Tensor, "set lang"]
    counts: Int64[Tensor, " set"]

    @property
    def histogram(self) -> Int64[Tensor, " n_languages"]:
        """The number of neurons that belong to exactly j languages, j = 0..K."""
        histogram = torch.zeros(len(self.languages) + 1, dtype=torch.int64)
        return histogram.index_add_(0, self.sets.sum(dim=1), self.counts)

    def named(self, row: int) -> tuple[str, ...]:
        """The languages of one set."""
        return tuple(code for code, inside in zip(self.languages, self.sets[row].tolist(), strict=True) if inside)

    def columns(self) -> Columns:
        """A row for each set: languages (joined by +), size, neurons."""
        return {
            "languages": ["+".join(self.named(row)) for row in range(len(self.sets))],
            "size": self.sets.sum(dim=1).tolist(),
            "neurons": self.counts.tolist(),
        }


def language_sets(mask: Bool[Tensor, "layer neuron lang"], *, languages: Sequence[str]) -> Sharing:
    """Count the neurons of every set of languages in a mask, by descending count.

    Ties go to the smaller set, then to the earlier languages.
    """
    neurons = mask.flatten(0, 1)
    sets, counts = torch.unique(neurons[neurons.any(dim=1)], dim=0, return_counts=True)
    rows = sets.tolist()
    order = sorted(range(len(rows)), key=lambda i: (-int(counts[i]), sum(rows[i]), [not one for one in rows[i]]))
    return Sharing(tuple(languages), sets[order], counts[order])

"""How language neurons differ between two masks of one shape; a neuron is identified by its place (layer, index)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from ..config import MASK_CLASSES
from ..errors import IncompatibleError
from .frames import Columns, Framed, crossed
from .profiles import NO_CLASS, ClassMembers, ClassProfile, LanguageProfile, jaccard
from .widths import Widths, is_neuron

MASK = "mask"  # a language's specific and related neurons together
MEAN, ALL = "mean", "all"  # the rows of a table below those of the languages


@dataclass(frozen=True)
class ClassFlow(Framed):
    """The number of neurons that went from each class, or none, to each, in every layer."""

    states: tuple[str, ...]
    counts: Int64[Tensor, "layer before after"]

    @property
    def total(self) -> Int64[Tensor, "before after"]:
        """Over all layers."""
        return self.counts.sum(dim=0)

    @property
    def before(self) -> Int64[Tensor, "layer state"]:
        """The first model's classes."""
        return self.counts.sum(dim=2)

    @property
    def after(self) -> Int64[Tensor, "layer state"]:
        """The second model's classes."""
        return self.counts.sum(dim=1)

    @property
    def change(self) -> Int64[Tensor, "layer state"]:
        """after − before (figures 4 and 16 to 19 of the paper)."""
        return self.after - self.before

    def columns(self) -> Columns:
        """A row for each layer and pair of classes: layer, before, after, neurons."""
        axes = {"layer": range(len(self.counts)), "before": self.states, "after": self.states}
        return crossed(axes, {"neurons": self.counts})


def class_flow(before: ClassMembers, after: ClassMembers, *, widths: Widths | None = None) -> ClassFlow:
    """Count the neurons by their class in each of two models; IncompatibleError if the classes differ.

    `widths` are those of the layers where they differ, the same in both models.
    """
    states = (*before, NO_CLASS)
    if tuple(before) != tuple(after):
        raise IncompatibleError(
            f"classes {', '.join(before)} and {', '.join(after)} cannot be compared: one model's come from counts and "
            "the other's from a mask alone"
        )
    one, other = _state(before), _state(after)
    width = len(states)
    layer = torch.arange(one.shape[0]).unsqueeze(1) * width * width
    cell = layer + one * width + other
    cell = cell.flatten() if widths is None else cell[is_neuron(widths, one.shape[1])]
    counts = torch.bincount(cell, minlength=one.shape[0] * width * width)
    return ClassFlow(states, counts.view(-1, width, width))


def _state(members: ClassMembers) -> Int64[Tensor, "layer neuron"]:
    """Each neuron's class as its position among the states."""
    inside = torch.stack([*members.values(), torch.ones_like(next(iter(members.values())))])
    return inside.to(torch.int8).argmax(dim=0)


@dataclass(frozen=True)
class LanguageFlow(Framed):
    """How many neurons each language lost, gained and kept in every layer: specific, related, and its whole mask.

    A neuron that goes from specific to related is lost by the one, gained by the other, and kept by the mask.
    """

    languages: tuple[str, ...]
    sets: tuple[str, ...]
    before: Int64[Tensor, "layer lang set"]
    after: Int64[Tensor, "layer lang set"]
    kept: Int64[Tensor, "layer lang set"]

    @property
    def gained(self) -> Int64[Tensor, "layer lang set"]:
        """Neurons in the second mask only."""
        return self.after - self.kept

    @property
    def lost(self) -> Int64[Tensor, "layer lang set"]:
        """Neurons in the first mask only."""
        return self.before - self.kept

    @property
    def jaccard(self) -> Float64[Tensor, "lang set"]:
        """|A ∩ B| / |A ∪ B| over the whole model; NaN if both are empty."""
        return jaccard(*(counts.sum(dim=0) for counts in (self.kept, self.before, self.after)))

    @property
    def retained(self) -> Float64[Tensor, "lang set"]:
        """|A ∩ B| / |A| over the whole model; NaN if A is empty."""
        return self.kept.sum(dim=0).to(torch.float64) / self.before.sum(dim=0)

    def columns(self) -> Columns:
        """A row for each layer, language and set: layer, language, set, before, after, kept, gained, lost."""
        axes = {"layer": range(len(self.before)), "language": self.languages, "set": self.sets}
        return crossed(axes, {name: getattr(self, name) for name in ("before", "after", "kept", "gained", "lost")})


def language_flow(
    before: Bool[Tensor, "layer neuron lang"], after: Bool[Tensor, "layer neuron lang"], *, languages: Sequence[str]
) -> LanguageFlow:
    """Count what two masks have in common, for each language; a neuron with one language is specific."""
    one, other = _language_sets(before), _language_sets(after)
    sizes = (neurons.sum(dim=1) for neurons in (one, other, one & other))
    return LanguageFlow(tuple(languages), (*MASK_CLASSES, MASK), *sizes)


def _language_sets(mask: Bool[Tensor, "layer neuron lang"]) -> Bool[Tensor, "layer neuron lang set"]:
    """The specific neurons, the related neurons, and all neurons of each language."""
    languages = mask.sum(dim=-1, keepdim=True)
    return torch.stack([mask & (languages == 1), mask & (languages > 1), mask], dim=-1)


def corpus_overlap(
    one: Bool[Tensor, "layer neuron lang"], other: Bool[Tensor, "layer neuron lang"], *, languages: Sequence[str]
) -> Columns:
    """Compare the masks of one model on two corpora (table 4 of the paper).

        of_first = shared / first,   of_smaller = shared / min(first, second)
        jaccard = shared / (first + second − shared)

    The columns are language, set, first, second, shared and these three; a row for each language and set, then for the
    mean over languages ("mean"), then for the neurons of any language ("all").
    """
    of_languages = [_language_sets(one), _language_sets(other)]
    first, second = (torch.cat([mask, mask.any(dim=2, keepdim=True)], dim=2) for mask in of_languages)
    first, second, shared = (neurons.sum(dim=(0, 1)).double() for neurons in (first, second, first & second))
    numbers = {"first": first, "second": second, "shared": shared, "of_first": shared / first}
    numbers |= {"of_smaller": shared / torch.minimum(first, second), "jaccard": shared / (first + second - shared)}
    rows = {name: torch.cat([n[:-1], n[:-1].nanmean(dim=0, keepdim=True), n[-1:]]) for name, n in numbers.items()}
    return crossed({"language": (*languages, MEAN, ALL), "set": (*MASK_CLASSES, MASK)}, rows)


@dataclass(frozen=True)
class TrainingPath(Framed):
    """The class profiles of a base model and its checkpoints, side by side (figures 16 to 19 of the paper)."""

    models: tuple[str, ...]
    languages: tuple[str, ...]
    classes: tuple[str, ...]
    per_layer: Int64[Tensor, "model layer class"]
    per_language: Int64[Tensor, "model lang mask_class"]

    @property
    def totals(self) -> Int64[Tensor, "model class"]:
        """Neurons of each class in the whole model."""
        return self.per_layer.sum(dim=1)

    def columns(self) -> Columns:
        """A row for each model and layer: model, layer, and a column for each class."""
        by_class = dict(zip(self.classes, self.per_layer.unbind(dim=-1), strict=True))
        return crossed({"model": self.models, "layer": range(self.per_layer.shape[1])}, by_class)


def training_path(
    models: Sequence[str], profiles: Sequence[ClassProfile], language_profiles: Sequence[LanguageProfile]
) -> TrainingPath:
    """Put the profiles of models of one shape, with the same languages and classes, side by side."""
    per_layer = torch.stack([profile.counts for profile in profiles])
    per_language = torch.stack([profile.per_language for profile in language_profiles])
    languages, classes = language_profiles[0].languages, profiles[0].classes
    return TrainingPath(tuple(models), languages, classes, per_layer, per_language)

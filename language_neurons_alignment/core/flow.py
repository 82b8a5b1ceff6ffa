"""From one model to another of its shape: which neurons changed their class, and which joined or left a language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from ..errors import IncompatibleError
from .frames import Columns, Framed
from .profiles import NO_CLASS, ClassMembers, ClassProfile, LanguageProfile, jaccard
from .selection import MASK_CLASSES

MASK = "mask"
"""A language's specific and related neurons together."""


@dataclass(frozen=True)
class ClassFlow(Framed):
    """How many neurons went from each class to each, layer by layer; every neuron of the model is counted once.

    Attributes:
        states: names of the last two axes: the classes and, last, "none".
        counts: neurons.
    """

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
        """How many neurons each class has more (paper figures 4 and 16 to 19)."""
        return self.after - self.before

    def columns(self) -> Columns:
        """One row a layer and pair of classes: layer, before, after, neurons."""
        layers, width = len(self.counts), len(self.states)
        return {
            "layer": [layer for layer in range(layers) for _ in range(width * width)],
            "before": [state for _ in range(layers) for state in self.states for _ in range(width)],
            "after": list(self.states) * (layers * width),
            "neurons": self.counts.flatten().tolist(),
        }


@dataclass(frozen=True)
class LanguageFlow(Framed):
    """What each language's specific neurons, its related ones, and its mask lost, gained and kept, layer by layer.

    A neuron that stays in the mask and goes from specific to related is lost by the one, gained by the other and kept
    by the mask.

    Attributes:
        languages: codes, in the order of the second axis.
        sets: names of the third axis: specific, related, mask.
        before: neurons in the first model.
        after: neurons in the second model.
        kept: neurons in both.
    """

    languages: tuple[str, ...]
    sets: tuple[str, ...]
    before: Int64[Tensor, "layer lang set"]
    after: Int64[Tensor, "layer lang set"]
    kept: Int64[Tensor, "layer lang set"]

    @property
    def gained(self) -> Int64[Tensor, "layer lang set"]:
        """Neurons that only the second model has."""
        return self.after - self.kept

    @property
    def lost(self) -> Int64[Tensor, "layer lang set"]:
        """Neurons that only the first model has."""
        return self.before - self.kept

    @property
    def jaccard(self) -> Float64[Tensor, "lang set"]:
        """|A ∩ B| / |A ∪ B| over the whole model; NaN where both are empty."""
        return jaccard(*(counts.sum(dim=0) for counts in (self.kept, self.before, self.after)))

    @property
    def retained(self) -> Float64[Tensor, "lang set"]:
        """|A ∩ B| / |A|, the share of the first model's neurons still there; NaN where it had none."""
        return self.kept.sum(dim=0).to(torch.float64) / self.before.sum(dim=0)

    def columns(self) -> Columns:
        """One row a layer, language and set: layer, language, set, before, after, kept, gained, lost."""
        layers, languages, sets = self.before.shape
        return {
            "layer": [layer for layer in range(layers) for _ in range(languages * sets)],
            "language": [code for _ in range(layers) for code in self.languages for _ in range(sets)],
            "set": list(self.sets) * (layers * languages),
            **{name: getattr(self, name).flatten().tolist() for name in ("before", "after", "kept", "gained", "lost")},
        }


def class_flow(before: ClassMembers, after: ClassMembers) -> ClassFlow:
    """Count the neurons by their class in two models of one shape: a neuron is the same one by its place.

    Raises:
        IncompatibleError: classes that are not the same ones.
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
    counts = torch.bincount((layer + one * width + other).flatten(), minlength=one.shape[0] * width * width)
    return ClassFlow(states, counts.view(-1, width, width))


def language_flow(
    before: Bool[Tensor, "layer neuron lang"], after: Bool[Tensor, "layer neuron lang"], *, languages: Sequence[str]
) -> LanguageFlow:
    """Count what the masks of two models have in common, for each language.

    Among the neurons of a mask, N is the number of languages that a neuron is in.
    """
    one, other = _language_sets(before), _language_sets(after)
    pairs = list(zip(one, other, strict=True))
    return LanguageFlow(
        tuple(languages),
        (*MASK_CLASSES, MASK),
        before=torch.stack([a.sum(dim=1) for a in one], dim=-1),
        after=torch.stack([b.sum(dim=1) for b in other], dim=-1),
        kept=torch.stack([(a & b).sum(dim=1) for a, b in pairs], dim=-1),
    )


def _state(members: ClassMembers) -> Int64[Tensor, "layer neuron"]:
    """Each neuron's class as its position among the states."""
    first = next(iter(members.values()))
    state = torch.full(first.shape, len(members), dtype=torch.int64)
    for position, neurons in enumerate(members.values()):
        state[neurons] = position
    return state


def _language_sets(mask: Bool[Tensor, "layer neuron lang"]) -> list[Bool[Tensor, "layer neuron lang"]]:
    """Specific, related, and all neurons of each language."""
    languages = mask.sum(dim=-1, keepdim=True)
    return [mask & (languages == 1), mask & (languages > 1), mask]


# ── Class counts along the checkpoints of a training (paper figures 16 to 19).


@dataclass(frozen=True)
class TrainingPath(Framed):
    """The class profiles of several models side by side, in the order given: a base model and its checkpoints.

    Attributes:
        models: their names.
        languages: codes.
        classes: names of the last axis of `per_layer`.
        per_layer: neurons of each class.
        language_classes: names of the last axis of `per_language`, specific and related.
        per_language: neurons of each language in the whole model.
    """

    models: tuple[str, ...]
    languages: tuple[str, ...]
    classes: tuple[str, ...]
    per_layer: Int64[Tensor, "model layer class"]
    language_classes: tuple[str, ...]
    per_language: Int64[Tensor, "model lang language_class"]

    @property
    def totals(self) -> Int64[Tensor, "model class"]:
        """Neurons of each class in the whole model."""
        return self.per_layer.sum(dim=1)

    def columns(self) -> Columns:
        """One row a model and layer: model, layer, and a column for each class."""
        models, layers, _ = self.per_layer.shape
        flat = self.per_layer.flatten(0, 1)
        return {
            "model": [name for name in self.models for _ in range(layers)],
            "layer": list(range(layers)) * models,
            **{name: flat[:, column].tolist() for column, name in enumerate(self.classes)},
        }


def training_path(
    models: Sequence[str], profiles: Sequence[ClassProfile], language_profiles: Sequence[LanguageProfile]
) -> TrainingPath:
    """Put the profiles of models of one shape, languages and classes side by side."""
    return TrainingPath(
        models=tuple(models),
        languages=language_profiles[0].languages,
        classes=profiles[0].classes,
        per_layer=torch.stack([profile.counts for profile in profiles]),
        language_classes=language_profiles[0].classes,
        per_language=torch.stack([profile.per_language for profile in language_profiles]),
    )

"""Class counts along the checkpoints of a training (paper figures 16 to 19)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from ..frames import Columns, Framed
from .class_profile import ClassProfile, LanguageProfile


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

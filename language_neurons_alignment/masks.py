"""A mask as other steps use it: found by its rates, checked against the model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Bool
from torch import Tensor

from .config import DEFAULT_LANGUAGES
from .core.masks import MaskList, from_mask_list, neurons_of_language
from .engines import ModelInfo
from .errors import IncompatibleError, MissingArtifactError, SettingsError
from .identify import load_answer_counts
from .store.checkpoint import Checkpoint
from .store.layout import Layout
from .store.mask_file import MaskDescription, load_description, load_mask_list

UNNAMED = "unnamed"
"""The language of a mask that was published without a description and has one language only."""


@dataclass(frozen=True)
class StoredMask:
    """A mask file, read.

    Attributes:
        layout: where it was found.
        path: the file.
        languages: codes, in its order.
        neurons: List[K] of List[layers] of indices.
        description: what it was made from; None for a mask published without one.
    """

    layout: Layout
    path: Path
    languages: tuple[str, ...]
    neurons: MaskList
    description: MaskDescription | None

    def digest_of(self, classes: Sequence[str]) -> str:
        """A digest of the neurons, in the order of the languages; of general ones, of what they are found from."""
        found_from = self.description and (self.description.bar, self.description.counts)
        named = repr((self.languages, found_from if "general" in classes else None))
        digest = hashlib.blake2b(named.encode(), digest_size=16)
        for per_layer in self.neurons:
            for indices in per_layer:
                digest.update(indices.numel().to_bytes(8, "little") + indices.long().numpy().tobytes())
        return digest.hexdigest()

    def matrix(self, model: ModelInfo) -> Bool[Tensor, "layer neuron lang"]:
        """The mask over a model's neurons.

        Raises:
            IncompatibleError: another number of layers, or neurons that the model does not have.
        """
        if len(self.neurons[0]) != model.layers:
            raise IncompatibleError(
                f"{self.path} is a mask for {len(self.neurons[0])} layers, {model.path} has {model.layers}: "
                "give the model that it was made from"
            )
        return from_mask_list(self.neurons, d_mlp=model.d_mlp)

    def neurons_of(self, language: str, classes: Sequence[str], model: ModelInfo) -> Bool[Tensor, "layer neuron"]:
        """A language's neurons of the named classes.

        Raises:
            SettingsError: the language is not in the mask, or an unknown class.
        """
        self.check_languages([language])
        general = self._general() if "general" in classes else None
        position = self.languages.index(language)
        return neurons_of_language(self.matrix(model), position, classes=classes, general=general)

    def check_languages(self, languages: Sequence[str]) -> None:
        """Raise SettingsError unless the mask has all these languages."""
        unknown = [language for language in languages if language not in self.languages]
        if unknown:
            raise SettingsError(
                f"{self.path} has no neurons of {', '.join(unknown)}: choose --langs from {', '.join(self.languages)}"
            )

    def check_model(self, checkpoint: Checkpoint) -> None:
        """Raise IncompatibleError where the mask was made from another model; one that does not tell passes."""
        for name in ("config_hash", "weights_hash"):
            made_from, given = getattr(self.description, name, ""), getattr(checkpoint, name)
            if made_from and given and made_from != given:
                raise IncompatibleError(
                    f"{self.path} was made from a model with other {name.split('_')[0]}: give that model, or count and "
                    "identify this one (under another --model-name or --root)"
                )

    def _general(self) -> Bool[Tensor, "layer neuron"]:
        """The general neurons, which no mask holds: from the counts that this mask was made from."""
        if self.description is None:
            raise MissingArtifactError(
                f"{self.path} has no description beside it, so its general neurons are unknown: "
                "make it with `lna identify`"
            )
        if self.description.bar is None:
            raise MissingArtifactError(
                f"{self.path} was imported, so its general neurons are unknown: leave general out of --classes, or "
                "count the model and make a mask with `lna identify`"
            )
        counts = load_answer_counts(self.layout, self.languages)
        if counts.hashes != self.description.counts:
            raise IncompatibleError(
                f"{self.path} was made from other counts than those that are there now: run `lna identify --force`"
            )
        return counts.statistics(bar=self.description.bar).universal


def open_mask(layout: Layout, *, top_rate: float, lam: float | None, checkpoint: Checkpoint) -> StoredMask:
    """Find a mask of the layout's method by its rates, and check that it was made from this model.

    Raises:
        SettingsError: a λ that the method lacks, or does not have.
        MissingArtifactError: it is not there.
        ArtifactError: it is torn or not a mask.
        IncompatibleError: it was made from another model's counts, or names another number of languages.
    """
    mask = read_mask(layout, layout.mask(top_rate, lam))
    mask.check_model(checkpoint)
    return mask


def read_mask(layout: Layout, path: Path) -> StoredMask:
    """A mask file, wherever it lies, with the description beside it.

    Raises:
        MissingArtifactError: it is not there.
        ArtifactError: it is torn or not a mask.
        IncompatibleError: its description names another number of languages, or there is none and it has not the ten.
    """
    neurons, description = load_mask_list(path), load_description(path)
    languages = DEFAULT_LANGUAGES if description is None else tuple(description.languages)
    if description is None and len(neurons) == 1:
        languages = (UNNAMED,)
    if len(neurons) != len(languages):
        raise IncompatibleError(
            f"{path} has {len(neurons)} languages, expected {len(languages)} ({', '.join(languages)}): "
            "run `lna identify` again, or name its languages with `lna import-mask`"
        )
    return StoredMask(layout, path, languages, neurons, description)

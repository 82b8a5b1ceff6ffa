"""Mask files, and the description that lies beside each (SPEC 5)."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from ..config import ENTROPY_LAMBDA
from ..core.model import ModelInfo
from ..core.selection import MaskList, from_mask_list, neurons_of_language, to_mask_list
from ..errors import ArtifactError, ConflictError, IncompatibleError, MissingArtifactError, SettingsError
from ..languages import DEFAULT_LANGUAGES
from .checkpoint import Checkpoint
from .counts import load_answer_counts
from .files import atomic_files, load_tensors, save_tensors
from .layout import Layout, with_ending

IDENTIFY = "make it with `lna identify`"
REPLACE = "replace it with `lna identify --force`"


@dataclass(frozen=True)
class MaskDescription:
    """What a mask was made from, and how.

    Attributes:
        languages: codes, in the order of the mask file.
        top_rate: share of neurons selected; of a method that takes N per language, what they come to.
        lam: λ; None of methods without.
        bar: activation bar; None of an imported mask, which does not tell.
        threshold: τ; None likewise.
        appear: selected neurons above τ in exactly j languages, j = 0..K; of an imported mask empty.
        classes: neurons per class ("specific", "related", "general", "unassigned"; of an imported mask the first two).
        neurons: neurons per language.
        layers: decoder layers of the model.
        d_mlp: neurons per layer.
        counts: digest of each language's counts; of an imported mask empty.
        config_hash: of the model's config; empty for counts that do not tell.
        weights_hash: of the model's weights; empty likewise.
        version: of this package.
        source: of an imported mask, the file's name and its digest.
        method: what found the neurons, one of `METHODS`.
        parameters: what the method took beside top rate, λ and bar: "neurons" per language, "seed".
        moments: digest of each language's moments, where the method reads them.
    """

    languages: list[str]
    top_rate: float
    lam: float | None
    bar: float | None
    threshold: float | None
    appear: list[int]
    classes: dict[str, int]
    neurons: dict[str, int]
    layers: int
    d_mlp: int
    counts: dict[str, str]
    config_hash: str
    weights_hash: str
    version: str
    source: dict[str, str] | None = None
    method: str = ENTROPY_LAMBDA
    parameters: dict[str, int] = field(default_factory=dict)
    moments: dict[str, str] = field(default_factory=dict)


def save_mask(
    path: Path, mask: Bool[Tensor, "layer neuron lang"], description: MaskDescription, *, overwrite: bool = False
) -> None:
    """Write a mask and its description; the mask last, so that its presence means that both are there.

    Raises:
        ConflictError: another mask stands there (another bar, other counts or languages), and not `overwrite`.
    """
    if path.exists() and not overwrite:
        refuse_other(path, description)
    text = json.dumps(asdict(description), indent=1, ensure_ascii=False) + "\n"
    with atomic_files(_description_path(path), path) as (description_file, mask_file):
        description_file.write(text.encode("utf-8"))
        save_tensors(to_mask_list(mask), mask_file)


def load_mask_list(path: Path, *, remedy: str = IDENTIFY) -> MaskList:
    """Read a mask file, ours or one published elsewhere; `remedy` is what to do when it is missing or torn.

    Raises:
        MissingArtifactError: it is not there.
        ArtifactError: it is torn, or not a mask.
    """
    stored = load_tensors(path, remedy=remedy)
    listed = isinstance(stored, list) and all(isinstance(per_layer, list) for per_layer in stored)
    if not listed or not all(_is_indices(neurons) for per_layer in stored for neurons in per_layer):
        raise ArtifactError(
            f"{path} is not a mask: expected a list of languages of lists of layers of indices; {remedy}"
        )
    return stored


def load_description(path: Path) -> MaskDescription | None:
    """Read the description beside a mask; None where there is none, as for masks published elsewhere.

    Raises:
        ArtifactError: it is there and cannot be read.
    """
    described = _description_path(path)
    try:
        return MaskDescription(**json.loads(described.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{described} cannot be read ({error}): delete it and {IDENTIFY}") from error


def _is_indices(neurons: object) -> bool:
    """Whether these are indices; an empty tensor, however it was made, holds none."""
    if not isinstance(neurons, torch.Tensor) or neurons.ndim != 1:
        return False
    return not neurons.numel() or neurons.dtype in (torch.int64, torch.int32)


def _description_path(path: Path) -> Path:
    return with_ending(path, ".json")


def refuse_other(path: Path, new: MaskDescription) -> None:
    """Raise ConflictError when the mask at `path` was made from anything else than `new` describes."""
    old = load_description(path)
    if old is None:
        raise ConflictError(f"{path} is there without a description of what it was made from: {REPLACE}")
    for name in ("source", "languages", "method", "parameters", "bar", "counts", "moments"):
        seen, wanted = getattr(old, name), getattr(new, name)
        if seen != wanted:
            other = {
                "counts": "was made from other counts",
                "moments": "was made from other moments",
                "source": "is an imported mask, or of another import",
            }
            shown = other.get(name, f"has {name} {seen}, this one {wanted}")
            raise ConflictError(f"{path} {shown}: {REPLACE}, or use another --root")


# ── A mask as other steps use it: found by its rates, checked against the model.

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
        return counts.statistics(bar=self.description.bar).general


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


# ── Lists of neurons that somebody wrote by hand or by another tool: JSON pairs, or a CSV with a header.

_SHAPE = "expected [[layer, neuron], …], or a CSV with the columns layer,neuron; numbers from 0"
_LARGEST = 2**31 - 1


def load_neurons(path: Path) -> Int64[Tensor, "place 2"]:
    """The (layer, neuron) places of a `.json` or `.csv` file.

    Raises:
        MissingArtifactError: it is not there.
        ArtifactError: it cannot be read, or something in it is no place.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        listed = json.loads(text) if path.suffix == ".json" else _rows(text)
    except FileNotFoundError:
        raise MissingArtifactError(f"{path} is not there: give a file of neurons") from None
    except (OSError, ValueError, csv.Error) as error:
        raise ArtifactError(f"{path} cannot be read as neurons ({error}): {_SHAPE}") from error
    wrong = [one for one in listed if not _is_place(one)] if isinstance(listed, list) else [listed]
    if wrong:
        raise ArtifactError(f"{path} holds {str(wrong[0])[:60]!r}, which is no neuron: {_SHAPE}")
    return torch.tensor(listed, dtype=torch.int64).reshape(-1, 2)


def _rows(text: str) -> list[list[int]]:
    table = csv.DictReader(text.splitlines(), skipinitialspace=True)
    if not {"layer", "neuron"} <= set(table.fieldnames or ()):
        raise ValueError(f"its header is {','.join(table.fieldnames or ()) or 'missing'}")
    return [[int(row["layer"] or ""), int(row["neuron"] or "")] for row in table]


def _is_place(one: Any) -> bool:
    return isinstance(one, list) and len(one) == 2 and all(type(n) is int and 0 <= n <= _LARGEST for n in one)

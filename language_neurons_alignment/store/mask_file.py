"""Mask files, and the description that lies beside each (SPEC 5)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from ..core.masks import MaskList, to_mask_list
from ..errors import ArtifactError, ConflictError
from .atomic import atomic_files
from .layout import with_ending
from .tensors import load_tensors, save_tensors

IDENTIFY = "make it with `lna identify`"


@dataclass(frozen=True)
class MaskDescription:
    """What a mask was made from, and how.

    Attributes:
        languages: codes, in the order of the mask file.
        top_rate: share of neurons selected.
        lam: λ.
        bar: activation bar.
        threshold: τ.
        appear: selected neurons above τ in exactly j languages, j = 0..K.
        classes: neurons per class ("specific", "related", "general", "unassigned").
        neurons: neurons per language.
        layers: decoder layers of the model.
        d_mlp: neurons per layer.
        counts: digest of each language's counts.
        config_hash: of the model's config; empty for counts that do not tell.
        weights_hash: of the model's weights; empty likewise.
        version: of this package.
    """

    languages: list[str]
    top_rate: float
    lam: float
    bar: float
    threshold: float
    appear: list[int]
    classes: dict[str, int]
    neurons: dict[str, int]
    layers: int
    d_mlp: int
    counts: dict[str, str]
    config_hash: str
    weights_hash: str
    version: str


def save_mask(
    path: Path, mask: Bool[Tensor, "layer neuron lang"], description: MaskDescription, *, force: bool = False
) -> None:
    """Write a mask and its description; the mask last, so that its presence means that both are there.

    Raises:
        ConflictError: another mask stands there (another bar, other counts or languages), and not `force`.
    """
    if path.exists() and not force:
        _refuse_other(path, description)
    text = json.dumps(asdict(description), indent=1, ensure_ascii=False) + "\n"
    with atomic_files(_description_path(path), path) as (description_file, mask_file):
        description_file.write(text.encode("utf-8"))
        save_tensors(to_mask_list(mask), mask_file)


def load_mask_list(path: Path) -> MaskList:
    """Read a mask file, ours or one published elsewhere.

    Raises:
        MissingArtifactError: it is not there.
        ArtifactError: it is torn, or not a mask.
    """
    stored = load_tensors(path, remedy=IDENTIFY)
    listed = isinstance(stored, list) and all(isinstance(per_layer, list) for per_layer in stored)
    if not listed or not all(_is_indices(neurons) for per_layer in stored for neurons in per_layer):
        raise ArtifactError(
            f"{path} is not a mask: expected a list of languages of lists of layers of indices; {IDENTIFY}"
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


def _refuse_other(path: Path, new: MaskDescription) -> None:
    """Raise ConflictError when the mask at `path` was made from anything else than `new` describes."""
    old = load_description(path)
    if old is None:
        raise ConflictError(
            f"{path} is there without a description of what it was made from: use --force to replace it"
        )
    for name in ("languages", "bar", "counts"):
        seen, wanted = getattr(old, name), getattr(new, name)
        if seen != wanted:
            shown = f"has {name} {seen}, this one {wanted}" if name != "counts" else "was made from other counts"
            raise ConflictError(f"{path} {shown}: use --force to replace it, or another --root")

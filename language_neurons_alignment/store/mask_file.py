"""Mask files, and the description that lies beside each (SPEC 5)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from ..core.masks import MaskList, to_mask_list
from ..errors import ArtifactError, ConflictError
from ..method import ENTROPY_LAMBDA
from .atomic import atomic_files
from .layout import with_ending
from .tensors import load_tensors, save_tensors

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
    path: Path, mask: Bool[Tensor, "layer neuron lang"], description: MaskDescription, *, force: bool = False
) -> None:
    """Write a mask and its description; the mask last, so that its presence means that both are there.

    Raises:
        ConflictError: another mask stands there (another bar, other counts or languages), and not `force`.
    """
    if path.exists() and not force:
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

"""Masks published elsewhere, in the list format that the field shares, brought to where the other steps find them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from .config import Selection
from .core.profiles import mask_members
from .core.selection import from_mask_list
from .errors import IncompatibleError
from .store.checkpoint import read_checkpoint
from .store.counts import load_span
from .store.layout import Layout
from .store.masks import MaskDescription, load_mask_list, save_mask
from .version import __version__


def import_mask(
    file: Path,
    layout: Layout,
    languages: Sequence[str],
    *,
    model_path: str,
    top_rate: float,
    lam: float,
    overwrite: bool = False,
) -> tuple[MaskDescription, Path]:
    """Store a public mask as this model's, with a description of where it came from.

    Args:
        file: List[K] of List[layers] of index tensors, as in `*.neuron.pth`; read with `weights_only=True`.
        layout: where the model's results lie.
        languages: codes of the file's languages, in its order.
        model_path: folder or hub id of the model, whose shape is known from its counts or its config.
        top_rate: share of neurons that were selected, in the mask's path.
        lam: λ, in the mask's path; 0 for methods that have none.
        overwrite: replace a mask that is there.

    Raises:
        MissingArtifactError, ArtifactError: no such file, or not a mask.
        IncompatibleError: another number of languages or layers, or neurons that the model does not have.
        ConflictError: another mask stands there, and not `overwrite`.
        EngineError: nothing tells the model's shape.
    """
    Selection(top_rate, lam)
    stored = load_mask_list(file, remedy="give a mask file")
    layers, d_mlp = _shape(layout, model_path)
    if len(stored) != len(languages):
        raise IncompatibleError(
            f"{file} has {len(stored)} languages, --langs names {len(languages)} ({', '.join(languages)}): "
            "name its languages, in its order"
        )
    if len(stored[0]) != layers:
        raise IncompatibleError(
            f"{file} is a mask for {len(stored[0])} layers, {layout.model} has {layers}: give the model that it is of"
        )
    mask, checkpoint = from_mask_list(stored, d_mlp=d_mlp), read_checkpoint(model_path)
    description = MaskDescription(
        languages=list(languages),
        top_rate=float(top_rate),
        lam=float(lam),
        bar=None,
        threshold=None,
        appear=[],
        classes={name: int(neurons.sum()) for name, neurons in mask_members(mask).items()},
        neurons=dict(zip(languages, mask.sum(dim=(0, 1)).tolist(), strict=True)),
        layers=layers,
        d_mlp=d_mlp,
        counts={},
        config_hash=checkpoint.config_hash,
        weights_hash=checkpoint.weights_hash,
        version=__version__,
        source={"file": file.name, "blake2b": hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()},
    )
    path = layout.mask(top_rate, lam)
    save_mask(path, mask, description, overwrite=overwrite)
    return description, path


def _shape(layout: Layout, model_path: str) -> tuple[int, int]:
    """Layers and neurons per layer of a model, from any of its counts, else from its config."""
    counted = sorted(layout.activation("*").parent.glob(layout.activation("*").name))
    if counted:
        layers, d_mlp = load_span(counted[0])[0].over_zero.shape
        return layers, d_mlp
    from .engines.checkpoint import model_shape  # imports the transformers library, which masks need only here

    return model_shape(model_path)

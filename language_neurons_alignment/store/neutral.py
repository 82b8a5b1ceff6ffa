"""Counts and masks as safetensors, which any program reads without pickle."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from .files import load_tensors
from .masks import Mask


def save_neutral(path: Path) -> Path | None:
    """Write the content of a count file or a mask beside it, with the ending .safetensors; None for other files.

    Of a count file, its tensors, and all else in the file's metadata as JSON; of a mask, for each language the places
    [place, 2] of its neurons, (layer, neuron), counted from 0.
    """
    if path.suffix == ".pt":
        content = load_tensors(path, remedy="count again")
        tensors = {name: one.contiguous() for name, one in content.items() if isinstance(one, Tensor)}
        rest = {name: json.dumps(one) for name, one in content.items() if name not in tensors}
    elif path.name.startswith("mask.") and path.with_name(f"{path.name}.json").is_file():
        mask = Mask.load(path)
        each = zip(mask.languages, mask.tensor.unbind(-1), strict=True)
        tensors, rest = {language: neurons.nonzero().contiguous() for language, neurons in each}, {}
    else:
        return None
    copy = path.with_name(f"{path.name}.safetensors")
    save_file(tensors, copy, metadata=rest)
    return copy

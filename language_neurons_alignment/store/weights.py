"""A model's folder with some of its weights changed: the other files as they are, the weights in as many files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import ArtifactError, ConflictError, MissingArtifactError
from .checkpoint import read_config
from .files import Json, atomic_folder, check_writable, write_text

NOTE = "lna_export.json"
"""The file that says what was folded into an exported model."""

_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
_NO_PART = (
    "*.safetensors",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.gguf",
    "*.h5",
    "*.msgpack",
    "*.onnx",
    "*.ckpt",
    "*.index.json",
)
"""What is not copied: weights, which are written anew, and those in other formats, which would be the old model."""
_CARD = "README.md"  # describes the model as it was


def weight_files(folder: Path) -> dict[str, Path]:
    """Return the safetensors file of each tensor of a model's folder.

    Raises:
        MissingArtifactError: the folder has no safetensors.
        ArtifactError: they cannot be read, or are not whole.
    """
    index = read_config(folder, _INDEX) or {}
    named = index.get("weight_map") or {}
    files = {folder / name for name in named.values()} if named else {folder / _SINGLE}
    missing = sorted(file.name for file in files if not file.is_file())
    if missing:
        raise MissingArtifactError(
            f"{folder} has no {missing[0]}: only safetensors can be exported; load the model with transformers, and "
            "save it with save_pretrained"
        )
    found: dict[str, Path] = {}
    for path in sorted(files):
        try:
            with safe_open(path, "pt") as file:
                found.update(dict.fromkeys(file.keys(), path))
        except (SafetensorError, OSError) as error:
            raise ArtifactError(f"{path} is no safetensors file ({error}): copy the model folder again") from error
    return found


def save_model(folder: Path, out: Path, changed: Mapping[str, Tensor], files: Mapping[str, Path], note: Json) -> None:
    """Write a model's folder with changed tensors to `out`, whole or not at all, with a note (`NOTE`).

    Raises:
        ConflictError: `out` is there.
        ArtifactError: it cannot be written.
    """
    if out.exists() or out.is_symlink():
        raise ConflictError(f"{out} is there already, and an exported model replaces nothing: give another folder")
    check_writable(out, needed=sum(path.stat().st_size for path in set(files.values())))
    with atomic_folder(out) as part:
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name != _CARD and not any(path.match(pattern) for pattern in _NO_PART):
                shutil.copyfile(path, part / path.name)
        if (templates := folder / "additional_chat_templates").is_dir():
            shutil.copytree(templates, part / templates.name)
        if len(set(files.values())) > 1:
            shutil.copyfile(folder / _INDEX, part / _INDEX)
        for path in sorted(set(files.values())):
            of_file = [name for name, one in files.items() if one == path]
            if not changed.keys() & set(of_file):
                shutil.copyfile(path, part / path.name)
                continue
            with safe_open(path, "pt") as file:
                tensors = {name: changed[name] if name in changed else file.get_tensor(name) for name in of_file}
                save_file(
                    {name: one.contiguous() for name, one in tensors.items()},
                    part / path.name,
                    metadata=file.metadata(),
                )
        write_text(part / NOTE, json.dumps(note, indent=2, ensure_ascii=False) + "\n")

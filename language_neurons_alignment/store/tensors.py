"""Stored tensors: read without ever running code (SPEC 7)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Any
from zipfile import is_zipfile

import torch

from ..errors import ArtifactError, MissingArtifactError


def save_tensors(content: Any, file: IO[bytes]) -> None:
    """`torch.save`, by way of memory: writing to a file itself, torch hides what went wrong (a full disk)."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    file.write(buffer.getbuffer())


def load_tensors(path: Path, *, remedy: str, lazy: bool = False) -> Any:
    """`torch.load` with `weights_only=True`, its failures told in one line.

    Args:
        path: the file.
        remedy: what to do when it is missing or torn.
        lazy: read a tensor's values only when they are used.

    Raises:
        MissingArtifactError: it is not there.
        ArtifactError: it cannot be read: torn, not a torch file, or holding objects that would run code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=lazy and is_zipfile(path))
    except FileNotFoundError:
        raise MissingArtifactError(f"{path} is not there: {remedy}") from None
    except Exception as error:  # torch raises a dozen kinds for a torn or foreign file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ArtifactError(f"{path} cannot be read ({reason[:120]}): delete it and {remedy}") from error

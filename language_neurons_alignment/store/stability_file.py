"""What stability leaves on disk: tables, pictures, and neuron by neuron a file of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from ..frames import Columns
from .atomic import atomic_files
from .layout import with_ending
from .table_file import save_tables
from .tensors import save_tensors


def save_stability(
    path: Path,
    content: Mapping[str, Any],
    tables: Mapping[str, Columns],
    tensors: Mapping[str, Any],
    pictures: Mapping[str, Callable[[IO[bytes]], None]],
) -> list[Path]:
    """Write `<path>.pt` and `<path>.<name>.png`, then the tables (`save_tables`), whose JSON says what all was made of.

    Args:
        path: without ending.
        content: plain values.
        tables: name → columns.
        tensors: plain values and tensors, that `torch.load(weights_only=True)` gives back.
        pictures: name → what writes it into an open file.
    """
    pngs = [with_ending(path, f".{name}.png") for name in pictures]
    with atomic_files(with_ending(path, ".pt"), *pngs) as (tensor_file, *files):
        save_tensors(dict(tensors), tensor_file)
        for write, file in zip(pictures.values(), files, strict=True):
            write(file)
    written = save_tables(path, content, tables)
    return [*written, with_ending(path, ".pt"), *pngs]

"""A figure on disk: its pictures, and the table that they show."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from .atomic import atomic_files
from .layout import with_ending


def save_pictures(
    path: Path,
    writers: Mapping[str, Callable[[IO[bytes]], None]],
    *,
    header: Sequence[Any],
    rows: Iterable[Sequence[Any]],
) -> list[Path]:
    """Write a figure's pictures, and its data as CSV; all of them or none.

    Args:
        path: without ending.
        writers: ending (".png") → what writes a picture into an open file, in this order.
        header: the table's columns.
        rows: the table; NaN is an empty cell.
    """
    paths = [with_ending(path, ending) for ending in (*writers, ".csv")]
    with atomic_files(*paths) as files:
        for write, file in zip(writers.values(), files, strict=False):
            write(file)
        files[-1].write(_csv(header, rows).encode("utf-8"))
    return paths


def _csv(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow(["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row])
    return text.getvalue()

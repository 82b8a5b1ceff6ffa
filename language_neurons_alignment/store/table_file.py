"""Results as tables on disk: one JSON that says everything, and a CSV file for each table."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..frames import Columns
from .atomic import atomic_files
from .layout import with_ending


def save_tables(path: Path, content: Mapping[str, Any], tables: Mapping[str, Columns]) -> list[Path]:
    """Write `<path>.json`, and `<path>.<name>.csv` for each table; all of them or none.

    Args:
        path: without ending.
        content: plain values; numbers that JSON has not (NaN, ∞) become null.
        tables: name → columns; NaN is an empty cell.
    """
    csvs = {with_ending(path, f".{name}.csv"): _csv(columns) for name, columns in tables.items()}
    texts = {**csvs, with_ending(path, ".json"): json.dumps(plain(content), indent=1, ensure_ascii=False) + "\n"}
    with atomic_files(*texts) as files:
        for file, text in zip(files, texts.values(), strict=True):
            file.write(text.encode("utf-8"))
    return [with_ending(path, ".json"), *csvs]


def plain(value: Any) -> Any:
    """The same value with null for numbers that JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def _csv(columns: Columns) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow(["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row])
    return text.getvalue()

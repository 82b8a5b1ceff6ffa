"""Results on stdout: for people, or as JSON for machines."""

from __future__ import annotations

import json
from typing import Any


def result(lines: list[str] | str, data: dict[str, Any], *, as_json: bool) -> None:
    """Print a result: `lines` for people, or `data` as one JSON object."""
    if as_json:
        print(json.dumps(data, ensure_ascii=False, default=str))
    else:
        print(lines if isinstance(lines, str) else "\n".join(lines))


def table(header: list[str], rows: list[list[object]]) -> list[str]:
    """Lines of a plain table, numbers to the right."""
    cells = [header, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    right = [all(isinstance(row[column], (int, float)) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        )
        for row in cells
    ]
    return [line.rstrip() for line in (lines[0], "  ".join("-" * width for width in widths), *lines[1:])]

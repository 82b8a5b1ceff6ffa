"""Results on stdout: for people, or as JSON for machines."""

from __future__ import annotations

import json
import sys
from typing import Any

from tqdm import tqdm


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


# ── Progress bars, on stderr.


class Bar:
    """One bar: called with the tokens just done."""

    def __init__(self, label: str, tokens: int, unit: str) -> None:
        self._bar = tqdm(total=tokens, desc=label, unit=unit, unit_scale=True, file=sys.stderr, mininterval=0.5)

    def __call__(self, done: int) -> None:
        """Move on."""
        self._bar.update(done)

    def spare(self, tokens: int) -> None:
        """Expect so many tokens less, so that the time left is that of the work left."""
        self._bar.total -= tokens
        self._bar.refresh()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


class Bars:
    """One bar after the other: starting one ends the one before. Use as a context manager; `unit` is what is done."""

    def __init__(self, unit: str = "tok") -> None:
        self._unit = unit
        self._bar: Bar | None = None

    def start(self, label: str, tokens: int) -> Bar:
        """Begin a bar over `tokens`; what is returned advances it."""
        self.end()
        self._bar = Bar(label, tokens, self._unit)
        return self._bar

    def end(self) -> None:
        """Close the bar that is open, if one is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()


def note(message: str) -> None:
    """A line for the person watching, on stderr."""
    tqdm.write(message, file=sys.stderr)


def show_evaluation(lam: float, histogram: list[int]) -> None:
    """One evaluation of AutoSweep."""
    note(f"[autosweep] evaluating λ={lam:.6f}\nappear = {histogram}")

"""What a command prints: results on stdout, as tables or as JSON; progress and notes on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from io import StringIO
from typing import Any

from rich.box import Box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

_RULE = Box("    \n    \n -- \n" + 5 * "    \n", ascii=True)
"""A line under the header, and nothing else."""
_WIDE = 100_000
"""Columns of the page that tables are laid out on: nothing is wrapped or cut, whatever the terminal."""


def result(lines: list[str] | str, data: dict[str, Any], *, as_json: bool) -> None:
    """Print a result: `lines` for people, or `data` as one JSON object."""
    if as_json:
        print(json.dumps(data, ensure_ascii=False, default=str))
    else:
        print(lines if isinstance(lines, str) else "\n".join(lines))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """The lines of a table, columns of numbers to the right; plain text, the same wherever it is printed."""
    shown = Table(box=_RULE, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column, name in enumerate(header):
        numbers = all(isinstance(row[column], (int, float)) for row in rows)
        shown.add_column(Text(name), justify="right" if numbers else "left", no_wrap=True)
    for row in rows:
        shown.add_row(*(Text(str(cell)) for cell in row))
    page = Console(file=StringIO(), width=_WIDE, color_system=None, force_terminal=False, _environ={})
    with page.capture() as captured:
        page.print(shown)
    return [line.rstrip() for line in captured.get().splitlines()]


def note(message: str) -> None:
    """A line for the person watching, on stderr."""
    tqdm.write(message, file=sys.stderr)


def show_evaluation(lam: float, histogram: list[int]) -> None:
    """One evaluation of AutoSweep."""
    note(f"[autosweep] evaluating λ={lam:.6f}\nappear = {histogram}")


class Bar:
    """One progress bar: called with the tokens just done."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self._bar = tqdm(total=total, desc=label, unit=unit, unit_scale=True, file=sys.stderr, mininterval=0.5)

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
    """One bar after the other: starting one ends the one before. Use it as a context manager; `unit` is counted."""

    def __init__(self, unit: str = "tok") -> None:
        self._unit = unit
        self._bar: Bar | None = None

    def start(self, label: str, total: int) -> Bar:
        """Begin a bar; what is returned advances it."""
        self.end()
        self._bar = Bar(label, total, self._unit)
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

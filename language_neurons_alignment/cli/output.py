"""What a command prints: results on stdout, as tables or as JSON; progress and notes on stderr."""

from __future__ import annotations

import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from io import StringIO
from types import SimpleNamespace, TracebackType
from typing import Any

from rich.box import Box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from ..errors import visible

STATE = SimpleNamespace(debug=False, quiet=False)
"""What holds for one call of the program: whether to show the traceback of an error, and whether to be silent."""

_GAP = 2
"""Spaces between two columns of a table."""
_RULE = Box("    \n    \n -- \n" + 5 * "    \n", ascii=True)
"""A line under the header, and nothing else."""
_SECONDS = 30.0
"""Between two lines of progress in a log file."""
_LINE = 100
"""Columns of such a line."""
_WIDE = 100_000
"""Columns of the page that tables are laid out on where stdout is no terminal: a row is a line, for other programs."""


def result(as_json: bool, data: dict[str, Any], *sections: str | Iterable[object]) -> None:
    """Print a result: `data` as one JSON object, or its sections for people, with an empty line between them."""
    if as_json:
        print(_visible_json(json.dumps(_plain(data), ensure_ascii=False, default=str)))
        return
    blocks = [one if isinstance(one, str) else "\n".join(map(str, one)) for one in sections]
    print(visible("\n\n".join(block for block in blocks if block)))


def _visible_json(text: str) -> str:
    """The same JSON, with what a terminal would obey as JSON's own escapes."""
    if visible(text) == text:
        return text
    return "".join(one if visible(one) == one else json.dumps(one)[1:-1] for one in text)


def _plain(value: Any) -> Any:
    """A value as JSON has it: tensors as nested lists, dataclasses as objects, null for NaN and infinity."""
    if is_dataclass(value):
        value = vars(value)
    elif hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, keys: int = 1) -> list[str]:
    """The lines of a table, columns of numbers to the right; plain text, of which nothing is cut.

    A row is one line. Where a terminal is too narrow for it, the columns that do not fit stand in further tables below,
    each with the first `keys` columns again, which say what the row is of.
    """
    width = Console(file=sys.stdout).width if sys.stdout.isatty() else _WIDE
    widths = [max(cell_len(visible(str(row[n]), keep="")) for row in (header, *rows)) for n in range(len(header))]
    parts = _parts(widths, width, keys=keys, glued=[not name for name in header])
    pages = [_page([header[n] for n in part], [[row[n] for n in part] for row in rows], width) for part in parts]
    return [line for number, page in enumerate(pages) for line in (["", *page] if number else page)]


def _parts(widths: Sequence[int], page: int, *, keys: int, glued: Sequence[bool]) -> list[list[int]]:
    """The columns of each table on a page; a glued column, without a name of its own, stays with that before it.

    >>> _parts([5, 10, 10, 10], 32, keys=1, glued=[False, False, False, True])
    [[0, 1], [0, 2, 3]]
    """
    first, blocks = [*range(keys)], []
    for column in range(keys, len(widths)):
        if glued[column] and blocks:
            blocks[-1].append(column)
        else:
            blocks.append([column])
    parts = [first]
    for block in blocks:
        wider = [*parts[-1], *block]
        if parts[-1] == first or sum(widths[n] + _GAP for n in wider) - _GAP <= page:
            parts[-1] = wider
        else:
            parts.append([*first, *block])
    return parts


def _page(header: Sequence[str], rows: Sequence[Sequence[object]], width: int) -> list[str]:
    """The lines of a table that fits; a cell is folded only where one column alone is wider than the page."""
    shown = Table(box=_RULE, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column, name in enumerate(header):
        numbers = all(isinstance(row[column], (int, float)) for row in rows)
        shown.add_column(Text(visible(name, keep="")), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(visible(str(cell), keep="")) for cell in row))
    page = Console(file=StringIO(), width=width, color_system=None, force_terminal=False, _environ={})
    with page.capture() as captured:
        page.print(shown)
    return [line.rstrip() for line in captured.get().splitlines()]


def note(message: str) -> None:
    """A line for the person watching, on stderr; none with `--quiet`."""
    if STATE.quiet:
        return
    tqdm.write(visible(message), file=sys.stderr)


def show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show an error as Python does, with what it quotes made harmless."""
    print(visible("".join(traceback.format_exception(kind, error, trace))), file=sys.stderr, end="")


def notes(sentences: Iterable[str]) -> None:
    """What a reader must know to read the results, each in a line on stderr."""
    for sentence in sentences:
        note(f"note: {sentence}")


def show_evaluation(lam: float, histogram: list[int]) -> None:
    """One evaluation of AutoSweep."""
    note(f"[autosweep] evaluating λ={lam:.6f}\nappear = {histogram}")


class Bar:
    """A progress bar on a terminal: called with the tokens just done."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        shown = visible(label, keep="")
        self._bar = tqdm(total=total, desc=shown, unit=unit, unit_scale=True, file=sys.stderr, mininterval=0.5)
        self.close = self._bar.close

    def __call__(self, done: int) -> None:
        """Move on."""
        self._bar.update(done)

    def spare(self, tokens: int) -> None:
        """Expect so many tokens less, so that the time left is that of the work left."""
        self._bar.total -= tokens
        self._bar.refresh()


class Line:
    """The same where there is no terminal, as in a log file: `say` gets whole lines, at the start and at each step."""

    def __init__(self, label: str, total: int, unit: str, say: Callable[[str], None]) -> None:
        self._label, self._total, self._unit, self._say = visible(label, keep=""), total, unit, say
        self._done, self._start = 0, time.monotonic()
        self(0)

    def __call__(self, done: int) -> None:
        """Move on."""
        self._done += done
        spent = time.monotonic() - self._start
        shown = {"prefix": self._label, "unit": self._unit, "unit_scale": True, "ncols": _LINE}
        self._say(tqdm.format_meter(self._done, self._total, spent, **shown))

    def spare(self, tokens: int) -> None:
        """Expect so many tokens less, so that the time left is that of the work left."""
        self._total -= tokens

    def close(self) -> None:
        """Nothing is left to print: `say` has the last state."""


class Bars:
    """One bar after the other: starting one ends the one before. Use it as a context manager; `unit` is counted.

    Without a terminal a line every 30 seconds at most, over all bars together, and the last state at the end; with
    `--quiet` nothing.

    Attributes:
        spent: seconds from the first bar to the end, and those of the processors that this process had in them.
    """

    def __init__(self, unit: str = "tok") -> None:
        self._unit = unit
        self._bar: Bar | Line | None = None
        self._said, self._unsaid = time.monotonic(), ""
        self._began: tuple[float, float] | None = None
        self.spent = (0.0, 0.0)

    def start(self, label: str, total: int) -> Bar | Line:
        """Begin a bar; what is returned advances it."""
        if self._bar is not None:
            self._bar.close()
        self._began = self._began or (time.monotonic(), time.process_time())
        terminal = sys.stderr.isatty() and not STATE.quiet
        self._bar = Bar(label, total, self._unit) if terminal else Line(label, total, self._unit, self._line)
        return self._bar

    def _line(self, text: str) -> None:
        """Print a line, or keep it until the next if it is too soon."""
        self._unsaid = text
        if time.monotonic() - self._said >= _SECONDS:
            self._said, self._unsaid = time.monotonic(), ""
            note(text)

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._began is not None:
            self.spent = (time.monotonic() - self._began[0], time.process_time() - self._began[1])
        if self._unsaid:
            note(self._unsaid)

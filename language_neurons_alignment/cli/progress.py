"""Progress bars, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tqdm import tqdm


class Bars:
    """One bar after the other: starting one ends the one before. Use as a context manager."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def start(self, label: str, tokens: int) -> Callable[[int], None]:
        """Begin a bar over `tokens`; what is returned advances it."""
        self.end()
        bar = tqdm(total=tokens, desc=label, unit="tok", unit_scale=True, file=sys.stderr, mininterval=0.5)
        self._bar = bar

        def advance(done: int) -> None:
            bar.update(done)

        return advance

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

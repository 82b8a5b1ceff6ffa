"""What a figure shows, as data: the one object that its picture, its interactive form and its table come from."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .axes import Axis, Key
from .numbers import number_at_bar, short

Row = tuple[Key, ...]

_ROOMY = 12
"""With so few columns a cell holds a number of six digits."""


@dataclass(frozen=True)
class Heatmap:
    """A number for each pair of places.

    Attributes:
        rows: from top to bottom.
        columns: from left to right.
        values: one list a row; NaN where there is no number.
        label: what a number is, with its unit.
        diverging: whether numbers lie on both sides of 0, which is then neutral.
        linear_up_to: the colour scale is linear up to this size and logarithmic above it; None: linear throughout.
        digits: decimals shown in a cell.
        diagonal: whether to frame the cells in which row and column are the same.
        inside: the cells whose number lies in its control's range, and so may be chance; None without controls.
    """

    rows: Axis
    columns: Axis
    values: tuple[tuple[float, ...], ...]
    label: str
    diverging: bool = False
    linear_up_to: float | None = None
    digits: int = 0
    diagonal: bool = False
    inside: tuple[tuple[bool, ...], ...] | None = None

    @property
    def header(self) -> Row:
        """The columns of its table."""
        return (self.rows.label, self.columns.label, self.label, *([] if self.inside is None else ["within control"]))

    @property
    def table(self) -> list[Row]:
        """One row a cell."""
        return [
            (row, column, self.values[i][j], *([] if self.inside is None else ["yes" if self.inside[i][j] else "no"]))
            for i, row in enumerate(self.rows.keys)
            for j, column in enumerate(self.columns.keys)
        ]

    @property
    def texts(self) -> list[list[str]]:
        """What is written into the cells: counts in full where there is room, else as short as it can be said."""
        if not self.diverging and not self.digits and len(self.columns.keys) <= _ROOMY:
            return [[number_at_bar(value) or "–" for value in row] for row in self.values]
        return [[short(value, digits=self.digits, signed=self.diverging) for value in row] for row in self.values]

    @property
    def largest(self) -> float:
        """The end of the colour scale: the largest finite size, at least where the scale turns logarithmic."""
        sizes = [abs(value) for values in self.values for value in values if math.isfinite(value)]
        return max([self.linear_up_to or 0.0, *sizes]) or 1.0


@dataclass(frozen=True)
class Series:
    """Numbers along an axis.

    Attributes:
        name: for the legend.
        values: one a place; NaN where there is none.
        ink: name of its colour in `palette.INKS`.
        low: lower ends of intervals, one a place; empty where there are none. Bars show them as whiskers.
        high: upper ends.
    """

    name: str
    values: tuple[float, ...]
    ink: str
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def columns(self) -> dict[str, tuple[float, ...]]:
        """Its numbers in a table, by what is added to its name."""
        return {"": self.values} | ({" low": self.low, " high": self.high} if self.low else {})


@dataclass(frozen=True)
class Panel:
    """One of several charts above each other that share their x axis; `label` is what its numbers are."""

    label: str
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Mark:
    """A line across a chart at `at` (between places, or on a scale), and what to call what begins there."""

    at: float
    name: str = ""


@dataclass(frozen=True)
class Bars:
    """Bars over the places of an axis, in one panel or several.

    Attributes:
        x: the places.
        panels: from top to bottom.
        stacked: whether series stand on each other (those below 0 hang below each other), or side by side.
        horizontal: whether bars lie; for places with long names.
        marks: lines between places, counted from 0: 2.5 lies after the third.
        numbers: whether to write each number at its bar; of stacked bars where each place has one.
    """

    x: Axis
    panels: tuple[Panel, ...]
    stacked: bool = False
    horizontal: bool = False
    marks: tuple[Mark, ...] = ()
    numbers: bool = False

    @property
    def header(self) -> Row:
        """The columns of its table."""
        named = [(_column(panel, series), series) for panel in self.panels for series in panel.series]
        return (self.x.label, *(name + ending for name, series in named for ending in series.columns))

    @property
    def table(self) -> list[Row]:
        """One row a place."""
        columns = [one for panel in self.panels for series in panel.series for one in series.columns.values()]
        return [(key, *values) for key, *values in zip(self.x.keys, *columns, strict=True)]


@dataclass(frozen=True)
class Lines:
    """Lines over a scale.

    Attributes:
        x: where on the scale, ascending.
        x_label: what the scale is.
        y_label: what the numbers are.
        series: the lines.
        steps: whether each number holds until the next; else points are joined.
        marks: lines across, at places of the scale.
    """

    x: tuple[float, ...]
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    steps: bool = False
    marks: tuple[Mark, ...] = ()

    @property
    def header(self) -> Row:
        """The columns of its table."""
        return (self.x_label, *(series.name for series in self.series))

    @property
    def table(self) -> list[Row]:
        """One row a place."""
        return [tuple(row) for row in zip(self.x, *(series.values for series in self.series), strict=True)]


Chart = Heatmap | Bars | Lines


def _column(panel: Panel, series: Series) -> str:
    """A column's name: the series, and its panel where that says more."""
    return series.name if series.name == panel.label or not panel.label else f"{series.name}: {panel.label}"

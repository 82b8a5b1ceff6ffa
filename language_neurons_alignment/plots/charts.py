"""Charts as data: axes, heatmaps, bars and lines, with their tables and the numbers that a reader sees.

A figure is one chart object. Its picture (`draw`), its interactive form (`report.page`) and its CSV table all come from
it, so they show the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..languages import language_name

Category = str | int | float
TableRow = tuple[Category, ...]


@dataclass(frozen=True)
class Axis:
    """The places of a chart, as tables name them (`keys`) and as people read them (`names`)."""

    label: str  # with the unit
    keys: tuple[Category, ...]
    names: tuple[str, ...]
    kind: str = ""  # "language" or "layer" if a reader can filter the places


def language_axis(codes: Sequence[str], label: str = "language") -> Axis:
    """Make an axis of languages, with their English names."""
    return Axis(label, tuple(codes), tuple(map(language_name, codes)), "language")


def layer_axis(layers: int) -> Axis:
    """Make an axis of decoder layers, counted from 0."""
    return Axis("layer", tuple(range(layers)), tuple(map(str, range(layers))), "layer")


def plain_axis(keys: Sequence[Category], label: str, names: Sequence[str] = ()) -> Axis:
    """Make an axis of anything else."""
    return Axis(label, tuple(keys), tuple(names or map(str, keys)))


def short(value: float, *, digits: int = 0, signed: bool = False) -> str:
    """Write a number in as few characters as possible; – for NaN.

    >>> short(109.2, signed=True), short(-2.6), short(25_000), short(float("inf"))
    ('+109', '−3', '25k', '∞')
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    plus = "+" if signed else ""
    if abs(value) >= 1e7:
        return f"{value:{plus}.0e}".replace("e+0", "e").replace("e+", "e").replace("-", "−")
    if abs(value) >= 10_000:
        return f"{value / 1000:{plus},.0f}k".replace("-", "−")
    rounded = round(value, digits)
    return f"{rounded:{plus}.{digits}f}".replace("-", "−") if rounded else "0"


def number_at_bar(value: float) -> str:
    """Write a count in full and any other number to three digits; nothing for NaN and infinity.

    >>> number_at_bar(23235.0), number_at_bar(0.125)
    ('23,235', '0.125')
    """
    if not math.isfinite(value):
        return ""
    return (f"{int(value):,}" if float(value).is_integer() else f"{value:.3g}").replace("-", "−")


def tick(value: float, *, signed: bool = False) -> str:
    """Write a tick of a colour scale in plain digits."""
    return "0" if value == 0 else f"{value:{'+' if signed else ''},g}".replace("-", "−")


def symlog(value: float, *, linear_up_to: float | None) -> float:
    """Place a number on a scale that is linear up to a size and logarithmic above it.

        v / t                        |v| ≤ t
        sign(v) (1 + ln(|v| / t))    else

    >>> [symlog(value, linear_up_to=10.0) for value in (-10.0, 0.0, 5.0, 10.0)]
    [-1.0, 0.0, 0.5, 1.0]

    With `linear_up_to=None` the number stays unchanged; ∞ and NaN always do.
    """
    if linear_up_to is None or math.isnan(value):
        return value
    size = abs(value) / linear_up_to
    return math.copysign(size if size <= 1 else 1 + math.log(size), value)


def scale_ticks(largest: float, *, linear_up_to: float | None, diverging: bool) -> list[float]:
    """Choose round numbers for a colour scale from 0, or from −largest, to `largest`.

    >>> scale_ticks(250.0, linear_up_to=10.0, diverging=False)
    [0.0, 10.0, 100.0]
    """
    if linear_up_to is None:
        step = 10 ** math.floor(math.log10(largest / 2))
        step *= next(factor for factor in (1, 2, 5, 10) if largest / (factor * step) <= 5)
        ticks = [step * k for k in range(int(largest / step + 1e-9) + 1)]
    else:
        first, last = math.floor(math.log10(linear_up_to) + 1e-9), math.floor(math.log10(largest) + 1e-9)
        ticks = [0.0, *(10.0**power for power in range(first, last + 1))]
    return [-value for value in reversed(ticks[1:])] + ticks if diverging else ticks


_ROOMY = 12
"""Up to this many columns, a cell has room for a number of six digits."""


@dataclass
class Heatmap:
    """A number for each pair of places, rows from top to bottom; NaN where there is none.

    >>> chart = Heatmap(language_axis(("en", "sw")), layer_axis(2), [[1, 2], [3, 4]], "neurons")
    >>> chart.header, chart.table[2]
    (('language', 'layer', 'neurons'), ('sw', 0, 3.0))
    """

    rows: Axis
    columns: Axis
    values: Sequence[Sequence[float]]
    label: str  # what the numbers are, with the unit
    diverging: bool = False  # numbers lie on both sides of 0, which then has a neutral colour
    linear_up_to: float | None = None  # the colour scale is logarithmic above this size; None: linear throughout
    digits: int = 0  # decimals in a cell
    diagonal: bool = False  # frame the cells in which row and column are the same
    inside: Sequence[Sequence[bool]] | None = None  # numbers in the control range; None without controls

    def __post_init__(self) -> None:
        self.values = [list(map(float, row)) for row in self.values]

    @property
    def header(self) -> TableRow:
        """The column names of the table."""
        return (self.rows.label, self.columns.label, self.label, *([] if self.inside is None else ["within control"]))

    @property
    def table(self) -> list[TableRow]:
        """One row per cell."""
        return [
            (row, column, self.values[i][j], *([] if self.inside is None else ["yes" if self.inside[i][j] else "no"]))
            for i, row in enumerate(self.rows.keys)
            for j, column in enumerate(self.columns.keys)
        ]

    @property
    def texts(self) -> list[list[str]]:
        """The texts of the cells: counts in full if there is room, else as short as possible.

        A change outside the control range does not become 0: it has one decimal more where it would.
        """
        if not self.diverging and not self.digits and len(self.columns.keys) <= _ROOMY:
            return [[number_at_bar(value) or "–" for value in row] for row in self.values]
        return [[self._text(i, j, value) for j, value in enumerate(row)] for i, row in enumerate(self.values)]

    def _text(self, row: int, column: int, value: float) -> str:
        text = short(value, digits=self.digits, signed=self.diverging)
        if text == "0" and self.inside is not None and not self.inside[row][column]:
            return short(value, digits=self.digits + 1, signed=self.diverging)
        return text

    @property
    def largest(self) -> float:
        """The end of the colour scale: the largest finite size, and at least `linear_up_to`."""
        sizes = [abs(value) for values in self.values for value in values if math.isfinite(value)]
        return max([self.linear_up_to or 0.0, *sizes]) or 1.0


@dataclass
class Series:
    """Numbers along an axis, NaN where there is none; bars show the intervals from `low` to `high` as whiskers."""

    name: str  # in the legend
    values: Sequence[float]
    ink: str  # in `colours.INKS`
    low: Sequence[float] = ()
    high: Sequence[float] = ()

    def __post_init__(self) -> None:
        self.values = list(map(float, self.values))


class Panel(NamedTuple):
    """One of several charts above each other that share their x axis; `label` says what the numbers are."""

    label: str
    series: Sequence[Series]


@dataclass(frozen=True)
class Mark:
    """A line across a chart at `at` (on a scale; 2.5 lies after the third bar), named after what begins there."""

    at: float
    name: str


@dataclass(frozen=True)
class BarChart:
    """Bars over the places of an axis, in panels from top to bottom."""

    x: Axis
    panels: Sequence[Panel]
    stacked: bool = False  # series stand on each other, negative ones downwards; else side by side
    horizontal: bool = False  # for places with long names
    marks: Sequence[Mark] = ()
    numbers: bool = False  # write each number at its bar

    def _columns(self) -> list[tuple[str, Sequence[float]]]:
        """Name and numbers of each column of the table, intervals included."""
        columns = []
        for panel in self.panels:
            for one in panel.series:
                name = one.name if panel.label in ("", one.name) else f"{one.name}: {panel.label}"
                columns += [(name, one.values), (f"{name} low", one.low), (f"{name} high", one.high)][
                    : 3 if one.low else 1
                ]
        return columns

    @property
    def header(self) -> TableRow:
        """The column names of the table."""
        return (self.x.label, *(name for name, _ in self._columns()))

    @property
    def table(self) -> list[TableRow]:
        """One row per place."""
        return list(zip(self.x.keys, *(values for _, values in self._columns()), strict=True))


@dataclass(frozen=True)
class LineChart:
    """Lines over the ascending positions `x` of a scale, with vertical marks."""

    x: Sequence[float]
    x_label: str
    y_label: str
    series: Sequence[Series]
    steps: bool = False  # each number holds until the next position; else points are joined
    marks: Sequence[Mark] = ()

    @property
    def header(self) -> TableRow:
        """The column names of the table."""
        return (self.x_label, *(series.name for series in self.series))

    @property
    def table(self) -> list[TableRow]:
        """One row per position."""
        return list(zip(self.x, *(series.values for series in self.series), strict=True))


Chart = Heatmap | BarChart | LineChart

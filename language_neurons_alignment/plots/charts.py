"""What a figure shows, as data: the one object that its picture, its interactive form and its table come from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..languages import language_name

# ── What runs along the sides of a chart: languages, layers, or anything else.

Key = str | int | float


@dataclass(frozen=True)
class Axis:
    """What runs along one side of a chart.

    Attributes:
        label: what it is, with its unit.
        keys: its places, as tables name them (language codes, layer numbers).
        names: its places, as people read them.
        kind: "language" or "layer" where a reader may want to see only some of them; else empty.
    """

    label: str
    keys: tuple[Key, ...]
    names: tuple[str, ...]
    kind: str = ""


def language_axis(codes: Sequence[str], label: str = "language") -> Axis:
    """An axis of languages, by their English names."""
    return Axis(label, tuple(codes), tuple(map(language_name, codes)), "language")


def layer_axis(layers: int) -> Axis:
    """An axis of decoder layers, counted from 0."""
    return Axis("layer", tuple(range(layers)), tuple(map(str, range(layers))), "layer")


def plain_axis(keys: Sequence[Key], label: str, names: Sequence[str] = ()) -> Axis:
    """An axis of anything else."""
    return Axis(label, tuple(keys), tuple(names) or tuple(map(str, keys)))


# ── Numbers as figures show them: as short as they can be said, and the same in every form of a figure.


def short(value: float, *, digits: int = 0, signed: bool = False) -> str:
    """+109, −3, 0, +25k, ∞; – where there is no number.

    Args:
        value: the number.
        digits: decimals.
        signed: write + before what is above 0; changes have a sign, counts have none.
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
    """A count in full, any other number to three digits; nothing where there is none."""
    if not math.isfinite(value):
        return ""
    return (f"{int(value):,}" if float(value).is_integer() else f"{value:.3g}").replace("-", "−")


def tick(value: float, *, signed: bool = False) -> str:
    """A tick of a colour scale, in plain numbers."""
    return "0" if value == 0 else f"{value:{'+' if signed else ''},g}".replace("-", "−")


def symlog(value: float, *, linear_up_to: float | None) -> float:
    """Where a number lies on a scale that is linear up to a size and logarithmic above it.

        v / t                        |v| ≤ t
        sign(v) (1 + ln(|v| / t))    else

    None for `linear_up_to` leaves the number as it is. ∞ and NaN stay what they are.
    """
    if linear_up_to is None or math.isnan(value):
        return value
    size = abs(value) / linear_up_to
    return math.copysign(size if size <= 1 else 1 + math.log(size), value)


def scale_ticks(largest: float, *, linear_up_to: float | None, diverging: bool) -> list[float]:
    """Round numbers for a colour scale from 0, or from −largest, to `largest`: every power of ten, and 0."""
    if linear_up_to is None:
        step = 10 ** math.floor(math.log10(largest / 2))
        step *= next(factor for factor in (1, 2, 5, 10) if largest / (factor * step) <= 5)
        ticks = [step * k for k in range(int(largest / step + 1e-9) + 1)]
    else:
        first, last = math.floor(math.log10(linear_up_to) + 1e-9), math.floor(math.log10(largest) + 1e-9)
        ticks = [0.0, *(10.0**power for power in range(first, last + 1))]
    return [-value for value in reversed(ticks[1:])] + ticks if diverging else ticks


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


# ── Colours: Okabe and Ito's eight, which colour-blind readers tell apart, on white and on black paper.


@dataclass(frozen=True)
class Ink:
    """A colour, and a hatching that says the same without colour.

    Attributes:
        light: on white.
        dark: on black.
        hatch: as matplotlib and plotly write it; empty: filled.
    """

    light: str
    dark: str
    hatch: str = ""


_BLUE, _SKY, _ORANGE, _GREEN = "#0072b2", "#56b4e9", "#e69f00", "#009e73"
_VERMILION, _PURPLE = "#d55e00", "#cc79a7"

INKS = {
    "specific": Ink(_BLUE, _SKY),
    "related": Ink(_ORANGE, _ORANGE, "/"),
    "general": Ink(_GREEN, "#2bbf95", "x"),
    "unassigned": Ink("#8a8f98", "#9aa0aa", "."),
    "gained": Ink(_BLUE, _SKY),
    "lost": Ink(_VERMILION, "#f08a4b", "/"),
    "kept": Ink("#a9afb8", "#6d7480", "."),
    "before": Ink("#7c8592", "#9aa0aa"),
    "after": Ink(_PURPLE, "#dd9abf", "/"),
    "only": Ink("#3c6e91", "#7fb2d3"),
}
"""Each meaning has one colour, in every figure."""

SEQUENTIAL = ("#f4f8f5", "#a9e1bd", "#60ceac", "#3eb4ad", "#3497a9", "#357aa2", "#395d9c", "#413f80", "#382a54")
"""Nothing to much, ever darker: seaborn's mako, which is even in lightness, begun at the colour of paper."""

SEQUENTIAL_DARK = ("#1d2127", "#382a54", "#413f80", "#395d9c", "#357ba3", "#3497a9", "#3eb4ad", "#60ceac", "#a9e1bd")
"""The same on black: ever lighter."""

DIVERGING = ("#2369bd", "#5a8ac6", "#8fadd3", "#c3d0e0", "#f7f5f4", "#e5c5bf", "#d4958c", "#bd6459", "#a9373b")
"""Below 0 blue, above 0 red, both darker away from it: in the manner of seaborn's vlag."""

DIVERGING_DARK = ("#81bfcf", "#4798ce", "#4167c7", "#3d477f", "#1d2127", "#5c2831", "#96353c", "#d2503d", "#f39a5f")
"""The same on black, lighter away from 0: in the manner of seaborn's icefire."""

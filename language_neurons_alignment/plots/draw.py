"""Charts drawn with matplotlib, and figures written as PNG, SVG and PDF.

`draw` takes any chart. Figures never appear on a screen: the caller writes them with `write_png`, `write_svg` or
`write_pdf`.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from functools import cache, partial
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap, Normalize, SymLogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from .charts import BarChart, Chart, Heatmap, LineChart, Mark, Panel, number_at_bar, tick
from .colours import (
    DARK_TEXT,
    DIVERGING,
    FADED,
    FRAME,
    GAP,
    INKS,
    LIGHT_TEXT,
    MISSING,
    QUIET,
    SEQUENTIAL,
    VEIL,
    VEIL_KEY,
    VEIL_LINES,
    WHISKER,
)

INSIDE = "within the control range: random neurons have as large an effect"

_ANNOTATE_UP_TO = 40
"""Columns of a heatmap up to which cells have numbers and lines between them."""
_MANY_PLACES = 40
"""Above this many places, every fifth has a name."""
_PAGE = 11.0
"""Inches up to which a figure's words have their usual size."""
_LETTER = 0.0075
"""Inches that a letter takes on average, for each point of its size."""
_LONG_NAMES = 3
_ROOMY = 4
"""So few bars have room for long names that are not slanted."""
DASHES = {"solid": "solid", "dash": (0, (6, 2)), "dot": (0, (2, 2)), "dashdot": (0, (6, 2, 1, 2))}
_DPI = 150
_COMPRESSION = 3
"""PNG level; the default 6 makes files a seventh smaller and takes a fifth longer."""


def draw(chart: Chart, *, title: str = "") -> Figure:
    """Draw any chart."""
    match chart:
        case Heatmap():
            figure = _heatmap(chart)
        case BarChart():
            figure = _bars(chart)
        case LineChart():
            figure = _lines(chart)
    # over the whole figure: a long title would push narrow axes aside
    width, size = figure.get_figwidth(), 11 * _scale(figure)
    lines = [textwrap.fill(line, int(width / (_LETTER * size)), break_long_words=False) for line in title.split("\n")]
    figure.suptitle("\n".join(lines), fontsize=size)
    return figure


def _scale(figure: Figure) -> float:
    """How much larger the words around a wide figure are: it is read at the width of a page like any other."""
    return max(1.0, figure.get_figwidth() / _PAGE)


def write_png(figure: Figure, file: IO[bytes]) -> None:
    """Write a figure as PNG; its layout is computed here once and kept, which `savefig` would do twice."""
    figure.set_dpi(_DPI)
    FigureCanvasAgg(figure).print_png(file, pil_kwargs={"compress_level": _COMPRESSION})
    figure.set_layout_engine("none")


def write_svg(figure: Figure, file: IO[bytes]) -> None:
    """Write a figure as SVG: texts stay texts, and the same figure gives the same bytes."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "lna"}):
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})


def write_pdf(figure: Figure, file: IO[bytes]) -> None:
    """Write a figure as PDF with its fonts as TrueType: journals refuse matplotlib's default, Type 3."""
    with rc_context({"pdf.fonttype": 42}):
        FigureCanvasPdf(figure).print_pdf(file, metadata={"CreationDate": None})


def _heatmap(chart: Heatmap) -> Figure:
    """Draw a heatmap; an infinite number has the colour of the largest finite one and the text ∞."""
    values = np.array(chart.values, dtype=np.float64)
    height, width = values.shape
    wide, high = (0.62 if cells <= 16 else 0.4 if cells <= _ANNOTATE_UP_TO else 0.16 for cells in (width, height))
    legend = 0.0 if chart.inside is None else 0.3
    size = (max(6.9, wide * width + 3.6), max(3.2, high * height + 2.2) + legend)
    figure = Figure(figsize=size, layout="compressed")  # as constrained, and cells of one shape leave no gaps
    axes = figure.subplots()
    largest, linear = chart.largest, chart.linear_up_to
    low = -largest if chart.diverging else 0.0
    mesh = axes.pcolormesh(
        np.clip(values, -largest, largest),
        cmap=LinearSegmentedColormap.from_list("lna", DIVERGING if chart.diverging else SEQUENTIAL),
        norm=Normalize(low, largest) if linear is None else SymLogNorm(linear, vmin=low, vmax=largest),
        edgecolors=GAP,
        linewidth=0.5 if width <= _ANNOTATE_UP_TO else 0.0,
    )
    axes.invert_yaxis()
    axes.set_aspect("equal" if height == width else "auto")
    axes.set_facecolor(MISSING)
    ticks = FuncFormatter(lambda value, _: tick(value, signed=chart.diverging))
    bar = figure.colorbar(mesh, ax=axes, shrink=0.8, format=ticks)
    scale, label = _scale(figure), chart.label
    if _LETTER * 10 * scale * len(label) > 0.8 * high * height + 0.6:  # it would be longer than a low figure is high
        label = label.replace(" [", "\n[")
    bar.set_label(label, fontsize=10 * scale)
    bar.ax.tick_params(labelsize=10 * scale)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    # as far as the data; a colour still means the same on both sides of 0
    if chart.diverging and np.isfinite(values).any():
        seen = np.clip(values[np.isfinite(values)], -largest, largest)
        bar.ax.set_ylim(*_ends(chart, float(seen.min()), float(seen.max())))
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue] - matplotlib's stub has another type
    axes.spines[:].set_visible(False)
    if chart.inside is not None:
        _veil(figure, axes, np.array(chart.inside))
    if width <= _ANNOTATE_UP_TO:
        _annotate(axes, mesh, chart, fontsize=9.0 if width <= 16 else 7.0)
    if chart.diagonal:
        for k in range(min(height, width)):
            axes.add_patch(Rectangle((k, k), 1, 1, fill=False, edgecolor=FRAME, linewidth=1.2, clip_on=False))
    axes.set_xlabel(chart.columns.label, fontsize=10 * scale)
    axes.set_ylabel(chart.rows.label, fontsize=10 * scale)
    _name_columns(axes, chart.columns.names, shift=0.5)
    axes.set_yticks(np.arange(height) + 0.5, chart.rows.names)
    axes.tick_params(length=0, labelsize=10 * scale)
    return figure


def _ends(chart: Heatmap, least: float, most: float) -> tuple[float, float]:
    """The ends of the colour bar: those of the data, and at least 0 and the end of the linear part on one side."""
    room = chart.linear_up_to or chart.largest / 10
    return min(least, -room), max(most, room)


def _veil(figure: Figure, axes: Axes, inside: Bool[np.ndarray, "row column"]) -> None:
    """Veil and hatch the cells within the control range so that their colour still shows, with a legend below."""
    veiled = partial(
        Rectangle, width=1, height=1, facecolor=(*to_rgb(VEIL), FADED), hatch="///", hatch_linewidth=0.6, linewidth=0
    )
    for i, j in np.argwhere(inside):
        axes.add_patch(veiled((j, i), edgecolor=VEIL_LINES))
    key = [veiled((0, 0), edgecolor=VEIL_KEY)]
    figure.legend(handles=key, labels=[INSIDE], loc="outside lower center", frameon=False, fontsize=9 * _scale(figure))


def _annotate(axes: Axes, mesh: QuadMesh, chart: Heatmap, *, fontsize: float) -> None:
    """Write each cell's number into it, dark on light and light on dark."""
    mesh.update_scalarmappable()
    colours = np.asarray(mesh.get_facecolor()).reshape(len(chart.values), -1, 4)
    numbers = []
    for i, row in enumerate(chart.texts):
        for j, text in enumerate(row):
            colour = colours[i, j, :3]
            if chart.inside is not None and chart.inside[i][j]:
                colour = (1 - FADED) * colour + FADED * np.array(to_rgb(VEIL))
            ink = DARK_TEXT if math.isnan(chart.values[i][j]) or _luminance(colour) > 0.25 else LIGHT_TEXT
            numbers.append(Number((j + 0.5, i + 0.5), text, ink))
    axes.add_artist(CellNumbers(numbers, fontsize=fontsize))


class Number(NamedTuple):
    """A number in a cell: the cell's centre in the axes' data, the text and its colour."""

    place: tuple[float, float]
    text: str
    ink: str


class CellNumbers(Text):
    """The numbers of a heatmap as one artist: the picture is that of a `Text` in each cell, in a tenth of the time."""

    def __init__(self, numbers: Sequence[Number], *, fontsize: float) -> None:
        super().__init__(ha="center", va="center", fontsize=fontsize)
        self.numbers = numbers
        self.set_in_layout(False)  # each lies within its cell: measuring it takes time and changes nothing

    def draw(self, renderer: RendererBase) -> None:
        """Draw every number where `Text` would."""
        font, height = self.get_fontproperties(), renderer.get_canvas_width_height()[1]
        measured = cache(partial(renderer.get_text_width_height_descent, prop=font, ismath=False))
        _, highest, deepest = measured("lp")  # the line that all texts stand on, whatever their letters are
        places = self.get_transform().transform([number.place for number in self.numbers])
        gc = renderer.new_gc()
        renderer.open_group("numbers")
        for (x, y), (place, text, ink) in zip(places, self.numbers, strict=True):
            wide, high, deep = measured(text)
            left, base = x - wide / 2, y + max(deep, deepest) - max(high, highest) / 2
            self.set_position(place)  # SVG centres the text there, in whatever font its reader has
            gc.set_foreground(ink)
            renderer.draw_text(gc, left, height - base if renderer.flipy() else base, text, font, 0, mtext=self)
        renderer.close_group("numbers")
        gc.restore()
        self.stale = False


def _luminance(colour: Float64[np.ndarray, " rgb"]) -> float:
    """Relative luminance of an sRGB colour (WCAG)."""
    red, green, blue = ((c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4) for c in map(float, colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _bars(chart: BarChart) -> Figure:
    """Draw bars, in panels above each other that share their places."""
    names, panels = chart.x.names, len(chart.panels)
    along, across = max(7.0, 0.3 * len(names) + 2.0), 2.4 * panels + 1.3
    size = (8.0, max(3.0, 0.27 * len(names) + 1.6)) if chart.horizontal else (min(along, 16.0), across)
    figure = Figure(figsize=size, layout="constrained")
    rows = figure.subplots(panels, 1, sharex=not chart.horizontal, squeeze=False)[:, 0]
    for axes, panel in zip(rows, chart.panels, strict=True):
        _panel(axes, chart, panel)
    last = rows[-1]
    if chart.horizontal:
        last.set_yticks(range(len(names)), names)
        last.set_ylabel(chart.x.label)
        last.invert_yaxis()
    else:
        _name_columns(last, names, shift=0.0, room_for=_ROOMY)
        last.set_xlim(-0.7, len(names) - 0.3)
        last.set_xlabel(chart.x.label)
    draw_marks(list(rows), chart.marks)
    return figure


def _panel(axes: Axes, chart: BarChart, panel: Panel) -> None:
    """Draw the series of one panel, stacked or side by side, and hatched if there are several."""
    places = np.arange(len(chart.x.keys))
    top, bottom = np.zeros(len(places)), np.zeros(len(places))
    several = len(panel.series) > 1
    side_by_side = 1 if chart.stacked else len(panel.series)
    width = 0.82 / side_by_side
    for number, series in enumerate(panel.series):
        at = places + (0.0 if chart.stacked else (number - (side_by_side - 1) / 2) * width)
        values, ink = np.array(series.values, dtype=float), INKS[series.ink]
        base = np.where(values < 0, bottom, top)
        hatch = ink.hatch * 2 if several else ""
        style = {"label": series.name, "color": ink.light, "hatch": hatch, "edgecolor": GAP, "linewidth": 0}
        if chart.horizontal:
            drawn = axes.barh(at, values, width, left=base, **style)
        else:
            drawn = axes.bar(at, values, width, bottom=base, **style)
        for bar in drawn:  # else the base of a bar that stands on others, which may be the highest, leaves no margin
            (bar.sticky_edges.x if chart.horizontal else bar.sticky_edges.y)[:] = [0.0]
        if series.low:
            ends = np.array([values - np.array(series.low), np.array(series.high) - values]).clip(min=0)
            axes.errorbar(at, base + values, yerr=ends, fmt="none", ecolor=WHISKER, elinewidth=1.0, capsize=2.0)
        if chart.numbers:
            fontsize = 8 if len(values) <= 16 else 6.5
            axes.bar_label(drawn, [number_at_bar(value) for value in values], padding=2, fontsize=fontsize)
        if chart.stacked:
            top, bottom = top + np.nan_to_num(values).clip(min=0), bottom + np.nan_to_num(values).clip(max=0)
    axes.spines[["top", "right"]].set_visible(False)
    (axes.xaxis if chart.horizontal else axes.yaxis).set_major_formatter(_plain_number)
    (axes.set_xlabel if chart.horizontal else axes.set_ylabel)(panel.label)
    if all(value.is_integer() for series in panel.series for value in series.values if math.isfinite(value)):
        (axes.xaxis if chart.horizontal else axes.yaxis).set_major_locator(
            MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10])
        )
    axes.margins(y=0.14 if chart.numbers and not chart.horizontal else 0.05)
    if not any(value for series in panel.series for value in series.values):  # as on the report page
        (axes.set_xlim if chart.horizontal else axes.set_ylim)(0, 1)
    if several:
        axes.legend(frameon=False, fontsize=9, ncols=len(panel.series), loc="lower right", bbox_to_anchor=(1, 1))


def _lines(chart: LineChart) -> Figure:
    """Draw lines, each with a dash of its own, so that colour is not needed to tell them apart."""
    figure = Figure(figsize=(9.0, 4.6), layout="constrained")
    axes = figure.subplots()
    for series in chart.series:
        ink = INKS[series.ink]
        axes.plot(
            chart.x, series.values, label=series.name, color=ink.light, linewidth=1.8, linestyle=DASHES[ink.dash],
            drawstyle="steps-post" if chart.steps else "default", marker="" if chart.steps else "o", markersize=4,
        )  # fmt: skip
    draw_marks([axes], chart.marks)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.yaxis.set_major_formatter(_plain_number)
    axes.margins(x=0.02)
    axes.spines[["top", "right"]].set_visible(False)
    if len(chart.series) > 1:
        axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _plain_number(value: float, _: float) -> str:
    return f"{value:,.10g}".replace("-", "−")


def _name_columns(axes: Axes, names: Sequence[str], *, shift: float, room_for: int = 0) -> None:
    """Name the places along the bottom, long names slanted unless there are at most `room_for`."""
    every = 1 if len(names) <= _MANY_PLACES else 5
    axes.set_xticks((np.arange(len(names)) + shift)[::every], names[::every])
    if max(map(len, names)) > _LONG_NAMES and len(names) > room_for:
        for name in axes.get_xticklabels():
            name.set(rotation=45, ha="right", rotation_mode="anchor")  # each ends at its place


def draw_marks(rows: Sequence[Axes], marks: Sequence[Mark]) -> None:
    """Draw each mark as a dashed line through all panels, with its name above the first."""
    for mark in marks:
        for axes in rows:
            axes.axvline(mark.at, color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
        place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        rows[0].annotate(mark.name, (mark.at, 1), (3, 3), fontsize=8, color=QUIET, **place)

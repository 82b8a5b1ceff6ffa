"""Charts drawn with matplotlib, and figures written as PNG and SVG.

`draw` takes any chart. Figures never appear on a screen: the caller writes them with `write_png` or `write_svg`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
from jaxtyping import Float64
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap, Normalize, SymLogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, NullLocator

from .charts import Bars, Chart, Heatmap, Lines, Mark, Panel, Series, number_at_bar, tick
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
_LONG_NAMES = 3
_ROOMY = 4
"""So few bars have room for long names that are not slanted."""
_DASHES = {"solid": "solid", "dash": (0, (6, 2)), "dot": (0, (2, 2)), "dashdot": (0, (6, 2, 1, 2))}
_DPI = 150
_COMPRESSION = 3
"""PNG level; the default 6 makes files a seventh smaller and takes a fifth longer."""


def draw(chart: Chart, *, title: str = "") -> Figure:
    """Draw any chart."""
    if isinstance(chart, Heatmap):
        return heatmap(chart, title=title)
    if isinstance(chart, Bars):
        return bars(chart, title=title)
    return lines(chart, title=title)


def heatmap(chart: Heatmap, *, title: str = "") -> Figure:
    """Draw a heatmap with each number in its cell, dark on light and light on dark.

    An infinite number has the colour of the largest finite one and the text ∞.
    """
    values = np.array(chart.values, dtype=np.float64)
    height, width = values.shape
    wide, high = _side(width), _side(height)
    legend = 0.0 if chart.inside is None else 0.3
    size = (max(6.9, wide * width + 3.6), max(3.2, high * height + 2.2) + legend)
    figure = Figure(figsize=size, layout="compressed")  # as constrained, and cells of one shape leave no gaps
    axes = figure.subplots()
    largest = chart.largest
    mesh = axes.pcolormesh(
        np.clip(values, -largest, largest),
        cmap=LinearSegmentedColormap.from_list("lna", DIVERGING if chart.diverging else SEQUENTIAL),
        norm=_norm(chart),
        edgecolors=GAP,
        linewidth=0.5 if width <= _ANNOTATE_UP_TO else 0.0,
    )
    axes.invert_yaxis()
    axes.set_aspect("equal" if height == width else "auto")
    axes.set_facecolor(MISSING)
    ticks = FuncFormatter(lambda value, _: tick(value, signed=chart.diverging))
    bar = figure.colorbar(mesh, ax=axes, label=chart.label, shrink=0.8, format=ticks)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue] - matplotlib's stub has another type
    open_frame(axes, ("top", "right", "bottom", "left"))
    if chart.inside is not None:
        _fade(figure, axes, chart.inside)
    if width <= _ANNOTATE_UP_TO:
        _annotate(axes, chart, fontsize=9.0 if width <= 16 else 7.0)
    if chart.diagonal:
        for k in range(min(height, width)):
            axes.add_patch(Rectangle((k, k), 1, 1, fill=False, edgecolor=FRAME, linewidth=1.2, clip_on=False))
    _label_cells(axes, chart)
    figure.suptitle(title, fontsize=11)  # over the whole figure: a long title would push narrow axes aside
    return figure


def bars(chart: Bars, *, title: str = "") -> Figure:
    """Draw bars, in panels above each other that share their places; marks are dashed lines with a name on top."""
    places, panels = len(chart.x.keys), len(chart.panels)
    along, across = max(7.0, 0.3 * places + 2.0), 2.4 * panels + 1.3
    size = (8.0, max(3.0, 0.27 * places + 1.6)) if chart.horizontal else (min(along, 16.0), across)
    figure = Figure(figsize=size, layout="constrained")
    rows = figure.subplots(panels, 1, sharex=not chart.horizontal, squeeze=False)[:, 0]
    for axes, panel in zip(rows, chart.panels, strict=True):
        _panel(axes, chart, panel)
    _name_bars(rows[-1], chart)
    for mark in chart.marks:
        _mark(list(rows), mark)
    figure.suptitle(title, fontsize=11)
    return figure


def lines(chart: Lines, *, title: str = "") -> Figure:
    """Draw lines over a scale, each with a dash of its own, so that colour is not needed to tell them apart."""
    figure = Figure(figsize=(9.0, 4.6), layout="constrained")
    axes = figure.subplots()
    for series in chart.series:
        ink = INKS[series.ink]
        axes.plot(
            chart.x, series.values, label=series.name, color=ink.light, linewidth=1.8, linestyle=_DASHES[ink.dash],
            drawstyle="steps-post" if chart.steps else "default", marker="" if chart.steps else "o", markersize=4,
        )  # fmt: skip
    for mark in chart.marks:
        _mark([axes], mark)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.yaxis.set_major_formatter(FuncFormatter(_plain_number))
    axes.margins(x=0.02)
    open_frame(axes)
    if len(chart.series) > 1:
        axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(title, fontsize=11)
    return figure


def intervals(
    axes: Axes,
    means: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    *,
    colour: str,
    marker: str,
    label: str,
    shift: float = 0.0,
) -> None:
    """Draw one mean with its interval per row; `shift` moves them down within the row."""
    rows = [row + shift for row in range(len(means))]
    for row, start, end in zip(rows, low, high, strict=True):
        axes.plot([start, end], [row, row], color=colour, linewidth=1.6, solid_capstyle="butt")
    axes.plot(means, rows, linestyle="none", marker=marker, color=colour, markersize=6, label=label, zorder=3)


def open_frame(axes: Axes, sides: Sequence[str] = ("top", "right")) -> None:
    """Hide some sides of the frame."""
    for side in sides:
        axes.spines[side].set_visible(False)


def write_png(figure: Figure, file: IO[bytes]) -> None:
    """Write a figure as PNG; its layout is computed here once and kept, which `savefig` would do twice."""
    figure.set_dpi(_DPI)
    FigureCanvasAgg(figure).print_png(file, pil_kwargs={"compress_level": _COMPRESSION})
    figure.set_layout_engine("none")


def write_svg(figure: Figure, file: IO[bytes]) -> None:
    """Write a figure as SVG: texts stay texts, and the same figure gives the same bytes."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "lna"}):
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})


def _side(cells: int) -> float:
    """Inches per cell, smaller for many cells."""
    return 0.62 if cells <= 16 else 0.48 if cells <= _ANNOTATE_UP_TO else 0.16


def _norm(chart: Heatmap) -> Normalize:
    low = -chart.largest if chart.diverging else 0.0
    if chart.linear_up_to is None:
        return Normalize(low, chart.largest)
    return SymLogNorm(chart.linear_up_to, vmin=low, vmax=chart.largest)


def _fade(figure: Figure, axes: Axes, inside: tuple[tuple[bool, ...], ...]) -> None:
    """Veil and hatch the cells within the control range, with a legend below."""
    for i, row in enumerate(inside):
        for j, faded in enumerate(row):
            if faded:
                axes.add_patch(Rectangle((j, i), 1, 1, **_veil(VEIL_LINES)))
    figure.legend(
        handles=[Rectangle((0, 0), 1, 1, **_veil(VEIL_KEY))],
        labels=[INSIDE],
        loc="outside lower center",
        frameon=False,
        fontsize=9,
    )


def _veil(ink: str) -> dict[str, Any]:
    """The style of a veil that lets the colour below show, hatched in `ink`."""
    veil = (*to_rgb(VEIL), FADED)
    return {"facecolor": veil, "edgecolor": ink, "hatch": "///", "hatch_linewidth": 0.6, "linewidth": 0}


def _annotate(axes: Axes, chart: Heatmap, *, fontsize: float) -> None:
    """Write each cell's number into it."""
    (mesh,) = (drawn for drawn in axes.collections if isinstance(drawn, QuadMesh))
    mesh.update_scalarmappable()
    colours = np.asarray(mesh.get_facecolor()).reshape(len(chart.values), -1, 4)
    for i, row in enumerate(chart.texts):
        for j, text in enumerate(row):
            colour = colours[i, j, :3]
            if chart.inside is not None and chart.inside[i][j]:
                colour = (1 - FADED) * colour + FADED * np.array(to_rgb(VEIL))
            ink = DARK_TEXT if math.isnan(chart.values[i][j]) or _luminance(colour) > 0.25 else LIGHT_TEXT
            written = axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", color=ink, fontsize=fontsize)
            written.set_in_layout(False)  # it lies within its cell: measuring it takes time and changes nothing


def _luminance(colour: Float64[np.ndarray, " rgb"]) -> float:
    """Relative luminance of an sRGB colour (WCAG)."""
    red, green, blue = ((c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4) for c in map(float, colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _label_cells(axes: Axes, chart: Heatmap) -> None:
    """Name rows and columns."""
    axes.set_xlabel(chart.columns.label)
    axes.set_ylabel(chart.rows.label)
    _name_places(axes, chart.columns.names, shift=0.5, slanted=_long(chart.columns.names))
    axes.set_yticks(np.arange(len(chart.rows.keys)) + 0.5, chart.rows.names)
    axes.tick_params(length=0)


def _name_bars(axes: Axes, chart: Bars) -> None:
    """Name the places along the bottom, or of horizontal bars along the left side."""
    names = chart.x.names
    if chart.horizontal:
        axes.set_yticks(range(len(names)), names)
        axes.set_ylabel(chart.x.label)
        axes.invert_yaxis()
        return
    _name_places(axes, names, shift=0.0, slanted=_long(names) and len(names) > _ROOMY)
    axes.set_xlim(-0.7, len(names) - 0.3)
    axes.set_xlabel(chart.x.label)


def _name_places(axes: Axes, names: Sequence[str], *, shift: float, slanted: bool) -> None:
    every = 1 if len(names) <= _MANY_PLACES else 5
    axes.set_xticks((np.arange(len(names)) + shift)[::every], names[::every])
    if slanted:
        for name in axes.get_xticklabels():
            name.set(rotation=45, ha="right", rotation_mode="anchor")  # each ends at its place


def _long(names: Sequence[str]) -> bool:
    return max(map(len, names)) > _LONG_NAMES


def _panel(axes: Axes, chart: Bars, panel: Panel) -> None:
    """Draw the series of one panel, stacked or side by side."""
    places = np.arange(len(chart.x.keys))
    top, bottom = np.zeros(len(places)), np.zeros(len(places))
    side_by_side = 1 if chart.stacked else len(panel.series)
    width = 0.82 / side_by_side
    for number, series in enumerate(panel.series):
        shift = 0.0 if chart.stacked else (number - (side_by_side - 1) / 2) * width
        values = np.array(series.values, dtype=float)
        base = np.where(values < 0, bottom, top)
        _bars(axes, chart, series, places + shift, values, base, width, hatched=len(panel.series) > 1)
        if chart.stacked:
            top, bottom = top + np.nan_to_num(values).clip(min=0), bottom + np.nan_to_num(values).clip(max=0)
    open_frame(axes)
    numbers = axes.xaxis if chart.horizontal else axes.yaxis
    numbers.set_major_formatter(FuncFormatter(_plain_number))
    (axes.set_xlabel if chart.horizontal else axes.set_ylabel)(panel.label)
    axes.margins(y=0.14 if chart.numbers and not chart.horizontal else 0.05)
    if not any(value for series in panel.series for value in series.values):  # as on the report page
        (axes.set_xlim if chart.horizontal else axes.set_ylim)(0, 1)
    if len(panel.series) > 1:
        axes.legend(frameon=False, fontsize=9, ncols=len(panel.series), loc="lower right", bbox_to_anchor=(1, 1))


def _bars(
    axes: Axes,
    chart: Bars,
    series: Series,
    places: np.ndarray,
    values: np.ndarray,
    base: np.ndarray,
    width: float,
    *,
    hatched: bool,
) -> None:
    """Draw one series; hatched if other series stand beside it."""
    ink = INKS[series.ink]
    hatch = ink.hatch * 2 if hatched else ""
    style = {"label": series.name, "color": ink.light, "hatch": hatch, "edgecolor": GAP, "linewidth": 0}
    if chart.horizontal:
        drawn = axes.barh(places, values, width, left=base, **style)
    else:
        drawn = axes.bar(places, values, width, bottom=base, **style)
    if series.low:
        ends = np.array([values - np.array(series.low), np.array(series.high) - values]).clip(min=0)
        axes.errorbar(places, base + values, yerr=ends, fmt="none", ecolor=WHISKER, elinewidth=1.0, capsize=2.0)
    if chart.numbers:
        axes.bar_label(
            drawn, [number_at_bar(value) for value in values], padding=2, fontsize=8 if len(values) <= 16 else 6.5
        )


def _mark(rows: Sequence[Axes], mark: Mark) -> None:
    """Draw a dashed line through all panels and name it above the first."""
    for axes in rows:
        axes.axvline(mark.at, color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
    rows[0].annotate(
        mark.name, (mark.at, 1), (3, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
        fontsize=8, color=QUIET,
    )  # fmt: skip


def _plain_number(value: float, _: int | None) -> str:
    return f"{value:,.10g}".replace("-", "−")

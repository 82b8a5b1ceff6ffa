"""A chart → its picture."""

from __future__ import annotations

import math
from typing import IO, Any

import numpy as np
from jaxtyping import Float64
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap, Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, NullLocator

from .charts import DIVERGING, INKS, SEQUENTIAL, Axis, Bars, Chart, Heatmap, Lines, Panel, Series, number_at_bar, tick

# ── A heatmap as a picture: every number in its cell, dark on light and light on dark.

_ANNOTATE_UP_TO = 40
_NO_NUMBER = "0.85"
"""The grey of a cell in which infinity is compared with infinity."""
_FADED = 0.65
"""How much white lies over a cell inside its control's range."""
INSIDE = "within the control's range: random neurons do as much"


def heatmap(chart: Heatmap, *, title: str = "") -> Figure:
    """Draw a heatmap. An infinite number has the colour of the largest finite one, and says ∞.

    Returns:
        A figure that the caller saves; nothing is shown on a screen.
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
        edgecolors="white",
        linewidth=0.5 if width <= _ANNOTATE_UP_TO else 0.0,
    )
    axes.invert_yaxis()
    axes.set_aspect("equal" if height == width else "auto")
    axes.set_facecolor(_NO_NUMBER)
    ticks = FuncFormatter(lambda value, _: tick(value, signed=chart.diverging))
    bar = figure.colorbar(mesh, ax=axes, label=chart.label, shrink=0.8, format=ticks)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue] - matplotlib's own stub takes it for something else
    for side in axes.spines.values():
        side.set_visible(False)
    if chart.inside is not None:
        _fade(figure, axes, chart.inside)
    if width <= _ANNOTATE_UP_TO:
        _annotate(axes, chart, fontsize=9.0 if width <= 16 else 7.0)
    if chart.diagonal:
        for k in range(min(height, width)):
            axes.add_patch(Rectangle((k, k), 1, 1, fill=False, edgecolor="0.15", linewidth=1.2, clip_on=False))
    _label(axes, chart)
    figure.suptitle(title, fontsize=11)  # over the whole figure: a long one would push narrow axes aside
    return figure


def _fade(figure: Figure, axes: Axes, inside: tuple[tuple[bool, ...], ...]) -> None:
    """Veil and hatch the cells inside their control's range, and say below what that means."""
    for i, row in enumerate(inside):
        for j, faded in enumerate(row):
            if faded:
                axes.add_patch(Rectangle((j, i), 1, 1, **_veil("0.72")))
    figure.legend(
        handles=[Rectangle((0, 0), 1, 1, **_veil("0.6"))],
        labels=[INSIDE],
        loc="outside lower center",
        frameon=False,
        fontsize=9,
    )


def _veil(ink: str) -> dict[str, Any]:
    """White that lets a colour through, with lines of `ink`."""
    return {"facecolor": (1, 1, 1, _FADED), "edgecolor": ink, "hatch": "///", "hatch_linewidth": 0.6, "linewidth": 0}


def _side(cells: int) -> float:
    """Inches for a cell, smaller where there are many."""
    return 0.62 if cells <= 16 else 0.48 if cells <= _ANNOTATE_UP_TO else 0.16


def _norm(chart: Heatmap) -> Normalize:
    low = -chart.largest if chart.diverging else 0.0
    if chart.linear_up_to is None:
        return Normalize(low, chart.largest)
    return SymLogNorm(chart.linear_up_to, vmin=low, vmax=chart.largest)


def _label(axes: Axes, chart: Heatmap) -> None:
    axes.set_xlabel(chart.columns.label)
    axes.set_ylabel(chart.rows.label)
    every = 1 if len(chart.columns.keys) <= _ANNOTATE_UP_TO else 5
    places = np.arange(len(chart.columns.keys)) + 0.5
    axes.set_xticks(places[::every], chart.columns.names[::every])
    if _long(chart.columns):
        slant(axes)
    axes.set_yticks(np.arange(len(chart.rows.keys)) + 0.5, chart.rows.names)
    axes.tick_params(length=0)


def slant(axes: Axes) -> None:
    """Slant the names along the bottom, each ending at its place."""
    for name in axes.get_xticklabels():
        name.set(rotation=45, ha="right", rotation_mode="anchor")


def _long(axis: Axis) -> bool:
    return max(map(len, axis.names)) > 3


def _annotate(axes: Axes, chart: Heatmap, *, fontsize: float) -> None:
    """Write each cell's number into it."""
    (mesh,) = (drawn for drawn in axes.collections if isinstance(drawn, QuadMesh))
    mesh.update_scalarmappable()
    colours = np.asarray(mesh.get_facecolor()).reshape(len(chart.values), -1, 4)
    for i, row in enumerate(chart.texts):
        for j, text in enumerate(row):
            colour = colours[i, j]
            if chart.inside is not None and chart.inside[i][j]:
                colour = (1 - _FADED) * colour + _FADED
            ink = "0.1" if math.isnan(chart.values[i][j]) or _luminance(colour) > 0.25 else "white"
            written = axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", color=ink, fontsize=fontsize)
            written.set_in_layout(False)  # it lies inside its cell: measuring it takes time and changes nothing


def _luminance(colour: Float64[np.ndarray, " rgba"]) -> float:
    """Relative luminance of an sRGB colour (WCAG)."""
    red, green, blue = ((c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4) for c in map(float, colour[:3]))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


# ── Bars as a picture: in one panel, or in several above each other that share their places.

_QUIET = "0.45"
_LONG_NAMES = 3
_ROOMY = 4
"""So few places have room for names that are not slanted."""


def bars(chart: Bars, *, title: str = "") -> Figure:
    """Draw bars; marks are dashed lines between places, named above the first panel.

    Returns:
        A figure that the caller saves; nothing is shown on a screen.
    """
    places, panels = len(chart.x.keys), len(chart.panels)
    along, across = max(7.0, 0.3 * places + 2.0), 2.4 * panels + 1.3
    size = (8.0, max(3.0, 0.27 * places + 1.6)) if chart.horizontal else (min(along, 16.0), across)
    figure = Figure(figsize=size, layout="constrained")
    rows = figure.subplots(panels, 1, sharex=not chart.horizontal, squeeze=False)[:, 0]
    for axes, panel in zip(rows, chart.panels, strict=True):
        _panel(axes, chart, panel)
    _name_places(rows[-1], chart)
    for mark in chart.marks:
        for axes in rows:
            axes.axvline(mark.at, color=_QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
        rows[0].annotate(
            mark.name, (mark.at, 1), (3, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
            fontsize=8, color=_QUIET,
        )  # fmt: skip
    figure.suptitle(title, fontsize=11)
    return figure


def _panel(axes: Axes, chart: Bars, panel: Panel) -> None:
    """One panel's series, on each other or side by side."""
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
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    numbers = axes.xaxis if chart.horizontal else axes.yaxis
    numbers.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}".replace("-", "−")))
    (axes.set_xlabel if chart.horizontal else axes.set_ylabel)(panel.label)
    axes.margins(y=0.14 if chart.numbers and not chart.horizontal else 0.05)
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
    """One series; hatched where colour alone would tell it from its neighbours."""
    ink = INKS[series.ink]
    hatch = ink.hatch * 2 if hatched else ""
    style = {"label": series.name, "color": ink.light, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
    if chart.horizontal:
        drawn = axes.barh(places, values, width, left=base, **style)
    else:
        drawn = axes.bar(places, values, width, bottom=base, **style)
    if series.low:
        ends = np.array([values - np.array(series.low), np.array(series.high) - values]).clip(min=0)
        axes.errorbar(places, base + values, yerr=ends, fmt="none", ecolor="0.2", elinewidth=1.0, capsize=2.0)
    if chart.numbers:
        axes.bar_label(
            drawn, [number_at_bar(value) for value in values], padding=2, fontsize=8 if len(values) <= 16 else 6.5
        )


def _name_places(axes: Axes, chart: Bars) -> None:
    places = np.arange(len(chart.x.keys))
    if chart.horizontal:
        axes.set_yticks(places, chart.x.names)
        axes.set_ylabel(chart.x.label)
        axes.invert_yaxis()
        return
    slanted = max(map(len, chart.x.names)) > _LONG_NAMES and len(places) > _ROOMY
    every = 1 if len(places) <= 40 else 5
    axes.set_xticks(places[::every], chart.x.names[::every])
    if slanted:
        slant(axes)
    axes.set_xlim(-0.7, len(places) - 0.3)
    axes.set_xlabel(chart.x.label)


# ── Lines over a scale, as a picture: each named at its end, so that no one needs to tell colours apart.

DASHES = {"specific": "solid", "related": (0, (6, 2)), "general": (0, (2, 2)), "unassigned": (0, (6, 2, 1, 2))}
"""A line's colour and its dashes say the same thing."""


def lines(chart: Lines, *, title: str = "") -> Figure:
    """Draw lines; marks are vertical, named at the top.

    Returns:
        A figure that the caller saves; nothing is shown on a screen.
    """
    figure = Figure(figsize=(9.0, 4.6), layout="constrained")
    axes = figure.subplots()
    for series in chart.series:
        axes.plot(
            chart.x, series.values, label=series.name, color=INKS[series.ink].light, linewidth=1.8,
            linestyle=DASHES.get(series.ink, "solid"), drawstyle="steps-post" if chart.steps else "default",
            marker="" if chart.steps else "o", markersize=4,
        )  # fmt: skip
    for mark in chart.marks:
        axes.axvline(mark.at, color="0.45", linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            mark.name, (mark.at, 1), (3, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
            fontsize=8, color="0.45",
        )  # fmt: skip
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}".replace("-", "−")))
    axes.margins(x=0.02)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(chart.series) > 1:
        axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(title, fontsize=11)
    return figure


def draw(chart: Chart, *, title: str = "") -> Figure:
    """Draw any chart with matplotlib; the caller saves it."""
    if isinstance(chart, Heatmap):
        return heatmap(chart, title=title)
    if isinstance(chart, Bars):
        return bars(chart, title=title)
    return lines(chart, title=title)


# ── A figure into open files: the layout is computed once and each form drawn once, which `savefig` does twice each.

_DPI = 150
_COMPRESSION = 3
"""PNG level; the usual 6 makes files a seventh smaller and writing them a fifth slower."""


def write_png(figure: Figure, file: IO[bytes]) -> None:
    """Draw a figure as pixels; its layout stands from then on."""
    figure.set_dpi(_DPI)
    FigureCanvasAgg(figure).print_png(file, pil_kwargs={"compress_level": _COMPRESSION})
    figure.set_layout_engine("none")


def write_svg(figure: Figure, file: IO[bytes]) -> None:
    """Draw a figure as SVG: texts stay texts, and the same figure gives the same bytes."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "lna"}):
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})

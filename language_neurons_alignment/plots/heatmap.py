"""A heatmap as a picture: every number in its cell, dark on light and light on dark."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap, Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, NullLocator

from .axes import Axis
from .charts import Heatmap
from .numbers import tick
from .palette import DIVERGING, SEQUENTIAL

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

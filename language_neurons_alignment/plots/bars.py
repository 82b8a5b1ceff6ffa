"""Bars as a picture: in one panel, or in several above each other that share their places."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from .charts import Bars, Panel, Series
from .heatmap import slant
from .numbers import number_at_bar
from .palette import INKS

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

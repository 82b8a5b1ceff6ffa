"""Lines over a scale, as a picture: each named at its end, so that no one needs to tell colours apart."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from .charts import Lines
from .palette import INKS

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

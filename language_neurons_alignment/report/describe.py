"""Figures in words, for those who cannot see them."""

from __future__ import annotations

import math

from ..plots.charts import Bars, Chart, Heatmap, Panel
from .sections import FigureSection, exact


def alternative_text(figure: FigureSection) -> str:
    """What a figure is, and where its extremes lie; the table below it has every number."""
    return f"{figure.title}. {describe_chart(figure.views[0].chart)} The table of numbers follows."


def describe_chart(chart: Chart) -> str:
    """A chart's kind, size and extremes."""
    if isinstance(chart, Heatmap):
        return _heatmap(chart)
    if isinstance(chart, Bars):
        return " ".join([f"Bars by {chart.x.label}.", *(_panel(chart, panel) for panel in chart.panels)])
    names = ", ".join(series.name for series in chart.series)
    return f"Lines over {chart.x_label} from {exact(chart.x[0])} to {exact(chart.x[-1])}: {names}."


def _heatmap(chart: Heatmap) -> str:
    cells = {
        (row, column): value
        for row, values in zip(chart.rows.names, chart.values, strict=True)
        for column, value in zip(chart.columns.names, values, strict=True)
        if not math.isnan(value)
    }
    size = f"Heatmap of {len(chart.rows.names)} by {len(chart.columns.names)}: {chart.label}."
    if not cells:
        return size
    most = max(cells, key=lambda place: cells[place])
    return f"{size} Largest: {exact(cells[most])} ({chart.rows.label} {most[0]}, {chart.columns.label} {most[1]})."


def _panel(chart: Bars, panel: Panel) -> str:
    told = []
    for series in panel.series:
        known = {name: value for name, value in zip(chart.x.names, series.values, strict=True) if math.isfinite(value)}
        if known:
            most = max(known, key=lambda name: known[name])
            told.append(f"{series.name}, largest {exact(known[most])} at {most}")
    return "; ".join(told) + "."

"""Charts as plain values for the page's script, which filters them and hands them to plotly."""

from __future__ import annotations

import math
from typing import Any

from ..plots.axes import Axis
from ..plots.charts import Bars, Chart, Heatmap, Lines, Mark
from ..plots.numbers import number_at_bar, scale_ticks, symlog, tick
from ..plots.palette import DIVERGING, DIVERGING_DARK, SEQUENTIAL, SEQUENTIAL_DARK
from .sections import exact

Plain = dict[str, Any]

SCALES = {
    "light": {"sequential": list(SEQUENTIAL), "diverging": list(DIVERGING)},
    "dark": {"sequential": list(SEQUENTIAL_DARK), "diverging": list(DIVERGING_DARK)},
}


def chart_payload(chart: Chart) -> Plain:
    """A chart as JSON can hold it: NaN and infinity are text only, and have a place on the colour scale."""
    if isinstance(chart, Heatmap):
        return _heatmap(chart)
    if isinstance(chart, Bars):
        return _bars(chart)
    return _lines(chart)


def _heatmap(chart: Heatmap) -> Plain:
    ticks = scale_ticks(chart.largest, linear_up_to=chart.linear_up_to, diverging=chart.diverging)
    return {
        "kind": "heatmap",
        "rows": _axis(chart.rows),
        "columns": _axis(chart.columns),
        "values": [[_on_scale(value, chart) for value in row] for row in chart.values],
        "texts": chart.texts,
        "exact": [[_told(chart, i, j) for j in range(len(row))] for i, row in enumerate(chart.values)],
        "label": chart.label,
        "diverging": chart.diverging,
        "end": symlog(chart.largest, linear_up_to=chart.linear_up_to),
        "ticks": [[symlog(value, linear_up_to=chart.linear_up_to), tick(value, signed=chart.diverging)]
                  for value in ticks],
        "diagonal": chart.diagonal,
    }  # fmt: skip


def _bars(chart: Bars) -> Plain:
    return {
        "kind": "bars",
        "x": _axis(chart.x),
        "panels": [
            {"label": panel.label, "series": [
                {"name": one.name, "ink": one.ink, "values": [_number(value) for value in one.values],
                 "texts": [number_at_bar(value) for value in one.values],
                 "exact": [exact(value) for value in one.values]}
                for one in panel.series]}
            for panel in chart.panels
        ],
        "stacked": chart.stacked,
        "horizontal": chart.horizontal,
        "numbers": chart.numbers,
        "marks": _marks(chart.marks),
    }  # fmt: skip


def _lines(chart: Lines) -> Plain:
    return {
        "kind": "lines",
        "x": list(chart.x),
        "xLabel": chart.x_label,
        "yLabel": chart.y_label,
        "series": [
            {"name": one.name, "ink": one.ink, "values": [_number(value) for value in one.values]}
            for one in chart.series
        ],
        "steps": chart.steps,
        "marks": _marks(chart.marks),
    }


def _told(chart: Heatmap, i: int, j: int) -> str:
    """A cell's number for its hover, and whether it may be chance."""
    mark = " (within the control's range)" if chart.inside is not None and chart.inside[i][j] else ""
    return exact(chart.values[i][j]) + mark


def _axis(axis: Axis) -> Plain:
    return {"label": axis.label, "keys": list(axis.keys), "names": list(axis.names), "kind": axis.kind}


def _marks(marks: tuple[Mark, ...]) -> list[Plain]:
    return [{"at": mark.at, "name": mark.name} for mark in marks]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _on_scale(value: float, chart: Heatmap) -> float | None:
    """Where a number lies on the colour scale; the infinite at its end."""
    if math.isnan(value):
        return None
    within = min(max(value, -chart.largest), chart.largest)
    return round(symlog(within, linear_up_to=chart.linear_up_to), 6)

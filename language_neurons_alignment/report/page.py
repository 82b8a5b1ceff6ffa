"""A report as one HTML page that needs nothing but itself."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from ..languages import language_name
from ..plots.charts import (
    DIVERGING,
    DIVERGING_DARK,
    INKS,
    SEQUENTIAL,
    SEQUENTIAL_DARK,
    Axis,
    Bars,
    Chart,
    Heatmap,
    Lines,
    Mark,
    Panel,
    Row,
    number_at_bar,
    scale_ticks,
    symlog,
    tick,
)
from ..version import __version__
from .sections import FigureSection, MissingSection, Report, Section, TableSection, exact, file_name

# ── Figures in words, for those who cannot see them.


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


# ── Charts as plain values for the page's script, which filters them and hands them to plotly.

Json = dict[str, Any]

SCALES = {
    "light": {"sequential": list(SEQUENTIAL), "diverging": list(DIVERGING)},
    "dark": {"sequential": list(SEQUENTIAL_DARK), "diverging": list(DIVERGING_DARK)},
}


def chart_payload(chart: Chart) -> Json:
    """A chart as JSON can hold it: NaN and infinity are text only, and have a place on the colour scale."""
    if isinstance(chart, Heatmap):
        return _heatmap_payload(chart)
    if isinstance(chart, Bars):
        return _bars(chart)
    return _lines(chart)


def _heatmap_payload(chart: Heatmap) -> Json:
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


def _bars(chart: Bars) -> Json:
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


def _lines(chart: Lines) -> Json:
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


def _axis(axis: Axis) -> Json:
    return {"label": axis.label, "keys": list(axis.keys), "names": list(axis.names), "kind": axis.kind}


def _marks(marks: tuple[Mark, ...]) -> list[Json]:
    return [{"at": mark.at, "name": mark.name} for mark in marks]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _on_scale(value: float, chart: Heatmap) -> float | None:
    """Where a number lies on the colour scale; the infinite at its end."""
    if math.isnan(value):
        return None
    within = min(max(value, -chart.largest), chart.largest)
    return round(symlog(within, linear_up_to=chart.linear_up_to), 6)


_MOST_ROWS = 400
"""A longer table is no reading: it lies in the CSV file."""

_PAPERS = {
    "light": {"paper": "#ffffff", "text": "#1c2026", "quiet": "#626a76", "grid": "#e3e6ea", "raised": "#f4f5f7",
              "link": "#0b5cad", "missing": "#d9dce0"},
    "dark": {"paper": "#14171b", "text": "#e6e8eb", "quiet": "#9aa3ae", "grid": "#2e343c", "raised": "#20252b",
             "link": "#7ab8f5", "missing": "#3a4049"},
}  # fmt: skip

THEMES: dict[str, dict[str, Any]] = {
    name: {**paper, **SCALES[name], "inks": {key: getattr(ink, name) for key, ink in INKS.items()}}
    for name, paper in _PAPERS.items()
}
"""Colours on white and on black paper, for the style sheet and for the figures alike."""


def render_page(report: Report, *, folder: str) -> str:
    """The page, as HTML.

    Args:
        report: what it says.
        folder: where the pictures and tables lie, as seen from the page.
    """
    pages = _templates()
    return pages.get_template("report.html").render(
        report=report,
        parts=[{"title": part.title, "sections": [_plain(one, folder) for one in part.sections]}
               for part in report.parts],
        languages=[(code, language_name(code)) for code in report.languages],
        folder=folder,
        version=__version__,
        css=pages.get_template("report.css").render(themes=THEMES),
        script=pages.get_template("report.js").render(),
        plotly=get_plotlyjs(),
        payload=_payload(report),
    )  # fmt: skip


@cache
def _templates() -> Environment:
    loader = PackageLoader("language_neurons_alignment.report", "page")
    return Environment(loader=loader, autoescape=lambda name: name == "report.html", undefined=StrictUndefined)


def _payload(report: Report) -> dict[str, Any]:
    """What the script is given."""
    return {
        "figures": {figure.name: [chart_payload(view.chart) for view in figure.views] for figure in report.figures},
        "themes": THEMES,
        "hatches": {name: ink.hatch for name, ink in INKS.items()},
        "languages": list(report.languages),
        "layers": report.layers,
    }


def _plain(section: Section, folder: str) -> dict[str, Any]:
    """A section as the template reads it."""
    told = {"name": section.name, "title": section.title, "note": ""}
    if isinstance(section, MissingSection):
        return {**told, "kind": "missing", "reason": section.reason, "command": section.command}
    told["reading"] = section.reading
    if isinstance(section, TableSection):
        return {**told, "kind": "table", "table": _table(section.header, section.rows)}
    return {
        **told,
        "kind": "figure",
        "note": section.note,
        "alt": alternative_text(section),
        "views": [
            {"label": view.label, "href": f"{folder}/{file_name(section, view)}", "table": _chart_table(view.chart)}
            for view in section.views
        ],
    }


def _chart_table(chart: Chart) -> dict[str, Any] | None:
    """A chart's numbers, if they are few enough to read; those of a heatmap as it stands."""
    if isinstance(chart, Heatmap):
        header = (chart.rows.label, *chart.columns.names)
        rows = [(name, *values) for name, values in zip(chart.rows.names, chart.values, strict=True)]
        return {**_table(header, rows), "corner": f"{chart.label}; across: {chart.columns.label}"}
    return _table(chart.header, _named(chart)) if len(chart.table) <= _MOST_ROWS else None


def _named(chart: Chart) -> list[Row]:
    """A chart's table with its places as people read them."""
    names = getattr(getattr(chart, "x", None), "names", None)
    return [(name, *row[1:]) for name, row in zip(names, chart.table, strict=True)] if names else chart.table


def _table(header: Row, rows: list[Row] | tuple[Row, ...]) -> dict[str, Any]:
    """A table of texts, and which of its columns hold words."""
    words = [any(isinstance(row[column], str) for row in rows) for column in range(len(header))]
    return {"header": header, "rows": [[exact(cell) for cell in row] for row in rows], "text": words, "corner": ""}

"""A report as one HTML page that needs no other file and no network.

jinja2 fills `template/report.html` with the sections and their tables. The charts go into the page as JSON, and
`template/report.js` draws them with plotly, whose script is part of the page.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from ..languages import language_name
from ..plots.charts import Axis, Bars, Chart, Heatmap, Lines, Mark, Panel, Row, number_at_bar, scale_ticks, symlog, tick
from ..plots.colours import DIVERGING, DIVERGING_DARK, INKS, PAPERS, SEQUENTIAL, SEQUENTIAL_DARK
from ..version import __version__
from .sections import FigureSection, MissingSection, Report, Section, TableSection, exact, file_name

_MOST_ROWS = 400
"""A longer table is not shown on the page; the CSV file has it."""

THEMES: dict[str, dict[str, Any]] = {
    name: {
        **PAPERS[name],
        "sequential": list(sequential),
        "diverging": list(diverging),
        "inks": {key: getattr(ink, name) for key, ink in INKS.items()},
    }
    for name, sequential, diverging in (
        ("light", SEQUENTIAL, DIVERGING),
        ("dark", SEQUENTIAL_DARK, DIVERGING_DARK),
    )
}
"""The colours on white and on black, for the style sheet and the figures."""


def render_page(report: Report, *, folder: str) -> str:
    """Render a report as HTML.

    Args:
        report: its title, sections and figures.
        folder: where the pictures and tables are, relative to the page.
    """
    templates = _templates()
    return templates.get_template("report.html").render(
        report=report,
        parts=[
            {"title": part.title, "sections": [_plain(one, folder) for one in part.sections]} for part in report.parts
        ],
        languages=[(code, language_name(code)) for code in report.languages],
        folder=folder,
        version=__version__,
        css=templates.get_template("report.css").render(themes=THEMES),
        script=templates.get_template("report.js").render(),
        plotly=get_plotlyjs(),
        payload=_payload(report),
    )


@cache
def _templates() -> Environment:
    loader = PackageLoader("language_neurons_alignment.report", "template")
    return Environment(loader=loader, autoescape=lambda name: name == "report.html", undefined=StrictUndefined)


def _payload(report: Report) -> dict[str, Any]:
    """The values that the page's script reads."""
    return {
        "figures": {figure.name: [chart_payload(view.chart) for view in figure.views] for figure in report.figures},
        "themes": THEMES,
        "hatches": {name: ink.hatch for name, ink in INKS.items()},
        "dashes": {name: ink.dash for name, ink in INKS.items()},
        "languages": list(report.languages),
        "layers": report.layers,
    }


def _plain(section: Section, folder: str) -> dict[str, Any]:
    """A section as the template reads it."""
    shared = {"name": section.name, "title": section.title, "note": ""}
    if isinstance(section, MissingSection):
        return {**shared, "kind": "missing", "reason": section.reason, "command": section.command}
    shared["reading"] = section.reading
    if isinstance(section, TableSection):
        return {**shared, "kind": "table", "table": _table(section.header, section.rows)}
    return {
        **shared,
        "kind": "figure",
        "note": section.note,
        "alt": alternative_text(section),
        "views": [
            {"label": view.label, "href": f"{folder}/{file_name(section, view)}", "table": _chart_table(view.chart)}
            for view in section.views
        ],
    }


def _chart_table(chart: Chart) -> dict[str, Any] | None:
    """A chart's numbers if there are not too many; those of a heatmap in rows and columns."""
    if isinstance(chart, Heatmap):
        header = (chart.rows.label, *chart.columns.names)
        rows = [(name, *values) for name, values in zip(chart.rows.names, chart.values, strict=True)]
        return {**_table(header, rows), "corner": f"{chart.label}; columns: {chart.columns.label}"}
    if len(chart.table) > _MOST_ROWS:
        return None
    if isinstance(chart, Bars):
        return _table(chart.header, [(name, *row[1:]) for name, row in zip(chart.x.names, chart.table, strict=True)])
    return _table(chart.header, chart.table)


def _table(header: Row, rows: list[Row] | tuple[Row, ...]) -> dict[str, Any]:
    """A table of texts, with the columns that contain words marked."""
    words = [any(isinstance(row[column], str) for row in rows) for column in range(len(header))]
    return {"header": header, "rows": [[exact(cell) for cell in row] for row in rows], "text": words, "corner": ""}


def alternative_text(figure: FigureSection) -> str:
    """Describe a figure for readers who cannot see it; the table below it has every number."""
    return f"{figure.title}. {_describe(figure.views[0].chart)} The table of numbers follows."


def _describe(chart: Chart) -> str:
    """A chart's kind, size and largest numbers."""
    if isinstance(chart, Heatmap):
        return _describe_heatmap(chart)
    if isinstance(chart, Bars):
        return " ".join([f"Bars by {chart.x.label}.", *(_describe_panel(chart, panel) for panel in chart.panels)])
    names = ", ".join(series.name for series in chart.series)
    return f"Lines over {chart.x_label} from {exact(chart.x[0])} to {exact(chart.x[-1])}: {names}."


def _describe_heatmap(chart: Heatmap) -> str:
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


def _describe_panel(chart: Bars, panel: Panel) -> str:
    parts = []
    for series in panel.series:
        known = {name: value for name, value in zip(chart.x.names, series.values, strict=True) if math.isfinite(value)}
        if known:
            most = max(known, key=lambda name: known[name])
            parts.append(f"{series.name}, largest {exact(known[most])} at {most}")
    return "; ".join(parts) + "."


def chart_payload(chart: Chart) -> dict[str, Any]:
    """A chart as JSON values for the script: NaN and infinity become texts, and get a place on the colour scale."""
    if isinstance(chart, Heatmap):
        return _heatmap(chart)
    if isinstance(chart, Bars):
        return _bars(chart)
    return _lines(chart)


def _heatmap(chart: Heatmap) -> dict[str, Any]:
    linear_up_to = chart.linear_up_to
    ticks = scale_ticks(chart.largest, linear_up_to=linear_up_to, diverging=chart.diverging)
    return {
        "kind": "heatmap",
        "rows": _axis(chart.rows),
        "columns": _axis(chart.columns),
        "values": [[_on_scale(value, chart) for value in row] for row in chart.values],
        "texts": chart.texts,
        "exact": [[_hover(chart, i, j) for j in range(len(row))] for i, row in enumerate(chart.values)],
        "label": chart.label,
        "diverging": chart.diverging,
        "end": symlog(chart.largest, linear_up_to=linear_up_to),
        "ticks": [[symlog(one, linear_up_to=linear_up_to), tick(one, signed=chart.diverging)] for one in ticks],
        "diagonal": chart.diagonal,
    }


def _bars(chart: Bars) -> dict[str, Any]:
    return {
        "kind": "bars",
        "x": _axis(chart.x),
        "panels": [
            {
                "label": panel.label,
                "series": [
                    {
                        "name": one.name,
                        "ink": one.ink,
                        "values": [_finite(value) for value in one.values],
                        "texts": [number_at_bar(value) for value in one.values],
                        "exact": [exact(value) for value in one.values],
                    }
                    for one in panel.series
                ],
            }
            for panel in chart.panels
        ],
        "stacked": chart.stacked,
        "horizontal": chart.horizontal,
        "numbers": chart.numbers,
        "marks": _marks(chart.marks),
    }


def _lines(chart: Lines) -> dict[str, Any]:
    return {
        "kind": "lines",
        "x": list(chart.x),
        "xLabel": chart.x_label,
        "yLabel": chart.y_label,
        "series": [
            {"name": one.name, "ink": one.ink, "values": [_finite(value) for value in one.values]}
            for one in chart.series
        ],
        "steps": chart.steps,
        "marks": _marks(chart.marks),
    }


def _axis(axis: Axis) -> dict[str, Any]:
    return {"label": axis.label, "keys": list(axis.keys), "names": list(axis.names), "kind": axis.kind}


def _marks(marks: tuple[Mark, ...]) -> list[dict[str, Any]]:
    return [{"at": mark.at, "name": mark.name} for mark in marks]


def _hover(chart: Heatmap, i: int, j: int) -> str:
    """A cell's number, and whether it lies in the control range."""
    mark = " (within the control range)" if chart.inside is not None and chart.inside[i][j] else ""
    return exact(chart.values[i][j]) + mark


def _on_scale(value: float, chart: Heatmap) -> float | None:
    """The place of a number on the colour scale; infinity is at its end."""
    if math.isnan(value):
        return None
    within = min(max(value, -chart.largest), chart.largest)
    return round(symlog(within, linear_up_to=chart.linear_up_to), 6)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

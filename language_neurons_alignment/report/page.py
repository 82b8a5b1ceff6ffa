"""A report as one HTML page that needs nothing but itself."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from ..languages import language_name
from ..plots.charts import Chart, Heatmap, Row
from ..plots.palette import INKS
from ..version import __version__
from .describe import alternative_text
from .payload import SCALES, chart_payload
from .sections import MissingSection, Report, Section, TableSection, exact, file_name

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

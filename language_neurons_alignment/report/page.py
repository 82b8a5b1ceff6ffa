"""A report as one HTML page that needs no other file and no network.

jinja2 fills `template/report.html` with the sections and their tables. The charts go into the page as JSON, and
`template/report.js` draws them with plotly, whose script is part of the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from ..languages import language_name
from ..plots.charts import (
    BarChart,
    Chart,
    Heatmap,
    LineChart,
    Series,
    TableRow,
    number_at_bar,
    scale_ticks,
    symlog,
    tick,
)
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
    for name, sequential, diverging in (("light", SEQUENTIAL, DIVERGING), ("dark", SEQUENTIAL_DARK, DIVERGING_DARK))
}
"""The colours on white and on black, for the style sheet and the figures."""

TEMPLATES = Environment(
    loader=PackageLoader("language_neurons_alignment.report", "template"),
    autoescape=lambda name: str(name).endswith(".html"),
    undefined=StrictUndefined,
)


def render_page(report: Report, *, folder: str) -> str:
    """Render a report as HTML that links to the pictures and tables in `folder`."""
    return TEMPLATES.get_template("report.html").render(
        report=report,
        parts=[
            {"title": part.title, "sections": [_contents(one, folder) for one in part.sections]}
            for part in report.parts
        ],
        languages=[(code, language_name(code)) for code in report.languages],
        folder=folder,
        version=__version__,
        css=TEMPLATES.get_template("report.css").render(themes=THEMES),
        script=TEMPLATES.get_template("report.js").render(),
        plotly=get_plotlyjs(),
        payload={
            "figures": {figure.name: [_payload(view.chart) for view in figure.views] for figure in report.figures},
            "themes": THEMES,
            "hatches": {name: ink.hatch for name, ink in INKS.items()},
            "dashes": {name: ink.dash for name, ink in INKS.items()},
            "languages": report.languages,
            "layers": report.layers,
        },
    )


def _contents(section: Section, folder: str) -> dict[str, Any]:
    """A section as the template reads it."""
    match section:
        case MissingSection():
            return {**vars(section), "kind": "missing"}
        case TableSection():
            return {**vars(section), "kind": "table", "table": _table(section.header, section.rows, section.links)}
        case FigureSection():
            views = [
                {"label": one.label, "href": f"{folder}/{file_name(section, one)}", "table": _chart_table(one.chart)}
                for one in section.views
            ]
            alt = f"{section.title}. {_describe(section.views[0].chart)} The table of numbers follows."
            return {**vars(section), "kind": "figure", "views": views, "alt": alt}


def _chart_table(chart: Chart) -> dict[str, Any] | None:
    """A chart's numbers if there are not too many; those of a heatmap in rows and columns."""
    if isinstance(chart, Heatmap):
        header = (chart.rows.label, *chart.columns.names)
        rows = [(name, *values) for name, values in zip(chart.rows.names, chart.values, strict=True)]
        return {**_table(header, rows), "corner": f"{chart.label}; columns: {chart.columns.label}"}
    rows = chart.table
    if isinstance(chart, BarChart):
        rows = [(name, *row[1:]) for name, row in zip(chart.x.names, rows, strict=True)]
    return _table(chart.header, rows) if len(rows) <= _MOST_ROWS else None


def _table(header: TableRow, rows: Sequence[TableRow], links: Sequence[str] = ()) -> dict[str, Any]:
    """A table of texts, with the columns that contain words marked, and perhaps a link in each row's first cell."""
    words = [any(isinstance(row[column], str) for row in rows) for column in range(len(header))]
    shown = [list(map(exact, row)) for row in rows]
    return {"header": header, "rows": shown, "text": words, "corner": "", "links": links}


def _describe(chart: Chart) -> str:
    """A chart's kind, size and largest numbers, for readers who cannot see it."""
    match chart:
        case LineChart():
            names = ", ".join(series.name for series in chart.series)
            return f"Lines over {chart.x_label} from {exact(chart.x[0])} to {exact(chart.x[-1])}: {names}."
        case BarChart():
            sentences = [f"Bars by {chart.x.label}."]
            for panel in chart.panels:
                largest = []
                for one in panel.series:
                    numbers = zip(one.values, chart.x.names, strict=True)
                    if known := [(value, name) for value, name in numbers if math.isfinite(value)]:
                        value, name = max(known, key=itemgetter(0))
                        largest.append(f"{one.name}, largest {exact(value)} at {name}")
                sentences.append("; ".join(largest) + ".")
            return " ".join(sentences)
        case Heatmap():
            size = f"Heatmap of {len(chart.rows.names)} by {len(chart.columns.names)}: {chart.label}."
            cells = [
                (value, f"({chart.rows.label} {row}, {chart.columns.label} {column})")
                for row, values in zip(chart.rows.names, chart.values, strict=True)
                for column, value in zip(chart.columns.names, values, strict=True)
                if not math.isnan(value)
            ]
            if not cells:
                return size
            value, place = max(cells, key=itemgetter(0))
            return f"{size} Largest: {exact(value)} {place}."


def _payload(chart: Chart) -> dict[str, Any]:
    """A chart as JSON values for the script: infinity has the colour of a heatmap's largest number, and is no bar."""
    match chart:
        case Heatmap():
            largest, place = chart.largest, partial(symlog, linear_up_to=chart.linear_up_to)
            ticks = scale_ticks(largest, linear_up_to=chart.linear_up_to, diverging=chart.diverging)
            inside = chart.inside or [[False] * len(chart.columns.keys)] * len(chart.rows.keys)
            return {
                "kind": "heatmap",
                "rows": vars(chart.rows),
                "columns": vars(chart.columns),
                "values": [
                    [None if math.isnan(one) else round(place(min(max(one, -largest), largest)), 6) for one in row]
                    for row in chart.values
                ],
                "texts": chart.texts,
                "exact": [
                    [exact(one) + " (within the control range)" * veiled for one, veiled in zip(*row, strict=True)]
                    for row in zip(chart.values, inside, strict=True)
                ],
                "label": chart.label,
                "diverging": chart.diverging,
                "end": place(largest),
                "ticks": [[place(one), tick(one, signed=chart.diverging)] for one in ticks],
                "diagonal": chart.diagonal,
            }
        case BarChart():
            panels = [
                {
                    "label": panel.label,
                    "series": [
                        {
                            **_series(one),
                            "texts": list(map(number_at_bar, one.values)),
                            "exact": list(map(exact, one.values)),
                        }
                        for one in panel.series
                    ],
                }
                for panel in chart.panels
            ]
            marks = list(map(vars, chart.marks))
            return {**vars(chart), "kind": "bars", "x": vars(chart.x), "panels": panels, "marks": marks}
        case LineChart():
            series, marks = list(map(_series, chart.series)), list(map(vars, chart.marks))
            return {**vars(chart), "kind": "lines", "series": series, "marks": marks}


def _series(series: Series) -> dict[str, Any]:
    values = [value if math.isfinite(value) else None for value in series.values]
    return {"name": series.name, "ink": series.ink, "values": values}

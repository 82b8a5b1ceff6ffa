"""The parts of a report: figures with a paragraph on how to read them, tables, and notes on missing figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..plots.charts import Category, Chart, TableRow, short


class View(NamedTuple):
    """One of the charts of a figure; if it is the only one, it needs no name for its files and no label."""

    chart: Chart
    name: str = ""
    label: str = ""  # on the button that shows it


@dataclass(frozen=True)
class FigureSection:
    """A figure: its charts, the most useful first, and a paragraph on how to read them."""

    name: str  # in file names and links
    title: str
    reading: str
    views: Sequence[View]
    note: str = ""  # a sentence about these numbers


@dataclass(frozen=True)
class TableSection:
    """A table without a chart, for example the provenance; `links` are those of the rows, if they have any."""

    name: str
    title: str
    reading: str
    header: TableRow
    rows: Sequence[TableRow]
    links: Sequence[str] = ()


@dataclass(frozen=True)
class MissingSection:
    """A figure whose results are missing: the reason, and the command that makes them, if there is one."""

    name: str
    title: str
    reason: str
    command: str = ""


Section = FigureSection | TableSection | MissingSection


@dataclass(frozen=True)
class Part:
    """A group of sections: one model, a comparison, the provenance."""

    name: str
    title: str
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Report:
    """A whole report: a line about dataset and settings, the most important numbers, and the parts."""

    title: str
    subtitle: str
    facts: tuple[tuple[str, str], ...]  # number, meaning
    parts: tuple[Part, ...]
    languages: tuple[str, ...]
    layers: int

    @property
    def figures(self) -> list[FigureSection]:
        """All figures, in the order of reading."""
        return [section for part in self.parts for section in part.sections if isinstance(section, FigureSection)]

    @property
    def missing(self) -> dict[str, str]:
        """Title of each missing figure → the reason, and the command that makes its results."""
        sections = [section for part in self.parts for section in part.sections if isinstance(section, MissingSection)]
        return {section.title: " ".join(filter(None, [section.reason, section.command])) for section in sections}


class Picture(NamedTuple):
    """One view of a figure to be drawn: its title, the name of its files, and its chart."""

    title: str
    name: str
    chart: Chart


def pictures(report: Report) -> list[Picture]:
    """List every view of every figure, in the order of reading."""
    return [
        Picture(f"{figure.title}: {view.label}" if view.label else figure.title, file_name(figure, view), view.chart)
        for figure in report.figures
        for view in figure.views
    ]


def file_name(figure: FigureSection, view: View) -> str:
    """The name of a view's files, without ending."""
    return f"{figure.name}-{view.name}" if view.name else figure.name


def exact(value: Category) -> str:
    """Write a number for a table or a hover: whole numbers in full, others to six digits.

    >>> exact(458752.0), exact(0.0123456789), exact(float("nan"))
    ('458,752', '0.0123457', '–')
    """
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return short(value)
    text = f"{int(value):,}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:,.6g}"
    return text.replace("-", "−") if "e" not in text else text

"""What a report consists of: figures with a paragraph on how to read them, tables, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..plots.charts import Chart, Key, Row


@dataclass(frozen=True)
class View:
    """One of the ways in which a figure can be looked at.

    Attributes:
        name: in file names; empty where the figure has but one view.
        label: on its button.
        chart: what it shows.
    """

    name: str
    label: str
    chart: Chart


@dataclass(frozen=True)
class FigureSection:
    """A figure.

    Attributes:
        name: in file names and links.
        title: what it shows.
        reading: how to read it, one paragraph.
        views: the ways to look at it, the most useful first.
        note: what these very numbers say, in a sentence; may be empty.
    """

    name: str
    title: str
    reading: str
    views: tuple[View, ...]
    note: str = ""


@dataclass(frozen=True)
class TableSection:
    """A table of its own, such as the provenance."""

    name: str
    title: str
    reading: str
    header: Row
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class MissingSection:
    """A figure that cannot be drawn: why, and the command that makes what it needs, if one does."""

    name: str
    title: str
    reason: str
    command: str = ""


Section = FigureSection | TableSection | MissingSection


@dataclass(frozen=True)
class Part:
    """Sections that belong together: one model, the comparison, the provenance."""

    name: str
    title: str
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes:
        title: the model's name, or both models'.
        subtitle: dataset and settings, in a line.
        rates: top rate and λ of the (first) model's neurons.
        facts: the few numbers that one wants first: (number, what it is).
        parts: in the order of reading.
        languages: codes of all languages that occur.
        layers: decoder layers.
    """

    title: str
    subtitle: str
    rates: tuple[float, float]
    facts: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]
    languages: tuple[str, ...]
    layers: int

    @property
    def figures(self) -> list[FigureSection]:
        """All figures, in the order of reading."""
        return [section for part in self.parts for section in part.sections if isinstance(section, FigureSection)]

    @property
    def missing(self) -> dict[str, str]:
        """Title of each figure that could not be drawn → why, and the command that makes what it needs."""
        sections = [section for part in self.parts for section in part.sections if isinstance(section, MissingSection)]
        return {section.title: " ".join(filter(None, [section.reason, section.command])) for section in sections}


class Picture(NamedTuple):
    """One view of a figure, as it is drawn and stored: its title, the name of its files, and what it shows."""

    title: str
    name: str
    chart: Chart


def pictures(report: Report) -> list[Picture]:
    """Every view of every figure, in the order of reading."""
    return [
        Picture(f"{figure.title}: {view.label}" if view.label else figure.title, file_name(figure, view), view.chart)
        for figure in report.figures
        for view in figure.views
    ]


def single(chart: Chart) -> tuple[View, ...]:
    """The views of a figure that has but one."""
    return (View("", "", chart),)


def file_name(figure: FigureSection, view: View) -> str:
    """The name of a view's files, without ending."""
    return f"{figure.name}-{view.name}" if view.name else figure.name


def exact(value: Key) -> str:
    """A number for a table or a hover: whole ones whole, others to six digits."""
    if isinstance(value, str):
        return value
    if value != value:
        return "–"
    if value in (float("inf"), float("-inf")):
        return "∞" if value > 0 else "−∞"
    text = f"{int(value):,}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:,.6g}"
    return text.replace("-", "−") if "e" not in text else text

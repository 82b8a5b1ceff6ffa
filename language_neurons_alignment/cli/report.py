"""`lna report`: all results on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import parse_languages
from . import options
from .output import result
from .progress import note
from .setup import chosen_neurons, existing_layout

if TYPE_CHECKING:
    from ..findings.reporting import WrittenReport


def report(
    model: options.Model,
    results: options.Results,
    neurons: options.Neurons,
    search: options.Search,
    others: Annotated[
        list[str] | None,
        typer.Argument(help="Models to compare it with, in the order of training.", show_default=False),
    ] = None,
    trained: Annotated[
        str | None,
        typer.Option("--trained", help="Languages that the others were trained on: zh,de."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The page to write.", show_default="reports/… under --root"),
    ] = None,
) -> None:
    """Write one HTML page of all results that a model has, with every figure as PNG, SVG and CSV beside it.

    With other models after it, the page shows how they differ from it. Needs counts or a mask, no model.
    """
    choice, aligned = chosen_neurons(neurons, search), parse_languages(trained) if trained else ()
    from ..findings.reporting import Subject
    from ..findings.reporting import report as write_report

    named = [options.Model(name, model.dataset, model.model_name) for name in (model.model_path, *(others or []))]
    subjects = [Subject(existing_layout(one, results), choice, one.model_path, neurons.mask_only) for one in named]
    written = write_report(subjects, trained=aligned, search=search.range(), out=out)
    for title, remedy in written.report.missing.items():
        note(f"not drawn: {title}. {remedy}")
    result(report_lines(written), report_data(written), as_json=results.as_json)


def report_lines(written: WrittenReport) -> list[str]:
    """Where the page lies, and how many pictures beside it."""
    return [f"{len(written.pictures)} pictures and tables in {written.pictures[0].parent}", "", str(written.page)]


def report_data(written: WrittenReport) -> dict[str, object]:
    """The same, as plain values."""
    return {"page": written.page, "pictures": written.pictures, "missing": written.report.missing}

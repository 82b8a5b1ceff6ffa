"""`lna force`: asked in one language, steered to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..causal.forcing.settings import DEFAULT_STEERING, ForcingSettings
from ..config import DEFAULT_CONTROLS, OVERLONG, check_choice, language_name, parse_languages
from . import options
from .doing_options import Doing
from .effect_output import answer_files, effect_cells, effect_data, effect_header, report_answered, report_matching
from .method_options import By
from .output import result, table
from .progress import Bars, note
from .setup import session_of

if TYPE_CHECKING:
    from ..causal.forcing.force import Forced


def force(
    model: options.Model,
    data: options.Data,
    doing: Doing,
    by: By,
    decoding: options.Decoding,
    results: options.Results,
    engine: options.Engine,
    controls: options.ControlSets = DEFAULT_CONTROLS,
    langs: options.Languages = None,
    targets: Annotated[
        str | None,
        typer.Option("--targets", help="Languages steered to: en,es,fr.", show_default="those asked in"),
    ] = None,
    overlong: options.Overlong = OVERLONG[0],
    force: options.Force = False,
) -> None:
    """Ask in one language, steer to another: how often does the answer come in the other?

    --do names what steers, with `source` for the language asked in and `target` for the other: by default
    "zero source", then "add:target:1 target", which needs the means of `lna activation --moments`. A run that was cut
    off, also by a kill, goes on where it stopped when the same command is given again, and ends with the same files.
    """
    sources = None if langs is None else parse_languages(langs)
    steered = None if targets is None else parse_languages(targets)
    check_choice(overlong, OVERLONG, "--overlong")
    method = by.chosen()
    doing.check_lambda("force", method)
    settings = ForcingSettings(
        do=doing.steps(*DEFAULT_STEERING, method=method).texts,
        classes=options.parse_classes(doing.classes),
        sampling=decoding.sampling(),
        overlong=overlong,
        controls=controls,
    )
    from ..causal.forcing.force import force_languages

    with session_of(model, data, results, engine, existing=True, method=method) as work, Bars() as bars:
        done = force_languages(
            work,
            sources,
            steered,
            top_rate=doing.top_rate,
            lam=doing.lam,
            settings=settings,
            force=force,
            start=bars.start,
        )
    _remarks(done)
    files = map(str, answer_files(done).values())
    result([*forcing_lines(done), "", *files], forcing_data(done), as_json=results.as_json)


def _remarks(done: Forced) -> None:
    """What was there already and what is not as one might think: nothing is silent."""
    whole = sum(map(len, done.seen.values()))
    report_answered(done.answered, whole)
    unclear = sum(seen.count(None) for seen in done.seen.values())
    if unclear:
        note(f"{unclear} of {whole} answers have too few letters to tell their language: they count as in none")
    report_matching(done.matched_by)


def forcing_lines(done: Forced) -> list[str]:
    """Each pair of languages: how often the answer is in the target, with nothing done and steered to it."""
    found, rows = done.table, []
    for i, source in enumerate(done.sources):
        for j, target in enumerate(done.targets):
            row: list[object] = [
                language_name(source),
                language_name(target),
                f"{100 * found.undisturbed[i, j]:.1f} %",
                f"{100 * found.steered[i, j]:.1f} %",
                *effect_cells(found, i, j),
            ]
            rows.append(row)
    return table(["asked in", "steered to", "undisturbed", "steered", *effect_header(found)], rows)


def forcing_data(done: Forced) -> dict[str, Any]:
    """The same as plain values: a row for each language asked in, a column for each steered to."""
    found = done.table
    return {
        "asked": done.sources,
        "targets": done.targets,
        "undisturbed": found.undisturbed.tolist(),
        "steered": found.steered.tolist(),
        "steered_low": found.steered_interval.low.tolist(),
        "steered_high": found.steered_interval.high.tolist(),
        **effect_data(found, done.matched_by),
        "unclear": {cell.name: seen.count(None) for cell, seen in done.seen.items()},
        "answered": done.answered,
        **answer_files(done),
    }

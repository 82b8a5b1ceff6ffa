"""`lna force`: asked in one language, steered to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..causal.forcing.settings import DEFAULT_STEERING, ForcingSettings
from ..config import DEFAULT_CONTROLS, OVERLONG, check_choice, language_name, parse_languages
from ..errors import SettingsError
from . import options
from .doing_options import Doing
from .method_options import By
from .output import result, table
from .progress import Bars, note

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
    if doing.lam is None and method.has_lambda:
        raise SettingsError("force needs the λ of a mask: give -l as it was given to `lna identify`")
    settings = ForcingSettings(
        do=doing.steps(*DEFAULT_STEERING, method=method).texts,
        classes=options.parse_classes(doing.classes),
        sampling=decoding.sampling(),
        overlong=overlong,
        controls=controls,
    )
    from ..causal.forcing.force import force_languages
    from ..session import open_session

    named = {"model_name": model.model_name, "root": results.root, "existing": True, "method": method}
    work = open_session(model.model_path, data, model.dataset, **named, **engine.choices())
    with work, Bars() as bars:
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
    files = {"png": done.png, "csv": done.csv, "json": done.json, "answers": done.answers}
    result([*forcing_lines(done), "", *map(str, files.values())], forcing_data(done), as_json=results.as_json)


def _remarks(done: Forced) -> None:
    """What was there already and what is not as one might think: nothing is silent."""
    whole = sum(map(len, done.seen.values()))
    if done.answered < whole:
        note(f"{whole - done.answered} of {whole} answers were there already (--force answers again)")
    unclear = sum(seen.count(None) for seen in done.seen.values())
    if unclear:
        note(f"{unclear} of {whole} answers have too few letters to tell their language: they count as in none")
    if done.matched_by == "layer":
        note("there are no counts beside the mask, so the controls are matched by layer alone, not by activity")


def forcing_lines(done: Forced) -> list[str]:
    """Each pair of languages: how often the answer is in the target, with nothing done and steered to it."""
    found, rows = done.table, []
    for i, source in enumerate(done.sources):
        for j, target in enumerate(done.targets):
            low, high = found.interval.low[i, j].item(), found.interval.high[i, j].item()
            p = found.p_adjusted[i, j].item()
            row: list[object] = [
                language_name(source),
                language_name(target),
                f"{100 * found.undisturbed[i, j]:.1f} %",
                f"{100 * found.steered[i, j]:.1f} %",
                f"{found.change[i, j]:+.1f} [{low:+.1f}, {high:+.1f}]",
                "<0.001" if p < 0.001 else f"{p:.3f}",
            ]
            if found.control is not None and found.inside is not None:
                row.append(f"{found.control.low[i, j]:+.1f} … {found.control.high[i, j]:+.1f}")
                row.append("within control" if found.inside[i, j] else "")
            rows.append(row)
    control = [] if found.control is None else ["control's range", ""]
    return table(["asked in", "steered to", "undisturbed", "steered", "points [95 %]", "p", *control], rows)


def forcing_data(done: Forced) -> dict[str, Any]:
    """The same as plain values: a row for each language asked in, a column for each steered to."""
    found = done.table
    data: dict[str, Any] = {
        "asked": done.sources,
        "targets": done.targets,
        "undisturbed": found.undisturbed.tolist(),
        "steered": found.steered.tolist(),
        "steered_low": found.steered_interval.low.tolist(),
        "steered_high": found.steered_interval.high.tolist(),
        "change": found.change.tolist(),
        "low": found.interval.low.tolist(),
        "high": found.interval.high.tolist(),
        "p": found.p.tolist(),
        "p_adjusted": found.p_adjusted.tolist(),
        "unclear": {cell.name: seen.count(None) for cell, seen in done.seen.items()},
    }
    if found.control is not None and found.inside is not None:
        data |= {
            "control_low": found.control.low.tolist(),
            "control_high": found.control.high.tolist(),
            "inside_control": found.inside.tolist(),
            "control_matched_by": done.matched_by,
        }
    files = {"png": done.png, "csv": done.csv, "json": done.json, "answers": done.answers}
    return {**data, "answered": done.answered, **files}

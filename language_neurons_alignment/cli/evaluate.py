"""`lna evaluate`: right answers in the right language, with each language's neurons changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..causal.evaluation.settings import MEASURES, EvaluationSettings
from ..config import DEFAULT_CONTROLS, DEFAULT_DO, OVERLONG, check_choice, language_name, parse_languages
from . import options
from .doing_options import Doing
from .effect_output import answer_files, effect_cells, effect_data, effect_header, report_answered, report_matching
from .method_options import By
from .output import result, table
from .progress import Bars, note
from .setup import session_of

if TYPE_CHECKING:
    from ..causal.evaluation.evaluate import Evaluated


def evaluate(
    model: options.Model,
    data: options.Data,
    doing: Doing,
    by: By,
    decoding: options.Decoding,
    results: options.Results,
    engine: options.Engine,
    controls: options.ControlSets = DEFAULT_CONTROLS,
    show: Annotated[str, typer.Option("--show", help=f"What figure and table show: {', '.join(MEASURES)}.")] = MEASURES[
        0
    ],
    langs: options.Languages = None,
    overlong: options.Overlong = OVERLONG[0],
    force: options.Force = False,
) -> None:
    """Let the model answer questions with known numbers, with each language's neurons changed (--do 'zero each').

    Right is the right number in the language of the question. A run that was cut off, also by a kill, goes on where it
    stopped when the same command is given again, and ends with the same files.
    """
    languages = None if langs is None else parse_languages(langs)
    check_choice(overlong, OVERLONG, "--overlong")
    method = by.chosen()
    steps = doing.steps(*DEFAULT_DO, method=method)
    doing.check_lambda("evaluate", method)
    settings = EvaluationSettings(
        do=steps.texts,
        classes=options.parse_classes(doing.classes),
        sampling=decoding.sampling(),
        overlong=overlong,
        controls=controls,
        show=show,
    )
    from ..causal.evaluation.evaluate import evaluate as answer

    with session_of(model, data, results, engine, existing=True, method=method) as work, Bars() as bars:
        done = answer(
            work,
            languages,
            top_rate=doing.top_rate,
            lam=doing.lam,
            settings=settings,
            force=force,
            start=bars.start,
        )
    _remarks(done)
    files = map(str, answer_files(done).values())
    result([*evaluation_table(done), "", *files], evaluation_data(done), as_json=results.as_json)


def _remarks(done: Evaluated) -> None:
    """What was there already and what is not as one might think: nothing is silent."""
    whole = len(done.map.rows) * int(done.map.asked.sum())
    report_answered(done.answered, whole)
    unclear = int(done.map.unclear[0].sum())
    if unclear:
        note(
            f"{unclear} of {int(done.map.asked.sum())} undisturbed answers have too few letters to tell their "
            "language: they do not count as in the right one"
        )
    report_matching(done.matched_by)


def evaluation_table(done: Evaluated) -> list[str]:
    """Each language's own accuracy, undisturbed and changed, with all that the change is held against."""
    shares, found = 100 * done.map.shares(done.measure), done.effects
    rows: list[list[object]] = []
    for k, code in enumerate(done.map.languages):
        r = k if done.selective else 0
        row: list[object] = [
            language_name(code),
            f"{shares[0, k]:.1f} %",
            f"{shares[r + 1, k]:.1f} %",
            *effect_cells(found, r, k),
        ]
        if done.selective:
            row.append(_selectivity(done, k))
        rows.append(row)
    header = [f"{done.measure} in", "undisturbed", "changed", *effect_header(found)]
    return table([*header, *(["selectivity"] if done.selective else [])], rows)


def evaluation_data(done: Evaluated) -> dict[str, Any]:
    """The same for every cell, as plain values."""
    data: dict[str, Any] = {
        "measure": done.measure,
        "languages": done.map.languages,
        "rows": done.map.rows,
        "questions": done.map.asked.sum(dim=-1).tolist(),
        "share": done.map.shares(done.measure).tolist(),
        "unclear": done.map.unclear.sum(dim=-1).tolist(),
        "changed": done.map.changed,
        **effect_data(done.effects, done.matched_by),
    }
    if done.selective:
        score, controls = done.selective.score, done.selective.controls
        data["selectivity"] = {
            "precision": score.precision.tolist(),
            "recall": score.recall.tolist(),
            "f1": score.f1.tolist(),
            "f1_low": done.selective.interval.low.tolist(),
            "f1_high": done.selective.interval.high.tolist(),
            "control_f1": None if controls is None else controls.f1.tolist(),
        }
    return {**data, "answered": done.answered, **answer_files(done)}


def _selectivity(done: Evaluated, k: int) -> str:
    """F1 with its interval, and the largest F1 of its controls."""
    assert done.selective is not None
    chosen = done.selective
    ours = f"{chosen.score.f1[k]:.2f} [{chosen.interval.low[k]:.2f}, {chosen.interval.high[k]:.2f}]"
    return ours if chosen.controls is None else f"{ours}, controls up to {chosen.controls.f1[:, k].max():.2f}"

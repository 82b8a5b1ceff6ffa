"""Commands that change neurons and measure what that does: ppl, evaluate, force, methods."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import EvaluationSettings, ForcingSettings, MapSettings, MethodChoice
from ..languages import language_name, parse_languages
from .options import (
    Data,
    Engine,
    MaskNeurons,
    Model,
    Neurons,
    Overwrite,
    Results,
    answered,
    layout_of,
    only,
    open_session_of,
    stored_lambda,
    with_lambda,
)
from .output import Bars, note, result, table

if TYPE_CHECKING:
    from .._evaluate import Evaluated
    from .._force import Forced
    from .._methods import MethodComparison
    from ..core.effects import Effects
    from ..ppl import MapResult

MARKS = {True: "within control", False: "outside control"}


def ppl(
    model: Model,
    data: Data,
    results: Results,
    engine: Engine,
    settings: MapSettings,
    selection: MaskNeurons,
    overwrite: Overwrite = False,
) -> None:
    """Map how each language's perplexity changes when each language's neurons are switched off.

    Every change comes with its 95 % interval over other texts and, unless --controls is 0, with a random-neuron
    baseline: sets of no language, matched by layer and by activity. Changes within its range are marked. --do replaces
    switching off (`zero each`) by another intervention; `each` is the language of the row, and steps without it make
    one row.

    Example: lna ppl --model-path ./Mistral-7B-v0.1 -s mgsm -d datasets/mgsm.json -r 0.01 -l 0.109375
    """
    selection = with_lambda(selection, model, results, "ppl")
    from ..ppl import perplexity_map

    work = answered(open_session_of(model, data, results, engine, selection=selection, existing=True))
    with work, Bars() as bars:
        drawn = perplexity_map(
            work,
            selection.languages,
            top_rate=selection.top_rate,
            lam=selection.lam,
            settings=settings,
            overwrite=overwrite,
            start=bars.start,
        )
    report_map_reuse(drawn)
    result(
        [*map_table(drawn, settings), "", *map(str, map_files(drawn).values())],
        map_data(drawn),
        as_json=results.as_json,
    )


def map_table(drawn: MapResult, settings: MapSettings) -> list[str]:
    """Each change with its interval and its control's range; then how selective each language's neurons are."""
    effects = _Effects(drawn, settings)
    shown = _own_changes(effects) if drawn.map.by_language else _changes(effects)
    unknown = sum(not cell.likelihoods for cell in drawn.map.cells.values())
    if unknown:
        shown.append(f"{unknown} cells know only their sums, so they have no interval: --force computes them again")
    return [*shown, *_selectivity_table(drawn, settings)]


def map_files(drawn: MapResult) -> dict[str, Any]:
    """Where the map lies."""
    controls = {} if drawn.controls is None else {"controls": drawn.controls}
    return {**controls, "png": drawn.png, "json": drawn.json, "csv": drawn.csv}


def map_data(drawn: MapResult) -> dict[str, Any]:
    """The map as plain values; changes, intervals and ranges are in percent, per token."""
    effects, control = drawn.effects(), None
    if effects.control is not None:
        control = {"sets": len(drawn.map.controls), "matched_by": drawn.matched_by, **_ends(effects.control)}
    return {
        "languages": drawn.map.languages,
        "rows": drawn.map.rows,
        "perplexity": drawn.map.values().tolist(),
        "percent": effects.change.tolist(),
        "interval": _ends(effects.interval),
        "control": control,
        "within_control": None if effects.inside is None else effects.inside.tolist(),
        "selectivity": _selectivity_data(drawn),
        "computed": drawn.computed,
        "controls_computed": drawn.controls_computed,
        **map_files(drawn),
    }


class _Effects:
    """The changes of a map, cell by cell in words."""

    def __init__(self, drawn: MapResult, settings: MapSettings) -> None:
        self.map = drawn.map
        effects = drawn.effects(scale=settings.scale, average=settings.average)
        self.change = effects.change.tolist()
        self._digits, self._unit = (1, "%") if settings.scale == "percent" else (3, "")
        self._interval = [effects.interval.low.tolist(), effects.interval.high.tolist()]
        control = effects.control
        self._control = None if control is None else [control.low.tolist(), control.high.tolist()]
        self._inside = [] if effects.inside is None else effects.inside.tolist()

    def cell(self, i: int, j: int) -> list[object]:
        """Change, interval, control's range, and where the change lies."""
        shown: list[object] = [self.number(i, j), _span(self._interval, i, j, digits=self._digits)]
        if self._control is not None:
            shown += [_span(self._control, i, j, digits=self._digits), MARKS[self._inside[i][j]]]
        return shown

    @property
    def header(self) -> list[str]:
        """Of `cell`, after the change."""
        return ["95 % interval"] if self._control is None else ["95 % interval", "control's range", ""]

    def number(self, i: int, j: int) -> str:
        """A change with its unit."""
        return f"{self.change[i][j]:+.{self._digits}f}{self._unit}"

    def marked(self, i: int, j: int) -> str:
        """A change of another language, and whether it is within control."""
        mark = "" if self._control is None or not self._inside[i][j] else f", {MARKS[True]}"
        return f"{self.number(i, j)} ({language_name(self.map.languages[j])}){mark}"


def _own_changes(effects: _Effects) -> list[str]:
    """Each language's own change, and the largest on any other language."""
    rows = []
    for k, code in enumerate(effects.map.languages):
        others = [j for j in range(len(effects.map.languages)) if j != k]
        worst = max(others, key=lambda j, k=k: effects.change[k][j]) if others else None
        elsewhere = "" if worst is None else effects.marked(k, worst)
        rows.append([language_name(code), *effects.cell(k, k), elsewhere])
    return table(["neurons off", "own perplexity", *effects.header, "largest change elsewhere"], rows)


def _changes(effects: _Effects) -> list[str]:
    """The change of each language's text, row by row."""
    rows = [
        [row, language_name(code), *effects.cell(i, j)]
        for i, row in enumerate(effects.map.changed)
        for j, code in enumerate(effects.map.languages)
    ]
    return table(["row", "text", "perplexity", *effects.header], rows)


def _selectivity_table(drawn: MapResult, settings: MapSettings) -> list[str]:
    """Precision, recall and F1 of each language's neurons, beside what controls reach."""
    found = drawn.selectivity(average=settings.average)
    if found is None:
        return []
    measures = [
        (
            getattr(found, name).tolist(),
            [getattr(found.low, name).tolist(), getattr(found.high, name).tolist()],
        )
        for name in ("precision", "recall", "f1")
    ]
    span = None if found.f1_control is None else [found.f1_control.low.tolist(), found.f1_control.high.tolist()]
    rows = []
    for k, code in enumerate(drawn.map.languages):
        shown = [f"{value[k]:.2f} {_bracketed(ends[0][k], ends[1][k])}".rstrip() for value, ends in measures]
        control = [] if span is None else [_between(span[0][k], span[1][k], "{:.2f}")]
        rows.append([language_name(code), *shown, *control])
    header = ["selectivity", "precision", "recall", "F1", *([] if span is None else ["F1 of controls"])]
    return ["", *table(header, rows)]


def _selectivity_data(drawn: MapResult) -> dict[str, Any] | None:
    found = drawn.selectivity()
    if found is None:
        return None
    return {
        name: {
            "value": _numbers(getattr(found, name)),
            "low": _numbers(getattr(found.low, name)),
            "high": _numbers(getattr(found.high, name)),
            "control": None if found.controls is None else _numbers(getattr(found.controls, name).mean(dim=0)),
        }
        for name in ("precision", "recall", "f1")
    } | {"f1_control": None if found.f1_control is None else _ends(found.f1_control)}


def _ends(interval: Any) -> dict[str, Any]:
    return {"low": _numbers(interval.low), "high": _numbers(interval.high)}


def _numbers(values: Any) -> Any:
    """Nested lists, with null for what JSON has not."""
    if isinstance(values, float):
        return values if math.isfinite(values) else None
    return [_numbers(one) for one in (values if isinstance(values, list) else values.tolist())]


def _span(ends: list[list[list[float]]], i: int, j: int, *, digits: int) -> str:
    return _between(ends[0][i][j], ends[1][i][j], f"{{:+.{digits}f}}")


def _between(low: float, high: float, form: str) -> str:
    """Two ends in words; nothing where there are none."""
    return "–" if math.isnan(low) or math.isnan(high) else f"{form.format(low)} to {form.format(high)}"


def _bracketed(low: float, high: float) -> str:
    return "" if math.isnan(low) or math.isnan(high) else f"[{low:.2f}, {high:.2f}]"


def report_map_reuse(drawn: MapResult) -> None:
    """Say how many cells were there already: doing nothing is never silent."""
    whole = len(drawn.map.rows) * len(drawn.map.languages)
    controls = len(drawn.map.controls) * len(drawn.map.changed) * len(drawn.map.languages)
    for what, there in (("map", whole - drawn.computed), ("map's controls", controls - drawn.controls_computed)):
        if there:
            note(f"{there} cells of the perplexity {what} were there already (--force computes them again)")
    if drawn.controls and drawn.matched_by == "layer":
        note(
            "the controls are matched by layer alone: by activity too where all languages are counted (lna activation)"
        )


def evaluate(
    model: Model,
    data: Data,
    results: Results,
    engine: Engine,
    settings: EvaluationSettings,
    selection: MaskNeurons,
    overwrite: Overwrite = False,
) -> None:
    """Let the model answer questions with known numbers while each language's neurons are changed.

    An answer is right if it gives the right number in the language of the question. A run that was cut off, also by a
    kill, goes on where it stopped when the same command is given again, and ends with the same files.

    Example: lna evaluate --model-path ./Mistral-7B-v0.1 -s mgsm -d datasets/mgsm.json -l 0.109375 --do "zero each"
    """
    selection = with_lambda(selection, model, results, "evaluate")
    from .._evaluate import evaluate as answer

    work = open_session_of(model, data, results, engine, selection=selection, existing=True)
    with work, Bars() as bars:
        done = answer(
            work,
            selection.languages,
            top_rate=selection.top_rate,
            lam=selection.lam,
            settings=settings,
            overwrite=overwrite,
            start=bars.start,
        )
    _evaluation_remarks(done)
    files = map(str, answer_files(done).values())
    result([*evaluation_table(done), "", *files], evaluation_data(done), as_json=results.as_json)


def _evaluation_remarks(done: Evaluated) -> None:
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
        score, low, high, controls = done.selective, done.selective.low, done.selective.high, done.selective.controls
        data["selectivity"] = {
            "precision": score.precision.tolist(),
            "recall": score.recall.tolist(),
            "f1": score.f1.tolist(),
            "f1_low": None if low is None else low.f1.tolist(),
            "f1_high": None if high is None else high.f1.tolist(),
            "control_f1": None if controls is None else controls.f1.tolist(),
        }
    return {**data, "answered": done.answered, **answer_files(done)}


def _selectivity(done: Evaluated, k: int) -> str:
    """F1 with its interval, and the largest F1 of its controls."""
    assert done.selective is not None
    chosen = done.selective
    assert chosen.low is not None
    assert chosen.high is not None
    ours = f"{chosen.f1[k]:.2f} [{chosen.low.f1[k]:.2f}, {chosen.high.f1[k]:.2f}]"
    return ours if chosen.controls is None else f"{ours}, controls up to {chosen.controls.f1[:, k].max():.2f}"


def force(
    model: Model,
    data: Data,
    results: Results,
    engine: Engine,
    settings: ForcingSettings,
    selection: MaskNeurons,
    targets: Annotated[
        str | None,
        typer.Option("--targets", help="Languages steered to: en,es,fr.", show_default="those asked in"),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Ask in one language, steer to another, and count how often the answer comes in the other.

    --do names the steps that steer, with `source` for the language asked in and `target` for the other. The default
    needs the means of `lna activation --moments`. A run that was cut off, also by a kill, goes on where it stopped when
    the same command is given again, and ends with the same files.

    Example: lna force --model-path ./Mistral-7B-v0.1 -s mgsm -d datasets/mgsm.json -l 0.109375 --langs en --targets fr
    """
    steered = None if targets is None else parse_languages(targets)
    selection = with_lambda(selection, model, results, "force")
    from .._force import force_languages

    work = open_session_of(model, data, results, engine, selection=selection, existing=True)
    with work, Bars() as bars:
        done = force_languages(
            work,
            selection.languages,
            steered,
            top_rate=selection.top_rate,
            lam=selection.lam,
            settings=settings,
            overwrite=overwrite,
            start=bars.start,
        )
    _force_remarks(done)
    files = map(str, answer_files(done).values())
    result([*forcing_lines(done), "", *files], forcing_data(done), as_json=results.as_json)


def _force_remarks(done: Forced) -> None:
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


def effect_header(found: Effects) -> list[str]:
    """What stands over the columns of `effect_cells`."""
    return ["points [95 %]", "p", *([] if found.control is None else ["control's range", ""])]


def effect_cells(found: Effects, row: int, column: int) -> list[object]:
    """One change with its interval, its p value, and its control's range where there are controls."""
    at = row, column
    assert found.p_adjusted is not None  # answers are compared question by question
    p = found.p_adjusted[at].item()
    cells: list[object] = [
        f"{found.change[at]:+.1f} [{found.interval.low[at]:+.1f}, {found.interval.high[at]:+.1f}]",
        "<0.001" if p < 0.001 else f"{p:.3f}",
    ]
    if found.control is not None and found.inside is not None:
        cells.append(f"{found.control.low[at]:+.1f} … {found.control.high[at]:+.1f}")
        cells.append("within control" if found.inside[at] else "")
    return cells


def effect_data(found: Effects, matched_by: str | None) -> dict[str, Any]:
    """The same for every cell, as plain values."""
    assert found.p is not None
    assert found.p_adjusted is not None
    data: dict[str, Any] = {
        "change": found.change.tolist(),
        "low": found.interval.low.tolist(),
        "high": found.interval.high.tolist(),
        "p": found.p.tolist(),
        "p_adjusted": found.p_adjusted.tolist(),
    }
    if found.control is not None and found.inside is not None:
        data |= {
            "control_low": found.control.low.tolist(),
            "control_high": found.control.high.tolist(),
            "inside_control": found.inside.tolist(),
            "control_matched_by": matched_by,
        }
    return data


def answer_files(done: Evaluated | Forced) -> dict[str, Any]:
    """Where all lies."""
    return {"png": done.png, "csv": done.csv, "json": done.json, "answers": done.answers}


def report_answered(answered: int, whole: int) -> None:
    """Say how many answers were there already: doing nothing is never silent."""
    if answered < whole:
        note(f"{whole - answered} of {whole} answers were there already (--force answers again)")


def report_matching(matched_by: str | None) -> None:
    """Say so where controls have less in common with what they are controls for than they might."""
    if matched_by == "layer":
        note("there are no counts beside the mask, so the controls are matched by layer alone, not by activity")


def methods(
    model: Model,
    data: Data,
    results: Results,
    engine: Engine,
    selection: Neurons,
    choice: MethodChoice,
    settings: Annotated[MapSettings, only("classes", "text", "overlong")],
    overwrite: Overwrite = False,
) -> None:
    """Compare ways to find language neurons: switch each method's neurons off and see which language suffers.

    Each method finds its neurons from the same counts, at the same top rate and bar; each language's are switched off,
    and the change of perplexity is measured. Results of `lna identify --method` and `lna ppl --method` are reused.

    Example: lna methods --model-path ./Mistral-7B-v0.1 -s mgsm -d datasets/mgsm.json --methods entropy-lambda,lape
    """
    stored_lambda(selection, layout_of(model, results))
    from .._methods import compare_methods

    alone = replace(settings, controls=0)  # random is one of the methods
    work = answered(open_session_of(model, data, results, engine, existing=True))
    with work, Bars() as bars:
        done = compare_methods(
            work,
            choice.selections(),
            selection=selection,
            settings=alone,
            overwrite=overwrite,
            start=bars.start,
        )
    for name, why in done.left_out.items():
        note(f"{name} is left out, for there are {why}")
    there = sum(len(one.map.rows) * len(one.map.languages) - one.computed for one in done.maps)
    if there:
        note(f"{there} cells of the perplexity maps were there already (--force computes them again)")
    result(
        [f"λ of entropy-lambda = {done.lam!r}", "", *method_lines(done), "", *map(str, done.files)],
        {"lambda": done.lam, **done.table.columns(), "left_out": done.left_out, "files": done.files},
        as_json=results.as_json,
    )


def method_lines(done: MethodComparison) -> list[str]:
    """One line a method: sizes, what happens to the language and to the others, selectivity, overlap."""
    columns = done.table.columns()
    rows: list[list[object]] = [
        [
            name,
            f"{columns['neurons'][i]:.0f}",
            _with_interval(columns, "own", i, "+.1f"),
            _with_interval(columns, "elsewhere", i, "+.1f"),
            _with_interval(columns, "f1", i, ".3f"),
            f"{columns['jaccard'][i]:.3f}",
        ]
        for i, name in enumerate(done.table.methods)
    ]
    header = ["method", "neurons", "own change [%]", "change elsewhere [%]", "selectivity F1", "Jaccard"]
    return [
        *table(header, rows),
        "means over languages, with 95 % intervals over texts; Jaccard: with the entropy-lambda mask",
    ]


def _with_interval(columns: dict[str, list[float]], name: str, row: int, how: str) -> str:
    value, low, high = (columns[key][row] for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value:{how}} [{low:{how}}, {high:{how}}]"

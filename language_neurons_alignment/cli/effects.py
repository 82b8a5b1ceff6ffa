"""Commands that change neurons and measure what that does: ppl, evaluate, force, methods, lens."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from .._operations import Steps
from ..config import Changes, EvaluationSettings, ForcingSettings, LensSettings, MapSettings, MethodChoice, Selection
from ..errors import SettingsError
from ..languages import language_name, parse_languages
from .options import (
    MaskNeurons,
    Model,
    Neurons,
    Overwrite,
    Results,
    Setup,
    answered,
    layout_of,
    only,
    option_of,
    with_lambda,
)
from .output import Bars, note, notes, result, table

if TYPE_CHECKING:
    from .._evaluate import Evaluated
    from .._force import Forced
    from .._lens import LensResult
    from .._methods import MethodComparison
    from .._session import Session
    from ..core.effects import Effects, Selectivity
    from ..ppl import MapResult

MEASURES = ("precision", "recall", "f1")
Done = TypeVar("Done")


def _measure(
    step: Callable[..., Done], work: Session, selection: Selection, *targets: Any, settings: Any, overwrite: bool
) -> Done:
    """Run a step on the neurons of a mask."""
    rates = {"top_rate": selection.top_rate, "lam": selection.lam}
    with work, Bars() as bars:
        return step(
            work, selection.languages, *targets, **rates, settings=settings, overwrite=overwrite, start=bars.start
        )


def ppl(setup: Setup, settings: MapSettings, selection: MaskNeurons, overwrite: Overwrite = False) -> None:
    """Map how each language's perplexity changes when each language's neurons are switched off.

    Every change comes with its 95 % interval over other texts and, unless --controls is 0, with a random-neuron
    baseline: sets of no language, matched by layer and by activity. Changes within its range are marked. --do replaces
    switching off (`zero each`) by another intervention; `each` is the language of the row, and steps without it make
    one row.

    Example: lna ppl --model-path ./Mistral-7B-v0.1 -s mgsm -d datasets/mgsm.json -r 0.01 -l 0.109375
    """
    selection = with_lambda(selection, setup.model, setup.results, "ppl")
    from ..ppl import perplexity_map

    work = answered(setup.open(selection, existing=True))
    drawn = _measure(perplexity_map, work, selection, settings=settings, overwrite=overwrite)
    notes(drawn.notes)
    report_map_reuse(drawn)
    result(setup.results.as_json, map_data(drawn), *map_tables(drawn, settings), map_files(drawn).values())


def map_tables(drawn: MapResult, settings: MapSettings) -> list[list[str]]:
    """Each change with its interval and its control's range; then how selective each language's neurons are."""
    found = drawn.effects(scale=settings.scale, average=settings.average)
    form = "+.1f" if settings.scale == "percent" else "+.3f"
    unit = "%" if settings.scale == "percent" else ""
    languages, rows = drawn.map.languages, []
    if drawn.map.by_language:
        for k, code in enumerate(languages):
            others = [j for j in range(len(languages)) if j != k]
            elsewhere = ""
            if others:
                worst = max(others, key=lambda j, k=k: float(found.change[k, j]))
                inside = found.inside is not None and found.inside[k, worst]
                elsewhere = f"{found.change[k, worst]:{form}}{unit} ({language_name(languages[worst])})"
                elsewhere += ", within control" if inside else ""
            rows.append([language_name(code), *effect_cells(found, k, k, form, unit), elsewhere])
        shown = table(["neurons off", *effect_header(found, "own perplexity"), "largest change elsewhere"], rows)
    else:
        rows = [
            [row, language_name(code), *effect_cells(found, i, j, form, unit)]
            for i, row in enumerate(drawn.map.changed)
            for j, code in enumerate(languages)
        ]
        shown = table(["row", "text", *effect_header(found, "perplexity")], rows, keys=2)
    unknown = sum(not cell.likelihoods for cell in drawn.map.cells.values())
    if unknown:
        shown.append(f"{unknown} cells know only their sums, so they have no interval: --force computes them again")
    selective = drawn.selectivity(average=settings.average)
    if selective is None:
        return [shown]
    span = selective.f1_control
    rows = [
        [language_name(code), *(_score(selective, name, k) for name in MEASURES)]
        + ([] if span is None else [_between(span.low[k], span.high[k], ".2f")])
        for k, code in enumerate(languages)
    ]
    header = ["selectivity", "precision", "recall", "F1", *([] if span is None else ["F1 of controls"])]
    return [shown, table(header, rows)]


def map_files(drawn: MapResult) -> dict[str, Any]:
    """Where the map lies."""
    controls = {} if drawn.controls is None else {"controls": drawn.controls}
    return {**controls, "png": drawn.png, "json": drawn.json, "csv": drawn.csv}


def map_data(drawn: MapResult) -> dict[str, Any]:
    """The map for JSON; changes, intervals and ranges are in percent, per token."""
    effects, selective, control = drawn.effects(), drawn.selectivity(), None
    if effects.control is not None:
        control = {"sets": len(drawn.map.controls), "matched_by": drawn.matched_by, **vars(effects.control)}
    return {
        "languages": drawn.map.languages,
        "rows": drawn.map.rows,
        "perplexity": drawn.map.values(),
        "percent": effects.change,
        "interval": effects.interval,
        "control": control,
        "within_control": effects.inside,
        "selectivity": None if selective is None else _selectivity_data(selective),
        "computed": drawn.computed,
        "controls_computed": drawn.controls_computed,
        "notes": drawn.notes,
        **map_files(drawn),
    }


def _selectivity_data(found: Selectivity) -> dict[str, Any]:
    def of(name: str) -> dict[str, Any]:
        control = None if found.controls is None else getattr(found.controls, name).mean(dim=0)
        ends = {"low": getattr(found.low, name), "high": getattr(found.high, name)}
        return {"value": getattr(found, name), **ends, "control": control}

    return {**{name: of(name) for name in MEASURES}, "f1_control": found.f1_control}


def _score(found: Selectivity, name: str, k: int) -> str:
    """One measure of selectivity with its interval."""
    value, low, high = (getattr(one, name)[k] for one in (found, found.low, found.high))
    return f"{value:.2f}" if math.isnan(low) or math.isnan(high) else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _between(low: Any, high: Any, form: str) -> str:
    return "–" if math.isnan(low) or math.isnan(high) else f"{low:{form}} to {high:{form}}"


def effect_header(found: Effects, change: str = "") -> list[str]:
    """What stands over the columns of `effect_cells`."""
    first = [change, "95 % interval"] if found.p_adjusted is None else ["points [95 %]", "p"]
    return [*first, *([] if found.control is None else ["control's range", ""])]


def effect_cells(found: Effects, i: int, j: int, form: str = "+.1f", unit: str = "") -> list[str]:
    """One change and its interval, its p value where there is a test, its control's range where there are controls."""
    change, low, high = (one[i, j] for one in (found.change, found.interval.low, found.interval.high))
    if found.p_adjusted is None:
        cells = [f"{change:{form}}{unit}", _between(low, high, form)]
    else:
        p = found.p_adjusted[i, j]
        cells = [f"{change:{form}} [{low:{form}}, {high:{form}}]", "<0.001" if p < 0.001 else f"{p:.3f}"]
    if found.control is not None and found.inside is not None:
        cells.append(_between(found.control.low[i, j], found.control.high[i, j], form))
        cells.append("within control" if found.inside[i, j] else "outside control")
    return cells


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


def evaluate(setup: Setup, settings: EvaluationSettings, selection: MaskNeurons, overwrite: Overwrite = False) -> None:
    """Let the model answer questions with known numbers while each language's neurons are changed.

    An answer is right if it gives the right number in the language of the question. A run that was cut off, also by a
    kill, goes on where it stopped when the same command is given again, and ends with the same files.

    Example: lna evaluate --model-path ./Mistral-7B-v0.1 -s mgsm -d datasets/mgsm.json -l 0.109375 --do "zero each"
    """
    selection = with_lambda(selection, setup.model, setup.results, "evaluate")
    from .._evaluate import evaluate as answer

    work = setup.open(selection, existing=True)
    done = _measure(answer, work, selection, settings=settings, overwrite=overwrite)
    asked, unclear = int(done.map.asked.sum()), int(done.map.unclear[0].sum())
    _answer_remarks(done, len(done.map.rows) * asked)
    if unclear:
        note(
            f"{unclear} of {asked} undisturbed answers have too few letters to tell their language: they do not count "
            "as in the right one"
        )
    files = _answer_files(done)
    result(setup.results.as_json, {**evaluation_data(done), **files}, evaluation_table(done), files.values())


def evaluation_table(done: Evaluated) -> list[str]:
    """Each language's own accuracy, undisturbed and changed, with all that the change is held against."""
    shares, selective, rows = 100 * done.map.shares(done.measure), done.selective, []
    for k, code in enumerate(done.map.languages):
        r = k if selective else 0
        before, after = (f"{share:.1f} %" for share in (shares[0, k], shares[r + 1, k]))
        rows.append([language_name(code), before, after, *effect_cells(done.effects, r, k)])
        if selective:
            controls = "" if selective.controls is None else f", controls up to {selective.controls.f1[:, k].max():.2f}"
            rows[-1].append(_score(selective, "f1", k) + controls)
    header = [f"{done.measure} in", "undisturbed", "changed", *effect_header(done.effects)]
    return table([*header, *(["selectivity"] if selective else [])], rows)


def evaluation_data(done: Evaluated) -> dict[str, Any]:
    """The same for every cell, for JSON."""
    data: dict[str, Any] = {
        "measure": done.measure,
        "languages": done.map.languages,
        "rows": done.map.rows,
        "questions": done.map.asked.sum(dim=-1),
        "share": done.map.shares(done.measure),
        "unclear": done.map.unclear.sum(dim=-1),
        "changed": done.map.changed,
        **effect_data(done.effects, done.matched_by),
    }
    if done.selective:
        parts = {"f1_low": done.selective.low, "f1_high": done.selective.high, "control_f1": done.selective.controls}
        data["selectivity"] = {name: getattr(done.selective, name) for name in MEASURES}
        data["selectivity"] |= {name: getattr(part, "f1", None) for name, part in parts.items()}
    return {**data, "answered": done.answered, "notes": done.notes}


def force(
    setup: Setup,
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
    selection = with_lambda(selection, setup.model, setup.results, "force")
    from .._force import force_languages

    work = setup.open(selection, existing=True)
    done = _measure(force_languages, work, selection, steered, settings=settings, overwrite=overwrite)
    whole, unclear = sum(map(len, done.seen.values())), sum(seen.count(None) for seen in done.seen.values())
    _answer_remarks(done, whole)
    if unclear:
        note(f"{unclear} of {whole} answers have too few letters to tell their language: they count as in none")
    files = _answer_files(done)
    result(setup.results.as_json, {**forcing_data(done), **files}, forcing_table(done), files.values())


def forcing_table(done: Forced) -> list[str]:
    """Each pair of languages: how often the answer is in the target, undisturbed and steered to it."""
    found, rows = done.table, []
    for i, source in enumerate(done.sources):
        for j, target in enumerate(done.targets):
            shares = (f"{100 * share[i, j]:.1f} %" for share in (found.undisturbed, found.steered))
            rows.append([language_name(source), language_name(target), *shares, *effect_cells(found, i, j)])
    return table(["asked in", "steered to", "undisturbed", "steered", *effect_header(found)], rows, keys=2)


def forcing_data(done: Forced) -> dict[str, Any]:
    """The same for JSON: a row for each language asked in, a column for each steered to."""
    found = done.table
    return {
        "asked": done.sources,
        "targets": done.targets,
        "undisturbed": found.undisturbed,
        "steered": found.steered,
        "steered_low": found.steered_interval.low,
        "steered_high": found.steered_interval.high,
        **effect_data(found, done.matched_by),
        "unclear": {cell.name: seen.count(None) for cell, seen in done.seen.items()},
        "answered": done.answered,
        "notes": done.notes,
    }


def effect_data(found: Effects, matched_by: str | None) -> dict[str, Any]:
    """The effects of all cells, for JSON."""
    data = {"change": found.change, **vars(found.interval), "p": found.p, "p_adjusted": found.p_adjusted}
    if found.control is None:
        return data
    ends = {"control_low": found.control.low, "control_high": found.control.high}
    return {**data, **ends, "inside_control": found.inside, "control_matched_by": matched_by}


def _answer_files(done: Evaluated | Forced) -> dict[str, Any]:
    return {"png": done.png, "csv": done.csv, "json": done.json, "answers": done.answers}


def _answer_remarks(done: Evaluated | Forced, whole: int) -> None:
    """Say what a reader must know, and how many of all answers were there already."""
    notes(done.notes)
    if done.answered < whole:
        note(f"{whole - done.answered} of {whole} answers were there already (--force answers again)")
    if done.matched_by == "layer":
        note("there are no counts beside the mask, so the controls are matched by layer alone, not by activity")


def methods(
    setup: Setup,
    selection: Neurons,
    choice: MethodChoice,
    settings: Annotated[MapSettings, only("classes", "text", "overlong", "title")],
    overwrite: Overwrite = False,
) -> None:
    """Compare ways to find language neurons: switch each method's neurons off and see which language suffers.

    Each method finds its neurons from the same counts, at the same top rate and bar; each language's are switched off,
    and the change of perplexity is measured. Results of `lna identify --method` and `lna ppl --method` are reused.

    Example: lna methods --model-path ./Mistral-7B-v0.1 -s mgsm -d datasets/mgsm.json --methods entropy-lambda,lape
    """
    layout_of(setup.model, setup.results, lambda_of=selection)
    from .._methods import compare_methods

    alone = replace(settings, controls=0)  # random is one of the methods
    with answered(setup.open(existing=True)) as work, Bars() as bars:
        done = compare_methods(
            work, choice.selections(), selection=selection, settings=alone, overwrite=overwrite, start=bars.start
        )
    notes(done.notes)
    for name, why in done.left_out.items():
        note(f"{name} is left out because there are {why}")
    there = sum(len(one.map.rows) * len(one.map.languages) - one.computed for one in done.maps)
    if there:
        note(f"{there} cells of the perplexity maps were there already (--force computes them again)")
    data = {
        "lambda": done.lam,
        **done.table.columns(),
        "left_out": done.left_out,
        "notes": done.notes,
        "files": done.files,
    }
    result(setup.results.as_json, data, f"λ of entropy-lambda = {done.lam!r}", method_lines(done), done.files)


def method_lines(done: MethodComparison) -> list[str]:
    """One line a method: sizes, what happens to the language and to the others, selectivity, overlap."""
    columns = done.table.columns()

    def shown(name: str, i: int, form: str) -> str:
        value, low, high = (columns[key][i] for key in (name, f"{name}_low", f"{name}_high"))
        return f"{value:{form}} [{low:{form}}, {high:{form}}]"

    rows = [
        [
            name,
            f"{columns['neurons'][i]:.0f}",
            *(shown(part, i, form) for part, form in (("own", "+.1f"), ("elsewhere", "+.1f"), ("f1", ".3f"))),
            f"{columns['jaccard'][i]:.3f}",
        ]
        for i, name in enumerate(done.table.methods)
    ]
    header = ["method", "neurons", "own change [%]", "change elsewhere [%]", "selectivity F1", "Jaccard"]
    return [
        *table(header, rows),
        "means over languages, with 95 % intervals over texts; Jaccard: with the entropy-lambda mask",
    ]


LensNeurons = Annotated[
    Selection, only("top_rate", lam="the mask's, if there is only one", languages="those of the corpus")
]


def lens(setup: Setup, settings: LensSettings, selection: LensNeurons) -> None:
    """Show in which language each layer would answer: the logit lens, by language of the text.

    Behind every layer the model's own end (final norm and unembedding) turns what the layer gives into a probability of
    every token. Tokens are assigned to languages from the corpus, with lingua as a fallback; how often that is right is
    measured on held-out text. With --do the same is read under an intervention, where `each` is the language of the
    text. transformers alone.

    Example: lna lens --model-path ./Mistral-7B-v0.1 -s mgsm -d datasets/mgsm.json --do "zero each"
    """
    layout_of(setup.model, setup.results, lambda_of=selection)
    if Steps.parse(settings.do).needs_mask:
        selection = with_lambda(selection, setup.model, setup.results, f"--do {settings.do[0]!r}")
    from .._lens import lens as read

    with answered(setup.open(existing=True)) as work, Bars() as bars:
        done = read(work, selection.languages, selection=selection, settings=settings, start=bars.start)
    notes(done.notes)
    result(setup.results.as_json, lens_data(done), token_lines(done), *role_tables(done), pivot_lines(done), done.files)


def token_lines(done: LensResult) -> list[str]:
    """How far the assignment of tokens to languages is right on held-out text."""
    columns = done.tokens.columns()
    rows = [
        [language_name(code), size, _percent(accuracy), _percent(coverage)]
        for code, size, accuracy, coverage in zip(
            *(columns[name] for name in ("language", "tokens", "accuracy", "coverage")), strict=True
        )
    ]
    rows.append(
        [
            "all",
            int((done.tokens.group < len(columns["language"])).sum()),
            _percent(done.tokens.accuracy),
            _percent(done.tokens.coverage),
        ]
    )
    return table(["tokens of", "in the vocabulary", "right on held-out text", "assigned there"], rows)


def role_tables(done: LensResult) -> list[list[str]]:
    """Layer by layer, under each condition: the mean shares over the languages but the pivot."""
    shown = []
    for name, one in done.conditions.items():
        values, ends = one.roles()
        rows = [
            [layer, *(f"{_percent(v)} [{100 * a:.1f}, {100 * b:.1f}]" for v, a, b in zip(*row, strict=True))]
            for layer, row in enumerate(zip(values.tolist(), ends.low.tolist(), ends.high.tolist(), strict=True))
        ]
        pivot = "no pivot" if one.pivot is None else language_name(one.pivot)
        shown.append(
            [name, *table(["layer", "own language", pivot, "other languages", "ambiguous", "no letters"], rows)]
        )
    return shown


def pivot_lines(done: LensResult) -> list[str]:
    """Where each language's texts are read in the pivot."""
    if done.lens.pivot is None:
        return []
    columns = done.pivot_columns()
    rows = []
    for condition, code, begin, end, peak, share, own, low, high in zip(*columns.values(), strict=True):
        run = "nowhere" if begin is None else f"{begin} to {end}"
        rows.append(
            [
                condition,
                language_name(code),
                run,
                f"{_percent(share)} [{100 * low:.1f}, {100 * high:.1f}]",
                peak,
                _percent(own),
            ]
        )
    pivot = language_name(done.lens.pivot)
    return table(
        ["condition", "texts in", f"read in {pivot} in layers", f"largest share of {pivot}", "in layer", "own there"],
        rows,
    )


def lens_data(done: LensResult) -> dict[str, Any]:
    """The same for JSON, with every layer and measure."""
    return {
        "languages": done.lens.languages,
        "groups": done.lens.groups,
        "positions": [int(one.sum()) for one in done.lens.positions],
        "token_accuracy": done.tokens.accuracy,
        "token_coverage": done.tokens.coverage,
        **done.tables(),
        "stages": done.cuts,
        "notes": done.notes,
        "files": done.files,
    }


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def export_model(
    model_path: Annotated[str, typer.Option("--model-path", help="Model folder or hub id.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write; there must be none.", show_default=False)],
    changes: Changes,
    selection: Annotated[Selection, only("top_rate", "lam", "method", "neurons", "seed")],
    results: Results,
    dataset: Annotated[
        str | None, typer.Option("-s", "--dataset", help="Dataset of the mask.", show_default="none: sets from files")
    ] = None,
    model_name: Annotated[str | None, option_of(Model, "model_name")] = None,
) -> None:
    """Fold an intervention into a model's weights, and write an ordinary checkpoint that any engine runs.

    `zero` and `scale` multiply columns of the down projections. Steps that shift activations can be folded only where a
    plain MLP's down projection has a bias. Config, tokenizer and chat template are copied, and lna_export.json in the
    folder says what was folded.

    Example: lna export-model --model-path ./Mistral-7B-v0.1 -s mgsm -l 0.109375 --do "zero fr" -o ./Mistral-without-fr
    """
    from .._export import export_model as export
    from .._interventions import NeuronSource
    from .._operations import Steps
    from ..store.checkpoint import fetch_config, read_checkpoint
    from ..store.masks import open_mask

    steps, layout, mask = Steps.parse(changes.do), None, None
    fetch_config(model_path)
    checkpoint = read_checkpoint(model_path)
    if dataset is not None:
        model = Model(model_path, dataset, model_name)
        if steps.needs_mask:
            selection = with_lambda(selection, model, results, f"--do {steps.texts[0]!r}")
        layout = layout_of(model, results).by(selection)
        if steps.needs_mask:
            mask = open_mask(layout, top_rate=selection.top_rate, lam=selection.lam, checkpoint=checkpoint)
    elif steps.needs_mask:
        raise SettingsError(f"--do {steps.texts[0]!r} names a language of a mask: give the mask's dataset, -s")
    source = NeuronSource.open(layout, steps, mask=mask, classes=changes.classes, checkpoint=checkpoint)
    done = export(model_path, steps, source, out)
    rows = [[layer, count] for layer, count in done.neurons.items()]
    result(results.as_json, vars(done), table(["layer", "neurons folded"], rows), [str(done.folder), str(done.note)])

"""Accuracy under interventions: right number in the right language, with each language's neurons changed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor

from ._generate import answer_prompts, questions_of
from ._grid import NONE, Condition, Conditions, conditions_of, missing
from ._session import Session
from ._steps import Steps
from .config import DEFAULT_DO, DEFAULT_EVALUATION, MEASURES, EvaluationSettings
from .core.accuracy import AccuracyMap, accuracy_effects, accuracy_selectivity
from .core.effects import Effects, Selectivity
from .core.model import StartProgress, silent
from .corpus.grading import answer_line, check_answerable, grade
from .corpus.records import Record
from .plots.draw import write_png
from .plots.figures import accuracy_heatmap
from .store.answers import LETTERS, AnswerGrid, alone, evaluation_grid, save_evaluation
from .store.files import Json, digest_of, save_pictures
from .store.grid import Key, merged, precision_of
from .store.layout import with_ending
from .store.masks import open_mask

HEADER = (
    "row", "language", "questions", "right", "unclear", "share", "change", "low", "high", "p", "p_adjusted",
    "control_low", "control_high", "inside_control",
)  # fmt: skip
"""Shares and changes in percentage points; low and high are the ends of the 95 % interval of the change."""


@dataclass(frozen=True)
class Evaluated:
    """A finished evaluation and its files.

    Attributes:
        map: every answer's outcome.
        measure: what is shown.
        effects: of that measure.
        selective: of that measure; None where rows are not languages.
        matched_by: what the controls are matched by; None without controls.
        json: every cell with its outcomes, and what they were made from.
        csv: the table.
        png: the heatmap.
        answers: a folder with a file for each row, an answer a line.
        answered: answers that this run made; the others were there.
    """

    map: AccuracyMap
    measure: str
    effects: Effects
    selective: Selectivity | None
    matched_by: str | None
    json: Path
    csv: Path
    png: Path
    answers: Path
    answered: int


def evaluate(
    session: Session,
    languages: Sequence[str] | None = None,
    *,
    top_rate: float,
    lam: float | None,
    settings: EvaluationSettings = DEFAULT_EVALUATION,
    overwrite: bool = False,
    start: StartProgress = silent,
) -> Evaluated:
    """Let the model answer every question under every condition, and count the right answers.

    Conditions are: nothing changed, each language's neurons changed, and random controls of each. Finished rows are
    kept. A run that was cut off, also by a kill, goes on where it stopped when it is started again, and ends with the
    same files.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "corpus.json", "toy") as session:
    ...     counted = [lna.collect_activations(session, code) for code in ("en", "es", "fr")]
    ...     found = lna.identify.identify(session.layout, ("en", "es", "fr"), lna.config.Selection(0.1, 0.0, 0.8))
    >>> settings = EvaluationSettings(sampling=lna.config.Sampling(max_new_tokens=2), controls=0)
    >>> with lna.open_session("model", "questions.json", "toy") as session:
    ...     done = evaluate(session, top_rate=0.1, lam=0.0, settings=settings)
    >>> tuple(done.effects.change.shape)  # percentage points [neurons off, language of the question]
    (3, 3)

    Args:
        session: model, place, and a corpus whose records have targets.
        languages: asked in, and changed; None for all languages of the mask.
        top_rate: of the mask.
        lam: λ of the mask; None for a method without λ.
        settings: what is done, how answers are drawn, what is shown.
        overwrite: answer everything again; the old answers stay until all are finished.
        start: gives the progress bar.

    Raises:
        CorpusError: questions without known numbers, or that are too long.
        SettingsError: a language that the mask does not have or that cannot be identified, or impossible steps.
        MissingArtifactError: there is no such mask, or no means that the steps need.
        IncompatibleError: the mask is another model's.
        ConflictError: the files hold answers made from something else, and not `overwrite`.
    """
    # read
    session.layout.selection.at(top_rate, lam)
    steps = Steps.parse(settings.do)
    layout, seed = session.layout, settings.sampling.seed
    mask = open_mask(layout, top_rate=top_rate, lam=lam, checkpoint=session.checkpoint)
    chosen = tuple(languages or mask.languages)
    if steps.words:
        mask.check_languages(chosen)
    records = {language: session.corpus.of_language(language) for language in chosen}
    check_answerable([record for of_language in records.values() for record in of_language])
    conditions = Conditions.open(session, mask, steps, classes=settings.classes, sets=settings.controls, seed=seed)

    # list the cells
    rows = conditions.rows(chosen)
    listed = conditions_of(rows, settings.controls)
    cells = [(condition, text) for condition in listed for text in chosen]
    path = layout.evaluation(top_rate, lam, variant=settings.variant + steps.variant(DEFAULT_DO))
    file = evaluation_grid(path, _wanted(cells, conditions, records, session, settings), overwrite=overwrite)
    with alone(file.json):
        done = file.read(engine=session.source.explicit)
        file.drop_spent_journals(done)
        todo = missing(cells, done)

        # run
        answered = 0
        if todo:
            answered = _answer(file, todo, conditions, records, session, settings, overwrite=overwrite, start=start)

        # write
        if file.finish():
            save_evaluation(path, file.cells())
        result = _accuracy_map(file.read(), listed, chosen)

        # draw
        found = accuracy_effects(result, settings.show, seed=seed)
        figure = accuracy_heatmap(result, found, settings.show, title=layout.model, done=", ".join(steps.texts))
        name = path if settings.show == MEASURES[0] else with_ending(path, f".{settings.show}")
        table = table_rows(result, found, settings.show)
        writers = {".png": lambda opened: write_png(figure, opened)}
        png, csv = save_pictures(name, writers, header=HEADER, rows=table)
    return Evaluated(
        result,
        settings.show,
        found,
        accuracy_selectivity(result, settings.show, seed=seed) if steps.words else None,
        None if conditions.controls is None else conditions.controls.matched_by,
        file.json,
        csv,
        png,
        file.answers,
        answered,
    )


def _wanted(
    cells: Sequence[tuple[Condition, str]],
    conditions: Conditions,
    records: Mapping[str, Sequence[Record]],
    session: Session,
    settings: EvaluationSettings,
) -> dict[Key, Json]:
    """Return what decides the outcomes of each cell."""
    whole = {
        "sampling": settings.sampling.plain(),
        "overlong_policy": settings.overlong,
        "config_hash": session.checkpoint.config_hash,
        "weights_hash": session.checkpoint.weights_hash,
        "candidates": list(session.corpus.languages),
    }
    drawn = None if conditions.controls is None else conditions.controls.describe()
    described = {row: conditions.describe(Condition(row)) for row in dict.fromkeys(one.row for one, _ in cells)}
    questions = {text: _digest(of_language) for text, of_language in records.items()}
    return {
        (condition.name, text): {
            **whole,
            "controls": drawn if condition.control else None,
            "rows": {} if condition == NONE else {condition.row: described[condition.row]},
            "questions": {text: questions[text]},
        }
        for condition, text in cells
    }


def _answer(
    file: AnswerGrid,
    todo: Mapping[Condition, Sequence[str]],
    conditions: Conditions,
    records: Mapping[str, Sequence[Record]],
    session: Session,
    settings: EvaluationSettings,
    *,
    overwrite: bool,
    start: StartProgress,
) -> int:
    """Answer and grade what is missing; each condition is on disk as soon as it is done. Return how many answers."""
    engine = session.source()
    file.read(engine=precision_of(engine.provenance))
    conditions.check_model(todo, engine.model)
    asked = questions_of(engine, records, sampling=settings.sampling, overlong=settings.overlong)
    ids = {text: question_ids(questions.records) for text, questions in asked.items()}
    answered = 0
    for number, (condition, texts) in enumerate(todo.items(), start=1):
        name = condition.name
        made_from = merged(file.wanted[name, text] for text in texts)
        if not condition.control:
            del made_from["controls"]
        given, _ = answer_prompts(
            engine,
            [prompt for text in texts for prompt in asked[text].prompts],
            sampling=settings.sampling,
            journal=file.journal(name),
            made_from={"row": name, "languages": list(texts), **made_from, **engine.provenance},
            intervention=conditions.intervention(condition, engine.model),
            overwrite=overwrite,
            start=start,
            label=f"answering, {name} ({number}/{len(todo)})",
        )
        questions = [record for text in texts for record in asked[text].records]
        graded = grade(questions, [one["generated"] for one in given], candidates=session.corpus.languages)
        lines = [answer_line(*one) for one in zip(questions, given, graded, strict=True)]
        letters = dict.fromkeys(texts, "")
        for one in lines:
            letters[one["lang"]] += LETTERS[one["right"], one["in_language"]]
        finished = {(name, text): {"outcomes": letters[text], "questions": ids[text]} for text in texts}
        file.store(name, lines, finished, engine=engine.provenance)
        answered += len(lines)
    return answered


def question_ids(records: Sequence[Record]) -> list[str]:
    """Name each question of a language by its id, so that the same question is known in all languages."""
    ids = [record.id or f"{record.language} {number}" for number, record in enumerate(records, start=1)]
    seen: Counter[str] = Counter()
    unique = []
    for one in ids:
        seen[one] += 1
        unique.append(one if seen[one] == 1 else f"{one} ({seen[one]})")
    return unique


def _digest(records: Sequence[Record]) -> str:
    """Return a digest of the questions, in their order, and of what their answers are compared with."""
    content = [(name, one.instruction, one.target) for name, one in zip(question_ids(records), records, strict=True)]
    return digest_of(content)


def _accuracy_map(cells: Mapping[Key, Json], listed: Sequence[Condition], languages: tuple[str, ...]) -> AccuracyMap:
    """Return the outcomes as tensors."""
    asked = {text: cells[NONE.name, text]["questions"] for text in languages}
    items = dict.fromkeys(item for text in languages for item in asked[text])
    place = {item: number for number, item in enumerate(items)}
    number, spoken, unclear, there = torch.zeros(4, len(listed), len(languages), len(items), dtype=torch.bool)
    by_letter = {letter: (right, known is True, known is None, True) for (right, known), letter in LETTERS.items()}
    for r, condition in enumerate(listed):
        for k, text in enumerate(languages):
            at = torch.tensor([place[item] for item in asked[text]])
            outcomes = torch.tensor([by_letter[letter] for letter in cells[condition.name, text]["outcomes"]])
            for side, tensor in enumerate((number, spoken, unclear, there)):
                tensor[r, k, at] = outcomes[:, side]
    changed = tuple(one.name for one in listed[1:] if not one.control)
    controls = tuple(one.name for one in listed if one.control)
    return AccuracyMap(changed, languages, controls, there[0], number, spoken, unclear)


def table_rows(result: AccuracyMap, found: Effects, measure: str) -> list[list[object]]:
    """Return one line a cell; NaN where a cell has no such value: only changed rows have tests and controls."""
    shares, right = 100 * result.shares(measure), result.right(measure).sum(dim=-1)
    unclear, asked = result.unclear.sum(dim=-1), result.asked.sum(dim=-1)
    tested = [found.interval.low, found.interval.high, found.p, found.p_adjusted]
    ranges = [] if found.control is None else [found.control.low, found.control.high]
    table: list[list[object]] = []
    for r, row in enumerate(result.rows):
        for k, language in enumerate(result.languages):
            counts = [asked[k].item(), right[r, k].item(), unclear[r, k].item(), shares[r, k].item()]
            changed = 0 < r <= len(result.changed)
            effect = _cell(tested, r - 1, k) if changed else [math.nan] * 4
            control = _cell(ranges, r - 1, k) if changed and ranges else [math.nan] * 2
            inside = found.inside[r - 1, k].item() if changed and found.inside is not None else math.nan
            table.append([row, language, *counts, (shares[r, k] - shares[0, k]).item(), *effect, *control, inside])
    return table


def _cell(values: Sequence[Float64[Tensor, "changed lang"]], row: int, column: int) -> list[float]:
    return [one[row, column].item() for one in values]

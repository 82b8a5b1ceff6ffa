"""Accuracy under interventions: right number in the right language, with each language's neurons changed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from ._controls import open_source_and_controls
from ._generate import AnswerRow, AnswersWritten, answer_rows, answers_made_from
from ._grid import NONE, Condition, Conditions, conditions_of, missing
from ._operations import Steps
from ._session import Session
from .config import DEFAULT_DO, DEFAULT_EVALUATION, MEASURES, EvaluationSettings
from .core.accuracy import AccuracyMap, accuracy_effects, accuracy_selectivity
from .core.effects import Effects, Selectivity
from .core.model import StartProgress, silent
from .corpus.grading import answer_line, check_answerable, grade
from .corpus.records import Record
from .errors import IncompatibleError
from .languages import parse_languages
from .plots.draw import write_png
from .plots.figures import accuracy_heatmap
from .store.answers import LETTERS, AnswerGrid, alone, evaluation_grid, save_evaluation
from .store.files import Json, digest_of, save_pictures
from .store.grid import Key, merged
from .store.layout import with_ending
from .store.masks import open_mask

HEADER = (
    "row", "language", "questions", "right", "unclear", "share", "change", "low", "high", "p", "p_adjusted",
    "control_low", "control_high", "inside_control",
)  # fmt: skip
"""Shares and changes in percentage points; low and high are the ends of the 95 % interval of the change."""


@dataclass(frozen=True)
class Evaluated(AnswersWritten):
    """A finished evaluation and its files.

    Attributes:
        map: every answer's outcome.
        selective: of that measure; None where rows are not languages.
    """

    map: AccuracyMap
    measure: str
    effects: Effects
    selective: Selectivity | None


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
    chosen = parse_languages(languages) if languages else mask.languages
    if steps.words:
        mask.check_languages(chosen)
    records = {language: session.corpus.of_language(language) for language in chosen}
    check_answerable([record for of_language in records.values() for record in of_language])
    source, controls = open_source_and_controls(
        session, mask, steps, classes=settings.classes, sets=settings.controls, seed=seed
    )
    conditions = Conditions(steps, source, controls)

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
        wanted = [_row(file, condition, texts, conditions) for condition, texts in todo.items()]
        graded = partial(_graded, candidates=session.corpus.languages)
        answered = answer_rows(file, wanted, records, session, settings, graded, overwrite=overwrite, start=start)

        # draw, then write the summary: where it is there, so is all the rest
        finished = file.finish()
        result = _accuracy_map(file.read(), listed, chosen)
        found = accuracy_effects(result, settings.show, seed=seed)
        named = {"do": steps.texts, "model": layout.title, "title": settings.title}
        figure = accuracy_heatmap(result, found, settings.show, **named)
        name = path if settings.show == MEASURES[0] else with_ending(path, f".{settings.show}")
        table = table_rows(result, found, settings.show)
        png, csv = save_pictures(name, {".png": partial(write_png, figure)}, header=HEADER, rows=table)
        if finished:
            save_evaluation(path, file.cells(), table=csv)
        file.end()
    selective = accuracy_selectivity(result, settings.show, seed=seed) if steps.words else None
    by = controls and controls.matched_by
    files, notes = (file.json, csv, png, file.answers), tuple(conditions.notes(rows))
    return Evaluated(by, *files, answered, notes, result, settings.show, found, selective)


def _wanted(
    cells: Sequence[tuple[Condition, str]],
    conditions: Conditions,
    records: Mapping[str, Sequence[Record]],
    session: Session,
    settings: EvaluationSettings,
) -> dict[Key, Json]:
    """Return what decides the outcomes of each cell."""
    whole = answers_made_from(session, settings, session.corpus.languages)
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


def _row(file: AnswerGrid, condition: Condition, texts: Sequence[str], conditions: Conditions) -> AnswerRow:
    name = condition.name
    made_from = merged(file.wanted[name, text] for text in texts)
    if not condition.control:
        del made_from["controls"]
    return AnswerRow(name, texts, conditions, condition, {"row": name, "languages": list(texts), **made_from})


def _graded(
    row: AnswerRow, questions: Sequence[Record], given: Sequence[Json], *, candidates: Sequence[str]
) -> tuple[list[Json], dict[Key, Json]]:
    """Grade the answers of a row: return them as lines for reading, and its cells."""
    outcomes = grade(questions, [one["generated"] for one in given], candidates=candidates)
    lines = [answer_line(*one) for one in zip(questions, given, outcomes, strict=True)]
    cells = {}
    for text in row.texts:
        letters = "".join(LETTERS[one["right"], one["in_language"]] for one in lines if one["lang"] == text)
        asked = question_ids([record for record in questions if record.language == text])
        cells[row.name, text] = {"outcomes": letters, "questions": asked}
    return lines, cells


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
    named = zip(question_ids(records), records, strict=True)
    return digest_of([(name, *one.asked, one.target) for name, one in named])


def _accuracy_map(cells: Mapping[Key, Json], listed: Sequence[Condition], languages: tuple[str, ...]) -> AccuracyMap:
    """Return the outcomes as tensors."""
    asked = {text: cells[NONE.name, text]["questions"] for text in languages}
    items = dict.fromkeys(item for text in languages for item in asked[text])
    place = {item: number for number, item in enumerate(items)}
    number, spoken, unclear, there = torch.zeros(4, len(listed), len(languages), len(items), dtype=torch.bool)
    by_letter = {letter: (right, known is True, known is None, True) for (right, known), letter in LETTERS.items()}
    for r, condition in enumerate(listed):
        for k, text in enumerate(languages):
            if cells[condition.name, text]["questions"] != asked[text]:
                raise IncompatibleError(
                    f"the answers in {text} under {condition.name} answer other questions than the undisturbed ones: "
                    "use --force to answer again"
                )
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
    controls = [None, None] if found.control is None else [found.control.low, found.control.high]
    effects = [found.interval.low, found.interval.high, found.p, found.p_adjusted, *controls, found.inside]
    tested = [torch.full_like(found.change, torch.nan) if one is None else one for one in effects]
    table: list[list[object]] = []
    for r, row in enumerate(result.rows):
        for k, language in enumerate(result.languages):
            counts = [asked[k].item(), right[r, k].item(), unclear[r, k].item(), shares[r, k].item()]
            changed = 0 < r <= len(result.changed)
            effect = [one[r - 1, k].item() if changed else math.nan for one in tested]
            table.append([row, language, *counts, (shares[r, k] - shares[0, k]).item(), *effect])
    return table

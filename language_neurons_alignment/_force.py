"""Language forcing: the model is asked in one language and steered to another. How often does it answer in that?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch

from ._controls import open_source_and_controls
from ._generate import AnswerRow, AnswersWritten, answer_rows, answers_made_from
from ._grid import NONE, Condition, Conditions, conditions_of
from ._operations import Steps
from ._session import Session
from .config import DEFAULT_STEERING, ForcingSettings
from .core.accuracy import Asked, ForcingTable, forcing_table
from .core.model import StartProgress, silent
from .corpus.grading import check_identifiable, languages_seen
from .corpus.language_id import Verdict
from .corpus.records import Record
from .errors import IncompatibleError
from .languages import parse_languages
from .plots.draw import write_png
from .plots.figures import forcing_heatmap
from .store.answers import alone, forcing_grid, forcing_name, save_forcing
from .store.files import Json, digest_of, save_pictures
from .store.grid import Key
from .store.masks import open_mask

Seen = list[str | None]
"""The language of each answer; None where it cannot be told."""


class Cell(NamedTuple):
    """Questions in one language, under one condition, whose row is the language steered to.

    >>> Cell("fr").name, Cell("fr", Condition("de", 1)).name
    ('fr', 'fr.to.de~1')
    """

    asked: str
    condition: Condition = NONE

    @property
    def key(self) -> Key:
        """The cell in its grid."""
        return self.condition.name, self.asked

    @property
    def name(self) -> str:
        """The name of its answers."""
        return forcing_name(self.key)


HEADER = (
    "asked", "target", "questions", "undisturbed", "steered", "steered_low", "steered_high", "change", "low", "high",
    "p", "p_adjusted", "control_low", "control_high", "inside_control", "unclear_undisturbed", "unclear_steered",
)  # fmt: skip
"""Shares and changes in percentage points; low and high are the ends of the 95 % intervals."""


@dataclass(frozen=True)
class Forced(AnswersWritten):
    """A finished forcing table and its files.

    Attributes:
        sources: the languages asked in, the table's rows.
        targets: the languages steered to, its columns.
        table: how often the answers are in the target language.
        seen: cell → the language of each answer, None where it cannot be told.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    table: ForcingTable
    seen: Mapping[Cell, Seen]


def force_languages(
    session: Session,
    sources: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    *,
    top_rate: float,
    lam: float | None,
    settings: ForcingSettings | None = None,
    overwrite: bool = False,
    start: StartProgress = silent,
) -> Forced:
    """Let the model answer every question as it is, and steered to each target, and see in which language it answers.

    Finished cells are kept. A run that was cut off, also by a kill, goes on where it stopped when it is started again,
    and ends with the same files.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "corpus.json", "toy") as session:
    ...     counted = [lna.collect_activations(session, code) for code in ("en", "es", "fr")]
    ...     found = lna.identify.identify(session.layout, ("en", "es", "fr"), lna.config.Selection(0.1, 0.0, 0.8))
    >>> sampling = lna.config.Sampling(max_new_tokens=2)
    >>> settings = ForcingSettings(do=("zero source + target",), sampling=sampling, controls=0)
    >>> with lna.open_session("model", "questions.json", "toy") as session:
    ...     done = force_languages(session, ["en"], ["es", "fr"], top_rate=0.1, lam=0.0, settings=settings)
    >>> tuple(done.table.steered.shape)  # share of answers in the target [asked in, steered to]
    (1, 2)

    Args:
        session: model, corpus and place; no answers need be known.
        sources: languages asked in; None for all languages of the mask.
        targets: languages steered to; None for the sources.
        top_rate: of the mask.
        lam: λ of the mask; None for a method without λ.
        settings: what is done, and how answers are drawn; None for the defaults.
        overwrite: answer everything again; the old answers stay until all are finished.
        start: gives the progress bar.

    Raises:
        CorpusError: there are no questions in a language, or some are too long.
        SettingsError: a language that the mask does not have or that cannot be identified, or impossible steps.
        MissingArtifactError: there is no such mask, or no means that the steps need.
        IncompatibleError: the mask is another model's.
        ConflictError: the files hold answers made from something else, and not `overwrite`.
    """
    # read
    session.layout.selection.at(top_rate, lam)
    settings = settings or ForcingSettings()
    steps = Steps.parse(settings.do)
    layout, seed = session.layout, settings.sampling.seed
    mask = open_mask(layout, top_rate=top_rate, lam=lam, checkpoint=session.checkpoint)
    asked = parse_languages(sources) if sources else mask.languages
    steered = parse_languages(targets) if targets else asked
    named = tuple(dict.fromkeys((*asked, *steered)))
    mask.check_languages(named)
    check_identifiable(named)
    bound = [steps.bind(source=text, target=target) for text in asked for target in steered]
    source, controls = open_source_and_controls(
        session, mask, bound, classes=settings.classes, sets=settings.controls, seed=seed
    )
    conditions = {text: Conditions(steps.bind(source=text), source, controls, "target", text) for text in asked}
    records = {text: session.corpus.of_language(text) for text in asked}
    candidates = tuple(dict.fromkeys((*mask.languages, *session.corpus.languages)))

    # list the cells: undisturbed, steered, then the controls set by set
    cells = _cells(asked, steered, settings.controls)
    variant = settings.variant + steps.variant(DEFAULT_STEERING)
    path = layout.forcing(top_rate, lam, variant=variant)
    wanted = _wanted(cells, conditions, records, session, settings, candidates)
    file = forcing_grid(path, wanted, overwrite=overwrite)
    with alone(file.json):
        done = file.read(engine=session.source.explicit)
        file.drop_spent_journals(done)
        todo = [cell for cell in cells if cell.key not in done]

        # run
        rows = [AnswerRow(one.name, [one.asked], conditions[one.asked], one.condition, wanted[one.key]) for one in todo]
        graded = partial(_graded, candidates=candidates)
        answered = answer_rows(file, rows, records, session, settings, graded, overwrite=overwrite, start=start)

        # draw, then write the summary: where it is there, so is all the rest
        finished, read = file.finish(), file.read()
        seen = {cell: read[cell.key]["languages"] for cell in cells}
        for cell, languages in seen.items():
            if len(languages) != len(records[cell.asked]):
                raise IncompatibleError(
                    f"{file.path} has {len(languages)} answers of {cell.name}, expected {len(records[cell.asked])}: "
                    "use --force to answer again"
                )
        found = forcing_table([_asked(text, steered, seen, sets=settings.controls) for text in asked], seed=seed)
        named = {"do": settings.do, "model": layout.title, "title": settings.title}
        figure = forcing_heatmap(found, asked, steered, **named)
        table = table_rows(found, asked, steered, seen)
        png, csv = save_pictures(path, {".png": partial(write_png, figure)}, header=HEADER, rows=table)
        if finished:
            save_forcing(path, file.cells(), table=csv)
        file.end()
    by = controls and controls.matched_by
    notes = tuple(dict.fromkeys(note for text in asked for note in conditions[text].notes(steered)))
    return Forced(by, file.json, csv, png, file.answers, answered, notes, asked, steered, found, seen)


def _cells(asked: Sequence[str], steered: Sequence[str], sets: int) -> list[Cell]:
    """List the cells in the order in which they run."""
    listed = conditions_of(steered, sets)
    by_set = [[one for one in listed if one != NONE and one.control == number] for number in range(sets + 1)]
    return [Cell(text, one) for conditions in ([NONE], *by_set) for text in asked for one in conditions]


def _wanted(
    cells: Sequence[Cell],
    conditions: Mapping[str, Conditions],
    records: Mapping[str, Sequence[Record]],
    session: Session,
    settings: ForcingSettings,
    candidates: Sequence[str],
) -> dict[Key, Json]:
    """Return what decides each cell's answers and the languages seen in them, but for the engine."""
    whole = answers_made_from(session, settings, candidates)
    questions = {text: digest_of([(one.id, *one.asked) for one in of]) for text, of in records.items()}
    pairs = dict.fromkeys((cell.asked, cell.condition.row) for cell in cells)
    described = {(text, row): conditions[text].describe(Condition(row)) for text, row in pairs}
    controls = conditions[cells[0].asked].controls
    drawn = controls and controls.describe()
    return {
        cell.key: {
            "cell": cell.name,
            **whole,
            "questions": questions[cell.asked],
            "steering": described[cell.asked, cell.condition.row],
            "control": drawn if cell.condition.control else None,
        }
        for cell in cells
    }


def _graded(
    row: AnswerRow, questions: Sequence[Record], given: Sequence[Json], *, candidates: Sequence[str]
) -> tuple[list[Json], dict[Key, Json]]:
    """Tell the languages of a cell's answers: return the answers as lines for reading, and the cell."""
    target = None if row.condition == NONE else row.condition.row
    verdicts = languages_seen([one["generated"] for one in given], candidates)
    lines = [_line(one, target, answer, seen) for one, answer, seen in zip(questions, given, verdicts, strict=True)]
    return lines, {(row.condition.name, row.texts[0]): {"languages": [one["language"] for one in lines]}}


def _line(record: Record, target: str | None, answer: Json, seen: Verdict | None) -> Json:
    """Write one answer for reading, with the language that it was found to be in."""
    return {
        "id": record.id,
        "lang": record.language,
        "target": target,
        "question": record.question or record.instruction,
        "answer": answer["generated"],
        "language": None if seen is None else seen.language,
        "confidence": None if seen is None else round(seen.confidence, 4),
        "tokens": answer["tokens"],
        "finish": answer["finish"],
    }


def table_rows(
    found: ForcingTable, sources: Sequence[str], targets: Sequence[str], seen: Mapping[Cell, Seen]
) -> list[list[object]]:
    """Return one line a cell; NaN where there are no controls."""
    steered, shares = found.steered_interval, (found.undisturbed, found.steered)
    columns = [100 * one for one in (*shares, steered.low, steered.high)]
    controls = [None, None] if found.control is None else [found.control.low, found.control.high]
    effects = [found.change, found.interval.low, found.interval.high, found.p, found.p_adjusted]
    effects += [*controls, found.inside]
    columns += [torch.full_like(found.change, torch.nan) if one is None else one for one in effects]
    rows: list[list[object]] = []
    for i, source in enumerate(sources):
        for j, target in enumerate(targets):
            before, after = seen[Cell(source)], seen[Cell(source, Condition(target))]
            values = [column[i, j].item() for column in columns]
            rows.append([source, target, len(before), *values, before.count(None), after.count(None)])
    return rows


def _asked(source: str, targets: Sequence[str], seen: Mapping[Cell, Seen], *, sets: int) -> Asked:
    """Return the answers to one language's questions as tensors."""

    def right(number: int | None) -> list[list[bool]]:
        """Whether each answer is in the target: of a control set, 0 for steered answers, None for undisturbed ones."""
        conditions = [NONE if number is None else Condition(target, number) for target in targets]
        answers = zip(targets, (seen[Cell(source, one)] for one in conditions), strict=True)
        return [[language == target.split("-")[0] for language in given] for target, given in answers]

    shape = sets, len(targets), len(seen[Cell(source)])
    controls = torch.tensor([right(number) for number in range(1, sets + 1)], dtype=torch.bool).reshape(shape)
    return Asked(torch.tensor(right(None)), torch.tensor(right(0)), controls)

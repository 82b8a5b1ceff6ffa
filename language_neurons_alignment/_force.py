"""Language forcing: the model is asked in one language and steered to another. How often does it answer in that?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from ._controls import open_source_and_controls
from ._generate import answer_prompts, questions_of
from ._grid import NONE, Condition, Conditions, conditions_of
from ._session import Session
from ._steps import Steps
from .config import DEFAULT_STEERING, ForcingSettings
from .core.accuracy import Asked, ForcingTable, forcing_table
from .core.model import StartProgress, silent
from .corpus.grading import check_identifiable, languages_seen
from .corpus.records import Record
from .plots.draw import write_png
from .plots.figures import forcing_heatmap
from .store.answers import AnswerGrid, alone, forcing_grid, forcing_name, save_forcing
from .store.files import Json, digest_of, save_pictures
from .store.grid import Key, precision_of
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
class Forced:
    """A finished forcing table and its files.

    Attributes:
        sources: the languages asked in, the table's rows.
        targets: the languages steered to, its columns.
        table: how often the answers are in the target language.
        seen: cell → the language of each answer, None where it cannot be told.
        matched_by: what the controls are matched by; None without controls.
        json: every cell with the language of each answer, and what they were made from.
        csv: the table.
        png: the heatmap.
        answers: a folder with a file for each cell, an answer a line.
        answered: answers that this run made; the others were there.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    table: ForcingTable
    seen: Mapping[Cell, Seen]
    matched_by: str | None
    json: Path
    csv: Path
    png: Path
    answers: Path
    answered: int


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
    asked = tuple(sources or mask.languages)
    steered = tuple(targets or asked)
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
        answered = 0
        if todo:
            answered = _answer(
                file, todo, wanted, conditions, records, session, settings, candidates, overwrite=overwrite, start=start
            )

        # write
        if file.finish():
            save_forcing(path, file.cells())
        finished = file.read()
        seen = {cell: finished[cell.key]["languages"] for cell in cells}

        # draw
        found = forcing_table([_asked(text, steered, seen, sets=settings.controls) for text in asked], seed=seed)
        figure = forcing_heatmap(found, asked, steered, title=layout.model, done=", ".join(settings.do))
        table = table_rows(found, asked, steered, seen)
        png, csv = save_pictures(path, {".png": lambda opened: write_png(figure, opened)}, header=HEADER, rows=table)
    by = controls.matched_by if settings.controls else None
    return Forced(asked, steered, found, seen, by, file.json, csv, png, file.answers, answered)


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
    whole = {
        "sampling": settings.sampling.plain(),
        "overlong_policy": settings.overlong,
        "config_hash": session.checkpoint.config_hash,
        "weights_hash": session.checkpoint.weights_hash,
        "candidates": list(candidates),
    }
    questions = {
        text: digest_of([(record.id, record.instruction) for record in of_language])
        for text, of_language in records.items()
    }
    pairs = dict.fromkeys((cell.asked, cell.condition.row) for cell in cells)
    described = {(text, row): conditions[text].describe(Condition(row)) for text, row in pairs}
    controls = conditions[cells[0].asked].controls
    drawn = controls.describe() if settings.controls and controls else None
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


def _answer(
    file: AnswerGrid,
    todo: Sequence[Cell],
    wanted: Mapping[Key, Json],
    conditions: Mapping[str, Conditions],
    records: Mapping[str, Sequence[Record]],
    session: Session,
    settings: ForcingSettings,
    candidates: Sequence[str],
    *,
    overwrite: bool,
    start: StartProgress,
) -> int:
    """Answer what is missing and tell the languages; each cell is on disk as soon as it is done."""
    engine = session.source()
    file.read(engine=precision_of(engine.provenance))
    for cell in todo:
        conditions[cell.asked].check_model([cell.condition], engine.model)
    asked = questions_of(engine, records, sampling=settings.sampling, overlong=settings.overlong)
    answered = 0
    for number, cell in enumerate(todo, start=1):
        text, condition = cell
        given, _ = answer_prompts(
            engine,
            asked[text].prompts,
            sampling=settings.sampling,
            journal=file.journal(cell.name),
            made_from={**wanted[cell.key], **engine.provenance},
            intervention=conditions[text].intervention(condition, engine.model),
            overwrite=overwrite,
            start=start,
            label=f"answering, {cell.name} ({number}/{len(todo)})",
        )
        verdicts = languages_seen([one["generated"] for one in given], candidates)
        target = None if condition == NONE else condition.row
        lines = [
            _line(record, target, answer, None if seen is None else (seen.language, seen.confidence))
            for record, answer, seen in zip(asked[text].records, given, verdicts, strict=True)
        ]
        languages = [one["language"] for one in lines]
        file.store(cell.name, lines, {cell.key: {"languages": languages}}, engine=engine.provenance)
        answered += len(lines)
    return answered


def _line(record: Record, target: str | None, answer: Json, seen: tuple[str, float] | None) -> Json:
    """Write one answer for reading, with the language that it was found to be in."""
    return {
        "id": record.id,
        "lang": record.language,
        "target": target,
        "question": record.question or record.instruction,
        "answer": answer["generated"],
        "language": None if seen is None else seen[0],
        "confidence": None if seen is None else round(seen[1], 4),
        "tokens": answer["tokens"],
        "finish": answer["finish"],
    }


def table_rows(
    found: ForcingTable, sources: Sequence[str], targets: Sequence[str], seen: Mapping[Cell, Seen]
) -> list[list[object]]:
    """Return one line a cell; NaN where there are no controls."""
    columns = [100 * found.undisturbed, 100 * found.steered]
    columns += [100 * found.steered_interval.low, 100 * found.steered_interval.high]
    nothing = torch.full_like(found.change, torch.nan)
    tests = [nothing if one is None else one for one in (found.p, found.p_adjusted)]
    columns += [found.change, found.interval.low, found.interval.high, *tests]
    columns += [nothing, nothing] if found.control is None else [found.control.low, found.control.high]
    inside = nothing if found.inside is None else found.inside
    rows: list[list[object]] = []
    for i, source in enumerate(sources):
        for j, target in enumerate(targets):
            before, after = seen[Cell(source)], seen[Cell(source, Condition(target))]
            values = [column[i, j].item() for column in (*columns, inside)]
            rows.append([source, target, len(before), *values, before.count(None), after.count(None)])
    return rows


def _asked(source: str, targets: Sequence[str], seen: Mapping[Cell, Seen], *, sets: int) -> Asked:
    """Return the answers to one language's questions as tensors."""
    items = len(seen[Cell(source)])
    controls = torch.zeros(sets, len(targets), items, dtype=torch.bool)
    for number in range(1, sets + 1):
        for column, target in enumerate(targets):
            controls[number - 1, column] = _in(target, seen[Cell(source, Condition(target, number))])
    return Asked(
        torch.stack([_in(target, seen[Cell(source)]) for target in targets]),
        torch.stack([_in(target, seen[Cell(source, Condition(target))]) for target in targets]),
        controls,
    )


def _in(target: str, seen: Seen) -> Bool[Tensor, " item"]:
    return torch.tensor([language == target.split("-")[0] for language in seen])

"""Language forcing: the model is asked in one language and steered to another; how often does it answer in that?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from ._controls import Controls
from ._generate import answer_row, fitting_questions, row_journal
from ._interventions import NeuronSource, Steps
from ._session import Session, StartAnswers, silent
from .config import DEFAULT_STEERING, ForcingSettings
from .core.accuracy import Asked, ForcingTable, forcing_table
from .core.interventions import Intervention
from .corpus.grading import check_identifiable, languages_seen
from .corpus.records import Record
from .engines import Engine, ModelInfo
from .plots.draw import write_png
from .plots.figures import forcing_heatmap
from .store.answers import ForcingFile, Json, Seen, alone, digest_of
from .store.checkpoint import Checkpoint
from .store.files import save_pictures
from .store.maps import precision_of
from .store.masks import open_mask

# ── The cells of a forcing table: who is asked in which language, steered to which, and what that takes.


@dataclass(frozen=True)
class Cell:
    """One language asked in, under one steering.

    Attributes:
        source: the language asked in.
        target: the language steered to; None: nothing is done.
        number: which set of controls the steering is done to instead, from 1; 0: the languages' own neurons.
    """

    source: str
    target: str | None = None
    number: int = 0

    @property
    def name(self) -> str:
        """As its files are named: "fr", "fr.to.de", "fr.to.de~1"."""
        steering = "" if self.target is None else f".to.{self.target}"
        return f"{self.source}{steering}{f'~{self.number}' if self.number else ''}"


def cells_of(sources: Sequence[str], targets: Sequence[str], *, sets: int) -> list[Cell]:
    """All cells in the order in which they are done: undisturbed, steered, then set by set the controls."""
    pairs = [(source, target) for source in sources for target in targets]
    steered = [Cell(*pair, number) for number in range(sets + 1) for pair in pairs]
    return [*(Cell(source) for source in sources), *steered]


@dataclass(frozen=True)
class Steering:
    """What is done in the cells.

    Attributes:
        settings: the steps among them.
        source: where their neurons and means come from.
        controls: where those of controls come from; None without.
    """

    settings: ForcingSettings
    source: NeuronSource
    controls: Controls | None

    def bound(self, cell: Cell) -> Steps:
        """The steps of a cell."""
        return Steps.parse(self.settings.do).bind(source=cell.source, target=cell.target)

    def intervention(self, cell: Cell, model: ModelInfo) -> Intervention | None:
        """What a cell does to a model; None for the undisturbed one.

        Raises:
            LNAError: as `Steps.intervention` and `Controls.swap`.
        """
        if cell.target is None:
            return None
        swap = None
        if cell.number and self.controls is not None:
            swap = self.controls.swap(model, f"{cell.source}.to.{cell.target}", cell.number)
        # a language may have no neurons of the chosen classes: its cell then shows that nothing changes
        return self.bound(cell).intervention(self.source, model, swap=swap, allow_empty=True)

    def made_from(
        self, cell: Cell, *, checkpoint: Checkpoint, questions: Mapping[str, str], candidates: Sequence[str]
    ) -> Json:
        """All that decides a cell's answers and the languages seen in them, but for the engine."""
        return {
            "cell": cell.name,
            "sampling": self.settings.sampling.plain(),
            "overlong_policy": self.settings.overlong,
            "config_hash": checkpoint.config_hash,
            "weights_hash": checkpoint.weights_hash,
            "candidates": list(candidates),
            "questions": questions[cell.source],
            "steering": None if cell.target is None else self.bound(cell).describe(self.source),
            "control": self.controls.describe() if cell.number and self.controls is not None else None,
        }


# ── The answers of a forcing table: which are missing, and how they are made and their languages told.


@dataclass(frozen=True)
class ForcingWork:
    """What is to be answered.

    Attributes:
        session: model, corpus and place.
        steering: what is done in the cells.
        cells: in the order in which they are done.
        languages: those of the mask; an answer is in the likeliest of these and of the corpus's.
        overwrite: whether answers of an unfinished run with other settings are dropped.
        start: told of the work, for a progress bar.
    """

    session: Session
    steering: Steering
    cells: Sequence[Cell]
    languages: Sequence[str]
    overwrite: bool
    start: StartAnswers

    def check(self) -> None:
        """Refuse what can be refused before the model is loaded.

        Raises:
            LNAError: as `force_languages`.
        """
        check_identifiable(dict.fromkeys(one for cell in self.cells for one in (cell.source, cell.target) if one))
        for cell in self.cells:
            if cell.target is not None and not cell.number:
                self.steering.bound(cell).check(self.steering.source)

    def read(self, file: ForcingFile, *, engine: Mapping[str, Any]) -> dict[Cell, Seen]:
        """The cells that are done."""
        done = file.read(self._made_from, engine=engine)
        return {cell: done[cell.name] for cell in self.cells if cell.name in done}

    def answer(self, file: ForcingFile) -> int:
        """Answer what is missing, cell by cell, each put on disk when it is done; gives the number of new answers."""
        done = self.read(file, engine=self.session.source.explicit)
        for cell in done:
            row_journal(file.lines(cell.name)).remove()  # a run was cut off between storing its answers and this
        todo = [cell for cell in self.cells if cell not in done]
        if not todo:
            return 0
        engine = self.session.source()
        self.read(file, engine=precision_of(engine.provenance))
        for cell in todo:
            if cell.number <= 1:  # a control that can be drawn once can be drawn again
                self.steering.intervention(cell, engine.model)
        return sum(self._answer(engine, file, cell, f"{n}/{len(todo)}") for n, cell in enumerate(todo, start=1))

    def _answer(self, engine: Engine, file: ForcingFile, cell: Cell, place: str) -> int:
        """Answer the questions of a cell, and tell the languages of the answers."""
        settings, made_from = self.steering.settings, self._made_from[cell.name]
        records, prompts = fitting_questions(
            engine,
            self.session.corpus.of_language(cell.source),
            sampling=settings.sampling,
            overlong=settings.overlong,
        )
        given = answer_row(
            engine,
            prompts,
            result=file.lines(cell.name),
            made_from={**made_from, **engine.provenance},
            intervention=self.steering.intervention(cell, engine.model),
            sampling=settings.sampling,
            overwrite=self.overwrite,
            start=self.start,
            label=f"answering, {cell.name} ({place})",
        )
        verdicts = languages_seen([one["generated"] for one in given], self._candidates)
        lines = [
            _line(record, cell, answer, None if seen is None else (seen.language, seen.confidence))
            for record, answer, seen in zip(records, given, verdicts, strict=True)
        ]
        file.add(cell.name, lines, made_from=made_from, engine=engine.provenance)
        row_journal(file.lines(cell.name)).remove()
        return len(lines)

    @cached_property
    def _candidates(self) -> tuple[str, ...]:
        """The languages that come into question, whichever of them are asked or steered to in this run."""
        return tuple(dict.fromkeys((*self.languages, *self.session.corpus.languages)))

    @cached_property
    def _made_from(self) -> dict[str, Json]:
        """Name of a cell → what its answers are made from."""
        sources = dict.fromkeys(cell.source for cell in self.cells)
        questions = {source: _digest(self.session.corpus.of_language(source)) for source in sources}
        return {
            cell.name: self.steering.made_from(
                cell, checkpoint=self.session.checkpoint, questions=questions, candidates=self._candidates
            )
            for cell in self.cells
        }


def _digest(records: Sequence[Record]) -> str:
    """A digest of the questions, in their order."""
    content = [(record.id, record.instruction) for record in records]
    return digest_of(content)


def _line(record: Record, cell: Cell, answer: Json, seen: tuple[str, float] | None) -> Json:
    """One answer to read, with the language that it was found to be in."""
    return {
        "id": record.id,
        "lang": record.language,
        "target": cell.target,
        "question": record.question or record.instruction,
        "answer": answer["generated"],
        "language": None if seen is None else seen[0],
        "confidence": None if seen is None else round(seen[1], 4),
        "tokens": answer["tokens"],
        "finish": answer["finish"],
    }


HEADER = (
    "asked", "target", "questions", "undisturbed", "steered", "steered_low", "steered_high", "change", "low", "high",
    "p", "p_adjusted", "control_low", "control_high", "inside_control", "unclear_undisturbed", "unclear_steered",
)  # fmt: skip
"""Shares and changes in percentage points; low and high are the ends of the 95 % intervals."""


@dataclass(frozen=True)
class Forced:
    """A finished forcing table and where it lies.

    Attributes:
        sources: the languages asked in, the table's rows.
        targets: the languages steered to, its columns.
        table: how often the answers are in the target language.
        seen: cell → the language of each of its answers, None where it cannot be told.
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
    start: StartAnswers = silent,
) -> Forced:
    """Let the model answer every question as it is, and steered to each target, and see in which language it answers.

    Cells that are there are kept. A run that is cut off, also by a kill, goes on where it stopped when it is started
    again, and ends with the very same files.

    Args:
        session: model, corpus and place; no answers need be known.
        sources: languages asked in; None for all languages of the mask.
        targets: languages steered to; None for the sources.
        top_rate: of the mask.
        lam: λ of the mask; None of a method without.
        settings: what is done, and how answers are drawn; None for the usual ones.
        overwrite: answer everything again.
        start: told of the work, for a progress bar.

    Raises:
        CorpusError: there are no questions in a language, or some are too long.
        SettingsError: a language that the mask does not have or that cannot be identified, or steps that cannot be.
        MissingArtifactError: there is no such mask, or no means that the steps need.
        IncompatibleError: the mask is another model's.
        ConflictError: the files hold answers made from something else, and not `overwrite`.
    """
    session.layout.selection.at(top_rate, lam)
    settings = settings or ForcingSettings()
    mask = open_mask(session.layout, top_rate=top_rate, lam=lam, checkpoint=session.checkpoint)
    asked = tuple(sources or mask.languages)
    steered = tuple(targets or asked)
    mask.check_languages(tuple(dict.fromkeys((*asked, *steered))))
    controls = None
    if settings.controls:
        controls = Controls.open(session.layout, mask, classes=settings.classes, seed=settings.sampling.seed)
    steering = Steering(settings, NeuronSource.open(session.layout, mask, settings.classes), controls)
    cells = cells_of(asked, steered, sets=settings.controls)
    work = ForcingWork(session, steering, cells, mask.languages, overwrite, start)
    work.check()
    variant = settings.variant + Steps.parse(settings.do).variant(DEFAULT_STEERING)
    path = session.layout.forcing(top_rate, lam, variant=variant)
    file = ForcingFile(path, replace=overwrite)
    with alone(file.path):
        answered = work.answer(file)
        seen = work.read(file, engine=session.source.explicit)
        found = forcing_table(
            [_asked(source, steered, seen, sets=settings.controls) for source in asked], seed=settings.sampling.seed
        )
        figure = forcing_heatmap(found, asked, steered, title=session.layout.model, done=", ".join(settings.do))
        table = table_rows(found, asked, steered, seen)
        png, csv = save_pictures(path, {".png": lambda opened: write_png(figure, opened)}, header=HEADER, rows=table)
    by = None if controls is None else controls.matched_by
    return Forced(asked, steered, found, seen, by, file.path, csv, png, file.answers, answered)


def table_rows(
    found: ForcingTable, sources: Sequence[str], targets: Sequence[str], seen: Mapping[Cell, Seen]
) -> list[list[object]]:
    """One line a cell; NaN where there are no controls."""
    columns = [100 * found.undisturbed, 100 * found.steered]
    columns += [100 * found.steered_interval.low, 100 * found.steered_interval.high]
    columns += [found.change, found.interval.low, found.interval.high, found.p, found.p_adjusted]
    nothing = torch.full_like(found.change, torch.nan)
    columns += [nothing, nothing] if found.control is None else [found.control.low, found.control.high]
    inside = nothing if found.inside is None else found.inside
    rows: list[list[object]] = []
    for i, source in enumerate(sources):
        for j, target in enumerate(targets):
            before, after = seen[Cell(source)], seen[Cell(source, target)]
            values = [column[i, j].item() for column in (*columns, inside)]
            rows.append([source, target, len(before), *values, before.count(None), after.count(None)])
    return rows


def _asked(source: str, targets: Sequence[str], seen: Mapping[Cell, Seen], *, sets: int) -> Asked:
    """The answers to one language's questions, as tensors."""
    items = len(seen[Cell(source)])
    controls = torch.zeros(sets, len(targets), items, dtype=torch.bool)
    for number in range(1, sets + 1):
        for column, target in enumerate(targets):
            controls[number - 1, column] = _in(target, seen[Cell(source, target, number)])
    return Asked(
        torch.stack([_in(target, seen[Cell(source)]) for target in targets]),
        torch.stack([_in(target, seen[Cell(source, target)]) for target in targets]),
        controls,
    )


def _in(target: str, seen: Seen) -> Bool[Tensor, " item"]:
    return torch.tensor([language == target.split("-")[0] for language in seen])

"""Language forcing: the model is asked in one language and steered to another; how often does it answer in that?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from ...config import Selection
from ...core.forcing import Asked, ForcingTable, forcing_table
from ...interventions.doing import Doing
from ...interventions.neuron_sets import NeuronSource
from ...masks import open_mask
from ...plots.forcing_heatmap import forcing_heatmap
from ...plots.write import write_png
from ...session import Session, StartAnswers, silent
from ...store.forcing_file import ForcingFile, Seen
from ...store.journal import alone
from ...store.picture_files import save_pictures
from ..controls import Controls
from .cells import Cell, Steering, cells_of
from .settings import DEFAULT_STEERING, ForcingSettings
from .work import ForcingWork

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
    force: bool = False,
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
        force: answer everything again.
        start: told of the work, for a progress bar.

    Raises:
        CorpusError: there are no questions in a language, or some are too long.
        SettingsError: a language that the mask does not have or that cannot be identified, or steps that cannot be.
        MissingArtifactError: there is no such mask, or no means that the steps need.
        IncompatibleError: the mask is another model's.
        ConflictError: the files hold answers made from something else, and not `force`.
    """
    Selection(top_rate, lam, method=session.layout.method)
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
    work = ForcingWork(session, steering, cells, mask.languages, force, start)
    work.check()
    variant = settings.variant + Doing.parse(settings.do).variant(DEFAULT_STEERING)
    path = session.layout.forcing(top_rate, lam, variant=variant)
    file = ForcingFile(path, replace=force)
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

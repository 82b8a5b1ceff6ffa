"""Accuracy under interventions: right number in the right language, with each language's neurons changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...config import DEFAULT_DO, Selection
from ...core.accuracy_map import AccuracyMap, Effects, Selective, effects, selective
from ...interventions.doing import Doing
from ...masks import open_mask
from ...plots.accuracy_heatmap import accuracy_heatmap
from ...plots.write import write_png
from ...session import Session, StartAnswers, silent
from ...store.evaluation_file import EvaluationFile
from ...store.journal import alone
from ...store.layout import with_ending
from ...store.picture_files import save_pictures
from ..judging import check_answerable
from ..rows import Rows
from .settings import DEFAULT_EVALUATION, MEASURES, EvaluationSettings
from .table import HEADER, accuracy_map, table_rows
from .work import EvaluationWork


@dataclass(frozen=True)
class Evaluated:
    """A finished evaluation and where it lies.

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
    selective: Selective | None
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
    force: bool = False,
    start: StartAnswers = silent,
) -> Evaluated:
    """Let the model answer every question with nothing and with each change done, and see what is right.

    Rows that are there are kept. A run that is cut off, also by a kill, goes on where it stopped when it is started
    again, and ends with the very same files.

    Args:
        session: model, place, and a corpus whose records have targets.
        languages: asked, and changed; None for all languages of the mask.
        top_rate: of the mask.
        lam: λ of the mask; None of a method without.
        settings: what is done, how answers are drawn, what is shown.
        force: answer everything again.
        start: told of the work, for a progress bar.

    Raises:
        CorpusError: questions without known numbers, or that are too long.
        SettingsError: a language that the mask does not have or that cannot be identified, or steps that cannot be.
        MissingArtifactError: there is no such mask, or no means that the steps need.
        IncompatibleError: the mask is another model's.
        ConflictError: the files hold answers made from something else, and not `force`.
    """
    Selection(top_rate, lam, method=session.layout.method)
    doing = Doing.parse(settings.do)
    mask = open_mask(session.layout, top_rate=top_rate, lam=lam, checkpoint=session.checkpoint)
    chosen = tuple(languages or mask.languages)
    if doing.words:
        mask.check_languages(chosen)
    records = {language: session.corpus.of_language(language) for language in chosen}
    check_answerable([record for of_language in records.values() for record in of_language])
    rows = Rows.open(session.layout, mask, doing, classes=settings.classes, seed=settings.sampling.seed)
    variant = settings.variant + doing.variant(DEFAULT_DO)
    path = session.layout.evaluation(top_rate, lam, variant=variant)
    work = EvaluationWork(session, rows, records, settings, force, start)
    file = EvaluationFile(path, work.provenance(), replace=force)
    with alone(file.path):
        answered = work.answer(file)
        cells = file.read(engine=session.source.explicit)
        result = accuracy_map(work, cells, file.asked())
        found = effects(result, settings.show, seed=settings.sampling.seed)
        png, csv = _draw(path, doing, result, found, measure=settings.show, title=session.layout.model)
    return Evaluated(
        result,
        settings.show,
        found,
        selective(result, settings.show, seed=settings.sampling.seed) if doing.words else None,
        rows.controls.matched_by if settings.controls else None,
        file.path,
        csv,
        png,
        file.answers,
        answered,
    )


def _draw(
    path: Path, doing: Doing, result: AccuracyMap, found: Effects, *, measure: str, title: str
) -> tuple[Path, Path]:
    """The heatmap and its table; another measure than the accuracy stands in their names."""
    name = path if measure == MEASURES[0] else with_ending(path, f".{measure}")
    done = ", ".join(doing.texts)
    figure = accuracy_heatmap(result, found, measure, title=title, done=done)
    table = table_rows(result, found, measure)
    png, csv = save_pictures(name, {".png": lambda file: write_png(figure, file)}, header=HEADER, rows=table)
    return png, csv

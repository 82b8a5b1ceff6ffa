"""Accuracy under interventions: right number in the right language, with each language's neurons changed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from ._controls import Rows, control_rows, of_control
from ._generate import answer_row, fitting_questions, row_journal
from ._interventions import Steps
from ._session import Session, StartAnswers, silent
from .config import DEFAULT_DO, DEFAULT_EVALUATION, MEASURES, EvaluationSettings
from .core.accuracy import AccuracyMap, Effects, Selective, effects, selective
from .core.perplexity import UNDISTURBED
from .corpus.encode import Prompt
from .corpus.grading import answer_line, check_answerable, grade
from .corpus.records import Record
from .engines import Engine
from .errors import CorpusError
from .plots.draw import write_png
from .plots.figures import accuracy_heatmap
from .store.answers import LETTERS, Cells, EvaluationFile, Json, alone, digest_of
from .store.files import save_pictures
from .store.layout import with_ending
from .store.maps import precision_of
from .store.masks import open_mask

# ── The answers of an evaluation: what they are made from, which are missing, and how they are made and judged.

Asked = dict[str, tuple[list[Record], list[Prompt]]]
"""Language → its questions that the model has room to answer, and their prompts."""


@dataclass(frozen=True)
class EvaluationWork:
    """What is to be answered.

    Attributes:
        session: model, corpus and place.
        rows: what is done to the model in each row.
        records: language → its questions.
        settings: how they are asked.
        overwrite: whether answers of an unfinished run with other settings are dropped.
        start: told of the work, for a progress bar.
    """

    session: Session
    rows: Rows
    records: Mapping[str, Sequence[Record]]
    settings: EvaluationSettings
    overwrite: bool
    start: StartAnswers

    @property
    def changed(self) -> tuple[str, ...]:
        """The rows in which something is done to the languages' neurons."""
        return self.rows.names(tuple(self.records))

    @property
    def controls(self) -> tuple[str, ...]:
        """The rows in which it is done to others."""
        return control_rows(self.changed, self.settings.controls)

    @property
    def names(self) -> tuple[str, ...]:
        """All rows, in the order in which they are done."""
        return (UNDISTURBED, *self.changed, *self.controls)

    def provenance(self) -> Json:
        """What decides the outcome of an answer."""
        rows = self.rows
        return {
            "sampling": self.settings.sampling.plain(),
            "overlong_policy": self.settings.overlong,
            "config_hash": self.session.checkpoint.config_hash,
            "weights_hash": self.session.checkpoint.weights_hash,
            "candidates": list(self.session.corpus.languages),
            "controls": rows.controls.describe() if self.settings.controls else None,
            "rows": {row: rows.doing.bind(each=row).describe(rows.source) for row in self.changed},
            "questions": {language: _digest(records) for language, records in self.records.items()},
        }

    def answer(self, file: EvaluationFile) -> int:
        """Answer what is missing, row by row, each put on disk when it is done; gives the number of new answers.

        Raises:
            LNAError: as `evaluate`; what can be refused is refused before the first answer.
        """
        done = file.read(engine=self.session.source.explicit)
        todo: dict[str, list[str]] = {}
        for row in self.names:
            there = {language for name, language in done if name == row}
            _drop_spent_journal(file, row, there)
            if missing := [language for language in self.records if language not in there]:
                todo[row] = missing
        if not todo:
            return 0
        engine = self.session.source()
        file.read(engine=precision_of(engine.provenance))
        for row in todo:
            if of_control(row)[1] <= 1:  # a control that can be drawn once can be drawn again
                self.rows.intervention(row, engine.model)
        asked = self._asked(engine)
        labels = {row: f"answering, {row} ({number}/{len(todo)})" for number, row in enumerate(todo, start=1)}
        return sum(
            self._answer_row(engine, file, row, {one: asked[one] for one in missing}, labels[row])
            for row, missing in todo.items()
        )

    def _answer_row(self, engine: Engine, file: EvaluationFile, row: str, asked: Asked, label: str) -> int:
        """Answer and judge the questions of a row."""
        records = [record for of_language, _ in asked.values() for record in of_language]
        given = answer_row(
            engine,
            [prompt for _, prompts in asked.values() for prompt in prompts],
            result=file.lines(row),
            made_from={"row": row, "languages": list(asked), **self._made_from(row, asked), **engine.provenance},
            intervention=self.rows.intervention(row, engine.model),
            sampling=self.settings.sampling,
            overwrite=self.overwrite,
            start=self.start,
            label=label,
        )
        graded = grade(records, [one["generated"] for one in given], candidates=self.session.corpus.languages)
        lines = [answer_line(*one) for one in zip(records, given, graded, strict=True)]
        ids = {language: question_ids(of_language) for language, (of_language, _) in asked.items()}
        file.add(row, lines, asked=ids, engine=engine.provenance)
        row_journal(file.lines(row)).remove()
        return len(lines)

    def _made_from(self, row: str, languages: Mapping[str, Any]) -> Json:
        """The part of the provenance that decides this row's answers in these languages."""
        whole = self.provenance()
        of, number = of_control(row)
        if not number:
            del whole["controls"]
        whole["rows"] = {name: made for name, made in whole["rows"].items() if name == of}
        whole["questions"] = {language: whole["questions"][language] for language in languages}
        return whole

    def _asked(self, engine: Engine) -> Asked:
        """Each language's questions that the model has room to answer.

        Raises:
            CorpusError: some are too long and are not to be left out, or none of a language is left.
        """
        every = [record for of_language in self.records.values() for record in of_language]
        fitting = fitting_questions(engine, every, sampling=self.settings.sampling, overlong=self.settings.overlong)
        asked: Asked = {language: ([], []) for language in self.records}
        for record, prompt in zip(*fitting, strict=True):
            asked[record.language][0].append(record)
            asked[record.language][1].append(prompt)
        empty = [language for language, (of_language, _) in asked.items() if not of_language]
        if empty:
            raise CorpusError(
                f"every question in {', '.join(empty)} is too long for the model: use --overlong truncate, fewer "
                "--max-new-tokens, or leave these languages out with --langs"
            )
        return asked


def question_ids(records: Sequence[Record]) -> list[str]:
    """A name for each question of a language: its id, so that the same question is known in all languages."""
    ids = [record.id or f"{record.language} {number}" for number, record in enumerate(records, start=1)]
    seen: Counter[str] = Counter()
    unique = []
    for one in ids:
        seen[one] += 1
        unique.append(one if seen[one] == 1 else f"{one} ({seen[one]})")
    return unique


def _digest(records: Sequence[Record]) -> str:
    """A digest of the questions, in their order, and of what their answers are held against."""
    content = [(name, one.instruction, one.target) for name, one in zip(question_ids(records), records, strict=True)]
    return digest_of(content)


def _drop_spent_journal(file: EvaluationFile, row: str, there: set[str]) -> None:
    """Remove a journal whose answers are all stored: a run was cut off between storing them and removing it."""
    journal = row_journal(file.lines(row))
    lines = journal.read()
    if lines and there.issuperset(lines[0]["languages"]):
        journal.remove()


# ── An evaluation's outcomes as tensors, and its table.

HEADER = (
    "row", "language", "questions", "right", "unclear", "share", "change", "low", "high", "p", "p_adjusted",
    "control_low", "control_high", "inside_control",
)  # fmt: skip
"""Shares and changes in percentage points; low and high are the ends of the 95 % interval of the change."""


def accuracy_map(work: EvaluationWork, cells: Cells, asked: Mapping[str, Sequence[str]]) -> AccuracyMap:
    """The tensors of what is stored.

    Args:
        work: which rows and languages.
        cells: (row, language) → a letter for each answer.
        asked: language → its questions, in the order of these.
    """
    languages = tuple(work.records)
    items = dict.fromkeys(item for language in languages for item in asked[language])
    place = {item: number for number, item in enumerate(items)}
    number, spoken, unclear, there = torch.zeros(4, len(work.names), len(languages), len(items), dtype=torch.bool)
    by_letter = {letter: (right, known is True, known is None, True) for (right, known), letter in LETTERS.items()}
    for r, row in enumerate(work.names):
        for k, language in enumerate(languages):
            at = torch.tensor([place[item] for item in asked[language]])
            outcomes = torch.tensor([by_letter[letter] for letter in cells[row, language]])
            for side, tensor in enumerate((number, spoken, unclear, there)):
                tensor[r, k, at] = outcomes[:, side]
    return AccuracyMap(work.changed, languages, work.controls, there[0], number, spoken, unclear)


def table_rows(result: AccuracyMap, found: Effects, measure: str) -> list[list[object]]:
    """One line a cell; what a cell has not is NaN: only changes have tests, and controls nothing to be held against."""
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
    overwrite: bool = False,
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
        overwrite: answer everything again.
        start: told of the work, for a progress bar.

    Raises:
        CorpusError: questions without known numbers, or that are too long.
        SettingsError: a language that the mask does not have or that cannot be identified, or steps that cannot be.
        MissingArtifactError: there is no such mask, or no means that the steps need.
        IncompatibleError: the mask is another model's.
        ConflictError: the files hold answers made from something else, and not `overwrite`.
    """
    session.layout.selection.at(top_rate, lam)
    doing = Steps.parse(settings.do)
    mask = open_mask(session.layout, top_rate=top_rate, lam=lam, checkpoint=session.checkpoint)
    chosen = tuple(languages or mask.languages)
    if doing.words:
        mask.check_languages(chosen)
    records = {language: session.corpus.of_language(language) for language in chosen}
    check_answerable([record for of_language in records.values() for record in of_language])
    rows = Rows.open(session.layout, mask, doing, classes=settings.classes, seed=settings.sampling.seed)
    variant = settings.variant + doing.variant(DEFAULT_DO)
    path = session.layout.evaluation(top_rate, lam, variant=variant)
    work = EvaluationWork(session, rows, records, settings, overwrite, start)
    file = EvaluationFile(path, work.provenance(), replace=overwrite)
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
    path: Path, doing: Steps, result: AccuracyMap, found: Effects, *, measure: str, title: str
) -> tuple[Path, Path]:
    """The heatmap and its table; another measure than the accuracy stands in their names."""
    name = path if measure == MEASURES[0] else with_ending(path, f".{measure}")
    done = ", ".join(doing.texts)
    figure = accuracy_heatmap(result, found, measure, title=title, done=done)
    table = table_rows(result, found, measure)
    png, csv = save_pictures(name, {".png": lambda file: write_png(figure, file)}, header=HEADER, rows=table)
    return png, csv

"""The answers of an evaluation: what they are made from, which are missing, and how they are made and judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.perplexity_map import UNDISTURBED
from ...corpus.prompts import Prompt
from ...corpus.records import Record
from ...engines import Engine
from ...errors import CorpusError
from ...session import Session, StartAnswers
from ...store.evaluation_file import EvaluationFile
from ...store.journal import Plain, digest_of
from ...store.ppl_file import precision_of
from ..answer_rows import answer_row, fitting_questions, row_journal
from ..controls import control_rows, of_control
from ..judging import answer_line, judge
from ..rows import Rows
from .settings import EvaluationSettings

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
        force: whether answers of an unfinished run with other settings are dropped.
        start: told of the work, for a progress bar.
    """

    session: Session
    rows: Rows
    records: Mapping[str, Sequence[Record]]
    settings: EvaluationSettings
    force: bool
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

    def provenance(self) -> Plain:
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
            force=self.force,
            start=self.start,
            label=label,
        )
        judged = judge(records, [one["generated"] for one in given], candidates=self.session.corpus.languages)
        lines = [answer_line(*one) for one in zip(records, given, judged, strict=True)]
        ids = {language: question_ids(of_language) for language, (of_language, _) in asked.items()}
        file.add(row, lines, asked=ids, engine=engine.provenance)
        row_journal(file.lines(row)).remove()
        return len(lines)

    def _made_from(self, row: str, languages: Mapping[str, Any]) -> Plain:
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

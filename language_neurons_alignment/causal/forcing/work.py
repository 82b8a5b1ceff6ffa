"""The answers of a forcing table: which are missing, and how they are made and their languages told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...corpus.records import Record
from ...engines import Engine
from ...session import Session, StartAnswers
from ...store.forcing_file import ForcingFile, Seen
from ...store.journal import Plain, digest_of
from ...store.ppl_file import precision_of
from ..answer_rows import answer_row, fitting_questions, row_journal
from ..judging import check_identifiable, languages_seen
from .cells import Cell, Steering


@dataclass(frozen=True)
class ForcingWork:
    """What is to be answered.

    Attributes:
        session: model, corpus and place.
        steering: what is done in the cells.
        cells: in the order in which they are done.
        languages: those of the mask; an answer is in the likeliest of these and of the corpus's.
        force: whether answers of an unfinished run with other settings are dropped.
        start: told of the work, for a progress bar.
    """

    session: Session
    steering: Steering
    cells: Sequence[Cell]
    languages: Sequence[str]
    force: bool
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
            force=self.force,
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
    def _made_from(self) -> dict[str, Plain]:
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


def _line(record: Record, cell: Cell, answer: Plain, seen: tuple[str, float] | None) -> Plain:
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

"""Perplexities, cell by cell: each text under each row's intervention, on disk as soon as it is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from ..config import MapSettings
from ..core.perplexity import perplexity
from ..corpus.encode import encode_texts
from ..corpus.records import Record
from ..corpus.sequences import ScoredText
from ..engines import Engine
from ..session import StartWork
from ..store.ppl_file import PerplexityFile, precision_of
from .rows import Rows


@dataclass(frozen=True)
class Part:
    """A file to be completed: the map's own, or that of its controls.

    Attributes:
        name: for the progress bar.
        file: where its cells go.
        todo: row → the columns that are missing in it.
    """

    name: str
    file: PerplexityFile
    todo: Mapping[str, Sequence[str]]

    @property
    def cells(self) -> int:
        """How many are missing."""
        return sum(map(len, self.todo.values()))


def score_missing(
    engine: Engine,
    parts: Sequence[Part],
    *,
    rows: Rows,
    records: Mapping[str, Sequence[Record]],
    settings: MapSettings,
    start: StartWork,
) -> None:
    """Score the missing cells, row by row, each put on disk when it is done. What can be refused is refused first.

    Args:
        engine: the model at work.
        parts: what is missing; also those that miss nothing, whose cells must be of the same engine.
        rows: what is done in each row.
        records: language → its part of the corpus.
        settings: which text is scored.
        start: told of each part's work.

    Raises:
        ConflictError: a file holds cells of another engine or precision.
        LNAError: as `Rows.intervention` and the engine.
    """
    for part in parts:
        part.file.read(engine=precision_of(engine.provenance))
        for row in part.todo:
            rows.intervention(row, engine.model)
    texts = _encode(engine, records, settings)
    tokens = {language: sum(len(one.tokens) for one in encoded) for language, encoded in texts.items()}
    for part in [part for part in parts if part.todo]:
        progress = start(part.name, sum(tokens[column] for columns in part.todo.values() for column in columns))
        for row, columns in part.todo.items():
            change = rows.intervention(row, engine.model)
            for column in columns:
                with nullcontext() if change is None else engine.intervene(change):
                    likelihoods = engine.log_likelihood(texts[column], progress=progress)
                # stored only now: closing the context has shown that the intervention took hold
                part.file.add(row, column, perplexity(likelihoods), engine=engine.provenance)


def _encode(
    engine: Engine, records: Mapping[str, Sequence[Record]], settings: MapSettings
) -> dict[str, list[ScoredText]]:
    length = engine.model.max_length
    return {
        language: encode_texts(
            of_language, engine.tokenizer, text=settings.text, max_length=length, overlong=settings.overlong
        )
        for language, of_language in records.items()
    }

"""Letting a model answer the same questions again and again, each time with something else done to its neurons.

Each time is a row: its answers go to a file of its own, and batch by batch to the journal beside that until it is
whole, so that a kill loses one batch at most and a run that goes on ends with the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from ..answers.answering import answer_prompts, askable
from ..core.interventions import Intervention
from ..corpus.prompts import Prompt
from ..corpus.records import Record
from ..engines import Engine
from ..sampling import Sampling
from ..session import StartAnswers
from ..store.journal import Journal, Plain


def fitting_questions(
    engine: Engine, records: Sequence[Record], *, sampling: Sampling, overlong: str
) -> tuple[list[Record], list[Prompt]]:
    """The questions that the model has room to answer, and their prompts.

    Raises:
        CorpusError: some are too long and `overlong` is "error", or none is left.
    """
    first = [(index, 0) for index in range(len(records))]
    places, prompts = askable(engine, records, first, sampling=sampling, overlong=overlong)
    return [records[index] for index, _ in places], prompts


def row_journal(result: Path) -> Journal:
    """What a row that is not whole has so far. Whoever stores the row's answers in `result` removes it then."""
    return Journal(result, anew="--force")


def answer_row(
    engine: Engine,
    prompts: Sequence[Prompt],
    *,
    result: Path,
    made_from: Plain,
    intervention: Intervention | None,
    sampling: Sampling,
    force: bool,
    start: StartAnswers,
    label: str,
) -> list[Plain]:
    """Every prompt's answer under an intervention, {"generated", "tokens", "finish"} each, in their order.

    Args:
        engine: who answers.
        prompts: what is asked.
        result: where the row's answers will lie; the journal lies beside it.
        made_from: all that decides the answers; a journal of something else is not gone on from.
        intervention: what is done to the neurons; None: nothing.
        sampling: how answers are drawn; the same seeds in every row.
        force: drop a journal of something else.
        start: told of the work, for a progress bar.
        label: what the bar says.

    Raises:
        ConflictError: an unfinished run with other settings is there, and not `force`.
        EngineError: the model cannot run; what was answered stays.
    """
    journal = row_journal(result)
    return answer_prompts(
        engine,
        prompts,
        sampling=sampling,
        journal=journal,
        known=journal.start(made_from, replace=force),
        under=nullcontext if intervention is None else lambda: engine.intervene(intervention),
        start=lambda tokens: start(label, tokens),
    )

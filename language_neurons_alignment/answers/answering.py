"""Letting a model answer many prompts, batch by batch, so that a kill loses one batch at most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ..corpus.answered import Place
from ..corpus.prompts import GeneratedAnswer, Prompt, fitting_prompts
from ..corpus.records import Record
from ..engines import Engine
from ..sampling import Sampling
from ..session import Work
from ..store.journal import Journal, Plain

Under = Callable[[], AbstractContextManager[None]]
"""Opens what a batch is answered under: an intervention, or nothing."""


def askable(
    engine: Engine, records: Sequence[Record], places: Sequence[Place], *, sampling: Sampling, overlong: str
) -> tuple[list[Place], list[Prompt]]:
    """The places whose answers the model has room for, and their prompts: instructions as they are counted.

    Raises:
        CorpusError: some are too long and `overlong` is "error", or none is left.
    """
    tokens = {index: tuple(engine.tokenizer.encode(records[index].instruction)) for index in {i for i, _ in places}}
    prompts = [Prompt(tokens[index], number) for index, number in places]
    fits = fitting_prompts(prompts, new=sampling.max_new_tokens, max_length=engine.model.max_length, overlong=overlong)
    return [places[at] for at in fits], [prompts[at] for at in fits]


def answer_prompts(
    engine: Engine,
    prompts: Sequence[Prompt],
    *,
    sampling: Sampling,
    journal: Journal,
    known: Sequence[Plain] = (),
    under: Under = nullcontext,
    start: Callable[[int], Work],
) -> list[Plain]:
    """Every prompt's answer, in their order, as it stands in a corpus: {"generated", "tokens", "finish"}.

    Batches are planned over all prompts, and one that is in the journal is not computed again; so a run that goes on
    computes exactly what one that was never cut off does.

    Args:
        engine: who answers.
        prompts: all of them, also those that are answered in the journal.
        sampling: how.
        journal: where each batch is put as soon as it is done.
        known: the journal's entries.
        under: opened around each batch; it is stored once this has closed without complaint.
        start: told of the most tokens that are still to come.

    Raises:
        EngineError: as `Engine.generate`; what was stored stays.
    """
    done: dict[tuple[int, ...], list[Plain]] = {tuple(entry["batch"]): entry["answers"] for entry in known}
    batches = [tuple(batch) for batch in engine.answer_batches(prompts, sampling=sampling)]
    todo = [batch for batch in batches if batch not in done]
    room = {batch: _room(engine, [prompts[index] for index in batch], sampling) for batch in todo}
    work = start(sum(room.values()))
    for batch in todo:
        with under():
            given = engine.generate([prompts[index] for index in batch], sampling=sampling, progress=work)
        done[batch] = [_plain(one) for one in given]
        journal.append({"batch": batch, "answers": done[batch]})
        work.spare(room[batch] - sum(len(one.tokens) for one in given))
    placed = {index: one for batch in batches for index, one in zip(batch, done[batch], strict=True)}
    return [placed[index] for index in range(len(prompts))]


def _room(engine: Engine, prompts: Sequence[Prompt], sampling: Sampling) -> int:
    """The most tokens that the answers can have."""
    longest = engine.model.max_length
    return sum(min(sampling.max_new_tokens, longest - len(prompt.tokens)) for prompt in prompts)


def _plain(answer: GeneratedAnswer) -> dict[str, Any]:
    return {"generated": answer.text, "tokens": len(answer.tokens), "finish": answer.finish}

"""Step 0: let the model answer the questions of a corpus: its neurons are counted on its own answers (SPEC 1)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ._interventions import NeuronSource
from ._session import Session, StartAnswers, Work, silent
from ._steps import NOTHING, Steps
from .config import GREEDY, OVERLONG, Sampling, check_choice
from .core.interventions import Intervention
from .corpus.encode import GeneratedAnswer, Prompt, fitting_prompts
from .corpus.records import (
    Corpus,
    Place,
    Record,
    generation_of,
    has_answers,
    open_places,
    read_corpus,
    same_questions,
    with_all_answers,
    without_answers,
)
from .engines import Engine
from .errors import ConflictError, CorpusError
from .store.answers import Journal, alone, differing, write_corpus
from .store.files import Json, digest_of
from .version import __version__

# ── Letting a model answer many prompts, batch by batch, so that a kill loses one batch at most.

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
    known: Sequence[Json] = (),
    under: Under = nullcontext,
    start: Callable[[int], Work],
) -> list[Json]:
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
    done: dict[tuple[int, ...], list[Json]] = {tuple(entry["batch"]): entry["answers"] for entry in known}
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


# ── The file that answers are written to: what stands in it already, what it was made from, and its journal.


class AnswerFile:
    """A corpus file that a model's answers go to. Whoever uses it holds `alone(path)`.

    Attributes:
        path: the file.
        journal: what an unfinished run has computed so far.
    """

    def __init__(
        self,
        path: Path,
        session: Session,
        languages: Sequence[str],
        *,
        sampling: Sampling,
        intervention: Json | None,
        overwrite: bool,
    ) -> None:
        """Name the file, and what its answers are to be made from; see `generation.generate`."""
        self.path = path
        self.journal = Journal(path)
        self._session = session
        self._languages = tuple(languages)
        self._overwrite = overwrite
        checkpoint = session.checkpoint
        self._settings: dict[str, Any] = {
            "model": session.layout.model,
            "config_hash": checkpoint.config_hash,
            "weights_hash": checkpoint.weights_hash,
            "sampling": sampling.plain(),
            "intervention": intervention,
        }

    def there_already(self) -> tuple[Record, ...]:
        """The records to go on from: the file's where it is there, else the corpus's.

        Raises:
            ConflictError: the file asks other questions, or has answers of our languages that were made otherwise.
        """
        corpus = self._session.corpus
        if self.path.exists() and self.path.resolve() != corpus.path.resolve():
            stored = read_corpus(self.path)
            if same_questions(stored, corpus):
                corpus = stored
            elif not self._overwrite:
                raise ConflictError(
                    f"{self.path} is there with other questions than {corpus.path}: "
                    "use --overwrite to replace it, or name another file with -o"
                )
        if self._overwrite:
            return tuple(without_answers(one) if one.language in self._languages else one for one in corpus.records)
        self._check(corpus.records, {**self._settings, **self._session.source.explicit})
        return corpus.records

    def check_engine(self, engine: Engine, records: Sequence[Record], places: Sequence[Place]) -> Json:
        """All that the answers are made from, now that the model is loaded.

        Raises:
            ConflictError: an answer would stand beside others that another engine or version made: a record tells of
                one way only.
        """
        ends = list(engine.model.end_tokens)
        generation = {**self._settings, **engine.provenance, "end_tokens": ends, "version": __version__}
        self._check([records[index] for index in sorted({index for index, _ in places})], generation)
        return generation

    def resume(
        self, records: Sequence[Record], places: Sequence[Place], generation: Json, *, answers: int, overlong: str
    ) -> list[Json]:
        """The journal's entries, where it is of this very work; else a new journal.

        Raises:
            ConflictError: it is of other work, that was not finished, and nothing is to be overwritten.
        """
        self._drop_spent_journal(records)
        asked = [(index, number, records[index].language, records[index].instruction) for index, number in places]
        work = {
            "languages": list(self._languages),
            "answers": answers,
            "overlong": overlong,
            "overwrite": self._overwrite,
            "questions": digest_of(asked),
        }
        return self.journal.start({**generation, **work}, replace=self._overwrite)

    def settle(self, records: Sequence[Record]) -> Corpus:
        """Write the file, whole, if it is not there like this already; and then forget the journal."""
        items = [record.as_item() for record in records]
        stored = [record.as_item() for record in read_corpus(self.path).records] if self.path.exists() else None
        if stored != items:
            write_corpus(self.path, items, overwrite=True)
        self._drop_spent_journal(records)
        return Corpus(self.path, tuple(records))

    def _check(self, records: Sequence[Record], wanted: Mapping[str, Any]) -> None:
        """Refuse to take answers for ours that were made otherwise; those that nobody says anything about are kept."""
        named = not wanted["config_hash"]  # where a model is known by its content, its name does not matter
        keys = [key for key in wanted if named or key != "model"]
        for record in records:
            made = generation_of(record)
            if record.language not in self._languages or not record.answers or made is None:
                continue
            made = {"intervention": made.get("deactivated"), **made}  # as answers were described before --do
            if any(made.get(key) != wanted[key] for key in keys):
                differs = differing({key: made.get(key) for key in keys}, {key: wanted[key] for key in keys})
                raise ConflictError(
                    f"{self.path if self.path.exists() else self._session.corpus.path} holds answers made with "
                    f"other settings: {differs}; ask for the same, answer anew with --overwrite, or name another file"
                )

    def _drop_spent_journal(self, records: Sequence[Record]) -> None:
        """Remove a journal whose every answer stands in the records: nothing in it is still needed."""
        stored = {_key(answer) for record in records for answer in record.as_item()["answers"]}
        lines = self.journal.read()
        if lines and all(_key(answer) in stored for entry in lines[1:] for answer in entry["answers"]):
            self.journal.remove()


def _key(answer: Mapping[str, Any]) -> str:
    return json.dumps(answer, sort_keys=True)


@dataclass(frozen=True)
class LanguageAnswers:
    """The answers in one language.

    Attributes:
        language: code.
        questions: its records.
        answers: all of them, also those that were there.
        made: those that are new.
        tokens: of the new ones.
        cut_off: new ones that ended because they were long enough, not by themselves.
    """

    language: str
    questions: int
    answers: int
    made: int
    tokens: int
    cut_off: int

    def plain(self) -> dict[str, str | int]:
        """As a dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class Generated:
    """A corpus with answers.

    Attributes:
        corpus: as it was written, all languages; `corpus.path` is the file.
        languages: those that were to be answered.
        made: (record, number) of the answers that are new in the file.
        resumed: how many of these an earlier run, that was cut off, had computed.
        skipped: answers that were not made because their prompts are too long.
    """

    corpus: Corpus
    languages: tuple[str, ...]
    made: tuple[Place, ...] = ()
    resumed: int = 0
    skipped: int = 0

    @property
    def per_language(self) -> list[LanguageAnswers]:
        """What each language has now."""
        return [self._of(language) for language in self.languages]

    def _of(self, language: str) -> LanguageAnswers:
        records = self.corpus.of_language(language)
        here = [
            self.corpus.records[index].as_item()["answers"][number]
            for index, number in self.made
            if self.corpus.records[index].language == language
        ]
        return LanguageAnswers(
            language,
            questions=len(records),
            answers=sum(len(record.answers) for record in records),
            made=len(here),
            tokens=sum(one["tokens"] for one in here),
            cut_off=sum(one["finish"] == "length" for one in here),
        )


def generate(
    session: Session,
    languages: Sequence[str] | None = None,
    *,
    out: str | Path,
    answers: int = 1,
    sampling: Sampling = GREEDY,
    overlong: str = "error",
    do: Steps = NOTHING,
    neurons: NeuronSource | None = None,
    overwrite: bool = False,
    start: StartAnswers = silent,
) -> Generated:
    """Fill a corpus up to `answers` answers per question, each a plain continuation of the instruction.

    Answers that are there, in the corpus or in `out`, are kept. A run that is cut off, also by a kill, goes on where
    it stopped when it is started again, and ends with the very same file.

    Args:
        session: model, corpus and place.
        languages: to answer; None for all. The records of others are written as they are.
        out: the corpus with answers; it may be the corpus's own file.
        answers: wanted per question.
        sampling: how they are drawn.
        overlong: what to do where prompt and answer are longer than the model allows: "error", "truncate" (shorter
            answers) or "skip" (none).
        do: what is done to neurons while the model answers.
        neurons: where the neurons that it names come from (`neuron_source`); None: files alone.
        overwrite: drop the answers that are there, of these languages.
        start: told of the work, for a progress bar.

    Raises:
        SettingsError: several answers by greedy decoding, steps that change nothing, or another choice that cannot be.
        CorpusError: a language without records, or prompts that are too long.
        ConflictError: answers of another model, corpus or setting stand there, and not `overwrite`; or another
            process is at it.
        EngineError: the model cannot run; what was answered stays.
    """
    sampling.check_answers(answers)
    check_choice(overlong, OVERLONG, "--overlong")
    do.check_bound()
    chosen = tuple(languages or session.corpus.languages)
    for language in chosen:
        session.corpus.of_language(language)
    source = (neurons or NeuronSource(session.layout, checkpoint=session.checkpoint)).opened(do)
    described = source.describe(do) if do.steps else None
    file = AnswerFile(Path(out), session, chosen, sampling=sampling, intervention=described, overwrite=overwrite)
    with alone(file.path):
        records = file.there_already()
        wanted = open_places(records, chosen, answers)
        if not wanted:
            return Generated(file.settle(records), chosen)
        engine = session.source()
        places, prompts = askable(engine, records, wanted, sampling=sampling, overlong=overlong)
        generation = file.check_engine(engine, records, wanted)
        known = file.resume(records, places, generation, answers=answers, overlong=overlong)
        intervention = source.intervention(do, engine.model)
        given = answer_prompts(
            engine,
            prompts,
            sampling=sampling,
            journal=file.journal,
            known=known,
            under=lambda: engine.intervene(intervention),
            start=lambda tokens: start("answering", tokens),
        )
        corpus = file.settle(with_all_answers(records, dict(zip(places, given, strict=True)), generation=generation))
        resumed = sum(len(entry["answers"]) for entry in known)
        return Generated(corpus, chosen, tuple(places), resumed, skipped=len(wanted) - len(places))


def ensure_answers(
    session: Session,
    languages: Sequence[str],
    *,
    answers: int = 1,
    sampling: Sampling = GREEDY,
    overlong: str = "error",
    overwrite: bool = False,
    start: StartAnswers = silent,
) -> tuple[Session, Generated | None]:
    """A session whose corpus has answers: where it has questions alone, the model's own (`Layout.answers`).

    Raises:
        CorpusError: some of the languages have answers and others none: what is counted would not compare.
        ConflictError: the stored answers are of other questions, or made otherwise, and not `overwrite`.
    """
    answered = [language for language in languages if has_answers(session.corpus.of_language(language))]
    if len(answered) == len(languages):
        return session, None
    own = session.layout.answers()
    if answered and session.corpus.path != own:
        without = [language for language in languages if language not in answered]
        raise CorpusError(
            f"{session.corpus.path} has answers in {', '.join(answered)} and none in {', '.join(without)}: neurons "
            "counted on answers of different origin do not compare; fill it with `lna generate`, or choose --langs"
        )
    made = generate(
        session,
        languages,
        out=own,
        answers=answers,
        sampling=sampling,
        overlong=overlong,
        overwrite=overwrite,
        start=start,
    )
    return replace(session, corpus=made.corpus), made


# ── Letting a model answer the same questions again and again, each time with something else done to its neurons.
#
# Each time is a row: its answers go to a file of its own, and batch by batch to the journal beside that until it is
# whole, so that a kill loses one batch at most and a run that goes on ends with the same bytes.


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
    made_from: Json,
    intervention: Intervention | None,
    sampling: Sampling,
    overwrite: bool,
    start: StartAnswers,
    label: str,
) -> list[Json]:
    """Every prompt's answer under an intervention, {"generated", "tokens", "finish"} each, in their order.

    Args:
        engine: who answers.
        prompts: what is asked.
        result: where the row's answers will lie; the journal lies beside it.
        made_from: all that decides the answers; a journal of something else is not gone on from.
        intervention: what is done to the neurons; None: nothing.
        sampling: how answers are drawn; the same seeds in every row.
        overwrite: drop a journal of something else.
        start: told of the work, for a progress bar.
        label: what the bar says.

    Raises:
        ConflictError: an unfinished run with other settings is there, and not `overwrite`.
        EngineError: the model cannot run; what was answered stays.
    """
    journal = row_journal(result)
    return answer_prompts(
        engine,
        prompts,
        sampling=sampling,
        journal=journal,
        known=journal.start(made_from, replace=overwrite),
        under=nullcontext if intervention is None else lambda: engine.intervene(intervention),
        start=lambda tokens: start(label, tokens),
    )

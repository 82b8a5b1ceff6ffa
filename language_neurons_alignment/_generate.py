"""Step 0: let the model answer the questions of a corpus, because its neurons are counted on its own answers.

`generate` fills a corpus with answers; `answer_rows` answers the rows of an evaluation or a forcing table. Both answer
batch by batch, with a journal, so that a kill loses one batch at most.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ._grid import Condition, Conditions, under
from ._interventions import NeuronSource
from ._operations import NOTHING, Steps
from ._session import Session
from .config import GREEDY, OVERLONG, Asking, Sampling, check_choice
from .core.interventions import Intervention
from .core.model import StartProgress, silent
from .corpus.encode import GeneratedAnswer, Prompt, encode_prompts, fitting_prompts
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
from .corpus.templates import warn_of_other_recipes
from .engines import Engine, each
from .errors import ConflictError, CorpusError
from .languages import parse_languages
from .store.answers import AnswerGrid, Journal, alone, write_corpus
from .store.files import Json, check_writable, digest_of
from .store.grid import Key, asked_for, differences, precision_of, said
from .version import __version__

_BYTES_A_TOKEN = 2
"""What an answer takes on disk for each token that it may have; most are shorter than they may be."""


class Questions(NamedTuple):
    """Questions that the model has room to answer."""

    records: list[Record]
    prompts: list[Prompt]


def askable(
    engine: Engine, records: Sequence[Record], places: Sequence[Place], *, sampling: Sampling, overlong: str
) -> tuple[list[Place], list[Prompt]]:
    """Return the places whose answers the model has room for, and their prompts: the instructions, tokenised."""
    warn_of_other_recipes([records[index] for index in sorted({index for index, _ in places})], engine.tokenizer)
    prompts = encode_prompts(records, places, engine.tokenizer, ends=engine.model.end_tokens)
    fits = fitting_prompts(prompts, new=sampling.max_new_tokens, max_length=engine.model.max_length, overlong=overlong)
    return [places[at] for at in fits], [prompts[at] for at in fits]


def questions_of(
    engine: Engine, records: Mapping[str, Sequence[Record]], *, sampling: Sampling, overlong: str
) -> dict[str, Questions]:
    """Return each language's questions that the model has room to answer."""
    every = [record for of_language in records.values() for record in of_language]
    first = [(index, 0) for index in range(len(every))]
    places, prompts = askable(engine, every, first, sampling=sampling, overlong=overlong)
    asked = {language: Questions([], []) for language in records}
    for (index, _), prompt in zip(places, prompts, strict=True):
        record = every[index]
        asked[record.language].records.append(record)
        asked[record.language].prompts.append(prompt)
    empty = [language for language, questions in asked.items() if not questions.records]
    if empty:
        raise CorpusError(
            f"every question in {', '.join(empty)} is too long for the model: use --overlong truncate, fewer "
            "--max-new-tokens, or leave these languages out with --langs"
        )
    return asked


def answer_prompts(
    engine: Engine,
    prompts: Sequence[Prompt],
    *,
    sampling: Sampling,
    journal: Journal,
    made_from: Json,
    intervention: Intervention | None,
    overwrite: bool,
    start: StartProgress,
    label: str,
) -> tuple[list[Json], int]:
    """Answer all prompts; return the answers in their order, and how many of them an earlier run had made.

    An answer is {"generated", "tokens", "finish"}, as in a corpus. Batches are planned over all prompts, those in the
    journal among them, so a run that goes on after a kill computes exactly what an uninterrupted one does.
    """
    known = journal.start(made_from, replace=overwrite)
    done = _answered(journal, known)
    batches = [tuple(batch) for batch in engine.answer_batches(prompts, sampling=sampling)]
    todo = [batch for batch in batches if batch not in done]
    longest = [min(sampling.max_new_tokens, engine.model.max_length - len(prompt.tokens)) for prompt in prompts]
    room = {batch: sum(longest[index] for index in batch) for batch in todo}
    progress = start(label, sum(room.values()))

    def answer(batch: tuple[int, ...]) -> list[GeneratedAnswer]:
        with under(engine, intervention):
            return engine.generate([prompts[index] for index in batch], sampling=sampling, progress=progress)

    for batch, given in each(engine, answer, todo):
        done[batch] = [{"generated": one.text, "tokens": len(one.tokens), "finish": one.finish} for one in given]
        journal.append({"batch": batch, "answers": done[batch]})
        progress.spare(room[batch] - sum(len(one.tokens) for one in given))
    placed = {index: one for batch in batches for index, one in zip(batch, done[batch], strict=True)}
    return [placed[index] for index in range(len(prompts))], sum(len(entry["answers"]) for entry in known)


def _answered(journal: Journal, entries: Sequence[Json]) -> dict[tuple[int, ...], list[Json]]:
    """Return the batches in a journal, the header left out; ArtifactError where an entry is none."""

    def is_answer(one: object) -> bool:
        kinds = {"generated": str, "tokens": int, "finish": str}
        return isinstance(one, dict) and all(type(one.get(name)) is kind for name, kind in kinds.items())

    done: dict[tuple[int, ...], list[Json]] = {}
    for number, entry in enumerate(entries, start=2):
        match entry:
            case {"batch": [*batch], "answers": [*answers]} if (
                len(batch) == len(answers)
                and all(type(index) is int for index in batch)
                and all(map(is_answer, answers))
            ):
                done[tuple(batch)] = answers
            case _:
                raise journal.damaged(number, "not a batch of answers")
    return done


class AnswerRow(NamedTuple):
    """Answers of a grid that are made together, under one condition, to the questions in some languages."""

    name: str
    texts: Sequence[str]
    conditions: Conditions
    condition: Condition
    made_from: Json


@dataclass(frozen=True)
class AnswersWritten:
    """The files of answers under conditions.

    Attributes:
        matched_by: what the controls are matched by; None without controls.
        json: every cell with what was seen in its answers, and what they were made from.
        csv: the table.
        png: the heatmap.
        answers: a folder with a file for each row or cell, an answer a line.
        answered: answers that this run made; the others were there.
        notes: sentences about the changes that a reader must know.
    """

    matched_by: str | None
    json: Path
    csv: Path
    png: Path
    answers: Path
    answered: int
    notes: tuple[str, ...]


def answers_made_from(session: Session, settings: Asking, candidates: Sequence[str]) -> Json:
    """Return what all answers of a grid are made from, and the languages that they can be found to be in."""
    return {
        "sampling": settings.sampling.plain(),
        "overlong_policy": settings.overlong,
        **session.hashes_of_all,
        "candidates": list(candidates),
    }


GradeAnswers = Callable[[AnswerRow, Sequence[Record], Sequence[Json]], tuple[list[Json], dict[Key, Json]]]
"""Takes a row, its questions and their answers; returns the answers as lines for reading, and its finished cells."""


def answer_rows(
    file: AnswerGrid,
    rows: Sequence[AnswerRow],
    records: Mapping[str, Sequence[Record]],
    session: Session,
    settings: Asking,
    graded: GradeAnswers,
    *,
    overwrite: bool,
    start: StartProgress,
) -> int:
    """Answer and grade rows of a grid; each is on disk as soon as it is done. Return how many answers they have."""
    if not rows:
        return 0
    questions = sum(len(records[text]) for row in rows for text in row.texts)
    file.prepare(needed=questions * settings.sampling.max_new_tokens * _BYTES_A_TOKEN)
    engine, answered = session.source(), 0
    file.read(engine=precision_of(engine.provenance))
    for row in rows:
        row.conditions.check_model([row.condition], engine.model)
    asked = questions_of(engine, records, sampling=settings.sampling, overlong=settings.overlong)
    for number, row in enumerate(rows, start=1):
        given, _ = answer_prompts(
            engine,
            [prompt for text in row.texts for prompt in asked[text].prompts],
            sampling=settings.sampling,
            journal=file.journal(row.name),
            made_from={**row.made_from, **engine.provenance},
            intervention=row.conditions.intervention(row.condition, engine.model),
            overwrite=overwrite,
            start=start,
            label=f"answering, {row.name} ({number}/{len(rows)})",
        )
        lines, cells = graded(row, [record for text in row.texts for record in asked[text].records], given)
        file.store(row.name, lines, cells, engine=engine.provenance)
        answered += len(lines)
    return answered


class AnswerFile:
    """A corpus file with a model's answers. Use it only while `alone(path)` is open."""

    def __init__(
        self,
        path: Path,
        session: Session,
        languages: Sequence[str],
        *,
        sampling: Sampling,
        intervention: Json | None,
        answers: int,
        overlong: str,
        overwrite: bool,
    ) -> None:
        """Name the file, and what its answers are to be made from; see `generate`."""
        self.path = path
        self.journal = Journal(path)
        self._session = session
        self._languages = tuple(languages)
        self._overwrite = overwrite
        self._wanted = {"languages": list(languages), "answers": answers, "overlong": overlong}
        self._settings: Json = {
            "model": session.layout.model,
            **session.hashes_of_all,
            "sampling": sampling.plain(),
            "intervention": intervention,
        }

    def read(self) -> tuple[Record, ...]:
        """Return the records to continue: the file's where it is there, else the corpus's."""
        self._overwrite = self._overwrite or self._was_overwriting()
        corpus = self._session.corpus
        if self.path.exists() and self.path.resolve() != corpus.path.resolve():
            stored = read_corpus(self.path)
            if same_questions(stored, corpus):
                corpus = stored
            elif not self._overwrite:
                raise ConflictError(
                    f"{self.path} is there with other questions than {corpus.path}: "
                    "use --overwrite to replace it, or write to another place"
                )
        if self._overwrite:
            return tuple(without_answers(one) if one.language in self._languages else one for one in corpus.records)
        self._check(corpus.records, {**self._settings, **self._session.source.explicit})
        return corpus.records

    def _was_overwriting(self) -> bool:
        """Whether the journal is of a run that replaces the answers by what this one wants too."""
        lines = self.journal.read()
        wanted = {**self._settings, **self._session.source.explicit, **self._wanted, "overwrite": True}
        return bool(lines) and not differences(lines[0], json.loads(json.dumps(wanted)), asked_for)

    def check_engine(self, engine: Engine, records: Sequence[Record], places: Sequence[Place]) -> Json:
        """Return all that the answers are made from, now that the model is loaded."""
        ends = list(engine.model.end_tokens)
        generation = {**self._settings, **engine.provenance, "end_tokens": ends, "version": __version__}
        self._check([records[index] for index in sorted({index for index, _ in places})], generation)
        return generation

    def header(self, records: Sequence[Record], places: Sequence[Place], generation: Json) -> Json:
        """Return what the journal is made from; a journal that is no longer needed is deleted first."""
        self._drop_spent_journal(records)
        asked = [(index, number, records[index].language, *records[index].asked) for index, number in places]
        return {
            **generation,
            **self._wanted,
            "overwrite": self._overwrite,
            "questions": digest_of(asked),
        }

    def write(self, records: Sequence[Record]) -> Corpus:
        """Write the file if it is not there like this already, or is to be replaced, and delete the journal."""
        items = [record.as_item() for record in records]
        stored = [record.as_item() for record in read_corpus(self.path).records] if self.path.exists() else None
        if stored != items or self._overwrite:  # a new time tells a whole run that the file is replaced
            write_corpus(self.path, items, overwrite=True)
        self._drop_spent_journal(records)
        return Corpus(self.path, tuple(records))

    def _check(self, records: Sequence[Record], wanted: Json) -> None:
        """Refuse answers that were made from something else; answers of unknown origin are kept."""
        named = not wanted["config_hash"]  # where a model is known by its content, its name does not matter
        keys = [key for key in wanted if named or key != "model"]
        for record in records:
            made = generation_of(record)
            if record.language not in self._languages or not record.answers or made is None:
                continue
            made = {"intervention": made.get("deactivated"), **made}  # as answers were described before --do
            compared = [key for key in asked_for(made, wanted) if key in keys]
            found = differences({key: made.get(key) for key in compared}, {key: wanted[key] for key in compared})
            if found:
                raise ConflictError(
                    f"{self.path if self.path.exists() else self._session.corpus.path} holds answers made with "
                    f"other settings: {said(found)}; ask for the same, answer anew with --overwrite, or name another "
                    "file"
                )

    def _drop_spent_journal(self, records: Sequence[Record]) -> None:
        """Delete a journal of which the records have every answer."""
        key = partial(json.dumps, sort_keys=True)
        stored = {key(answer) for record in records for answer in record.as_item()["answers"]}
        lines = self.journal.read()
        made = _answered(self.journal, lines[1:]).values()
        if lines and all(key(answer) in stored for answers in made for answer in answers):
            self.journal.remove()


@dataclass(frozen=True)
class LanguageAnswers:
    """How many answers one language has.

    Attributes:
        answers: all of them, also those that were there.
        cut_off: new ones that ended at --max-new-tokens.
    """

    language: str
    questions: int
    answers: int
    made: int
    tokens: int
    cut_off: int

    def plain(self) -> Json:
        """Return it as a dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class Generated:
    """A corpus with answers.

    Attributes:
        corpus: as it was written, with all languages; `corpus.path` is the file.
        languages: those that were to be answered.
        made: (record, number) of the answers that are new in the file.
        resumed: how many of these an earlier run had computed before it was cut off.
        skipped: answers that were not made because their prompts are too long.
        notes: sentences about the changes that a reader must know.
    """

    corpus: Corpus
    languages: tuple[str, ...]
    made: tuple[Place, ...] = ()
    resumed: int = 0
    skipped: int = 0
    notes: tuple[str, ...] = ()

    @property
    def per_language(self) -> list[LanguageAnswers]:
        """How many answers each language has now."""
        new: dict[str, list[Json]] = {language: [] for language in self.languages}
        for index, number in self.made:
            record = self.corpus.records[index]
            new[record.language].append(record.as_item()["answers"][number])
        return [
            LanguageAnswers(
                language,
                questions=len(records := self.corpus.of_language(language)),
                answers=sum(len(record.answers) for record in records),
                made=len(here),
                tokens=sum(one["tokens"] for one in here),
                cut_off=sum(one["finish"] == "length" for one in here),
            )
            for language, here in new.items()
        ]


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
    start: StartProgress = silent,
) -> Generated:
    """Fill a corpus up to `answers` answers per question, each a plain continuation of the instruction.

    Answers in the corpus or in `out` are kept. A run that was cut off, also by a kill, goes on where it stopped when it
    is started again, and ends with the same file.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "questions.json", "toy") as session:
    ...     done = generate(session, ["en"], out="answered.json", sampling=Sampling(max_new_tokens=4))
    >>> len(done.made), done.corpus.path.name
    (3, 'answered.json')

    Args:
        session: model, corpus and place.
        languages: to answer; None for all. The records of others are written as they are.
        out: the corpus with answers; it may be the corpus's own file.
        answers: wanted per question.
        sampling: how they are drawn.
        overlong: what to do where prompt and answer are longer than the model allows: "error", "truncate" (shorter
            answers) or "skip" (none).
        do: what is done to neurons while the model answers.
        neurons: where the neurons that it names come from (`neuron_source`); None: from files alone.
        overwrite: replace the answers of these languages.
        start: gives the progress bar.

    Raises:
        SettingsError: several answers by greedy decoding, steps that change nothing, or another impossible choice.
        CorpusError: a language without records, or prompts that are too long.
        ConflictError: the file has answers of another model, corpus or setting, and not `overwrite`; or another process
            writes it.
        EngineError: the model cannot run; what was answered stays.
    """
    # read
    sampling.check_answers(answers)
    check_choice(overlong, OVERLONG, "--overlong")
    do.check_bound()
    chosen = parse_languages(languages) if languages else session.corpus.languages
    for language in chosen:
        session.corpus.of_language(language)
    source = (neurons or NeuronSource(session.layout, checkpoint=session.checkpoint)).opened(do)
    described = source.describe(do) if do.steps else None
    notes = tuple(source.notes(do))
    wished = {"answers": answers, "overlong": overlong, "overwrite": overwrite}
    file = AnswerFile(Path(out), session, chosen, sampling=sampling, intervention=described, **wished)
    with alone(file.path):
        records = file.read()

        # list the answers that are missing
        wanted = open_places(records, chosen, answers)
        if not wanted:
            return Generated(file.write(records), chosen, notes=notes)

        # run
        check_writable(file.path, needed=len(wanted) * sampling.max_new_tokens * _BYTES_A_TOKEN)
        engine = session.source()
        places, prompts = askable(engine, records, wanted, sampling=sampling, overlong=overlong)
        generation = file.check_engine(engine, records, wanted)
        header = file.header(records, places, generation)
        given, resumed = answer_prompts(
            engine,
            prompts,
            sampling=sampling,
            journal=file.journal,
            made_from=header,
            intervention=source.intervention(do, engine.model) if do.steps else None,
            overwrite=overwrite,
            start=start,
            label="answering",
        )

        # write
        corpus = file.write(with_all_answers(records, dict(zip(places, given, strict=True)), generation=generation))
        return Generated(corpus, chosen, tuple(places), resumed, skipped=len(wanted) - len(places), notes=notes)


def ensure_answers(
    session: Session,
    languages: Sequence[str],
    *,
    answers: int = 1,
    sampling: Sampling = GREEDY,
    overlong: str = "error",
    overwrite: bool = False,
    start: StartProgress = silent,
) -> tuple[Session, Generated | None]:
    """Return a session whose corpus has answers: where it has only questions, the model answers (`Layout.answers`)."""
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
    chosen = {"answers": answers, "sampling": sampling, "overlong": overlong, "overwrite": overwrite}
    made = generate(session, languages, out=own, start=start, **chosen)
    return replace(session, corpus=made.corpus), made

"""Step 0: let the model answer the questions of a corpus: its neurons are counted on its own answers (SPEC 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..config import OVERLONG, check_choice
from ..corpus.answered import Place, has_answers, open_places, with_all_answers
from ..corpus.records import Corpus
from ..errors import CorpusError
from ..interventions.doing import NOTHING, Doing
from ..interventions.neuron_sets import NeuronSource
from ..sampling import GREEDY, Sampling
from ..session import Session, StartAnswers, silent
from ..store.journal import alone
from .answering import answer_prompts, askable
from .generation_file import AnswerFile


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
    do: Doing = NOTHING,
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
    source = neurons or NeuronSource.open(session.layout, None)
    described = do.describe(source) if do.steps else None
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
        intervention = do.intervention(source, engine.model)
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
    force: bool = False,
    start: StartAnswers = silent,
) -> tuple[Session, Generated | None]:
    """A session whose corpus has answers: where it has questions alone, the model's own (`Layout.answers`).

    Raises:
        CorpusError: some of the languages have answers and others none: what is counted would not compare.
        ConflictError: the stored answers are of other questions, or made otherwise, and not `force`.
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
        session, languages, out=own, answers=answers, sampling=sampling, overlong=overlong, overwrite=force, start=start
    )
    return replace(session, corpus=made.corpus), made

"""The file that answers are written to: what stands in it already, what it was made from, and its journal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..corpus.answered import Place, generation_of, same_questions, without_answers
from ..corpus.records import Corpus, Record, read_corpus
from ..engines import Engine
from ..errors import ConflictError
from ..sampling import Sampling
from ..session import Session
from ..store.corpus_file import write_corpus
from ..store.journal import Journal, Plain, differing, digest_of
from ..version import __version__


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
        intervention: Plain | None,
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

    def check_engine(self, engine: Engine, records: Sequence[Record], places: Sequence[Place]) -> Plain:
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
        self, records: Sequence[Record], places: Sequence[Place], generation: Plain, *, answers: int, overlong: str
    ) -> list[Plain]:
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
            write_corpus(self.path, items, force=True)
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

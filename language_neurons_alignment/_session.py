"""What every step that runs a model is given: a model, a corpus, and a place for results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from .config import DEFAULT_SELECTION, Selection
from .corpus.records import Corpus, generation_of, has_answers, read_corpus, same_questions
from .engines import EngineSettings, EngineSource
from .store.checkpoint import Checkpoint, fetch_config, read_checkpoint
from .store.layout import Layout, results_name, results_of

StartWork = Callable[[str, int], Callable[[int], None]]
"""Called with a label and the tokens to do; gives what is called with the tokens just done."""


class Work(Protocol):
    """Is told of work whose amount is known only when it is done."""

    def __call__(self, done: int) -> None:
        """Tokens just done."""

    def spare(self, tokens: int) -> None:
        """Tokens that were expected and will not come: an answer ended before it had to."""


StartAnswers = Callable[[str, int], Work]
"""Called with a label and the most tokens that there can be; gives who is told of what comes."""


class _Unseen:
    """Progress that nobody looks at."""

    def __call__(self, done: int) -> None:
        pass

    def spare(self, tokens: int) -> None:
        pass


def silent(label: str, tokens: int) -> Work:
    """No progress shown."""
    return _Unseen()


@dataclass(frozen=True)
class Session:
    """One model at work on one dataset. As a context manager it closes the model at the end.

    Attributes:
        layout: where results lie.
        corpus: the dataset.
        checkpoint: the model as it lies on disk, so that a step can see whether its results are there already.
        source: gives the loaded model, once it is needed.
    """

    layout: Layout
    corpus: Corpus
    checkpoint: Checkpoint
    source: EngineSource

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.source.__exit__(kind, error, trace)


def open_session(
    model_path: str,
    corpus: Corpus | str | Path,
    dataset: str,
    *,
    model_name: str | None = None,
    root: str | Path = ".",
    existing: bool = False,
    selection: Selection = DEFAULT_SELECTION,
    engine: str = "auto",
    dtype: str = "auto",
    **options: Any,
) -> Session:
    """Name a model, a corpus and a place; the model is loaded when a step first needs it.

    Args:
        model_path: folder or hub id.
        corpus: a corpus, or the path of its file.
        dataset: name of the dataset, in the results' paths.
        model_name: as in file names; by default the family in the model's config.
        root: folder under which results lie.
        existing: go on from results that are there, also under another name (`find_layout`).
        selection: how the neurons were found whose masks are used; its method decides where results lie.
        engine: "transformers", "vllm", or "auto".
        dtype: precision; "auto" is the model's own.
        options: what only one engine knows (device, batch_tokens, …).

    Raises:
        SettingsError: a name that cannot be part of a path.
        CorpusError: the corpus cannot be read.
        ArtifactError: the model's config is damaged.
    """
    fetch_config(model_path)
    checkpoint = read_checkpoint(model_path)
    layout = Layout(Path(root), dataset, results_name(model_path, model_name))
    if existing:
        layout = results_of(model_path, dataset, model_name=model_name, root=root)
    read = corpus if isinstance(corpus, Corpus) else read_corpus(Path(corpus))
    return Session(
        layout.by(selection), read, checkpoint, EngineSource(EngineSettings(model_path, engine, dtype, options))
    )


def with_stored_answers(session: Session) -> Session:
    """The same session; where its corpus has questions alone, with the answers that this model wrote to them.

    `lna run` writes them (`Layout.answers`); whatever is later given the same questions then means the same texts.
    Answers to other questions, or of a model with other weights, are left where they are.
    """
    path = session.layout.answers()
    if has_answers(session.corpus.records) or not path.exists():
        return session
    stored = read_corpus(path)
    return replace(session, corpus=stored) if _belong(stored, session) else session


def _belong(stored: Corpus, session: Session) -> bool:
    hashes = {name: getattr(session.checkpoint, name) for name in ("config_hash", "weights_hash")}
    made = [found for record in stored.records if (found := generation_of(record)) is not None]
    ours = all({name: one.get(name) for name in hashes} == hashes for one in made)
    return ours and same_questions(stored, session.corpus)

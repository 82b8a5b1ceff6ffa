"""A session: the model, the corpus and the place for results, which every step that runs a model needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .config import DEFAULT_SELECTION, TEXT, Selection
from .corpus.records import Corpus, generation_of, has_answers, read_corpus, same_questions, texts_as_answers
from .engines import EngineSettings, EngineSource
from .store.checkpoint import Checkpoint, fetch_config, read_checkpoint
from .store.files import Json
from .store.layout import DATASET_NAME, Layout, check_name, model_tag, results_name, results_of


@dataclass(frozen=True)
class Session:
    """One model and one dataset, and a place for results. As a context manager it closes the model at the end.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "corpus.json", "toy") as session:
    ...     print(session.layout.mask(0.01, 0.25).as_posix())
    activation_masks/toy/0.01-0.25/mask.Llama-model

    Attributes:
        layout: where results lie.
        corpus: the dataset.
        checkpoint: the model on disk, read once, so that steps can tell whether existing results come from it.
        source: loads the model when it is first called.
    """

    layout: Layout
    corpus: Corpus
    checkpoint: Checkpoint
    source: EngineSource

    @property
    def hashes(self) -> Json:
        """Digests of the model's config and weights, as results note them."""
        return {"config_hash": self.checkpoint.config_hash, "weights_hash": self.checkpoint.weights_hash}

    @property
    def hashes_of_all(self) -> Json:
        """The same and the tokenizer's, if it is known; results of earlier versions do not hold it."""
        tokenizer = self.checkpoint.tokenizer_hash
        return {**self.hashes, **({"tokenizer_hash": tokenizer} if tokenizer else {})}

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.source.__exit__(*exception)


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
    adapter: str | None = None,
    **options: Any,
) -> Session:
    """Name a model, a corpus and a place for results; the model is loaded when a step first needs it.

    >>> with open_session("model", "corpus.json", "toy") as session:
    ...     print(session.layout.model, session.corpus.languages)
    Llama-model ('en', 'es', 'fr')

    Args:
        model_path: folder, GGUF file or hub id.
        corpus: a corpus, or the path of its file.
        dataset: name of the dataset, in the results' paths.
        model_name: as in file names; by default the family in the model's config.
        root: folder under which results lie.
        existing: continue from existing results, also where they lie under another name (`find_layout`).
        selection: how the neurons were found whose masks are used; its method decides where they lie.
        engine: "transformers", "vllm", or "auto".
        dtype: precision; "auto" is the model's own.
        adapter: folder or hub id of a LoRA adapter of this model; its last part names results.
        options: other options of the engine (device, batch_tokens, adapter_live, quantization, …).

    Raises:
        SettingsError: a name that cannot be part of a path.
        CorpusError: the corpus cannot be read.
        ArtifactError: the model's config is damaged.
    """
    check_name(dataset, DATASET_NAME, example="mgsm")  # before anything is fetched
    model_tag(model_path)
    fetch_config(model_path)
    if adapter is not None:
        fetch_config(adapter, "adapter_config.json")
        options["adapter"] = adapter
    checkpoint = read_checkpoint(model_path, adapter=adapter, quantization=options.get("quantization"))
    layout = Layout(Path(root), dataset, results_name(model_path, model_name, adapter=adapter))
    if existing:
        layout = results_of(
            model_path, dataset, model_name=model_name, root=root, checkpoint=checkpoint, adapter=adapter
        )
    read = corpus if isinstance(corpus, Corpus) else read_corpus(Path(corpus))
    source = EngineSource(EngineSettings(model_path, engine, dtype, options))
    return Session(layout.by(selection), read, checkpoint, source)


def with_counted_texts(session: Session, count: str) -> Session:
    """Return the session whose answers are counted: of a corpus of texts, with `count` "text", the texts themselves.

    Raises:
        CorpusError: the texts are to be counted, and some have answers.
    """
    return replace(session, corpus=texts_as_answers(session.corpus)) if count == TEXT else session


def with_stored_answers(session: Session) -> Session:
    """Return the session with this model's stored answers, where its corpus has only questions.

    `lna run` stores them (`Layout.answers`), and later steps with the same questions use them. Answers to other
    questions, or of a model with other weights, are ignored.
    """
    path = session.layout.answers()
    if has_answers(session.corpus.records) or not path.exists():
        return session
    stored = read_corpus(path)
    made = [found for record in stored.records if (found := generation_of(record)) is not None]
    ours = all(session.checkpoint.difference(one, unknown_differs=True) is None for one in made)
    return replace(session, corpus=stored) if ours and same_questions(stored, session.corpus) else session

"""From flags to what the use-cases take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..config import DEFAULT_METHOD, Method
from ..languages import DEFAULT_LANGUAGES, parse_languages
from .options import Engine, Model, Neurons, Results, Search
from .output import note

if TYPE_CHECKING:
    from .._session import Session
    from ..analysis import Choice
    from ..store.layout import Layout


def languages_or_default(names: str | None) -> tuple[str, ...]:
    """The languages of `--langs`, or the paper's ten."""
    return DEFAULT_LANGUAGES if names is None else parse_languages(names)


def session_of(
    model: Model,
    data: Path,
    results: Results,
    engine: Engine,
    *,
    existing: bool = False,
    method: Method = DEFAULT_METHOD,
) -> Session:
    """What the flags name, opened: `existing` looks for counts that are there under another name too."""
    from .._session import open_session

    named = {"model_name": model.model_name, "root": results.root, "existing": existing, "method": method}
    return open_session(model.model_path, data, model.dataset, **named, **engine.choices())


def answered(work: Session) -> Session:
    """The session with this model's own answers, where the corpus has questions alone; says so."""
    from .._session import with_stored_answers

    stored = with_stored_answers(work)
    if stored.corpus is not work.corpus:
        note(f"{work.corpus.path} has questions alone; using this model's own answers, {stored.corpus.path}")
    return stored


def chosen_neurons(neurons: Neurons, search: Search) -> Choice:
    """Which neurons the flags mean."""
    from ..analysis import Choice

    languages = None if neurons.langs is None else parse_languages(neurons.langs)
    return Choice(neurons.top_rate, neurons.lam, neurons.bar, languages, search.range())


def existing_layout(model: Model, results: Results) -> Layout:
    """Where a model's results lie; says so when it found them under another name."""
    from ..store.layout import results_name, results_of

    layout = results_of(model.model_path, model.dataset, model_name=model.model_name, root=results.root)
    wanted = results_name(model.model_path, model.model_name)
    if layout.model != wanted:
        note(f"no counts of {wanted} in {results.root.absolute()}; using those of {layout.model}")
    return layout

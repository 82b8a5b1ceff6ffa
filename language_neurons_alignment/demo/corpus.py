"""The demo's corpus, which comes with this package."""

from __future__ import annotations

from pathlib import Path

from ..corpus.records import Corpus, read_corpus
from ..errors import MissingArtifactError

DEMO_DATASET = "demo"
FAST_DATASET = "demo-fast"
FAST_LANGUAGES = ("en", "es", "fr", "de")
FAST_QUESTIONS = 4


def demo_corpus_path() -> Path:
    """Where the demo corpus lies: in the repository, or inside the installed package.

    Raises:
        MissingArtifactError: in neither.
    """
    package = Path(__file__).parents[1]
    for folder in (package.parent / "datasets", package / "datasets"):
        if (folder / "demo.json").is_file():
            return folder / "demo.json"
    raise MissingArtifactError(f"the demo corpus demo.json is not beside {package}: install the package again")


def demo_corpus(*, fast: bool = False) -> Corpus:
    """The demo corpus; fast: a few questions in four languages, enough to walk every step."""
    corpus = read_corpus(demo_corpus_path())
    if not fast:
        return corpus
    kept = [corpus.of_language(language)[:FAST_QUESTIONS] for language in FAST_LANGUAGES]
    return Corpus(corpus.path, tuple(record for records in kept for record in records))

"""Is a corpus file what it should be? Everything that is wrong with it, and a table of its languages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..corpus.language_id import known_languages
from ..corpus.problems import Problem, duplicates, empty_texts, missing_ids, other_languages
from ..corpus.records import Corpus, read_numbered
from ..corpus.summary import LanguageSummary, summarize
from ..errors import CorpusError


@dataclass(frozen=True)
class Checked:
    """What was found.

    Attributes:
        path: the file.
        languages: in the order of first occurrence.
        problems: errors first.
        max_length: the model's longest sequence, where a model was named.
    """

    path: Path
    languages: tuple[LanguageSummary, ...]
    problems: tuple[Problem, ...]
    max_length: int | None = None

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What later steps would stumble over."""
        return tuple(problem for problem in self.problems if problem.error)


def check_dataset(path: str | Path, *, model_path: str | None = None, identify: bool = True) -> Checked:
    """Look for everything that is wrong with a corpus, and count its languages.

    Args:
        path: the corpus file.
        model_path: folder or hub id; only its tokenizer and config are read.
        identify: tell which language each text is in.

    Raises:
        CorpusError: the file cannot be opened at all.
        MissingPackageError: languages are to be identified, and lingua is not installed.
        EngineError: the model has no tokenizer.
    """
    if identify:
        known_languages(())  # lingua is there, or the error that says so comes before the work
    found: list[Problem] = []

    def take_note(error: CorpusError) -> None:
        found.append(Problem("schema", str(error), error=True))

    numbered = read_numbered(Path(path), report=take_note)
    for check in (empty_texts, duplicates, missing_ids, *([other_languages] if identify else [])):
        found += check(numbered)
    corpus = Corpus(Path(path), tuple(record for record, _ in numbered))
    languages, max_length = _summaries(corpus, model_path)
    found += [
        Problem("length", f"{one.language}: {one.overlong} sequences are longer than the model's {max_length} tokens")
        for one in languages
        if one.overlong
    ]
    return Checked(Path(path), languages, tuple(sorted(found, key=lambda problem: not problem.error)), max_length)


def _summaries(corpus: Corpus, model_path: str | None) -> tuple[tuple[LanguageSummary, ...], int | None]:
    tokenizer, max_length = (None, None) if model_path is None else _tokenizer(model_path)
    languages = tuple(
        summarize(corpus.of_language(code), tokenizer=tokenizer, max_length=max_length or 0)
        for code in corpus.languages
    )
    return languages, max_length


def _tokenizer(model_path: str) -> tuple[Any, int]:
    """A model's tokenizer, and the longest sequence that it allows; its weights are not touched."""
    from ..engines.describe import longest_sequence
    from ..engines.transformers.loading import load_config, load_tokenizer

    config, tokenizer = load_config(model_path, None), load_tokenizer(model_path, None)
    return tokenizer, longest_sequence(config.get_text_config(), tokenizer)

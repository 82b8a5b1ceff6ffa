"""`lna dataset`: make a corpus file from a benchmark, a table or a folder of text, and check any corpus file.

`build_dataset` reads a source, keeps the languages and questions wanted, makes the instructions and writes the file.
`check_dataset` collects everything that is wrong with a file and the size of each language.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .corpus.checks import (
    LanguageSummary,
    Problem,
    duplicates,
    empty_texts,
    missing_ids,
    other_languages,
    special_tokens,
    summarize,
)
from .corpus.encode import named
from .corpus.language_id import known_languages
from .corpus.records import Corpus, Record, read_numbered
from .corpus.templates import PLAIN, TEMPLATES, Template, chat_template, file_template, template_digest
from .errors import CorpusError, SettingsError
from .languages import in_default_order, parse_languages
from .sources.source import DEFAULT_OPTIONS, SourceOptions, choose, describe_source, of_languages, read_source
from .store.answers import write_corpus
from .version import __version__


@dataclass(frozen=True)
class Built:
    """A corpus file that was made.

    Attributes:
        empty: places in the source that held no question and were left out.
        special: what was found of special tokens that questions spell, a line each; only where the template is a
            model's own.
        built: how the corpus was made; it is stored with every record.
    """

    path: Path
    records: tuple[Record, ...]
    empty: int
    special: tuple[str, ...]
    reused: bool
    built: dict[str, Any]

    def rows(self) -> list[tuple[str, int, int, int]]:
        """(language, records, answers, characters) of each language."""
        corpus = Corpus(self.path, self.records)
        each = (summarize(corpus.of_language(code)) for code in corpus.languages)
        return [(one.language, one.records, one.answers, one.characters) for one in each]


def build_dataset(
    source: str | Path,
    output: str | Path,
    *,
    languages: str | Iterable[str] | None = None,
    limit: int | None = None,
    seed: int | None = None,
    template: str = "plain",
    model_path: str | None = None,
    options: SourceOptions = DEFAULT_OPTIONS,
    overwrite: bool = False,
) -> Built:
    r"""Read a source, keep the languages and questions wanted, make the instructions, and write the corpus.

    Args:
        source: "mgsm", "msvamp", "flores", or the path of a table or of a folder with a file for each language.
        output: the corpus file.
        languages: those wanted, in order; by default a benchmark's ten, or all that there are.
        limit: the most questions in each language, the same ones in every language.
        seed: chooses the questions under `limit`; by default the first.
        template: "plain", "instruct", "chat", or a file with {question} in it.
        model_path: the model whose chat template is used.
        options: how the source is read.
        overwrite: replace another file.

    Raises:
        SettingsError: an unknown template or language, or options that do not fit the source.
        CorpusError: the source cannot be read; the message names the file and the line.
        ConflictError: another file stands at `output`, and not `overwrite`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     table = Path(folder) / "sums.csv"
    ...     _ = table.write_text("instruction\n1 + 1?\n2 + 2?\n")
    ...     built = build_dataset(table, Path(folder) / "sums.json", options=SourceOptions(lang="en"), limit=1)
    >>> built.rows()
    [('en', 1, 0, 6)]
    """
    wanted = None if languages is None else parse_languages(languages)
    maker, tokenizer = _template(template, model_path)
    gathered = read_source(str(source), wanted, options)
    there = in_default_order(record.language for record in gathered.records)
    if not (wanted or there):
        raise CorpusError("the source has no question at all: every place where one was expected is empty")
    kept = choose(of_languages(gathered.records, wanted or there), limit=limit, seed=seed)
    records = [maker.apply(record) for record in kept]
    built = {
        **describe_source(str(source), options, gathered),
        **{name: value for name, value in {"limit": limit, "seed": seed}.items() if value is not None},
        "template": _describe_template(maker, tokenizer, model_path),
        "version": __version__,
    }
    written = write_corpus(Path(output), [{**one.as_item(), "built": built} for one in records], overwrite=overwrite)
    found = special_tokens([(one, named(one)) for one in records], tokenizer) if tokenizer else ()
    special = tuple(problem.message for problem in found)
    return Built(Path(output), tuple(records), gathered.empty, special, not written, built)


def list_templates(model_path: str | None = None) -> list[Template]:
    """The templates that have names; with a model, its own chat template with "{question}" filled in."""
    named = dict(TEMPLATES)
    if model_path is not None:
        own, _ = _template("chat", model_path)
        named["chat"] = replace(own, text=own.render("{question}", "en"))
    return list(named.values())


def _template(name: str, model_path: str | None) -> tuple[Template, Any]:
    """The template, and for the model's own its tokenizer."""
    if name == "chat":
        if model_path is None:
            raise SettingsError("--template chat is a model's own: say which with --model-path")
        from .engines.checkpoint import load_tokenizer

        tokenizer = load_tokenizer(model_path, None)
        return chat_template(tokenizer, model_path), tokenizer
    if model_path is not None:
        raise SettingsError(f"--model-path is for --template chat only, and the template is {name!r}: leave it out")
    if name in TEMPLATES:
        return TEMPLATES[name], None
    if not Path(name).is_file():
        raise SettingsError(
            f"there is no template {name!r}: choose {', '.join(TEMPLATES)}, or give a file with {{question}} in it"
        )
    return file_template(Path(name)), None


def _describe_template(template: Template, tokenizer: Any, model_path: str | None) -> dict[str, str]:
    if tokenizer is None:
        own = {} if template is PLAIN else {"text": template.text or ""}
        return {"name": template.name, **own}
    return {"name": template.name, "model": str(model_path), "digest": str(template_digest(tokenizer))}


@dataclass(frozen=True)
class Checked:
    """The problems and sizes of a corpus file.

    Attributes:
        problems: errors first.
        max_length: the model's longest sequence, if a model was named.
    """

    path: Path
    languages: tuple[LanguageSummary, ...]
    problems: tuple[Problem, ...]
    max_length: int | None = None

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that later steps would fail on."""
        return tuple(problem for problem in self.problems if problem.error)


def check_dataset(path: str | Path, *, model_path: str | None = None, identify: bool = True) -> Checked:
    """Look for everything that is wrong with a corpus, and count its languages.

    >>> found = check_dataset("corpus.json", identify=False)
    >>> len(found.errors), [one.language for one in found.languages]
    (0, ['en', 'es', 'fr'])

    Args:
        path: the corpus file.
        model_path: folder, GGUF file or hub id; only its tokenizer and config are read.
        identify: identify the language of each text.

    Raises:
        CorpusError: the file cannot be opened at all.
        MissingPackageError: languages are to be identified, and lingua is not installed.
        EngineError: the model has no tokenizer.
    """
    if identify:
        known_languages(())  # raises before the work if lingua is not installed
    found: list[Problem] = []

    def store(error: CorpusError) -> None:
        found.append(Problem("schema", str(error), error=True))

    numbered = read_numbered(Path(path), report=store)
    for check in (empty_texts, duplicates, missing_ids, *([other_languages] if identify else [])):
        found += check(numbered)
    corpus = Corpus(Path(path), tuple(record for record, _ in numbered))
    tokenizer, max_length = None, None
    if model_path is not None:
        from .engines.checkpoint import load_config, load_tokenizer, longest_sequence  # the weights are not loaded

        config, tokenizer = load_config(model_path, None), load_tokenizer(model_path, None)
        max_length = longest_sequence(config.get_text_config(), tokenizer)
        found += special_tokens(numbered, tokenizer)
    languages = tuple(
        summarize(corpus.of_language(code), tokenizer=tokenizer, max_length=max_length or 0)
        for code in corpus.languages
    )
    found += [
        Problem("length", f"{one.language}: {one.overlong} sequences are longer than the model's {max_length} tokens")
        for one in languages
        if one.overlong
    ]
    return Checked(Path(path), languages, tuple(sorted(found, key=lambda problem: not problem.error)), max_length)

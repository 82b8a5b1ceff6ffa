"""From a public benchmark, a table or a folder of text to a corpus file (SPEC 1)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..corpus.records import Corpus, Record
from ..corpus.summary import summarize
from ..corpus.templates import PLAIN, TEMPLATES, Template, changed_prompts, chat_template, file_template
from ..errors import CorpusError, SettingsError
from ..languages import in_default_order, parse_languages
from ..sources.choose import choose, of_languages
from ..sources.columns import Columns, Gathered
from ..sources.source import DEFAULT_OPTIONS, SourceOptions, describe_source, read_source
from ..sources.tables import TableFormat
from ..store.corpus_file import write_corpus
from ..version import __version__

__all__ = ["Built", "Columns", "SourceOptions", "TableFormat", "build_dataset", "list_templates"]


@dataclass(frozen=True)
class Built:
    """A corpus file.

    Attributes:
        path: the file.
        records: what is in it, in order.
        empty: places in the source that held no question and were left out.
        changed: prompts that are not the chat template's own tokens once they are tokenized as text.
        reused: the same file was there already.
        built: what is stored with every record: how the corpus was made.
    """

    path: Path
    records: tuple[Record, ...]
    empty: int
    changed: int
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
    force: bool = False,
) -> Built:
    """Read a source, keep the languages and questions wanted, make the instructions, and write the corpus.

    Args:
        source: "mgsm", "msvamp", "flores", or the path of a table or of a folder with a file for each language.
        output: the corpus file.
        languages: those wanted, in order; by default a benchmark's ten, or all that there are.
        limit: at most so many questions a language, the same ones in every language.
        seed: chooses which ones; by default the first.
        template: "plain", "instruct", "chat", or a file with {question} in it.
        model_path: whose chat template it is.
        options: how the source is read.
        force: replace another file.

    Raises:
        SettingsError: a source, template, language or option that there is not.
        CorpusError: the source cannot be read; the message names the file and the line.
        ConflictError: another file stands at `output`, and not `force`.
    """
    wanted = None if languages is None else parse_languages(languages)
    maker, tokenizer = _template(template, model_path)
    gathered = read_source(str(source), wanted, options)
    kept = choose(of_languages(gathered.records, wanted or _order(gathered)), limit=limit, seed=seed)
    records = [maker.apply(record) for record in kept]
    built = {
        **describe_source(str(source), options, gathered),
        **({"limit": limit} if limit is not None else {}),
        **({"seed": seed} if seed is not None else {}),
        "template": _describe_template(maker, tokenizer, model_path),
        "version": __version__,
    }
    written = write_corpus(Path(output), [{**one.as_item(), "built": built} for one in records], force=force)
    changed = changed_prompts(records, tokenizer) if tokenizer else 0
    return Built(Path(output), tuple(records), gathered.empty, changed, not written, built)


def list_templates(model_path: str | None = None) -> list[Template]:
    """The templates that have names; with a model, its own chat template as it looks around "{question}".

    Raises:
        SettingsError: the model has no chat template.
        EngineError: it has no tokenizer.
    """
    named = dict(TEMPLATES)
    if model_path is not None:
        own, _ = _template("chat", model_path)
        named["chat"] = replace(own, text=own.render("{question}", "en"))
    return list(named.values())


def _order(gathered: Gathered) -> tuple[str, ...]:
    """The languages that are there."""
    there = in_default_order(record.language for record in gathered.records)
    if not there:
        raise CorpusError("the source has no question at all: every place where one was expected is empty")
    return there


def _template(name: str, model_path: str | None) -> tuple[Template, Any]:
    """The template, and for the model's own its tokenizer."""
    if name == "chat":
        if model_path is None:
            raise SettingsError("--template chat is a model's own: say which with --model-path")
        from ..engines.transformers.loading import load_tokenizer

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
    digest = hashlib.blake2b(str(tokenizer.chat_template).encode(), digest_size=16).hexdigest()
    return {"name": template.name, "model": str(model_path), "digest": digest}

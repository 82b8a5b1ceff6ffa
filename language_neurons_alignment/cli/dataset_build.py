"""`lna dataset build`: from a benchmark, a table or a folder of text to a corpus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import language_name, parse_languages
from . import options
from .output import result, table
from .progress import note

if TYPE_CHECKING:
    from ..dataset.build import Built, SourceOptions

_HEADER = ("language", "records", "answers", "characters")
_BENCHMARK, _TABLE = "Benchmarks", "Tables and folders"


@dataclass(frozen=True)
class Source:
    """How the source is read."""

    folder: Annotated[
        Path | None,
        typer.Option("--from", help="Folder with its files.", show_default="the hub", rich_help_panel=_BENCHMARK),
    ] = None
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="mgsm: test, exemplars. msvamp: test. flores: devtest, dev.",
            show_default="the first of them",
            rich_help_panel=_BENCHMARK,
        ),
    ] = None
    revision: Annotated[
        str | None,
        typer.Option(
            "--revision", help="Commit or tag on the hub.", show_default="the newest", rich_help_panel=_BENCHMARK
        ),
    ] = None
    answers: Annotated[
        str | None,
        typer.Option(
            "--answers",
            metavar="COLUMN",
            help="Column of gold answers, where there are some (mgsm's exemplars: answer).",
            show_default="none: the model answers itself, by `lna generate`",
        ),
    ] = None
    instruction_column: Annotated[
        str, typer.Option("--instruction-column", metavar="COLUMN", help="The question.", rich_help_panel=_TABLE)
    ] = "instruction"
    lang_column: Annotated[
        str | None,
        typer.Option("--lang-column", metavar="COLUMN", help="The language, by name or code.", rich_help_panel=_TABLE),
    ] = None
    lang: Annotated[
        str | None, typer.Option("--lang", help="The one language of a whole table.", rich_help_panel=_TABLE)
    ] = None
    id_column: Annotated[
        str | None,
        typer.Option(
            "--id-column", metavar="COLUMN", help="The same for a question in all languages.", rich_help_panel=_TABLE
        ),
    ] = None
    target_column: Annotated[
        str | None,
        typer.Option("--target-column", metavar="COLUMN", help="The known final answer.", rich_help_panel=_TABLE),
    ] = None
    no_header: Annotated[
        bool, typer.Option("--no-header", help="TSV, CSV: the columns are 1, 2, 3, ….", rich_help_panel=_TABLE)
    ] = False
    no_quotes: Annotated[
        bool, typer.Option("--no-quotes", help="TSV, CSV: quotes are plain characters.", rich_help_panel=_TABLE)
    ] = False
    unaligned: Annotated[
        bool,
        typer.Option("--unaligned", help="Text files: line n is not the same in each.", rich_help_panel=_TABLE),
    ] = False

    def options(self) -> SourceOptions:
        """As the use-case takes it."""
        from ..dataset.build import Columns, SourceOptions, TableFormat

        columns = Columns(self.instruction_column, self.lang_column, self.id_column, self.answers, self.target_column)
        return SourceOptions(
            folder=self.folder,
            split=self.split,
            revision=self.revision,
            columns=columns,
            lang=self.lang,
            form=TableFormat(header=not self.no_header, quotes=not self.no_quotes),
            aligned=not self.unaligned,
        )


def build(
    source: Annotated[
        str,
        typer.Argument(
            help="mgsm, msvamp, flores; a table (TSV, CSV, JSON, JSONL, Parquet); or a folder with a file for each "
            "language (te.txt, a sentence a line, or te.tsv).",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Corpus file to write.", show_default=False)],
    reading: Source,
    telling: options.Telling,
    langs: Annotated[
        str | None,
        typer.Option(
            "--langs",
            help="Languages, by code or name, in order: en,es,te.",
            show_default="a benchmark's ten, or all there are",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", help="Questions a language, the same in each.", show_default="all"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Chooses the questions under --limit.", show_default="the first")
    ] = None,
    template: Annotated[
        str,
        typer.Option(
            "--template", metavar="NAME|FILE", help="plain, instruct, chat, or a file: see `lna dataset templates`."
        ),
    ] = "plain",
    model_path: Annotated[
        str | None, typer.Option("--model-path", help="Model whose chat template it is.", show_default=False)
    ] = None,
    force: options.Force = False,
) -> None:
    """Make a corpus: read questions, keep the languages wanted, make the instructions, write JSON."""
    languages = None if langs is None else parse_languages(langs)
    from ..dataset.build import build_dataset

    built = build_dataset(
        source,
        output,
        languages=languages,
        limit=limit,
        seed=seed,
        template=template,
        model_path=model_path,
        options=reading.options(),
        force=force,
    )
    rows = built.rows()
    _remarks(built, fewest=min(row[1] for row in rows), limit=limit)
    named = [[language_name(code), *numbers] for code, *numbers in rows]
    lines = [*table(list(_HEADER), named), "", str(built.path)]
    result(lines, _data(built), as_json=telling.as_json)


def _data(built: Built) -> dict[str, object]:
    return {
        "path": built.path,
        "languages": [dict(zip(_HEADER, row, strict=True)) for row in built.rows()],
        "empty": built.empty,
        "changed_prompts": built.changed,
        "reused": built.reused,
        "built": built.built,
    }


def _remarks(built: Built, *, fewest: int, limit: int | None) -> None:
    """What was done beyond what was asked: nothing is silent."""
    if built.reused:
        note(f"{built.path} is there already, the same in every byte")
    if limit is not None and fewest < limit:
        note(f"--limit {limit}: only {fewest} questions are there in every language")
    if built.empty:
        note(f"left out: {built.empty} places in the source with no question in them")
    if built.changed:
        note(
            f"{built.changed} of {len(built.records)} prompts are not the chat template's own tokens once they are "
            "tokenized as text; look at one of them with the model's tokenizer"
        )

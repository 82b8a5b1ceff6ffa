"""`lna dataset build`: from a benchmark, a table or a folder of text to a corpus."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import OVERLONG, Method, check_choice
from ..errors import CorpusError, SettingsError
from ..languages import language_name, parse_languages
from . import options
from .options import PANEL, By, NeuronChanges, help_of, spread
from .output import Bars, note, result, table

if TYPE_CHECKING:
    from .._dataset import Built, Checked
    from .._generate import Generated
    from .._steps import Steps
    from ..corpus.checks import LanguageSummary
    from ..sources.source import SourceOptions

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
        from ..sources.source import SourceOptions
        from ..sources.tables import Columns

        columns = Columns(self.instruction_column, self.lang_column, self.id_column, self.answers, self.target_column)
        return SourceOptions(
            folder=self.folder,
            split=self.split,
            revision=self.revision,
            columns=columns,
            lang=self.lang,
            header=not self.no_header,
            quotes=not self.no_quotes,
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
    from .._dataset import build_dataset

    built = build_dataset(
        source,
        output,
        languages=languages,
        limit=limit,
        seed=seed,
        template=template,
        model_path=model_path,
        options=reading.options(),
        overwrite=force,
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


# ── `lna dataset check`: everything that is wrong with a corpus, and a table of its languages.

SHOWN = 10
"""Problems of a kind that are shown to people; `--json` shows all."""


def check(
    file: Annotated[Path, typer.Argument(help="Corpus file.", show_default=False)],
    telling: options.Telling,
    model_path: Annotated[
        str | None,
        typer.Option(
            "--model-path", help="Count tokens as this model does; only its tokenizer is loaded.", show_default=False
        ),
    ] = None,
    no_language_id: Annotated[
        bool, typer.Option("--no-language-id", help="Do not tell which language each text is in.")
    ] = False,
) -> None:
    """Look for everything that is wrong with a corpus; exit 1 where something is an error, not a warning."""
    from .._dataset import check_dataset

    found = check_dataset(file, model_path=model_path, identify=not no_language_id)
    shown = {
        "path": found.path,
        "errors": len(found.errors),
        "warnings": len(found.problems) - len(found.errors),
        "max_length": found.max_length,
        "languages": [{**asdict(one), "tokens_per_character": one.tokens_per_character} for one in found.languages],
        "problems": [asdict(problem) for problem in found.problems],
    }
    result([*_table(found), "", *_problems(found)], shown, as_json=telling.as_json)
    if found.errors:
        raise CorpusError(f"{file}: {_count(found)}; mend the errors that are listed, then check it again")


def _table(found: Checked) -> list[str]:
    if not found.languages:
        return ["no record could be read"]
    header = ["language", "records", "answers", "characters"]
    if found.max_length is not None:
        header += ["tokens", "tokens/character", "overlong", "merges"]
    return table(header, [_row(one) for one in found.languages])


def _row(one: LanguageSummary) -> list[Any]:
    row: list[Any] = [language_name(one.language), one.records, one.answers, one.characters]
    if one.tokens_per_character is not None:
        row += [one.tokens, round(one.tokens_per_character, 2), one.overlong, one.merges]
    return row


def _problems(found: Checked) -> list[str]:
    lines: list[str] = []
    for error in (True, False):
        for kind in dict.fromkeys(one.kind for one in found.problems if one.error == error):
            same = [one.message for one in found.problems if (one.kind, one.error) == (kind, error)]
            lines += [f"{'error' if error else 'warning'} ({kind}): {message}" for message in same[:SHOWN]]
            lines += [f"  … and {len(same) - SHOWN} more of this kind: see --json"] if len(same) > SHOWN else []
    return [*lines, _count(found)]


def _count(found: Checked) -> str:
    errors, warnings = len(found.errors), len(found.problems) - len(found.errors)
    return f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"


# ── `lna dataset templates`: what `--template` offers, each as it looks.

OWN = "a file of your own with {question} where the question stands, and {language} where its language's name does"


def templates(
    telling: options.Telling,
    model_path: Annotated[
        str | None, typer.Option("--model-path", help="Show this model's own chat template too.", show_default=False)
    ] = None,
) -> None:
    """Show the templates, from a bare question to the instruction that a model is given."""
    from .._dataset import list_templates

    listed = list_templates(model_path)
    lines = [
        line
        for one in listed
        for line in (one.name, f"  {one.about}", *(f"  | {part}" for part in (one.text or "").splitlines()), "")
    ]
    shown = {one.name: {"about": one.about, "text": one.text, "joint": one.joint} for one in listed}
    result([*lines, "FILE", f"  {OWN}"], shown, as_json=telling.as_json)


# ── `lna dataset`: make a corpus, and check one.

dataset = typer.Typer(
    name="dataset",
    help="Make a corpus from a benchmark, a table or a folder of text, and check it.",
    no_args_is_help=True,
)
for command in (build, check, templates):
    dataset.command(command.__name__, help=help_of(command))(spread(command))


# ── `lna generate`: let the model answer a corpus's questions.


@dataclass(frozen=True)
class Asked:
    """Which questions are answered, by which model, into which file."""

    model_path: Annotated[str, typer.Option("--model-path", help="Model folder or hub id.", show_default=False)]
    data: options.Data
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="Corpus file to write; it may be that of -d.", show_default=False),
    ]
    langs: Annotated[
        str | None,
        typer.Option("--langs", help="Languages to answer, by code or name.", show_default="those of the corpus"),
    ] = None
    overlong: Annotated[
        str,
        typer.Option(
            "--overlong", help="Prompt and answer longer than the model allows: error, truncate (the answer), skip."
        ),
    ] = "error"
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Drop the answers that are there, and answer anew.")
    ] = False


@dataclass(frozen=True)
class Mask:
    """Where the mask lies."""

    dataset: Annotated[
        str | None,
        typer.Option(
            "-s", "--dataset", help="Dataset of the mask.", show_default="the name of -d", rich_help_panel=PANEL
        ),
    ] = None
    model_name: Annotated[
        str | None,
        typer.Option(
            "--model-name", help="Name in the mask's file name.", show_default="the family", rich_help_panel=PANEL
        ),
    ] = None
    deactivate: Annotated[
        str | None,
        typer.Option("--deactivate", metavar="LANG", help="Short for --do 'zero LANG'.", rich_help_panel=PANEL),
    ] = None


def generate(
    asked: Asked,
    answers: options.Answers,
    results: options.Results,
    engine: options.Engine,
    doing: NeuronChanges,
    by: By,
    mask: Mask,
) -> None:
    """Let the model answer each question: the corpus that its neurons are counted on.

    Answers that are there are kept, and filled up to -n. A run that was cut off, also by a kill, goes on where it
    stopped when the same command is given again, and ends with the same file.
    """
    languages, sampling = None if asked.langs is None else parse_languages(asked.langs), answers.sampling()
    check_choice(asked.overlong, OVERLONG, "--overlong")
    method = by.chosen()
    steps = _steps(doing, mask.deactivate, method)
    from .._generate import generate as answer
    from .._session import open_session

    place = {"model_name": mask.model_name, "root": results.root, "existing": steps.needs_mask, "method": method}
    work = open_session(asked.model_path, asked.data, mask.dataset or asked.data.stem, **place, **engine.choices())
    neurons = doing.neurons(work, steps)
    with work, Bars() as bars:
        done = answer(
            work,
            languages,
            out=asked.out,
            answers=answers.answers,
            sampling=sampling,
            overlong=asked.overlong,
            do=steps,
            neurons=neurons,
            overwrite=asked.overwrite,
            start=bars.start,
        )
    report_answers(done)
    result([*answer_table(done), "", str(done.corpus.path)], answer_data(done), as_json=results.as_json)


def _steps(doing: NeuronChanges, deactivate: str | None, method: Method) -> Steps:
    """What is done to neurons, said in either way."""
    if deactivate is None:
        return doing.steps(method=method)
    if doing.do:
        raise SettingsError(
            f"--deactivate {deactivate} is short for --do 'zero {deactivate}': give it as one of the --do, in its order"
        )
    return doing.steps(f"zero {deactivate}", method=method)


def report_answers(done: Generated) -> None:
    """Say what was there already, and what is missing: doing nothing is never silent."""
    if not done.made:
        note(f"every question has its answers already: {done.corpus.path} (--overwrite answers anew)")
    if done.resumed:
        note(f"{done.resumed} of {len(done.made)} answers were there from a run that was cut off")
    if done.skipped:
        note(f"{done.skipped} answers were not made: prompt and answer are longer than the model allows")


def answer_table(done: Generated) -> list[str]:
    """What each language has now."""
    rows = [
        [language_name(one.language), one.questions, one.answers, one.made, one.tokens, one.cut_off]
        for one in done.per_language
    ]
    return table(["language", "questions", "answers", "new", "new tokens", "cut off by length"], rows)


def answer_data(done: Generated) -> dict[str, object]:
    """The same as plain values."""
    return {
        "path": done.corpus.path,
        "made": len(done.made),
        "resumed": done.resumed,
        "skipped": done.skipped,
        "languages": {one.language: one.plain() for one in done.per_language},
    }

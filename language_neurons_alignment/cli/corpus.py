"""`lna dataset`, which makes and checks a corpus, and `lna generate`, which lets the model answer one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .._flags import flag
from ..config import Answering, Changes, Counting, Selection
from ..errors import CorpusError, SettingsError
from ..languages import language_name, parse_languages
from .options import (
    EngineFlags,
    Model,
    Overwrite,
    Printing,
    Results,
    Setup,
    only,
    only_one,
    option_of,
    register,
    with_lambda,
)
from .output import Bars, note, notes, result, table

if TYPE_CHECKING:
    from .._dataset import Built, Checked
    from .._generate import Generated
    from ..sources.source import SourceOptions

_HEADER = ("language", "records", "answers", "characters")
_BENCHMARK, _TABLE, _CHANGED = "Benchmarks", "Tables and folders", "Changed neurons"
_SHOWN = 10
"""Problems of a kind that are shown to people; `--json` shows all."""
_OWN = "a file of your own with {question} where the question stands, and {language} where its language's name does"


@dataclass(frozen=True)
class Source:
    """How the source is read."""

    folder: Path | None = flag(None, "--from", help="Folder with its files.", shown="the hub", panel=_BENCHMARK)
    split: str | None = flag(
        None,
        "--split",
        help="mgsm: test, exemplars. msvamp: test. flores: devtest, dev.",
        shown="the first of them",
        panel=_BENCHMARK,
    )
    revision: str | None = flag(
        None, "--revision", help="Commit or tag on the hub.", shown="the newest", panel=_BENCHMARK
    )
    answers: str | None = flag(
        None,
        "--answers-column",
        help="Column of gold answers, where there are some (mgsm's exemplars: answer).",
        metavar="COLUMN",
        shown="none: the model answers itself, by `lna generate`",
    )
    instruction_column: str = flag(
        "instruction", "--instruction-column", help="The question.", metavar="COLUMN", panel=_TABLE
    )
    lang_column: str | None = flag(
        None, "--lang-column", help="The language, by name or code.", metavar="COLUMN", panel=_TABLE
    )
    lang: str | None = flag(None, "--lang", help="The one language of a whole table.", panel=_TABLE)
    id_column: str | None = flag(
        None, "--id-column", help="The id that a question has in all languages.", metavar="COLUMN", panel=_TABLE
    )
    target_column: str | None = flag(
        None, "--target-column", help="The known final answer.", metavar="COLUMN", panel=_TABLE
    )
    no_header: bool = flag(False, "--no-header", help="TSV, CSV: the columns are 1, 2, 3, ….", panel=_TABLE)
    no_quotes: bool = flag(False, "--no-quotes", help="TSV, CSV: quotes are plain characters.", panel=_TABLE)
    unaligned: bool = flag(
        False, "--unaligned", help="Text files: line n is not the same sentence in each.", panel=_TABLE
    )

    def options(self) -> SourceOptions:
        """As `build_dataset` takes it."""
        from ..sources.source import SourceOptions
        from ..sources.tables import ColumnNames

        columns = ColumnNames(
            self.instruction_column, self.lang_column, self.id_column, self.answers, self.target_column
        )
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
    out: Annotated[Path, typer.Option("-o", "--out", help="Corpus file to write.", show_default=False)],
    reading: Source,
    printing: Printing,
    langs: Annotated[
        str | None,
        typer.Option(
            "--langs",
            help="Languages, by code or name, in order: en,es,te.",
            show_default="a benchmark's ten, or all there are",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Questions per language, the same in each.", show_default="all")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed that chooses the questions of --limit.", show_default="the first")
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
    overwrite: Overwrite = False,
) -> None:
    """Make a corpus from a benchmark, a table or a folder of text.

    Reads the questions, keeps the languages wanted, makes the instructions by the template, and writes JSON.

    Example: lna dataset build mgsm -o datasets/mgsm.json --langs en,es,zh --limit 100
    """
    languages = None if langs is None else parse_languages(langs)
    from .._dataset import build_dataset

    built = build_dataset(
        source,
        out,
        languages=languages,
        limit=limit,
        seed=seed,
        template=template,
        model_path=model_path,
        options=reading.options(),
        overwrite=overwrite,
    )
    rows = built.rows()
    _remarks(built, fewest=min(row[1] for row in rows), limit=limit)
    named = [[language_name(code), *numbers] for code, *numbers in rows]
    data = {
        "path": built.path,
        "languages": [dict(zip(_HEADER, row, strict=True)) for row in rows],
        "empty": built.empty,
        "special_tokens": built.special,
        "reused": built.reused,
        "built": built.built,
    }
    result(printing.as_json, data, table(_HEADER, named), str(built.path))


def _remarks(built: Built, *, fewest: int, limit: int | None) -> None:
    """Say what was left out or not done: nothing is silent."""
    if built.reused:
        note(f"{built.path} is there already, the same in every byte")
    if limit is not None and fewest < limit:
        note(f"--limit {limit}: only {fewest} questions are there in every language")
    if built.empty:
        note(f"left out: {built.empty} places in the source with no question in them")
    for first in built.special[:1]:
        others = f"; and {len(built.special) - 1} more: see --json" if len(built.special) > 1 else ""
        note(f"{first}, as the model's own template has it{others}")


def check(
    printing: Printing,
    file: Annotated[Path | None, typer.Argument(help="Corpus file.", show_default=False)] = None,
    data: Annotated[Path | None, typer.Option("-d", "--data", hidden=True)] = None,
    model_path: Annotated[
        str | None,
        typer.Option(
            "--model-path", help="Count tokens as this model does; only its tokenizer is loaded.", show_default=False
        ),
    ] = None,
    no_language_id: Annotated[
        bool, typer.Option("--no-language-id", help="Do not identify the language of each text.")
    ] = False,
) -> None:
    """Look for everything that is wrong with a corpus, and show a table of its languages.

    Exits with 1 where something is an error, not a warning.

    Example: lna dataset check datasets/mgsm.json --model-path ./Mistral-7B-v0.1
    """
    file = only_one("the corpus file", file=file, data=data)
    if file is None:
        raise SettingsError("no corpus file is given: for example `lna dataset check datasets/mgsm.json`")
    from .._dataset import check_dataset

    found = check_dataset(file, model_path=model_path, identify=not no_language_id)
    shown = {
        "path": found.path,
        "errors": len(found.errors),
        "warnings": len(found.problems) - len(found.errors),
        "max_length": found.max_length,
        "languages": [{**asdict(one), "tokens_per_character": one.tokens_per_character} for one in found.languages],
        "problems": found.problems,
    }
    result(printing.as_json, shown, _table(found), _problems(found))
    if found.errors:
        raise CorpusError(f"{file}: {_count(found)}; fix the errors that are listed, then check it again")


def _table(found: Checked) -> list[str]:
    if not found.languages:
        return ["no record could be read"]
    header = [*_HEADER]
    if found.max_length is not None:
        header += ["tokens", "tokens/character", "overlong", "merges"]
    rows: list[list[object]] = []
    for one in found.languages:
        rows.append([language_name(one.language), one.records, one.answers, one.characters])
        if one.tokens_per_character is not None:
            rows[-1] += [one.tokens, round(one.tokens_per_character, 2), one.overlong, one.merges]
    return table(header, rows)


def _problems(found: Checked) -> list[str]:
    lines: list[str] = []
    for error in (True, False):
        for kind in dict.fromkeys(one.kind for one in found.problems if one.error == error):
            same = [one.message for one in found.problems if (one.kind, one.error) == (kind, error)]
            lines += [f"{'error' if error else 'warning'} ({kind}): {message}" for message in same[:_SHOWN]]
            lines += [f"  … and {len(same) - _SHOWN} more of this kind: see --json"] if len(same) > _SHOWN else []
    return [*lines, _count(found)]


def _count(found: Checked) -> str:
    errors, warnings = len(found.errors), len(found.problems) - len(found.errors)
    return f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"


def templates(
    printing: Printing,
    model_path: Annotated[
        str | None, typer.Option("--model-path", help="Show this model's own chat template too.", show_default=False)
    ] = None,
) -> None:
    """Show the templates that turn a bare question into the instruction that a model is given.

    Example: lna dataset templates --model-path ./Mistral-7B-Instruct-v0.2
    """
    from .._dataset import list_templates

    listed = list_templates(model_path)
    lines = []
    for one in listed:
        lines += [one.name, f"  {one.about}", *(f"  | {part}" for part in (one.text or "").splitlines()), ""]
    shown = {one.name: {"about": one.about, "text": one.text, "joint": one.joint} for one in listed}
    result(printing.as_json, shown, [*lines, "FILE", f"  {_OWN}"])


dataset = typer.Typer(
    name="dataset",
    help="Make a corpus from a benchmark, a table or a folder of text, and check it.",
    no_args_is_help=True,
)
for command in (build, check, templates):
    register(dataset, command, group="dataset")


@dataclass(frozen=True)
class MaskPlace:
    """Under which names the mask lies whose neurons are changed."""

    dataset: str | None = flag(
        None, "-s", "--dataset", help="Dataset of the mask.", shown="the name of -d", panel=_CHANGED
    )
    model_name: str | None = flag(
        None, "--model-name", help="Name in the mask's file name.", shown="the family", panel=_CHANGED
    )


def generate(
    model_path: Annotated[
        str, typer.Option("--model-path", help="Model folder, GGUF file or hub id.", show_default=False)
    ],
    data: Annotated[
        Path, typer.Option("-d", "--data", help="Corpus file: JSON list or JSON lines.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Corpus file to write; it may be that of -d.", show_default=False)
    ],
    answering: Answering,
    counting: Annotated[Counting, only("overlong")],
    results: Results,
    engine: EngineFlags,
    changes: Changes,
    selection: Annotated[Selection, only("top_rate", "lam", "method", "neurons", "seed")],
    place: MaskPlace,
    langs: Annotated[
        str | None,
        typer.Option("--langs", help="Languages to answer, by code or name.", show_default="those of the corpus"),
    ] = None,
    adapter: Annotated[str | None, option_of(Model, "adapter")] = None,
    deactivate: Annotated[
        str | None,
        typer.Option("--deactivate", metavar="LANG", help="Short for --do 'zero LANG'.", rich_help_panel=_CHANGED),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Let the model answer each question: the corpus that its neurons are counted on.

    Answers that are there are kept, and filled up to -n. A run that was cut off, also by a kill, goes on where it
    stopped when the same command is given again, and ends with the same file. --do changes neurons meanwhile; it needs
    a mask only where it names a language.

    Example: lna generate --model-path ./Mistral-7B-v0.1 -d datasets/questions.json -o datasets/answers.json
    """
    languages = None if langs is None else parse_languages(langs)
    changes = _with_deactivated(changes, deactivate)
    from .._generate import generate as answer
    from .._interventions import neuron_source
    from .._operations import Steps

    steps = Steps.parse(changes.do)
    model = Model(model_path, place.dataset or data.stem, place.model_name, adapter)
    if steps.needs_mask:
        selection = with_lambda(selection, model, results, f"--do {steps.texts[0]!r}")
    setup = Setup(model=model, data=data, results=results, engine=engine)
    work = setup.open(selection, existing=steps.needs_mask)
    neurons = neuron_source(work, steps, top_rate=selection.top_rate, lam=selection.lam, classes=changes.classes)
    with work, Bars() as bars:
        done = answer(
            work,
            languages,
            out=out,
            **vars(answering),
            overlong=counting.overlong,
            do=steps,
            neurons=neurons,
            overwrite=overwrite,
            start=bars.start,
        )
    report_answers(done)
    result(results.as_json, answer_data(done), answer_table(done), str(done.corpus.path))


def _with_deactivated(changes: Changes, deactivate: str | None) -> Changes:
    """The changes, with `--deactivate LANG` as the step that it is short for."""
    if deactivate is None:
        return changes
    if changes.do:
        raise SettingsError(
            f"--deactivate {deactivate} is short for --do 'zero {deactivate}': give it as one of the --do, in its order"
        )
    return replace(changes, do=(f"zero {deactivate}",))


def report_answers(done: Generated) -> None:
    """Say what was there already, and what is missing: doing nothing is never silent."""
    notes(done.notes)
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
        "notes": done.notes,
    }

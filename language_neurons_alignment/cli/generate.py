"""`lna generate`: let the model answer a corpus's questions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import OVERLONG, Method, check_choice, language_name, parse_languages
from ..errors import SettingsError
from . import options
from .doing_options import PANEL, Doing
from .method_options import By
from .output import result, table
from .progress import Bars, note

if TYPE_CHECKING:
    from ..answers.generation import Generated
    from ..interventions.doing import Doing as Steps


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
    doing: Doing,
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
    from ..answers.generation import generate as answer
    from ..session import open_session

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


def _steps(doing: Doing, deactivate: str | None, method: Method) -> Steps:
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

"""`lna generate`: let the model answer a corpus's questions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import (
    DEFAULT_TOP_RATE,
    MASK_CLASSES,
    OVERLONG,
    MapSettings,
    Selection,
    check_choice,
    language_code,
    language_name,
    parse_languages,
)
from ..errors import SettingsError
from . import options
from .output import result, table
from .progress import Bars, note

if TYPE_CHECKING:
    from ..generation import Generated
    from ..masks import Deactivation
    from ..session import Session

_OFF = "Neurons switched off"


def generate(
    model_path: Annotated[str, typer.Option("--model-path", help="Model folder or hub id.", show_default=False)],
    data: options.Data,
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="Corpus file to write; it may be that of -d.", show_default=False),
    ],
    answers: options.Answers,
    results: options.Results,
    engine: options.Engine,
    langs: Annotated[
        str | None,
        typer.Option("--langs", help="Languages to answer, by code or name.", show_default="those of the corpus"),
    ] = None,
    overlong: Annotated[
        str,
        typer.Option(
            "--overlong", help="Prompt and answer longer than the model allows: error, truncate (the answer), skip."
        ),
    ] = "error",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Drop the answers that are there, and answer anew.")
    ] = False,
    deactivate: Annotated[
        str | None,
        typer.Option(
            "--deactivate",
            metavar="LANG",
            help="Answer with this language's neurons off.",
            show_default="none",
            rich_help_panel=_OFF,
        ),
    ] = None,
    top_rate: Annotated[
        float, typer.Option("-r", "--top-rate", help="Of the mask.", rich_help_panel=_OFF)
    ] = DEFAULT_TOP_RATE,
    lam: Annotated[
        float | None, typer.Option("-l", "--lam", help="λ of the mask.", show_default=False, rich_help_panel=_OFF)
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "-s", "--dataset", help="Dataset of the mask.", show_default="the name of -d", rich_help_panel=_OFF
        ),
    ] = None,
    model_name: Annotated[
        str | None,
        typer.Option(
            "--model-name", help="Name in the mask's file name.", show_default="the family", rich_help_panel=_OFF
        ),
    ] = None,
    classes: Annotated[
        str, typer.Option("--classes", help="Any of specific,related,general.", rich_help_panel=_OFF)
    ] = ",".join(MASK_CLASSES),
) -> None:
    """Let the model answer each question: the corpus that its neurons are counted on.

    Answers that are there are kept, and filled up to -n. A run that was cut off, also by a kill, goes on where it
    stopped when the same command is given again, and ends with the same file.
    """
    languages, sampling = None if langs is None else parse_languages(langs), answers.sampling()
    check_choice(overlong, OVERLONG, "--overlong")
    if deactivate is not None:
        deactivate = language_code(deactivate)
        Selection(top_rate, _required(lam))
    chosen = MapSettings(classes=options.parse_classes(classes)).classes
    from ..generation import generate as answer
    from ..session import open_session

    work = open_session(
        model_path,
        data,
        dataset or data.stem,
        model_name=model_name,
        root=results.root,
        existing=deactivate is not None,
        **engine.choices(),
    )
    off = None if deactivate is None else _deactivation(work, deactivate, top_rate, _required(lam), chosen)
    with work, Bars() as bars:
        done = answer(
            work,
            languages,
            out=out,
            answers=answers.answers,
            sampling=sampling,
            overlong=overlong,
            off=off,
            overwrite=overwrite,
            start=bars.start,
        )
    report_answers(done)
    result([*answer_table(done), "", str(done.corpus.path)], answer_data(done), as_json=results.as_json)


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


def _required(lam: float | None) -> float:
    if lam is None:
        raise SettingsError("--deactivate needs the λ of a mask: give -l as it was given to `lna identify`")
    return lam


def _deactivation(work: Session, language: str, top_rate: float, lam: float, classes: tuple[str, ...]) -> Deactivation:
    from ..masks import Deactivation, open_mask

    mask = open_mask(work.layout, top_rate=top_rate, lam=lam, checkpoint=work.checkpoint)
    mask.check_languages([language])
    return Deactivation(mask, language, classes)

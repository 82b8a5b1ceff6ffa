"""`lna dataset check`: everything that is wrong with a corpus, and a table of its languages."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import language_name
from ..errors import CorpusError
from . import options
from .output import result, table

if TYPE_CHECKING:
    from ..dataset.check import Checked, LanguageSummary

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
    from ..dataset.check import check_dataset

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

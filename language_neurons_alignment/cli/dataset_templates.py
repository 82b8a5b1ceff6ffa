"""`lna dataset templates`: what `--template` offers, each as it looks."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .output import result

OWN = "a file of your own with {question} where the question stands, and {language} where its language's name does"


def templates(
    telling: options.Telling,
    model_path: Annotated[
        str | None, typer.Option("--model-path", help="Show this model's own chat template too.", show_default=False)
    ] = None,
) -> None:
    """Show the templates, from a bare question to the instruction that a model is given."""
    from ..dataset.build import list_templates

    listed = list_templates(model_path)
    lines = [
        line
        for one in listed
        for line in (one.name, f"  {one.about}", *(f"  | {part}" for part in (one.text or "").splitlines()), "")
    ]
    shown = {one.name: {"about": one.about, "text": one.text, "joint": one.joint} for one in listed}
    result([*lines, "FILE", f"  {OWN}"], shown, as_json=telling.as_json)

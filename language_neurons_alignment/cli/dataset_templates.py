"""`lna dataset templates`: what `--template` offers, each as it looks."""

from __future__ import annotations

from . import options
from .output import result


def templates(telling: options.Telling) -> None:
    """Show the templates, from a bare question to the instruction that a model is given."""
    from ..dataset_build import TEMPLATES

    lines = [
        line
        for one in TEMPLATES.values()
        for line in (one.name, f"  {one.about}", *(f"  | {part}" for part in (one.text or "").splitlines()), "")
    ]
    own = "a file of your own with {question} where the question stands, and {language} where its language's name does"
    shown = {one.name: {"about": one.about, "text": one.text, "joint": one.joint} for one in TEMPLATES.values()}
    result([*lines, "FILE", f"  {own}"], shown, as_json=telling.as_json)

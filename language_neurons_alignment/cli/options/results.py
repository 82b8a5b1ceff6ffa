"""Where results lie, and how they are told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..state import enable_debug

Force = Annotated[bool, typer.Option("--force", help="Replace results that are there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error.", callback=enable_debug, is_eager=True)
]


@dataclass(frozen=True)
class Telling:
    """How a result is told, of a command that leaves none under --root."""

    as_json: AsJson = False
    debug: Debug = False


@dataclass(frozen=True)
class Results:
    """Where results lie and how they are told."""

    root: Annotated[
        Path, typer.Option("--root", help="Folder under which results lie.", show_default="current folder")
    ] = Path()
    as_json: AsJson = False
    debug: Debug = False

"""How a corpus is counted."""

from __future__ import annotations

from typing import Annotated

import typer

Overlong = Annotated[
    str, typer.Option("--overlong", help="Sequences longer than the model allows: error, truncate, skip.")
]
Blocks = Annotated[
    int | None,
    typer.Option(
        "--blocks",
        help="Keep the counts in so many blocks of the corpus too, for `lna stability`.",
        show_default="none",
    ),
]
Moments = Annotated[
    bool,
    typer.Option("--moments", help="Add up the activations too: their means are what some interventions put in place."),
]

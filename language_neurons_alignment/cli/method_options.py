"""The flags that name a mask by the method that made it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from ..config import DEFAULT_METHOD, METHODS, Method

Lam = Annotated[
    float | None,
    typer.Option(
        "-l",
        "--lam",
        help="λ, as `lna autosweep` prints it; entropy-lambda needs it, and random without --neurons.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class By:
    """How the neurons were, or are to be, found."""

    method: Annotated[
        str, typer.Option("--method", help=f"What finds the neurons: {', '.join(METHODS)}.", rich_help_panel="Method")
    ] = DEFAULT_METHOD.name
    neurons: Annotated[
        int | None,
        typer.Option(
            "--neurons",
            help="Neurons per language, of equal-n; of mean-difference and random instead of -r.",
            show_default="equal-n: 400",
            rich_help_panel="Method",
        ),
    ] = None
    mask_seed: Annotated[int, typer.Option("--mask-seed", help="Of the method random.", rich_help_panel="Method")] = (
        DEFAULT_METHOD.seed
    )

    def chosen(self) -> Method:
        """As the use-cases take it."""
        return Method(self.method, self.neurons, self.mask_seed)

"""Which model, on which text, in which languages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ...config import DEFAULT_LANGUAGES

Data = Annotated[Path, typer.Option("-d", "--data", help="Corpus file: JSON list or JSON lines.", show_default=False)]
Languages = Annotated[
    str | None,
    typer.Option(
        "--langs", help="Languages, by code or name, in order: en,es,fr.", show_default=",".join(DEFAULT_LANGUAGES)
    ),
]


@dataclass(frozen=True)
class Model:
    """Which model on which dataset: what results are named by."""

    model_path: Annotated[str, typer.Option("--model-path", help="Model folder or hub id.", show_default=False)]
    dataset: Annotated[
        str, typer.Option("-s", "--dataset", help="Dataset name, in the results' paths.", show_default=False)
    ]
    model_name: Annotated[
        str | None,
        typer.Option("--model-name", help="Name in file names.", show_default="the family in the model's config"),
    ] = None

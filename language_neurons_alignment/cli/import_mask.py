"""`lna import-mask`: bring a public mask to where the other commands find it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..config import DEFAULT_TOP_RATE, parse_languages
from . import options
from .identify import language_table
from .output import result
from .setup import existing_layout


def import_mask(
    file: Annotated[Path, typer.Argument(help="Mask file, such as a public *.neuron.pth.", show_default=False)],
    model: options.Model,
    results: options.Results,
    langs: Annotated[
        str, typer.Option("--langs", help="The file's languages, in its order: en,zh,fr.", show_default=False)
    ],
    top_rate: options.TopRate = DEFAULT_TOP_RATE,
    lam: Annotated[float, typer.Option("-l", "--lam", help="λ to file it under; 0 for methods without.")] = 0.0,
    force: options.Force = False,
) -> None:
    """Store a public mask as this model's, checked against its shape, for `ppl` and `analyze --mask-only`."""
    languages = parse_languages(langs)
    from ..import_mask import import_mask as import_file

    layout, rates = existing_layout(model, results), {"top_rate": top_rate, "lam": lam}
    description, path = import_file(file, layout, languages, model_path=model.model_path, **rates, force=force)
    shown = {"mask": path, **asdict(description)}
    classes = ", ".join(f"{count} {name}" for name, count in description.classes.items())
    result([*language_table(description), "", classes, "", str(path)], shown, as_json=results.as_json)

"""`lna merge`: add up the counts of shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..config import language_name
from . import options
from .output import result, table
from .setup import existing_layout


def merge(
    model: options.Model,
    results: options.Results,
    shards: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of counts to add up; by default the dataset's shards under --root.", show_default=False
        ),
    ] = None,
    force: options.Force = False,
) -> None:
    """Add up the counts of disjoint shards of a corpus, counted anywhere, to those of the whole."""
    from ..merge import find_shards, merge_counts, shards_at

    layout = existing_layout(model, results)
    parts = shards_at(layout, shards) if shards else find_shards(layout)
    merged = merge_counts(layout, parts, force=force)
    rows = [[language_name(one.language), one.shards, one.tokens] for one in merged]
    shown = {one.language: {"shards": one.shards, "tokens": one.tokens, "paths": one.paths} for one in merged}
    result(
        [*table(["language", "shards", "tokens"], rows), "", *(str(one.paths[0]) for one in merged)],
        shown,
        as_json=results.as_json,
    )

"""`lna dataset`: make a corpus, and check one."""

from __future__ import annotations

import typer

from .dataset_build import build
from .dataset_check import check
from .dataset_templates import templates
from .flags import help_of, spread

dataset = typer.Typer(
    name="dataset",
    help="Make a corpus from a benchmark, a table or a folder of text, and check it.",
    no_args_is_help=True,
)
for command in (build, check, templates):
    dataset.command(command.__name__, help=help_of(command))(spread(command))

"""All commands put together, under four headings.

Command modules import the steps inside their functions: those load torch, and some matplotlib or transformers, which
takes seconds that `lna --help`, a wrong flag, or a command that needs less, should not wait for.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import visible
from ..version import __version__
from .cards import neuron, neurons
from .corpus import dataset, generate
from .effects import evaluate, export_model, force, lens, methods, ppl
from .findings import analyze, check, compare, model, pull, push, report, stability
from .neurons import activation, autosweep, identify, import_mask, merge
from .options import Results, option_of, register
from .output import STATE
from .plan import plan, shards
from .playground import playground
from .process import Ended
from .run import demo, run

PANELS = {
    "Corpus": (generate,),
    "Neurons": (demo, run, model, plan, activation, shards, merge, autosweep, identify, import_mask),
    "Effects": (ppl, evaluate, force, methods, lens, playground, export_model),
    "Findings": (neurons, neuron, analyze, compare, stability, report, check, push, pull),
}
"""The commands under each heading of `lna --help`, in the order in which one needs them."""


class Commands(TyperGroup):
    """The group of all commands; Ctrl-C leaves it as an exception, where Typer would end the process without a word."""

    def make_context(self, *given: Any, **settings: Any) -> Any:
        """Read what stands before the command."""
        with _harmless_messages():
            return super().make_context(*given, **settings)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            with _harmless_messages():
                return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Ended(signal.SIGINT) from error


@contextmanager
def _harmless_messages() -> Iterator[None]:
    """Make the arguments harmless that Typer repeats in its messages about wrong usage, for it prints them itself."""
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message"):  # Typer's own errors; their classes are private
            error.message = visible(str(error.message), keep="")  # pyright: ignore[reportAttributeAccessIssue]
        raise


app = typer.Typer(
    cls=Commands,
    name="lna",
    help="Find the language neurons of multilingual language models, switch them off, and see what breaks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, commands in PANELS.items():
    for command in commands:
        register(app, command, panel=panel)
app.add_typer(dataset, rich_help_panel="Corpus")


def _show_version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
    quiet: Annotated[bool, option_of(Results, "quiet")] = False,
    debug: Annotated[bool, option_of(Results, "debug")] = False,
) -> None:
    STATE.quiet, STATE.debug = quiet, debug

"""The commands, put together.

Command modules import the use-cases inside their functions: those load torch, and some matplotlib or transformers,
which takes seconds that `lna --help`, a wrong flag, or a command that needs less, should not wait for.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..version import __version__
from .corpus import dataset, generate
from .effects import evaluate, force, methods, ppl
from .findings import analyze, compare, report, stability
from .neurons import activation, autosweep, identify, import_mask, merge
from .options import Interrupted, help_of, spread
from .run import demo, run


class Commands(TyperGroup):
    """The group of all commands; Ctrl-C leaves it as an exception, where Typer would end the process without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted from error


app = typer.Typer(
    cls=Commands,
    name="lna",
    help="Find the language neurons of multilingual language models, switch them off, and see what breaks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    demo,
    run,
    generate,
    activation,
    autosweep,
    identify,
    ppl,
    evaluate,
    methods,
    force,
    merge,
    analyze,
    compare,
    stability,
    report,
    import_mask,
):
    app.command(command.__name__.replace("_", "-"), help=help_of(command))(spread(command))
app.add_typer(dataset)


def _show_version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass

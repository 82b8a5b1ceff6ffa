"""The commands, put together.

Command modules import the use-cases inside their functions: those load torch, and some matplotlib or transformers,
which takes seconds that `lna --help`, a wrong flag, or a command that needs less, should not wait for.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..version import __version__
from .activation import activation
from .analyze import analyze
from .autosweep import autosweep
from .compare import compare
from .dataset import dataset
from .demo import demo
from .evaluate import evaluate
from .flags import help_of, spread
from .force import force
from .generate import generate
from .identify import identify
from .import_mask import import_mask
from .merge import merge
from .methods import methods
from .ppl import ppl
from .report import report
from .run import run
from .stability import stability
from .state import Interrupted


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

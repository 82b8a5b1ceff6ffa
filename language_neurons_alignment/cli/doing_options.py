"""The flags that say what is done to which neurons, the same for every command that changes some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import DEFAULT_METHOD, DEFAULT_TOP_RATE, MASK_CLASSES, Method, Selection, in_order
from ..errors import SettingsError
from .options import parse_classes

if TYPE_CHECKING:
    from ..interventions.doing import Doing as Steps
    from ..interventions.neuron_sets import NeuronSource
    from ..session import Session

PANEL = "Changed neurons"


Do = Annotated[
    list[str] | None,
    typer.Option(
        "--do",
        metavar="'OP SET'",
        help="zero, scale:a, set:v, mean:LANG, replace:LANG, add:LANG:α or diffmean:LANG; on LANG, LANG:classes, "
        "@file, or several with ' + ' and ' - '. May be given several times: done in that order.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True)
class Doing:
    """What is done to neurons, and the mask that tells which are a language's."""

    do: Do = None
    classes: Annotated[
        str, typer.Option("--classes", help="Of a LANG: any of specific,related,general.", rich_help_panel=PANEL)
    ] = ",".join(MASK_CLASSES)
    top_rate: Annotated[float, typer.Option("-r", "--top-rate", help="Of the mask.", rich_help_panel=PANEL)] = (
        DEFAULT_TOP_RATE
    )
    lam: Annotated[
        float | None, typer.Option("-l", "--lam", help="λ of the mask.", show_default=False, rich_help_panel=PANEL)
    ] = None

    def steps(self, *default: str, method: Method = DEFAULT_METHOD) -> Steps:
        """What `--do` says, or the default; refused here, before a model is named, where it cannot be."""
        from ..interventions.doing import Doing as Steps

        steps = Steps.parse(self.do or default)
        if steps.needs_mask:
            self.check_lambda(f"--do {steps.texts[0]!r}", method)
        in_order(parse_classes(self.classes))
        if self.lam is not None or not method.has_lambda:
            Selection(self.top_rate, self.lam, method=method)
        return steps

    def check_lambda(self, what: str, method: Method) -> None:
        """Raise SettingsError where there is no λ and the mask that `what` needs has one in its name."""
        if self.lam is None and method.has_lambda:
            raise SettingsError(f"{what} needs the λ of a mask: give -l as it was given to `lna identify`")

    def neurons(self, work: Session, steps: Steps) -> NeuronSource:
        """Where the neurons that the steps name come from; the mask is read only where they need it."""
        from ..interventions.neuron_sets import neuron_source

        lam = self.lam if steps.needs_mask else None
        return neuron_source(work, top_rate=self.top_rate, lam=lam, classes=parse_classes(self.classes))

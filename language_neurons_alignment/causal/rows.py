"""The rows of a map: what is done to the model in each, the controls of each among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.interventions import Intervention
from ..core.perplexity_map import UNDISTURBED
from ..engines import ModelInfo
from ..errors import SettingsError
from ..interventions.doing import Doing
from ..interventions.neuron_sets import NeuronSource
from ..masks import StoredMask
from ..store.layout import Layout
from .controls import Controls, of_control

ONE_ROW = "do"
"""The row of steps that name no `each`."""


@dataclass(frozen=True)
class Rows:
    """Rows by name: `none`, then each language or `do`; of controls `fr~1`, `do~1`.

    Attributes:
        doing: the steps.
        source: where their neurons and means come from.
        controls: where those of controls come from.
    """

    doing: Doing
    source: NeuronSource
    controls: Controls

    def __post_init__(self) -> None:
        unknown = sorted(self.doing.words - {"each"})
        if unknown:
            raise SettingsError(
                f"--do names {', '.join(unknown)}, which a map of rows and texts does not have: "
                "give `each`, the language of the row, or a language"
            )

    @classmethod
    def open(cls, layout: Layout, mask: StoredMask, doing: Doing, *, classes: Sequence[str], seed: int) -> Rows:
        """The rows of these steps, their neurons, and those of controls, coming from a mask.

        Raises:
            LNAError: as `Doing.check` and `Controls.open`; what cannot be done is refused here.
        """
        source = NeuronSource.open(layout, mask, classes)
        doing.check(source)
        return cls(doing, source, Controls.open(layout, mask, classes=classes, seed=seed))

    def names(self, languages: Sequence[str]) -> tuple[str, ...]:
        """The rows after the undisturbed one."""
        return tuple(languages) if self.doing.words else (ONE_ROW,)

    def intervention(self, row: str, model: ModelInfo) -> Intervention | None:
        """What is done to the model in a row, or in a control of one; None: nothing.

        A language without neurons changes nothing in its row; steps that stand for no row of their own must.

        Raises:
            LNAError: as `Doing.intervention` and `Controls.swap`.
        """
        if row == UNDISTURBED:
            return None
        name, number = of_control(row)
        swap = self.controls.swap(model, name, number) if number else None
        by_language = bool(self.doing.words)
        steps = self.doing.bind(each=name) if by_language else self.doing
        return steps.intervention(self.source, model, swap=swap, allow_empty=by_language)

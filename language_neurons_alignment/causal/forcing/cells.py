"""The cells of a forcing table: who is asked in which language, steered to which, and what that takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...core.interventions import Intervention
from ...engines import ModelInfo
from ...interventions.doing import Doing
from ...interventions.neuron_sets import NeuronSource
from ...store.checkpoint import Checkpoint
from ...store.journal import Plain
from ..controls import Controls
from .settings import ForcingSettings


@dataclass(frozen=True)
class Cell:
    """One language asked in, under one steering.

    Attributes:
        source: the language asked in.
        target: the language steered to; None: nothing is done.
        number: which set of controls the steering is done to instead, from 1; 0: the languages' own neurons.
    """

    source: str
    target: str | None = None
    number: int = 0

    @property
    def name(self) -> str:
        """As its files are named: "fr", "fr.to.de", "fr.to.de~1"."""
        steering = "" if self.target is None else f".to.{self.target}"
        return f"{self.source}{steering}{f'~{self.number}' if self.number else ''}"


def cells_of(sources: Sequence[str], targets: Sequence[str], *, sets: int) -> list[Cell]:
    """All cells in the order in which they are done: undisturbed, steered, then set by set the controls."""
    pairs = [(source, target) for source in sources for target in targets]
    steered = [Cell(*pair, number) for number in range(sets + 1) for pair in pairs]
    return [*(Cell(source) for source in sources), *steered]


@dataclass(frozen=True)
class Steering:
    """What is done in the cells.

    Attributes:
        settings: the steps among them.
        source: where their neurons and means come from.
        controls: where those of controls come from; None without.
    """

    settings: ForcingSettings
    source: NeuronSource
    controls: Controls | None

    def bound(self, cell: Cell) -> Doing:
        """The steps of a cell."""
        return Doing.parse(self.settings.do).bind(source=cell.source, target=cell.target)

    def intervention(self, cell: Cell, model: ModelInfo) -> Intervention | None:
        """What a cell does to a model; None for the undisturbed one.

        Raises:
            LNAError: as `Doing.intervention` and `Controls.swap`.
        """
        if cell.target is None:
            return None
        swap = None
        if cell.number and self.controls is not None:
            swap = self.controls.swap(model, f"{cell.source}.to.{cell.target}", cell.number)
        # a language may have no neurons of the chosen classes: its cell then shows that nothing changes
        return self.bound(cell).intervention(self.source, model, swap=swap, allow_empty=True)

    def made_from(
        self, cell: Cell, *, checkpoint: Checkpoint, questions: Mapping[str, str], candidates: Sequence[str]
    ) -> Plain:
        """All that decides a cell's answers and the languages seen in them, but for the engine."""
        return {
            "cell": cell.name,
            "sampling": self.settings.sampling.plain(),
            "overlong_policy": self.settings.overlong,
            "config_hash": checkpoint.config_hash,
            "weights_hash": checkpoint.weights_hash,
            "candidates": list(candidates),
            "questions": questions[cell.source],
            "steering": None if cell.target is None else self.bound(cell).describe(self.source),
            "control": self.controls.describe() if cell.number and self.controls is not None else None,
        }

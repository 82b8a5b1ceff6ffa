"""The rows of a map of what is done to a model: nothing, then a change for each language, then controls of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..core.interventions import Intervention
from ..core.perplexity_map import UNDISTURBED
from ..engines import ModelInfo
from ..errors import SettingsError
from .controls import Controls, control_rows, of_control
from .doing import Doing
from .neuron_sets import NeuronSource

ALONE = "do"
"""The row of steps that are the same whatever the language."""
EACH = "each"


@dataclass(frozen=True)
class Rows:
    """What is done in each row.

    Attributes:
        doing: the steps.
        source: where their neurons and means come from.
        changed: the rows in which they are done: languages where the steps speak of `each`, else `ALONE`.
        sets: controls of each of these.
        controls: where these come from; None without.
    """

    doing: Doing
    source: NeuronSource
    changed: tuple[str, ...]
    sets: int
    controls: Controls | None

    @classmethod
    def of(
        cls, doing: Doing, source: NeuronSource, languages: Sequence[str], *, sets: int, controls: Controls | None
    ) -> Rows:
        """Lay out the rows, and refuse what can be refused before the model is loaded.

        Raises:
            SettingsError: steps that speak of a source or a target, or a language that the mask does not have.
            MissingArtifactError: means that were not collected.
        """
        if doing.words - {EACH}:
            raise SettingsError(
                f"{', '.join(sorted(doing.words - {EACH}))} stands for a language in `lna force` only: here a step "
                "names a language, or each"
            )
        rows = cls(doing, source, tuple(languages) if EACH in doing.words else (ALONE,), sets, controls)
        for row in rows.changed:
            rows.bound(row).check(source)
        return rows

    @property
    def names(self) -> tuple[str, ...]:
        """All rows, in the order in which they are done."""
        return (UNDISTURBED, *self.changed, *control_rows(self.changed, self.sets))

    @property
    def by_language(self) -> bool:
        """Whether each language has a row."""
        return EACH in self.doing.words

    def bound(self, row: str) -> Doing:
        """The steps of a row."""
        return self.doing.bind(each=row) if self.by_language else self.doing

    def intervention(self, row: str, model: ModelInfo) -> Intervention | None:
        """What a row does to a model; None for the undisturbed one.

        Raises:
            LNAError: as `Doing.intervention` and `Controls.swap`.
        """
        if row == UNDISTURBED:
            return None
        swap, of = None, row
        if row not in self.changed and self.controls is not None:
            of, number = of_control(row)
            swap = self.controls.swap(model, of, number)
        # a language may have no neurons of the chosen classes: its row then shows that nothing changes
        return self.bound(of).intervention(self.source, model, swap=swap, allow_empty=self.by_language)

    def check(self, names: Sequence[str], model: ModelInfo) -> None:
        """Raise whatever `intervention` would for these rows, before hours are spent on the first.

        A control that can be drawn once can be drawn again, so the first set stands for all.
        """
        for row in names:
            if row in self.names[: 1 + 2 * len(self.changed)]:
                self.intervention(row, model)

    def describe(self) -> dict[str, Any]:
        """Row → what is done in it, for provenance; controls have one of their own."""
        return {row: self.bound(row).describe(self.source) for row in self.changed}

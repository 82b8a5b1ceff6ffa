"""The conditions of a grid: what is done to the model while it works on the texts of each language.

Perplexity maps, evaluations and forcing tables ask the same question in three ways: what changes when neurons are
changed? Each lists its conditions, computes the cells (condition, language of the texts) that no earlier run has
finished, and keeps them in a `store.grid.GridFile`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from ._controls import Controls
from ._interventions import NeuronSource
from ._operations import Steps
from .core.interventions import Intervention
from .core.model import ModelInfo
from .core.perplexity import UNDISTURBED, control_row
from .engines import Engine
from .store.files import Json

ONE_ROW = "do"
"""The row of steps that are the same for every language."""


@dataclass(frozen=True)
class Condition:
    """What is done to the model, by name.

    Attributes:
        control: 0 for the row's own neurons; from 1, its control sets: the same done to random neurons.

    >>> Condition("fr").name, Condition("fr", 2).name
    ('fr', 'fr~2')
    """

    row: str
    control: int = 0

    @property
    def name(self) -> str:
        """The name in files: `fr`, and `fr~1` of its first control."""
        return control_row(self.row, self.control) if self.control else self.row


NONE = Condition(UNDISTURBED)
"""Nothing is changed."""


def conditions_of(rows: Sequence[str], sets: int) -> list[Condition]:
    """List conditions in the order in which they run: nothing, the rows, then the controls set by set.

    >>> [one.name for one in conditions_of(["fr", "de"], 1)]
    ['none', 'fr', 'de', 'fr~1', 'de~1']
    """
    return [NONE, *(Condition(row, number) for number in range(sets + 1) for row in rows)]


def missing(cells: Iterable[tuple[Condition, str]], done: Mapping[tuple[str, str], Any]) -> dict[Condition, list[str]]:
    """Return the texts that each condition misses; conditions that miss none are left out."""
    todo: dict[Condition, list[str]] = {}
    for condition, text in cells:
        if (condition.name, text) not in done:
            todo.setdefault(condition, []).append(text)
    return todo


@dataclass(frozen=True)
class Conditions:
    """What the conditions of a grid do to a model."""

    steps: Steps
    source: NeuronSource
    controls: Controls | None  # None without control conditions
    word: str = "each"  # stands in the steps for the language of the row
    asked: str | None = None  # in a forcing table, the language of the questions: each has controls of its own

    def rows(self, languages: Sequence[str]) -> tuple[str, ...]:
        """Return the rows in which something is changed: the languages, or one row for steps that name none."""
        return tuple(languages) if self.steps.words else (ONE_ROW,)

    def intervention(self, condition: Condition, model: ModelInfo) -> Intervention | None:
        """Return what a condition does to a model; None for nothing."""
        if condition == NONE:
            return None
        swap = None
        if condition.control:
            assert self.controls is not None
            row = condition.row if self.asked is None else f"{self.asked}.to.{condition.row}"
            swap = self.controls.swap(model, row, condition.control)
        # a language without neurons changes nothing in its row; steps that are the same for all must change something
        steps = self._steps_of(condition.row)
        return self.source.intervention(steps, model, swap=swap, allow_empty=bool(self.steps.words))

    def check_model(self, conditions: Iterable[Condition], model: ModelInfo) -> list[Intervention]:
        """Refuse what the model cannot be given, before its first forward pass; return an example of each row.

        Where one control set can be drawn, so can the others, and all of them change the same layers.
        """
        examples = dict.fromkeys(Condition(one.row, min(one.control, 1)) for one in conditions)
        changes = (self.intervention(one, model) for one in examples)
        return [one for one in changes if one is not None]

    def describe(self, condition: Condition) -> Json | None:
        """Return what decides the effect of a condition, its controls aside; None for nothing."""
        return None if condition == NONE else self.source.describe(self._steps_of(condition.row))

    def notes(self, rows: Iterable[str]) -> list[str]:
        """Say which steps of these rows change nothing."""
        return list(dict.fromkeys(note for row in rows for note in self.source.notes(self._steps_of(row))))

    def _steps_of(self, row: str) -> Steps:
        return self.steps.bind(**{self.word: row}) if self.steps.words else self.steps


def under(engine: Engine, change: Intervention | None) -> AbstractContextManager[None]:
    """Run the model with a change while the context is open; None for none."""
    return nullcontext() if change is None else engine.intervene(change)

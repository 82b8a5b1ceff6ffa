"""What `evaluate` does to the model, how it is asked, and what is shown: validated once, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import MASK_CLASSES, OVERLONG, MapSettings, check_choice
from ..errors import SettingsError
from ..sampling import GREEDY, Sampling

MEASURES = ("accuracy", "number", "language")
DEFAULT_CONTROLS = 5


@dataclass(frozen=True)
class EvaluationSettings:
    """The choices of an evaluation.

    Attributes:
        do: steps that are done to the model in each row, in this order; "each" in them is the row's language.
        classes: of the neurons that a language's name stands for.
        sampling: how answers are drawn, one a question; its seed draws the controls too.
        overlong: "error", "truncate" or "skip" (`generation.generate`).
        controls: random sets of neurons that each change is held against; 0: none.
        show: what the figure and the table show: "accuracy", "number" or "language".

    Raises:
        SettingsError: a choice that there is not.
    """

    do: tuple[str, ...] = ("zero each",)
    classes: tuple[str, ...] = MASK_CLASSES
    sampling: Sampling = GREEDY
    overlong: str = "error"
    controls: int = DEFAULT_CONTROLS
    show: str = MEASURES[0]

    def __post_init__(self) -> None:
        if not self.do:
            raise SettingsError('--do names nothing to do: for example --do "zero each"')
        check_choice(self.overlong, OVERLONG, "--overlong")
        check_choice(self.show, MEASURES, "--show")
        check_controls(self.controls)
        object.__setattr__(self, "classes", MapSettings(classes=self.classes).classes)

    @property
    def variant(self) -> str:
        """What tells this choice of classes from the default, in the files' names."""
        return MapSettings(classes=self.classes).variant


def check_controls(sets: int) -> None:
    """Raise SettingsError unless so many sets of controls have a range."""
    if sets < 0 or sets == 1:
        raise SettingsError(f"--controls must be 0 (none) or at least 2, since a range needs two; got {sets}: give 5")


DEFAULT_EVALUATION = EvaluationSettings()

"""What `evaluate` does to the model, how it is asked, and what is shown: validated once, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from ...config import DEFAULT_CONTROLS, DEFAULT_DO, MASK_CLASSES, OVERLONG, check_choice, check_controls, in_order
from ...errors import SettingsError
from ...sampling import GREEDY, Sampling

MEASURES = ("accuracy", "number", "language")


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

    do: tuple[str, ...] = DEFAULT_DO
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
        object.__setattr__(self, "classes", in_order(self.classes))

    @property
    def variant(self) -> str:
        """What tells this choice of classes from the default, in the files' names."""
        return "" if self.classes == MASK_CLASSES else f".{'-'.join(self.classes)}"


DEFAULT_EVALUATION = EvaluationSettings()

"""How a model is asked while its neurons are changed: what evaluations and forcings choose alike."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import DEFAULT_CONTROLS, MASK_CLASSES, OVERLONG, check_choice, check_controls, in_order
from ..sampling import GREEDY, Sampling


@dataclass(frozen=True)
class Asking:
    """What is done to a model, and how it is asked.

    Attributes:
        do: steps that are done to the model, in this order.
        classes: of the neurons that a language's name stands for.
        sampling: how answers are drawn, one a question; its seed draws the controls too.
        overlong: "error", "truncate" or "skip" (`generation.generate`).
        controls: random sets of neurons that each change is held against; 0: none.

    Raises:
        SettingsError: a choice that there is not.
    """

    do: tuple[str, ...]
    classes: tuple[str, ...] = MASK_CLASSES
    sampling: Sampling = GREEDY
    overlong: str = OVERLONG[0]
    controls: int = DEFAULT_CONTROLS

    def __post_init__(self) -> None:
        check_choice(self.overlong, OVERLONG, "--overlong")
        check_controls(self.controls)
        object.__setattr__(self, "classes", in_order(self.classes))

    @property
    def variant(self) -> str:
        """What tells this choice of classes from the default, in the files' names."""
        return "" if self.classes == MASK_CLASSES else f".{'-'.join(self.classes)}"

"""How a model is steered from one language to another, and asked: validated once, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from ...config import DEFAULT_CONTROLS, MASK_CLASSES, OVERLONG, check_choice, check_controls, in_order
from ...errors import SettingsError
from ...sampling import GREEDY, Sampling

DEFAULT_STEERING = ("zero source", "add:target:1 target")
"""The source's neurons silent, the target's raised by their mean in the target language (decision 0039)."""


@dataclass(frozen=True)
class ForcingSettings:
    """The choices of a forcing.

    Attributes:
        do: steps that are done to the model, in this order; "source" in them is the language asked in, "target" the
            one steered to.
        classes: of the neurons that a language's name stands for.
        sampling: how answers are drawn, one a question; its seed draws the controls too.
        overlong: "error", "truncate" or "skip" (`generation.generate`).
        controls: random sets of neurons that each steering is held against; 0: none.

    Raises:
        SettingsError: a choice that there is not, or steps that name no target.
    """

    do: tuple[str, ...] = DEFAULT_STEERING
    classes: tuple[str, ...] = MASK_CLASSES
    sampling: Sampling = GREEDY
    overlong: str = "error"
    controls: int = DEFAULT_CONTROLS

    def __post_init__(self) -> None:
        from ...interventions.doing import Doing  # here, not above: settings are made before torch is loaded

        words = Doing.parse(self.do).words
        if "each" in words or "target" not in words:
            raise SettingsError(
                f"--do {' --do '.join(map(repr, self.do)) or 'nothing'} steers to no target: its steps "
                "name `target`, and may name `source`, the language asked in, but not `each`; for example "
                "--do 'mean:target target'"
            )
        check_choice(self.overlong, OVERLONG, "--overlong")
        check_controls(self.controls)
        object.__setattr__(self, "classes", in_order(self.classes))

    @property
    def variant(self) -> str:
        """What tells this choice of classes from the default, in the files' names."""
        return "" if self.classes == MASK_CLASSES else f".{'-'.join(self.classes)}"

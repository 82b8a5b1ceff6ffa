"""What a perplexity map shows."""

from __future__ import annotations

from dataclasses import dataclass

from .checks import (
    AVERAGES,
    DEFAULT_CONTROLS,
    MASK_CLASSES,
    OVERLONG,
    SCALES,
    TEXTS,
    check_choice,
    check_controls,
    in_order,
)

DEFAULT_DO = ("zero each",)


@dataclass(frozen=True)
class MapSettings:
    """What is switched off, what is scored, and how it is shown (SPEC 6).

    Attributes:
        classes: classes of neurons that are deactivated; kept in the order of `CLASSES`, each once.
        text: "instruction", "answer" or "full".
        overlong: "error", "truncate" or "skip".
        scale: of the figure, "percent" or "log1p".
        average: of the figure, "token" or "text".
        do: what is done in each row (`interventions.steps`); "each" in it stands for the row's language.
        controls: sets of random neurons that each row is held against; 0: none.
        seed: of the controls.

    Raises:
        SettingsError: a choice that there is not.
    """

    classes: tuple[str, ...] = MASK_CLASSES
    text: str = "instruction"
    overlong: str = "error"
    scale: str = "percent"
    average: str = "token"
    do: tuple[str, ...] = DEFAULT_DO
    controls: int = DEFAULT_CONTROLS
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(self.text, TEXTS, "--text")
        check_choice(self.overlong, OVERLONG, "--overlong")
        check_choice(self.scale, SCALES, "--scale")
        check_choice(self.average, AVERAGES, "--average")
        check_controls(self.controls)
        object.__setattr__(self, "classes", in_order(self.classes))

    @property
    def variant(self) -> str:
        """What tells this choice of classes and text from the default, in the files' names."""
        classes = "" if self.classes == MASK_CLASSES else f".{'-'.join(self.classes)}"
        return classes + ("" if self.text == TEXTS[0] else f".{self.text}")


DEFAULT_MAP = MapSettings()

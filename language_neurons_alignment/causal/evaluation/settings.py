"""What `evaluate` does to the model, how it is asked, and what is shown: validated once, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from ...config import DEFAULT_DO, check_choice
from ...errors import SettingsError
from ..asking import Asking

MEASURES = ("accuracy", "number", "language")


@dataclass(frozen=True)
class EvaluationSettings(Asking):
    """The choices of an evaluation: those of `Asking`, and what is shown.

    Attributes:
        do: steps that are done to the model in each row, in this order; "each" in them is the row's language.
        show: what the figure and the table show: "accuracy", "number" or "language".

    Raises:
        SettingsError: a choice that there is not.
    """

    do: tuple[str, ...] = DEFAULT_DO
    show: str = MEASURES[0]

    def __post_init__(self) -> None:
        if not self.do:
            raise SettingsError('--do names nothing to do: for example --do "zero each"')
        super().__post_init__()
        check_choice(self.show, MEASURES, "--show")


DEFAULT_EVALUATION = EvaluationSettings()

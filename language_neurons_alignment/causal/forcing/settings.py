"""How a model is steered from one language to another, and asked: validated once, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import SettingsError
from ..asking import Asking

DEFAULT_STEERING = ("zero source", "add:target:1 target")
"""The source's neurons silent, the target's raised by their mean in the target language (decision 0039)."""


@dataclass(frozen=True)
class ForcingSettings(Asking):
    """The choices of a forcing: those of `Asking`, with steps that steer.

    Attributes:
        do: steps that are done to the model, in this order; "source" in them is the language asked in, "target" the
            one steered to.

    Raises:
        SettingsError: a choice that there is not, or steps that name no target.
    """

    do: tuple[str, ...] = DEFAULT_STEERING

    def __post_init__(self) -> None:
        from ...interventions.doing import Doing  # here, not above: settings are made before torch is loaded

        words = Doing.parse(self.do).words
        if "each" in words or "target" not in words:
            raise SettingsError(
                f"--do {' --do '.join(map(repr, self.do)) or 'nothing'} steers to no target: its steps "
                "name `target`, and may name `source`, the language asked in, but not `each`; for example "
                "--do 'mean:target target'"
            )
        super().__post_init__()

"""What can be chosen, and checks of single values."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import SettingsError

CLASSES = ("specific", "related", "general")
MASK_CLASSES = ("specific", "related")
"""The classes that make up a language's mask."""
TEXTS = ("instruction", "answer", "full")
OVERLONG = ("error", "truncate", "skip")
SCALES = ("percent", "log1p")
AVERAGES = ("token", "text")

DEFAULT_BLOCKS = 20
"""What `--blocks` is usually given: enough for intervals, and each block still has a dozen questions of MGSM."""
DEFAULT_CONTROLS = 5
"""Control sets for each row of a map."""


def check_share(value: float, name: str, example: float) -> None:
    """Raise SettingsError unless `value` is a share in (0, 1]."""
    if not (math.isfinite(value) and 0.0 < value <= 1.0):
        raise SettingsError(f"the {name} must be above 0 and at most 1, got {value!r}: give for example {example}")


def check_choice(value: str, choices: Sequence[str], flag: str) -> None:
    """Raise SettingsError unless `value` is one of `choices`."""
    if value not in choices:
        raise SettingsError(f"{flag} must be one of {', '.join(choices)}; got {value!r}")


def check_block_number(blocks: int) -> None:
    """Raise SettingsError unless a corpus can be kept in so many blocks and vary between them."""
    if blocks < 2:
        raise SettingsError(f"--blocks must be at least 2, got {blocks}: give for example {DEFAULT_BLOCKS}")


def check_controls(sets: int) -> None:
    """Raise SettingsError unless so many control sets have a range."""
    if sets < 0 or sets == 1:
        raise SettingsError(
            f"--controls must be at least 2, for one control has no range, or 0 for none; got {sets}: "
            f"give for example {DEFAULT_CONTROLS}"
        )


def in_order(classes: Sequence[str]) -> tuple[str, ...]:
    """Classes of neurons in the order of `CLASSES`, each once.

    Raises:
        SettingsError: a class that there is not, or none.
    """
    if not classes:
        raise SettingsError(f"--classes names no class: give any of {','.join(CLASSES)}")
    for name in classes:
        check_choice(name, CLASSES, "--classes")
    return tuple(name for name in CLASSES if name in classes)


def parse_shard(text: str) -> tuple[int, int]:
    """The second of four parts: "2/4" → (2, 4).

    Raises:
        SettingsError: not K/N with 1 <= K <= N.
    """
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal()):
        raise SettingsError(f"--shard must be K/N, got {text!r}: for example 1/4")
    check_shard(int(part), int(parts))
    return int(part), int(parts)


def check_shard(part: int, parts: int) -> None:
    """Raise SettingsError unless 1 <= part <= parts."""
    if not 1 <= part <= parts:
        raise SettingsError(f"a shard is K/N with 1 <= K <= N, got {part}/{parts}: for example 1/4")

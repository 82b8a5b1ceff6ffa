"""What holds for one call of the program."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class State:
    """Attributes: debug: show tracebacks."""

    debug: bool = False


STATE = State()


class Interrupted(Exception):
    """Ctrl-C, while a command was at work."""


def enable_debug(value: bool) -> bool:
    """Callback of `--debug`."""
    STATE.debug = value
    return value

"""The command line: `lna`, or `python -m language_neurons_alignment.cli`."""

from __future__ import annotations

import sys

from ..errors import LNAError, SettingsError
from .app import app
from .options import STATE
from .process import Ended, Unprinted, complete_streams, ended_by_signal

__all__ = ["app", "main"]

FAILED, WRONG_USAGE = 1, 2


def main() -> None:
    """Run one command: results on stdout, everything else on stderr, errors in one line.

    Exits with 0 when done, 1 for a failure that is explained, 2 for wrong usage; with 130 after Ctrl-C, 143 after
    SIGTERM, 129 after SIGHUP, and 141 where the reader of stdout has gone.
    """
    complete_streams()
    try:
        try:
            with ended_by_signal():
                app(prog_name="lna")
        finally:
            sys.stdout.flush()
    except LNAError as error:
        if STATE.debug:
            raise
        _say(" ".join(str(error).split()))
        sys.exit(WRONG_USAGE if isinstance(error, SettingsError) else FAILED)
    except Unprinted as error:
        _say(str(error))
        sys.exit(error.code)
    except Ended as ended:
        _say(f"{ended.how}; what was finished is stored, the same command goes on from there")
        sys.exit(ended.code)


def _say(message: str) -> None:
    if message:
        print(f"lna: {message}", file=sys.stderr)

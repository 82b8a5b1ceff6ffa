"""The command line: `lna`, or `python -m language_neurons_alignment.cli`."""

from __future__ import annotations

import sys
from io import TextIOWrapper

from ..errors import LNAError, SettingsError
from .app import Interrupted, app
from .options import STATE

__all__ = ["app", "main"]

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130


def main() -> None:
    """Run one command: results on stdout, everything else on stderr, errors in one line.

    Exits with 0 when done, 1 for a failure that is explained, 2 for wrong usage, 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that has no λ gets an escape, not a traceback
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="lna")
    except LNAError as error:
        if STATE.debug:
            raise
        print(f"lna: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(WRONG_USAGE if isinstance(error, SettingsError) else FAILED)
    except (Interrupted, KeyboardInterrupt):
        print("lna: interrupted; what was finished is stored, the same command goes on from there", file=sys.stderr)
        sys.exit(INTERRUPTED)

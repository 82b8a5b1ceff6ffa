"""The command line: `lna`, or `python -m language_neurons_alignment`."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from ..errors import LNAError, LNAWarning, SettingsError, visible
from .app import app
from .output import STATE, note, show_traceback
from .process import Ended, Unprinted, complete_streams, end_at_once, ended_by_signal

__all__ = ["app", "main"]

FAILED, WRONG_USAGE = 1, 2


def main() -> None:
    """Run one command: results on stdout, everything else on stderr, errors in one line.

    Exits with 0 when done, 1 for a failure that is explained, 2 for wrong usage; with 130 after Ctrl-C, 143 after
    SIGTERM, 129 after SIGHUP, and 141 where the reader of stdout has gone.
    """
    complete_streams()
    end_at_once()
    STATE.debug = STATE.quiet = False
    try:
        try:
            with warnings.catch_warnings(), ended_by_signal():
                _show_warnings()
                app(prog_name="lna")
        finally:
            sys.stdout.flush()
    except LNAError as error:
        if STATE.debug:
            raise
        _say(visible(" ".join(str(error).split())))
        sys.exit(WRONG_USAGE if isinstance(error, SettingsError) else FAILED)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG or STATE.debug:
            raise
        _say(visible(_too_long(error)))
        sys.exit(WRONG_USAGE)
    except Unprinted as error:
        _say(str(error))
        sys.exit(error.code)
    except Ended as ended:
        _say(f"{ended.how}; what was finished is stored, the same command goes on from there")
        sys.exit(ended.code)
    finally:
        sys.excepthook = show_traceback  # Typer's own would print what an error quotes as it is


def _say(message: str) -> None:
    if message:
        print(f"lna: {message}", file=sys.stderr)


def _too_long(error: OSError) -> str:
    """What to say of a path that no file can have."""
    name = max(Path(str(error.filename or "")).parts, key=len, default="")
    return (
        f"a path is too long: {name[:60]}… has {len(os.fsencode(name))} bytes; file systems allow 255 for a name and "
        "4095 for a path: give a shorter one"
    )


def _show_warnings() -> None:
    """Print each different warning of this package once, as a line on stderr; others as Python does."""
    seen: set[str] = set()
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, LNAWarning):
            usual(message, category, *place, **more)
        elif str(message) not in seen:
            seen.add(str(message))
            note(f"note: {' '.join(str(message).split())}")

    warnings.simplefilter("always", LNAWarning)
    warnings.showwarning = show

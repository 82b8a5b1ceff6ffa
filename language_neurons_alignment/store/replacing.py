"""Which results a run of several steps has replaced: it goes on after a kill, and repeats nothing."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from .files import Json, remove_leftovers, write_text

_ROUNDED = 2.0
"""Seconds to which the coarsest file systems round times."""


class Replacing:
    """The results that a run replaces, in a file that is there from its beginning to its end.

        {"run": {"languages": …}, "began": 1764176083.5, "before": {"activation.fr.Llama-x.pt": 1764169211987654321}}

    `run` is what the run is about, `before` when each result was written that stood there. A result that was written
    at another time since is replaced, so that no kill can come between replacing a result and noting that. In a folder
    that was copied without its times nothing can be told, and the run begins anew.

    Attributes:
        active: whether results are replaced: because it is asked for, or because a run that did so was killed.
    """

    def __init__(self, path: Path, run: Json, *, overwrite: bool) -> None:
        """Name the file, and say what the run is about; a run with other settings does not go on from there."""
        self.path = path
        self._run = json.loads(json.dumps(run))  # as it is read back
        self._before: dict[str, int | None] = {}
        self.active = overwrite
        remove_leftovers(path.parent)
        if (stored := _read(path)) and stored["run"] == self._run:
            self.active, self._before = True, stored["before"]
        elif overwrite:
            self._write()

    def again(self, result: Path) -> bool:
        """Return whether a result is still to be replaced."""
        if not self.active:
            return False
        name, written = os.path.relpath(result, self.path.parent), _written(result)
        if name not in self._before:
            self._before[name] = written
            self._write()
        return self._before[name] == written

    def end(self) -> None:
        """Delete the file: everything is replaced."""
        if self.active:
            self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        began = time.time()
        write_text(self.path, json.dumps({"run": self._run, "began": began, "before": self._before}) + "\n")
        os.utime(self.path, (began, began))


def _written(path: Path) -> int | None:
    """When a file was written; None where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _read(path: Path) -> Json | None:
    """Read the file of an unfinished run; None where there is none, or it tells nothing."""
    try:
        content, written = json.loads(path.read_bytes()), path.stat().st_mtime
        known = isinstance(content["run"], dict) and isinstance(content["before"], dict)
        return content if known and abs(written - content["began"]) <= _ROUNDED else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None

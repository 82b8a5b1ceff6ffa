"""What a long run has done so far, entry by entry on disk, so that one that was killed goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import ArtifactError, ConflictError
from .atomic import unwritable, write_text
from .layout import with_ending

Plain = dict[str, Any]


class Journal:
    """A file of JSON lines beside a result that is still being made; it vanishes when the result is whole.

        {"model": …, "sampling": …}      what the entries are made from
        {"batch": [7, 3], …}             an entry, on disk as soon as `append` returns
        {"batch": [1,                    the last one may be torn by a kill; it does not count

    Whoever uses it holds `alone(result)`.
    """

    def __init__(self, result: Path, *, anew: str = "--overwrite") -> None:
        """Name the journal of this result, and the flag by which its command begins anew."""
        self.path = with_ending(result, ".partial.jsonl")
        self._anew = anew

    def start(self, header: Plain, *, replace: bool = False) -> list[Plain]:
        """Go on from the entries that are there, or begin.

        Args:
            header: what entries are made from.
            replace: where they were made from something else, begin anew.

        Raises:
            ConflictError: they were made from something else, and not `replace`.
            ArtifactError: the journal cannot be read or written.
        """
        header = json.loads(json.dumps(header))  # as it is read back: tuples become lists
        lines = self.read()
        if lines and lines[0] == header:
            self._cut_torn_end()
            return lines[1:]
        if lines and not replace:
            raise ConflictError(
                f"{self.path} is an unfinished run with other settings: {differing(lines[0], header)}; "
                f"give the same command again to finish it, or {self._anew} to begin anew"
            )
        write_text(self.path, _line(header))
        return []

    def read(self) -> list[Plain]:
        """The header and the entries; nothing where there is no journal.

        Raises:
            ArtifactError: a line that is not the last one is damaged.
        """
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ArtifactError(f"cannot read {self.path} ({error}): delete it and run the command again") from error
        whole = text[: text.rfind(b"\n") + 1].splitlines()
        return [self._parsed(line, number) for number, line in enumerate(whole, start=1)]

    def append(self, entry: Plain) -> None:
        """Put an entry on disk.

        Raises:
            ArtifactError: it cannot be written; what was there stays.
        """
        try:
            with self.path.open("ab") as file:
                file.write(_line(entry).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from error

    def remove(self) -> None:
        """The result is whole."""
        self.path.unlink(missing_ok=True)

    def _parsed(self, line: bytes, number: int) -> Plain:
        try:
            found = json.loads(line)
            if not isinstance(found, dict):
                raise ValueError(f"a {type(found).__name__}, not an object")
        except ValueError as error:
            raise ArtifactError(
                f"{self.path}, line {number} is damaged ({error}): delete the file and run the command again"
            ) from error
        return found

    def _cut_torn_end(self) -> None:
        """Leave nothing behind the last whole line that a new entry would be glued to."""
        try:
            with self.path.open("rb+") as file:
                file.truncate(file.read().rfind(b"\n") + 1)
        except OSError as error:
            raise unwritable(self.path, error) from error


@contextmanager
def alone(result: Path) -> Iterator[None]:
    """While the context is open, no other process makes this result.

    Raises:
        ConflictError: another one does.
        ArtifactError: its folder cannot be written.
    """
    lock = FileLock(str(result.with_name(f".{result.name}.lock")))
    try:
        result.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as busy:
        raise ConflictError(
            f"another process is writing {result}: wait until it has ended, or name another file with -o"
        ) from busy
    except OSError as error:
        raise unwritable(result, error) from error
    try:
        yield
    finally:
        lock.release()


def _line(entry: Plain) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"


def digest_of(content: Any) -> str:
    """A digest of plain values."""
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


def differing(seen: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What differs between two sets of settings, with both values where they are short."""
    keys = [key for key in (*seen, *(key for key in wanted if key not in seen)) if seen.get(key) != wanted.get(key)]
    return ", ".join(_difference(key, seen.get(key), wanted.get(key)) for key in keys)


def _difference(key: str, seen: Any, wanted: Any) -> str:
    if isinstance(seen, dict) and isinstance(wanted, dict):
        return differing(seen, wanted)
    values = f" ({seen!r}, not {wanted!r})" if len(repr((seen, wanted))) < 80 else ""
    return key.replace("_", " ") + values

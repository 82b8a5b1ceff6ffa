"""Files that appear whole or not at all (SPEC 7)."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ..errors import ArtifactError


@contextmanager
def atomic_files(*paths: Path) -> Iterator[list[IO[bytes]]]:
    """Binary files that take the place of `paths` when the block ends well, and vanish when it does not.

    Each is written beside its path under a temporary name; when all are synced to disk they are renamed, in the order
    given: a reader sees the old file or the whole new one, also after Ctrl-C, a full disk or two writers at once (the
    last one to finish stands).

    Raises:
        ArtifactError: a file cannot be written; whatever stood at `paths` is untouched.
    """
    files: list[IO[bytes]] = []
    current = paths[0]
    try:
        for current in paths:
            current.parent.mkdir(parents=True, exist_ok=True)
            files.append(_open_beside(current))
        yield files
        for current, file in zip(paths, files, strict=True):  # noqa: B007 - named in the error below
            _finish(file)
        for current, file in zip(paths, files, strict=True):
            os.replace(file.name, current)
    except OSError as error:
        raise unwritable(current, error) from error
    finally:
        for file in files:
            _discard(file)
    for folder in {path.parent for path in paths}:
        _sync_folder(folder)


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """One binary file that takes the place of `path` when the block ends well; see `atomic_files`."""
    with atomic_files(path) as files:
        yield files[0]


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with atomic_file(path) as file:
        file.write(text.encode("utf-8"))


def unwritable(path: Path, error: OSError) -> ArtifactError:
    """The one-line error for a file that cannot be written."""
    remedy = {
        errno.ENOSPC: "the disk is full: free some space",
        errno.EDQUOT: "the disk quota is used up: free some space",
        errno.EACCES: "no permission: choose another --root",
        errno.EROFS: "the file system is read-only: choose another --root",
    }.get(error.errno or 0, f"{error.strerror or error}: choose another --root")
    return ArtifactError(f"cannot write {path}: {remedy}; earlier results are untouched")


def _open_beside(path: Path) -> IO[bytes]:
    """A temporary file in the folder of `path`; it is renamed or deleted by name, never by being closed."""
    return tempfile.NamedTemporaryFile(prefix=f".{path.name}.", suffix=".part", dir=path.parent, delete=False)


def _finish(file: IO[bytes]) -> None:
    """Put what was written on disk, readable as files usually are (temporary ones are private)."""
    file.flush()
    os.fsync(file.fileno())
    file.close()
    os.chmod(file.name, 0o666 & ~_umask())


def _discard(file: IO[bytes]) -> None:
    """Close and delete a temporary file; one that was renamed is no longer there."""
    with suppress(OSError):  # closing writes what is still buffered, and the disk may be full
        file.close()
    with suppress(OSError):
        os.unlink(file.name)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current

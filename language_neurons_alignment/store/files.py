"""Reading and writing files: they appear whole or not at all, and reading one never runs code.

`atomic_files` is the base of everything that is written: text, JSON, CSV tables, pictures and tensors. The readers
check what they read and raise errors that name the command which makes the file.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from zipfile import is_zipfile

import torch
from filelock import FileLock, Timeout

from .._file_kinds import EMPTY, ZEROS, file_kind
from ..core.frames import Columns
from ..errors import ArtifactError, MissingArtifactError
from .checkpoint import digest_of_parts
from .layout import with_ending

Json = dict[str, Any]
"""A JSON object."""


def digest_of(content: Any) -> str:
    """Return a digest of plain values, equal for equal values.

    >>> digest_of(["en", 1]) == digest_of(("en", 1)) != digest_of(["en", 2])
    True
    """
    return digest_of_bytes(json.dumps(content).encode())


def digest_of_bytes(*parts: bytes) -> str:
    """Return a digest of bytes; how they are cut into parts makes no difference."""
    return digest_of_parts(parts)


@contextmanager
def atomic_files(*paths: Path) -> Iterator[list[IO[bytes]]]:
    """Open binary files that replace `paths` when the block ends well, and are deleted when it does not.

    Each is written beside its path under a temporary name. When all are synced to disk they are renamed, in the order
    given: a reader sees the old file or the whole new one, also after Ctrl-C or on a full disk. When two processes
    write the same path, the last one to finish wins.
    """
    files: list[IO[bytes]] = []
    current = paths[0]
    try:
        for current in paths:
            current.parent.mkdir(parents=True, exist_ok=True)
            temporary = current.with_name(f".{current.name}.{secrets.token_hex(4)}.part")
            files.append(open(temporary, "x+b"))  # noqa: SIM115 - unlike `tempfile`, with a new file's permissions
        yield files
        for current, file in zip(paths, files, strict=True):  # noqa: B007 - named in the error below
            file.flush()
            os.fsync(file.fileno())
            file.close()
        for current, file in zip(paths, files, strict=True):
            os.replace(file.name, current)
    except OSError as error:
        raise unwritable(current, error) from error
    finally:
        for file in files:
            with suppress(OSError):  # closing writes what is still buffered, and the disk may be full
                file.close()
            with suppress(OSError):  # a file that was renamed is no longer there
                os.unlink(file.name)
    for folder in {path.parent for path in paths}:
        sync_folder(folder)


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open one binary file that replaces `path` when the block ends well; see `atomic_files`."""
    with atomic_files(path) as files:
        yield files[0]


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with atomic_file(path) as file:
        file.write(text.encode("utf-8"))


def unwritable(path: Path, error: OSError) -> ArtifactError:
    """Return the one-line error for a file that cannot be written."""
    remedy = {
        errno.ENOSPC: "the disk is full: free some space",
        errno.EDQUOT: "the disk quota is used up: free some space",
        errno.EACCES: "no permission: choose another --root",
        errno.EROFS: "the file system is read-only: choose another --root",
    }.get(error.errno or 0, f"{error.strerror or error}: choose another --root")
    return ArtifactError(f"cannot write {path}: {remedy}; earlier results are untouched")


def sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_json(path: Path, is_whole: Callable[[Any], bool], *, command: str) -> Json | None:
    """Read a JSON file that one of our commands wrote; None where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not is_whole(content):
            raise ValueError(f"not what `{command}` writes")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise unreadable(path, error, command=command) from error
    return content


def unreadable(path: Path, error: Exception, *, command: str) -> ArtifactError:
    """Return the error for a file that is torn or of another kind."""
    return ArtifactError(f"{path} cannot be read ({error!r}): delete it and run `{command}` again")


def save_pictures(
    path: Path,
    writers: Mapping[str, Callable[[IO[bytes]], None]],
    *,
    header: Sequence[Any],
    rows: Iterable[Sequence[Any]],
) -> list[Path]:
    """Write a figure's pictures, ending (".png") by ending, and the table that it shows as CSV; all or none."""
    paths = [with_ending(path, ending) for ending in (*writers, ".csv")]
    with atomic_files(*paths) as files:
        for write, file in zip(writers.values(), files, strict=False):
            write(file)
        files[-1].write(_csv(header, rows).encode("utf-8"))
    return paths


def save_tables(path: Path, content: Mapping[str, Any], tables: Mapping[str, Columns]) -> list[Path]:
    """Write `<path>.json`, and `<path>.<name>.csv` for each table; all of them or none."""
    csvs = {
        with_ending(path, f".{name}.csv"): _csv(columns, zip(*columns.values(), strict=True))
        for name, columns in tables.items()
    }
    texts = {**csvs, with_ending(path, ".json"): json.dumps(plain(content), indent=1, ensure_ascii=False) + "\n"}
    with atomic_files(*texts) as files:
        for file, text in zip(files, texts.values(), strict=True):
            file.write(text.encode("utf-8"))
    return [with_ending(path, ".json"), *csvs]


def plain(value: Any) -> Any:
    """Return the same value with null for the numbers that JSON lacks.

    >>> plain({"share": float("nan"), "counts": (1, 2)})
    {'share': None, 'counts': [1, 2]}
    """
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
    return value


def _csv(header: Iterable[Any], rows: Iterable[Sequence[Any]]) -> str:
    """Write a table; NaN is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row] for row in rows)
    return text.getvalue()


def save_tensors(content: Any, file: IO[bytes]) -> None:
    """Write tensors and plain values.

    The content goes through memory: when torch writes to a file itself, it hides the reason of a failure (a full disk).
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    file.write(buffer.getbuffer())


def load_tensors(path: Path, *, remedy: str, lazy: bool = False) -> Any:
    """Read tensors and plain values with `weights_only=True`; a failure is explained in one line."""
    kind = file_kind(path)
    if kind in (EMPTY, ZEROS):
        raise ArtifactError(f"{path} cannot be read (it is {kind}): delete it and {remedy}")
    if kind is not None:
        raise ArtifactError(
            f"{path} cannot be read: it is {kind}, and a file with torch's tensors was expected; give another file, or "
            f"move this one away and {remedy}"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=lazy and is_zipfile(path))
    except FileNotFoundError:
        raise MissingArtifactError(f"{path} is not there: {remedy}") from None
    except Exception as error:  # torch raises a dozen kinds for a torn or foreign file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found or "weights_only" in reason.lower() or "weights only" in reason.lower():  # its advice is to run code
            what = f"Python objects ({found[1]})" if found else "something else"
            raise ArtifactError(
                f"{path} cannot be read: it holds {what} beside tensors and plain values, and reading that would run "
                f"code; give another file, or move this one away and {remedy}"
            ) from error
        raise ArtifactError(f"{path} cannot be read ({reason[:120]}): delete it and {remedy}") from error


def save_stability(
    path: Path,
    content: Mapping[str, Any],
    tables: Mapping[str, Columns],
    tensors: Mapping[str, Any],
    pictures: Mapping[str, Callable[[IO[bytes]], None]],
) -> list[Path]:
    """Write `<path>.pt` and `<path>.<name>.png`, then the tables and the JSON that describes everything."""
    pngs = [with_ending(path, f".{name}.png") for name in pictures]
    with atomic_files(with_ending(path, ".pt"), *pngs) as (tensor_file, *files):
        save_tensors(dict(tensors), tensor_file)
        for write, file in zip(pictures.values(), files, strict=True):
            write(file)
    written = save_tables(path, content, tables)
    return [*written, with_ending(path, ".pt"), *pngs]


def is_held(lock: Path) -> bool:
    """Whether a running process holds this lock."""
    try:
        with FileLock(str(lock), timeout=0):
            return False
    except (Timeout, OSError):
        return True

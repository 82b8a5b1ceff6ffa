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
import pickletools
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from zipfile import ZipFile, is_zipfile

from filelock import FileLock, Timeout

from .._file_kinds import EMPTY, ZEROS, file_kind
from ..errors import ArtifactError, ConflictError, MissingArtifactError
from .checkpoint import digest_of_parts
from .layout import with_ending

if TYPE_CHECKING:
    from torch import Tensor

    from ..core.frames import Columns

if sys.platform == "win32":  # where an open file cannot be deleted
    LOCK_EX = LOCK_NB = 0

    def flock(fd: Any, operation: int) -> None:
        """Do nothing."""

else:
    from fcntl import LOCK_EX, LOCK_NB, flock

Json = dict[str, Any]
"""A JSON object."""

DIGESTS = "digests"
"""In the JSON of a result: the digest of each file that was written with it, by name."""
_PART = re.compile(r"\..+\.[0-9a-f]{8}\.part")
"""The name of a file that is being written."""
_PATIENCE = 120.0
"""Seconds that a process waits for one that appends to the same file, which takes milliseconds."""


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
    write the same path, the last one to finish wins. What killed processes left in these folders is deleted first.
    """
    files: list[IO[bytes]] = []
    current = paths[0]
    try:
        for current in paths:
            current.parent.mkdir(parents=True, exist_ok=True)
        for folder in {path.parent for path in paths}:
            remove_leftovers(folder)
        for current in paths:
            files.append(_open_part(current))
        yield files
        for current, file in zip(paths, files, strict=True):  # noqa: B007 - named in the error below
            file.flush()
            os.fsync(file.fileno())
            if not LOCK_EX:
                file.close()  # Windows renames no open file
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


def _open_part(path: Path) -> IO[bytes]:
    """Open a new file beside `path` and lock it, so that nobody takes it for a leftover while it is written."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        file = open(temporary, "x+b")  # noqa: SIM115 - unlike `tempfile`, with a new file's permissions
        with suppress(OSError):  # without locks on this file system nobody deletes leftovers either
            flock(file, LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # deleted by another process before it was locked


def remove_leftovers(folder: Path) -> list[Path]:
    """Delete and return what killed processes were writing in a folder; a living process has locked its."""
    removed = []
    with suppress(OSError):
        for path in [Path(one.path) for one in os.scandir(folder) if is_part(one.name)]:
            with suppress(OSError), _held(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                removed.append(path)
    return removed


def is_part(name: str) -> bool:
    """Whether this is the name of something that is being written, or was when its process was killed."""
    return _PART.fullmatch(name) is not None


def is_held(path: Path) -> bool:
    """Whether a running process has locked a file or folder."""
    try:
        with _held(path):
            return False
    except OSError:
        return True


@contextmanager
def _held(path: Path) -> Iterator[int]:
    """Lock a file or folder and give its descriptor; an OSError where another process has locked it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open one binary file that replaces `path` when the block ends well; see `atomic_files`."""
    with atomic_files(path) as files:
        yield files[0]


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a folder that becomes `path`, where there is none, when the block ends well; as `atomic_file` otherwise."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        part.mkdir()
        try:
            with ExitStack() as held:
                with suppress(OSError):  # without locks on this file system nobody deletes leftovers either
                    held.enter_context(_held(part))
                yield part
                for folder, _, names in os.walk(part):
                    for name in names:
                        with open(os.path.join(folder, name), "r+b") as file:
                            os.fsync(file.fileno())
                    sync_folder(Path(folder))
                os.rename(part, path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise unwritable(path, error) from error
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with atomic_file(path) as file:
        file.write(text.encode("utf-8"))


def unwritable(path: Path, error: OSError) -> ArtifactError:
    """Return the one-line error for a file that cannot be written."""
    without_locks = (
        "its file system has no file locks, so two processes could spoil each other's results: choose a place on "
        "another disk"
    )
    remedy = {
        errno.ENOSPC: "the disk is full: free some space",
        errno.EDQUOT: "the disk quota is used up: free some space",
        errno.EACCES: "no permission: choose another place",
        errno.EROFS: "the file system is read-only: choose another place",
        errno.EISDIR: "a folder of this name is there: move it away, or choose another place",
        errno.EEXIST: "a file or a broken link is where a folder belongs: move it away, or choose another place",
        errno.ENOTDIR: "a file is where a folder belongs: move it away, or choose another place",
        errno.ENOLCK: without_locks,
        errno.ENOSYS: without_locks,
        errno.ENOTSUP: without_locks,
        errno.EOPNOTSUPP: without_locks,
    }.get(error.errno or 0, f"{error.strerror or error}: choose another place")
    return ArtifactError(f"cannot write {path}: {remedy}; earlier results are untouched")


@contextmanager
def locked(path: Path, *, busy: str, patience: float = _PATIENCE) -> Iterator[None]:
    """Keep other processes from changing what is at `path` while the context is open; `path` has no ending.

    Args:
        path: its name, with a dot before it and the ending .lock, is that of the file that is locked.
        busy: what to say where another process keeps the lock for longer than the patience.
        patience: seconds to wait.

    Raises:
        ConflictError: another process keeps the lock.
        ArtifactError: there can be no lock.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(path.with_name(f".{path.name}.lock")))
        lock.acquire(timeout=patience)
    except Timeout as error:
        raise ConflictError(busy) from error
    except NotImplementedError as error:
        raise unwritable(path, OSError(errno.ENOLCK, str(error))) from error
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield
    finally:
        lock.release()


def check_writable(path: Path, *, needed: int = 0) -> None:
    """Raise ArtifactError where a result cannot be written at `path`: call this before the work for it begins.

    Its folder is made, and in it a file that is locked, written and deleted.

    Args:
        path: of the result.
        needed: bytes that will be written beside it, as far as they are known.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder")
        probe = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            with probe.open("xb", buffering=0) as file:
                flock(file, LOCK_EX | LOCK_NB)
                file.write(b"\n")
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise unwritable(path, error) from error
    if needed > free:
        raise ArtifactError(
            f"{path.parent} needs {size_of(needed)} for the results, and its disk has {size_of(free)} left: free some "
            "space, or choose another place"
        )


def size_of(number: int) -> str:
    """Write a number of bytes for people.

    >>> size_of(7_340_032_000), size_of(20_000_000), size_of(20)
    ('7.3 GB', '20 MB', '1 MB')
    """
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{max(number / 1e6, 1):.0f} MB"


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
        if path.exists() and not path.is_file():  # a pipe: reading one may never end
            raise ValueError("not a regular file")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not is_whole(content):
            raise ValueError(f"not what `{command}` writes")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
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
    """Write `<path>.json`, and `<path>.<name>.csv` for each table; all of them or none.

    The JSON comes last and holds the digests of the tables (`differing_files`).
    """
    csvs = {
        with_ending(path, f".{name}.csv"): _csv(columns, zip(*columns.values(), strict=True))
        for name, columns in tables.items()
    }
    digests = {**content.get(DIGESTS, {}), **{file.name: digest_of_bytes(text.encode()) for file, text in csvs.items()}}
    whole = plain({**content, DIGESTS: digests} if digests else content)
    texts = {**csvs, with_ending(path, ".json"): json.dumps(whole, indent=1, ensure_ascii=False) + "\n"}
    with atomic_files(*texts) as files:
        for file, text in zip(files, texts.values(), strict=True):
            file.write(text.encode("utf-8"))
    return [with_ending(path, ".json"), *csvs]


def differing_files(path: Path) -> list[Path]:
    """Return the files that a JSON file holds the digests of and that are gone or of another run.

    A JSON file without digests, as earlier versions wrote it, has none.
    """

    def is_whole(content: Any) -> bool:
        return all(
            "" != name == Path(name).name and isinstance(one, str) for name, one in content.get(DIGESTS, {}).items()
        )

    content = read_json(path, is_whole, command="lna") or {}
    named = {path.with_name(name): digest for name, digest in content.get(DIGESTS, {}).items()}
    return [file for file, digest in named.items() if not file.is_file() or _digest_of_file(file) != digest]


def digests_with(path: Path, written: Iterable[Path]) -> Json:
    """Return what the JSON file of a grid holds as `DIGESTS`: of the tables written for it now, and before.

    Pictures have none: they are drawn from the same cells again by the same command.
    """
    held: Any = {}
    with suppress(ArtifactError):  # damaged: it is about to be replaced
        held = (read_json(path, lambda content: isinstance(content, dict), command="lna") or {}).get(DIGESTS)
    before = held if isinstance(held, dict) else {}
    named = {name: one for name, one in before.items() if "" != name == Path(name).name}
    kept = {name: one for name, one in named.items() if path.with_name(name).is_file()}
    return {**kept, **{file.name: _digest_of_file(file) for file in written}}


def _digest_of_file(path: Path) -> str:
    return digest_of_bytes(path.read_bytes())


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
    """Write tensors and plain values. Equal contents give equal bytes.

    The content goes through memory: when torch writes to a file itself, it hides the reason of a failure (a full disk).
    """
    import torch

    buffer = io.BytesIO()
    torch.save(_canonical(content, {}), buffer)
    file.write(buffer.getbuffer())


def _canonical(content: Any, known: dict[str, str]) -> Any:
    """The same content, stored in one way only: pickle tells one object from an equal one, and a view from a tensor."""
    from torch import Tensor

    if isinstance(content, str):
        return known.setdefault(content, content)
    if isinstance(content, Tensor) and content.untyped_storage().nbytes() != content.nbytes:
        return content.clone()  # else all that it is a view of would be written
    if isinstance(content, dict):
        return {_canonical(key, known): _canonical(value, known) for key, value in content.items()}
    if isinstance(content, list):
        return [_canonical(one, known) for one in content]
    return content


def load_tensors(path: Path, *, remedy: str, lazy: bool = False) -> Any:
    """Read plain tensors and plain values with `weights_only=True`; a failure is explained in one line.

    A file can ask for far more memory than it has bytes. What it asks for is looked at first: reading one takes about
    as much memory as the file takes on disk.
    """
    import torch

    try:
        kind = file_kind(path)
        if kind not in (None, EMPTY, ZEROS):
            raise _ForeignFileError(kind)
        with open(path, "rb") as file:
            _check_stored(file)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=lazy and is_zipfile(path))
        _check_plain(content, path.stat().st_size)
        return content
    except FileNotFoundError:
        raise MissingArtifactError(f"{path} is not there: {remedy}") from None
    except _ForeignFileError as error:
        raise ArtifactError(
            f"{path} cannot be read (it is {error}, expected plain tensors that torch.save wrote): name another file, "
            f"or move it away and {remedy}"
        ) from None
    except Exception as error:  # torch raises a dozen kinds for a torn or foreign file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ArtifactError(f"{path} cannot be read ({reason[:120]}): delete it and {remedy}") from error


class _ForeignFileError(Exception):
    """A file that another program wrote, which deleting does not help."""


_NUMBERS = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")

_PLAIN = {
    "torch._utils _rebuild_tensor_v2",
    "collections OrderedDict",
    *(f"torch {name}Storage" for name in (*_NUMBERS, "ComplexDouble", "ComplexFloat")),
}
"""What a file of plain tensors names. Torch allows more, such as bytearray(n), which takes n bytes of memory."""

_TORCH_BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def _check_stored(file: IO[bytes]) -> None:
    """Raise unless a file has torch's format and asks for no more memory than it has bytes."""
    start = file.read(len(_TORCH_BEFORE_1_6))
    if start.startswith(b"PK\x03\x04"):
        with ZipFile(file) as archive:
            members = archive.infolist()
            if sum(one.file_size for one in members) > file.seek(0, os.SEEK_END):
                raise ValueError("unpacked it is larger than on disk, which no file of torch is")
            pickles = [one for one in members if one.filename.endswith("/data.pkl")]
            if pickles:
                _check_pickle(io.BytesIO(archive.read(pickles[0])))
    elif start == _TORCH_BEFORE_1_6:
        file.seek(0)
        for _ in range(4):  # torch's mark, its version, the machine's, the content
            _check_pickle(file)


def _check_pickle(file: IO[bytes]) -> None:
    """Raise where a pickle holds more than tensors, lists, dicts and plain values; nothing is built."""
    for operation, argument, _ in pickletools.genops(file):
        if operation.name == "GLOBAL" and argument not in _PLAIN:
            raise _ForeignFileError(f"a file with {str(argument).replace(' ', '.')} in it")
        if operation.name == "BUILD":
            raise _ForeignFileError("a file with an object in it that has a state")


def _check_plain(content: Any, size: int) -> None:
    """Raise where a tensor shows more numbers than a file of `size` bytes holds, as an expanded one does."""
    import torch

    seen, left = set(), [content]  # what is nested in itself is looked at once
    while left:
        one = left.pop()
        if isinstance(one, torch.Tensor):
            if one.layout != torch.strided or one.device.type != "cpu" or one.requires_grad:
                raise ValueError(f"it holds a {one.layout} tensor on {one.device}, expected a plain one")
            if one.numel() * one.itemsize > size or _overlaps(one):
                raise ValueError(
                    f"it holds a tensor of shape {tuple(one.shape)} that repeats the numbers in {size} bytes, as "
                    "`expand` makes it; expected each number on its own"
                )
        elif isinstance(one, dict | list | tuple) and id(one) not in seen:
            seen.add(id(one))
            left += one.values() if isinstance(one, dict) else one


def _overlaps(tensor: Tensor) -> bool:
    """Whether several places of a tensor may share one number in memory."""
    reach = 0
    for stride, length in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if length > 1 and stride <= reach:
            return True
        reach += stride * (length - 1)
    return False


def save_with_tensors(
    path: Path,
    content: Mapping[str, Any],
    tables: Mapping[str, Columns],
    tensors: Mapping[str, Any],
    pictures: Mapping[str, Callable[[IO[bytes]], None]],
) -> list[Path]:
    """Write `<path>.pt` and `<path>.<name>.png`, then the tables and the JSON that describes everything."""
    others = [with_ending(path, ".pt"), *(with_ending(path, f".{name}.png") for name in pictures)]
    digests = {}
    with atomic_files(*others) as (tensor_file, *files):
        save_tensors(dict(tensors), tensor_file)
        for write, file in zip(pictures.values(), files, strict=True):
            write(file)
        for one, file in zip(others, (tensor_file, *files), strict=True):
            file.seek(0)
            digests[one.name] = digest_of_bytes(file.read())
    return [*save_tables(path, {**content, DIGESTS: digests}, tables), *others]

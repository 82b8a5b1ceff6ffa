"""What a file is, told by its first bytes: errors name it when it is not what was expected."""

from __future__ import annotations

import zipfile
from pathlib import Path

EMPTY = "an empty file"
ZEROS = "nothing but zero bytes, as a crash or a broken copy leaves"
SAFETENSORS = "a safetensors file"
_PICKLE = "a pickle of Python, and reading one would run whatever code is in it"
_LFS = "a pointer of git-lfs, not the file itself: fetch it with `git lfs pull`"
_STARTS = {
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"GGUF": "a GGUF model",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "gzip-compressed",
    b"BZh": "bzip2-compressed",
    b"\xfd7zXZ": "xz-compressed",
    b"\x28\xb5\x2f\xfd": "zstd-compressed",
    b"Rar!": "a RAR archive",
    b"PAR1": "a Parquet table",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a picture (PNG)",
    b"\xff\xd8\xff": "a picture (JPEG)",
    b"version https://git-lfs": _LFS,
}
_TORCH_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""The number with which torch's own pickles began before torch 1.6."""
_HEAD = 4096


def file_kind(path: Path) -> str | None:
    """What a file is, for an error message; None for a file of torch, and for what is not known.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "mask.pt"
    ...     _ = path.write_bytes(b"<!DOCTYPE html><title>Log in</title>")
    ...     file_kind(path)
    'a web page (HTML), as a server sends when a login is needed'
    """
    try:
        if path.is_dir():
            return "a folder"
        if path.exists() and not path.is_file():  # reading one may never end
            return "a pipe, a socket or a device"
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    if not head:
        return EMPTY
    if not head.strip(b"\0"):
        return ZEROS
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 2**32:  # before all others: its length is any bytes
        return SAFETENSORS
    if head.startswith(b"PK\x03\x04"):
        return _archive(path)
    for start, kind in _STARTS.items():
        if head.startswith(start):
            return kind
    if head[:1] == b"\x80" and 2 <= head[1] <= 5:
        return None if _TORCH_LEGACY in head[:20] else _PICKLE
    return _text(head)


def _archive(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):  # torn; torch's own files are zip archives too
        return None
    if any(name.endswith("data.pkl") for name in names):
        return None
    arrays = bool(names) and all(name.endswith(".npy") for name in names)
    return "NumPy arrays (.npz)" if arrays else "a zip archive that torch did not write"


def _text(head: bytes) -> str | None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return "a web page (HTML), as a server sends when a login is needed"
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return None
        text = head[: error.start].decode("utf-8")
    if not all(one.isprintable() or one.isspace() for one in text):
        return None
    return "JSON" if start.startswith((b"{", b"[")) else "text"

"""What a GGUF file says of the model in it: its metadata, read with the standard library alone.

    "GGUF"  version  tensors  entries  |  entry …  |  tensor …  |  weights
                                          key, type, value
                                                      name, shape, type, offset

Every number is little-endian. Names and digests of results come from here, and so does the tokenizer
(`engines.gguf`); the weights are read by the transformers library.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from .errors import ArtifactError

_MAGIC = b"GGUF"
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The struct format of each type of number."""
_STRING, _ARRAY = 8, 9
_MOST = 10_000_000
"""Entries, tensors or values of one array that are believed; vocabularies have some 300,000."""
_LONGEST = 2**24
"""Bytes of the longest text that is believed; chat templates have some 20,000."""


@dataclass(frozen=True)
class GgufHeader:
    """All of a GGUF file but its weights.

    Attributes:
        metadata: its entries, such as "general.architecture" and "tokenizer.ggml.tokens", as plain values and lists.
        tensors: the name of each tensor, and the number of the type that its weights are stored in.
    """

    metadata: dict[str, Any]
    tensors: dict[str, int]


def is_gguf(path: str | Path) -> bool:
    """Whether this is a GGUF file, by its first bytes."""
    try:
        file = Path(os.path.expanduser(path))
        if not file.is_file():
            return False
        with file.open("rb") as opened:
            return opened.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def read_gguf(path: str | Path) -> GgufHeader:
    """Read the metadata of a GGUF file.

    Raises:
        ArtifactError: not such a file, one of another byte order or version, or one that was cut off.
    """
    path = Path(os.path.expanduser(path))
    try:
        state = path.stat()
        return _read(path, state.st_size, state.st_mtime_ns)
    except (OSError, ValueError, struct.error) as error:  # UnicodeDecodeError is a ValueError
        raise ArtifactError(f"cannot read the GGUF file {path}: {error}; download it again") from error


@lru_cache(maxsize=1)
def _read(path: Path, size: int, _changed: int) -> GgufHeader:
    """Read once what a command asks for several times: of a large vocabulary it takes a second."""
    with path.open("rb") as file:
        return _header(file, size)


def _header(file: BinaryIO, size: int) -> GgufHeader:
    if _take(file, len(_MAGIC)) != _MAGIC:
        raise ValueError("it does not begin with GGUF")
    version = _number(file, "I")
    if version not in (2, 3):
        raise ValueError(f"it is of version {version}, expected 2 or 3, little-endian")
    count, entries = _amount(file), _amount(file)
    metadata: dict[str, Any] = {}
    for _ in range(entries):
        key = _text(file)
        metadata[key] = _value(file, _number(file, "I"))
    tensors: dict[str, int] = {}
    last = 0
    for _ in range(count):
        name, dimensions = _text(file), _number(file, "I")
        _take(file, 8 * min(dimensions, 8))
        tensors[name] = _number(file, "I")
        last = max(last, _number(file, "Q"))
    if count and file.tell() + last >= size:
        raise ValueError(f"it has {size:,} bytes and its last tensor begins after byte {file.tell() + last:,}")
    return GgufHeader(metadata, tensors)


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _text(file)
    if kind != _ARRAY:
        return _number(file, _format(kind))
    inner, length = _number(file, "I"), _amount(file)
    if inner in (_STRING, _ARRAY):
        return [_value(file, inner) for _ in range(length)]
    one = _format(inner)
    return list(struct.unpack(f"<{length}{one}", _take(file, length * struct.calcsize(one))))


def _format(kind: int) -> str:
    if kind not in _NUMBERS:
        raise ValueError(f"it has a value of the unknown type {kind}")
    return _NUMBERS[kind]


def _text(file: BinaryIO) -> str:
    length = _number(file, "Q")
    if length > _LONGEST:
        raise ValueError(f"it has a text of {length:,} bytes")
    return _take(file, length).decode("utf-8")


def _amount(file: BinaryIO) -> int:
    amount = _number(file, "Q")
    if amount > _MOST:
        raise ValueError(f"it announces {amount:,} values")
    return amount


def _number(file: BinaryIO, kind: str) -> Any:
    return struct.unpack(f"<{kind}", _take(file, struct.calcsize(f"<{kind}")))[0]


def _take(file: BinaryIO, length: int) -> bytes:
    taken = file.read(length)
    if len(taken) < length:
        raise ValueError("it ends in the middle of its metadata")
    return taken

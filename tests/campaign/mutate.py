"""Structure-aware mutations of valid values: JSON, dictionaries of tensors, text, bytes."""

from __future__ import annotations

import copy
import io
import json
import math
from contextlib import suppress
from random import Random
from typing import Any

import torch

STRINGS = (
    "",
    " ",
    "\n",
    "a",
    "en",
    "fr",
    "English",
    "none",
    "each",
    "..",
    "../x",
    "/",
    "\\",
    "~",
    "fr~1",
    "fr~x",
    "en.to.es",
    "NaN",
    "1e999",
    "\x00",
    "a\x00b",
    "\x1b[31mred\x1b[0m",
    "\x9b31m",
    "\u202eabc",
    "\u2028",
    "\ufeff",
    "\r",
    "\t",
    "\x7f",
    "\ud800",
    "x" * 300,
    "é" * 200,
    "zho_Hans",
    "zh-CN",
    "swh_Latn",
    "cmn",
    "Chinese (Simplified)",
    "en-",
    "-",
    "x-private",
    "i-klingon",
    "und",
    "1/2",
    "0.1-0.0",
    "1,234.5",
    "٣٤",
    "百万",
    "1.2.3万",
    "½",
    "{}",
    "{instruction}",
    "{0}",
    "%s",
    "$HOME",
    "'; --",
    "[]",
    "null",
    "--force",
    "@",
    "@x#en",
)
NUMBERS = (
    0,
    -1,
    1,
    2,
    3,
    10,
    255,
    2**31 - 1,
    2**31,
    2**53,
    2**63 - 1,
    2**63,
    10**30,
    0.0,
    -0.0,
    0.5,
    1.5,
    1e-300,
    1e308,
    math.nan,
    math.inf,
    -math.inf,
)


def odd_value(rng: Random) -> Any:
    """A JSON value that hardly ever belongs where it is put."""
    kind = rng.randrange(8)
    if kind == 0:
        return rng.choice((None, True, False))
    if kind in (1, 2):
        return rng.choice(NUMBERS)
    if kind in (3, 4):
        return rng.choice(STRINGS)
    if kind == 5:
        return rng.choice(([], {}, [[]], [{}], {"": None}, [None], [0], ["en"], {"en": {}}, [1, "a", None]))
    if kind == 6:
        return nested(rng.choice((3, 20, 60)), rng.choice(("[", "{")))
    return rng.choice(STRINGS) * rng.choice((1, 2, 50))


def nested(depth: int, kind: str) -> Any:
    """Lists or objects in each other."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind == "[" else {"a": value}
    return value


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every value inside a value."""
    found = [path]
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    else:
        return found
    for key, one in inner:
        found += places(one, (*path, key))
    return found


def mutate_value(rng: Random, value: Any, *, times: int | None = None, odd: Any = odd_value) -> Any:
    """A copy with one or a few changes: a value replaced, removed, repeated, renamed, or moved elsewhere."""
    value = copy.deepcopy(value)
    for _ in range(times or rng.choice((1, 1, 1, 2, 3))):
        found = places(value)
        path = rng.choice(found)
        if not path:
            if rng.random() < 0.1:
                value = odd(rng)
            continue
        holder = _at(value, path[:-1])
        key = path[-1]
        kind = rng.randrange(9)
        if kind <= 3:
            holder[key] = odd(rng)
        elif kind == 4:
            del holder[key]
        elif kind == 5:
            holder[key] = copy.deepcopy(_at(value, rng.choice(found)))
        elif kind == 6 and isinstance(holder, dict):
            holder[rng.choice(STRINGS)] = holder.pop(key)
        elif kind == 6:
            holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
        elif kind == 7:
            holder[key] = _other_type(rng, holder[key])
        else:
            other = rng.choice(found)
            if other:
                place = _at(value, other[:-1])
                holder[key], place[other[-1]] = copy.deepcopy(place[other[-1]]), copy.deepcopy(holder[key])
    return value


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _other_type(rng: Random, value: Any) -> Any:
    """The same, roughly, as another type."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return rng.choice(
            (str(value), float(value) if abs(value) < 1e300 else 0.0, -value, value + 1, [value], value * 10**20)
        )
    if isinstance(value, float):
        return rng.choice((str(value), -value, value * 1e9, [value]))
    if isinstance(value, str):
        return rng.choice(
            (
                value.encode("utf-8", "replace").hex(),
                [value],
                list(value[:5]),
                value + rng.choice(STRINGS),
                {value: value},
                value.upper(),
            )
        )
    if isinstance(value, list):
        return rng.choice(
            (
                dict(enumerate(map(str, range(len(value))))),
                value[:1],
                value * 2,
                str(value)[:100],
                value[::-1],
                len(value),
            )
        )
    if isinstance(value, dict):
        return rng.choice((list(value.values()), list(value), len(value), [value], str(value)[:100]))
    return 0


def mutate_text(rng: Random, text: str) -> str:
    """A text with a few changes."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice((0, 1, 1, 2, 8, 60)))
        kind = rng.randrange(5)
        new = {
            0: "",
            1: rng.choice(STRINGS),
            2: text[start:end] * 2,
            3: chr(rng.choice((rng.randrange(128), rng.randrange(0xD7FF)))),
            4: text[rng.randrange(len(text) + 1) :][: rng.randrange(20)],
        }[kind]
        text = text[:start] + new + text[end:]
    return text


def mutate_bytes(rng: Random, data: bytes) -> bytes:
    """Bytes with a few changes: cut off, flipped, overwritten, inserted, repeated."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        size = len(data)
        at = rng.randrange(size + 1)
        kind = rng.randrange(7)
        if kind == 0:
            del data[at:]
        elif kind == 1 and at < size:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2 and at < size:
            data[at] = rng.choice((0, 0xFF, 0x80, 0x0A, 0x22, 0x5B, 0x7B))
        elif kind == 3:
            data[at:at] = rng.choice(
                (
                    b"\x00",
                    b"\xef\xbb\xbf",
                    b"\xff\xfe",
                    b"\xed\xa0\x80",
                    b"\n",
                    b"\r\n",
                    b"}",
                    b"]",
                    b"," * 3,
                    b"[" * 5000,
                )
            )
        elif kind == 4:
            data[at:at] = data[at : at + rng.randrange(64)]
        elif kind == 5:
            del data[at : at + rng.randrange(1, 16)]
        else:
            data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\x00" * 4))
    return bytes(data)


def json_bytes(rng: Random, value: Any, *, mutate: bool = True, indent: bool = False) -> bytes:
    """A mutated value as JSON, now and then with the bytes changed too."""
    changed = mutate_value(rng, value) if mutate and rng.random() < 0.9 else value
    try:
        data = json.dumps(changed, ensure_ascii=rng.random() < 0.3).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):  # a circle, or deeper than Python writes
        data = b"[" * rng.choice((1000, 100_000)) + b"1"
    kind = rng.random()
    if kind < 0.15:
        return mutate_bytes(rng, data)
    if kind < 0.17:
        depth = rng.choice((1_000, 100_000))
        return data[:-1] + rng.choice((b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth))
    return data


def lines_bytes(rng: Random, entries: list[Any]) -> bytes:
    """JSON lines, one or a few of them mutated; lines lost, repeated, in another order, or cut off."""
    lines = [json.dumps(one, ensure_ascii=False).encode() for one in entries]
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines))
        kind = rng.randrange(6)
        if kind <= 2:
            lines[at] = json_bytes(rng, entries[min(at, len(entries) - 1)])
        elif kind == 3 and len(lines) > 1:
            del lines[at]
        elif kind == 4:
            lines.insert(rng.randrange(len(lines)), lines[at])
        else:
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
    return b"\n".join(lines) + rng.choice((b"\n", b"\n", b"\n", b"", b"\n\n", b'\n{"cell": ['))


def odd_tensor(rng: Random, like: Any = None) -> Any:
    """A tensor, or what stands in its place, that hardly ever belongs there."""
    shape = tuple(like.shape) if isinstance(like, torch.Tensor) else (3, 4)
    kind = rng.randrange(20)
    if kind == 0:
        dtype = rng.choice(
            (
                torch.float32,
                torch.float64,
                torch.bfloat16,
                torch.bool,
                torch.int8,
                torch.uint8,
                torch.int16,
                torch.complex64,
                torch.int32,
                torch.int64,
                torch.float16,
            )
        )
        return (like if isinstance(like, torch.Tensor) else torch.ones(shape)).to(dtype)
    if kind == 1:
        return torch.zeros(1, dtype=torch.int64).expand(rng.choice((shape, (10**6, 10**6), (0, 5), (1, 10**9))))
    if kind == 2:
        return torch.zeros(
            rng.choice(((0,), (), (1,), shape[::-1], (*shape, 1), (1, *shape), (0, 0, 0), (3, 0), (2, 25))),
            dtype=torch.int64,
        )
    if kind == 3:
        return torch.full(shape, rng.choice((-1, 2**31, 2**62, -(2**63), 0)), dtype=torch.int64)
    if kind == 4:
        return torch.full(shape, rng.choice((math.nan, math.inf, -1.0, 1e300)), dtype=torch.float64)
    if kind == 5:
        return torch.empty(rng.choice((shape, (10**7, 10**7))), device="meta", dtype=torch.int64)
    if kind == 6:
        return torch.eye(max(shape[-1] if shape else 1, 1)).to_sparse()
    if kind == 7:
        return torch.ones(shape, requires_grad=True)
    if kind == 8:
        return torch.nn.Parameter(torch.ones(shape))
    if kind == 9:
        return torch.quantize_per_tensor(torch.ones(shape), 0.1, 0, torch.qint8)
    if kind == 10 and isinstance(like, torch.Tensor) and like.numel():
        changed = like.clone().reshape(-1)
        changed[rng.randrange(changed.numel())] = rng.choice(
            (-1, 0, 1, 10**6 if changed.dtype not in (torch.uint8, torch.int8, torch.bool, torch.int16) else 1)
        )
        return changed.reshape(like.shape)
    if kind == 11 and isinstance(like, torch.Tensor) and like.ndim:
        return like[: max(0, like.shape[0] - 1)]
    if kind == 12 and isinstance(like, torch.Tensor) and like.ndim > 1:
        return like.transpose(-1, -2)
    if kind == 13 and isinstance(like, torch.Tensor) and like.numel():
        return like + rng.choice((1, -1, like))
    if kind == 14:
        return torch.Size([3, 4])
    if kind == 15:
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    return odd_value(rng)


def mutate_tensors(rng: Random, content: Any) -> Any:
    """A mutated dictionary or list with tensors in it; it shares the tensors that are not changed."""

    def copied(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: copied(one) for key, one in value.items()}
        return [copied(one) for one in value] if isinstance(value, list) else value

    content = copied(content)
    for _ in range(rng.choice((1, 1, 1, 2))):
        found = places(content)
        path = rng.choice(found)
        if not path:
            if rng.random() < 0.2:
                content = odd_tensor(rng)
            continue
        try:
            holder = _at(content, path[:-1])
            value = holder[path[-1]]
        except (KeyError, IndexError, TypeError):
            continue
        kind = rng.randrange(6)
        if kind <= 2:
            with suppress(RuntimeError, NotImplementedError, TypeError):  # not every change can be made to every tensor
                holder[path[-1]] = odd_tensor(rng, value)
        elif kind == 3:
            del holder[path[-1]]
        elif kind == 4 and isinstance(holder, dict):
            holder[rng.choice((*STRINGS, 1, None))] = holder.pop(path[-1])
        elif kind == 4:
            holder.append(value)
        elif isinstance(value, (int, float, str, dict, list)):
            holder[path[-1]] = _other_type(rng, value) if not isinstance(value, bool) else odd_value(rng)
        else:
            holder[path[-1]] = odd_value(rng)
    return content


def tensor_bytes(rng: Random, content: Any) -> bytes:
    """A mutated dictionary as torch saves it, now and then in the old format, now and then with the bytes changed."""
    buffer = io.BytesIO()
    changed = mutate_tensors(rng, content) if rng.random() < 0.9 else content
    try:
        torch.save(changed, buffer, _use_new_zipfile_serialization=rng.random() < 0.9)
    except Exception:  # what cannot be saved
        buffer = io.BytesIO()
        torch.save(content, buffer)
    data = buffer.getvalue()
    return mutate_bytes(rng, data) if rng.random() < 0.2 else data

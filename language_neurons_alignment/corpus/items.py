"""Text files of JSON items, each with the place where it stands: a JSON list, or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import CorpusError

Report = Callable[[CorpusError], None]
"""Told of what is wrong with a file: it raises, or it takes note and reading goes on."""


def raise_at_once(error: CorpusError) -> None:
    """The first error ends the reading."""
    raise error


def read_text(path: Path, *, what: str = "", advice: str) -> str:
    """The text of a UTF-8 file, with or without a byte-order mark.

    Raises:
        CorpusError: it cannot be opened, or is not UTF-8; the message names the byte and its line.
    """
    named = f"{what} {path}".strip()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"cannot read {named}: {error.strerror}; {advice}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bom = 3 if data.startswith(b"\xef\xbb\xbf") else 0  # the decoder counts from behind the mark
        line = data.count(b"\n", 0, error.start + bom) + 1
        raise CorpusError(
            f"cannot read {named}: not UTF-8 at byte {error.start + bom}, line {line}; {advice}"
        ) from error


def parse_items(text: str, path: Path, *, report: Report = raise_at_once) -> Iterator[tuple[Any, str]]:
    """The items of a JSON list or of JSON lines, each with a description of where it stands.

    Args:
        text: the file's contents.
        path: its name, for the descriptions.
        report: told of what is not JSON. A damaged line is left out; a damaged list is left out as a whole.
    """
    if text.lstrip().startswith("["):
        yield from _listed(text, path, report)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except ValueError as error:
            reason = f"not valid JSON ({_reason(error)})"
            report(CorpusError(f"{path}, line {number}: {reason}; expected a JSON list, or one record a line"))
            continue
        yield item, f"{path}, line {number}"


def _listed(text: str, path: Path, report: Report) -> Iterator[tuple[Any, str]]:
    try:
        items = json.loads(text)
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        report(CorpusError(f"{path}, line {line}: not valid JSON ({_reason(error)}); is the file cut off?"))
        return
    for number, item in enumerate(items, start=1):
        yield item, f"{path}, record {number}"


def _reason(error: ValueError) -> str:
    return getattr(error, "msg", str(error))

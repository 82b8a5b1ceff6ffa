"""Corpus files on disk: a JSON list with a record a line, whole or not at all (SPEC 1)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConflictError
from .atomic import write_text


def write_corpus(path: Path, items: Sequence[Mapping[str, Any]], *, force: bool = False) -> bool:
    """Write a corpus; gives False where the same one is there already.

    Raises:
        ConflictError: another file is there, and not `force`.
        ArtifactError: it cannot be written; whatever stood there is untouched.
    """
    lines = ",\n".join(json.dumps(item, ensure_ascii=False) for item in items)
    text = f"[\n{lines}\n]\n"
    if path.exists() and not force:
        if path.is_file() and path.read_bytes() == text.encode("utf-8"):
            return False
        raise ConflictError(f"{path} is there and holds something else: use --force to replace it, or another -o")
    write_text(path, text)
    return True

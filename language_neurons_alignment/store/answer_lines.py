"""Answers for reading: JSON lines, one answer a line, in a file for each thing that was done to the model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from ..errors import ArtifactError
from .journal import Plain


def answer_lines(answers: Iterable[Plain]) -> str:
    """The text of such a file."""
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in answers)


def read_answer_lines(path: Path) -> list[Plain]:
    """The answers in such a file; none where there is no file.

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines()]  # bytes: texts hold other line ends
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot read {path} ({error}): delete it and run the command again") from error

"""What the files of evaluations and of forcings have in common: JSON that grows, beside the answers it tells of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConflictError
from .answer_lines import answer_lines
from .atomic import atomic_files
from .journal import Plain, differing
from .layout import with_ending


class AnswersFile:
    """A JSON, and the folder of its answers. Whoever uses it holds `alone(path)`.

    Attributes:
        path: the JSON.
        answers: the folder, a file of JSON lines in it for each thing that was done to the model.
    """

    def __init__(self, path: Path, *, replace: bool = False) -> None:
        """Name the file. `path` is without ending; `replace`: start anew, what is there stays until then."""
        self.path = with_ending(path, ".json")
        self.answers = with_ending(path, ".answers")
        self._replace = replace

    def lines(self, name: str) -> Path:
        """The file of the answers of a row or cell."""
        return self.answers / f"{name}.jsonl"

    def _write(self, name: str, answers: Sequence[Plain], content: Plain) -> None:
        """Put answers and JSON on disk: both or neither."""
        with atomic_files(self.lines(name), self.path) as (lines, file):
            lines.write(answer_lines(answers).encode("utf-8"))
            file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
        self._replace = False

    def _check(self, seen: Mapping[str, Any], wanted: Mapping[str, Any], *, which: str = "") -> None:
        """Raise ConflictError unless all that is wanted is as it was seen; what is not wanted does not matter."""
        there = {key: seen.get(key) for key in wanted}
        if there != wanted:
            raise ConflictError(
                f"{self.path} holds answers{which} made from something else: {differing(there, wanted)}; "
                "use --force to answer again, or another --root"
            )

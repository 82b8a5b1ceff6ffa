"""Forcings on disk: JSON that grows cell by cell with the language of every answer, and the answers to read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, ConflictError
from .answer_lines import answer_lines
from .atomic import atomic_files
from .journal import Plain, differing
from .layout import with_ending
from .ppl_file import precision_of

Seen = list[str | None]
"""The language of each answer; None where it cannot be told."""


class ForcingFile:
    """The JSON of one forcing table, and the folder of its answers. Whoever uses it holds `alone(path)`.

    Attributes:
        path: the JSON.
        answers: the folder, a file of JSON lines for each cell in it.
    """

    def __init__(self, path: Path, *, replace: bool = False) -> None:
        """Name the file. `path` is without ending; `replace`: start anew, once the first cell is done."""
        self.path = with_ending(path, ".json")
        self.answers = with_ending(path, ".answers")
        self._replace = replace

    def cell(self, name: str) -> Path:
        """The file of a cell's answers."""
        return self.answers / f"{name}.jsonl"

    def read(self, made_from: Mapping[str, Plain], *, engine: Mapping[str, Any]) -> dict[str, Seen]:
        """Those of the cells that are done.

        Args:
            made_from: name of a cell → what it has to be made from.
            engine: engine and dtype that they have to come from; what is not in it does not matter.

        Raises:
            ConflictError: a cell is there and made from something else.
            ArtifactError: the file cannot be read.
        """
        done = {}
        for name, cell in self._cells().items():
            if name not in made_from:
                continue
            wanted = {**json.loads(json.dumps(made_from[name])), **engine}
            stored = {**cell["made_from"], **cell["engine"]}
            seen = {key: stored.get(key) for key in wanted}
            if seen != wanted:
                raise ConflictError(
                    f"{self.path} holds answers ({name}) made from something else: {differing(seen, wanted)}; "
                    "use --force to answer again, or another --root"
                )
            done[name] = cell["languages"]
        return done

    def add(self, name: str, answers: Sequence[Plain], *, made_from: Plain, engine: Plain) -> None:
        """Put a cell's answers on disk; the "language" of each is what is counted.

        Raises:
            ConflictError: cells of another engine or dtype are in the file.
            ArtifactError: a file cannot be written; what was there stays.
        """
        cells = self._cells()
        others = {other: one["made_from"] for other, one in cells.items() if other != name}
        self.read(others, engine=precision_of(engine))
        languages = [one["language"] for one in answers]
        cells[name] = {"made_from": made_from, "engine": engine, "languages": languages}
        with atomic_files(self.cell(name), self.path) as (lines, file):
            lines.write(answer_lines(answers).encode("utf-8"))
            file.write((json.dumps({"cells": cells}, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
        self._replace = False

    def _cells(self) -> dict[str, Any]:
        """All cells in the file; none where there is no file, or where it is to be replaced."""
        if self._replace:
            return {}
        try:
            cells = json.loads(self.path.read_text(encoding="utf-8"))["cells"]
            if not all(isinstance(cell[key], kind) for cell in cells.values() for key, kind in _PARTS.items()):
                raise ValueError("it is no forcing table")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"{self.path} cannot be read ({error!r}): delete it and run `lna force` again"
            ) from error
        return cells


_PARTS = {"made_from": dict, "engine": dict, "languages": list}

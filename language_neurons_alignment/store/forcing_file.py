"""Forcings on disk: JSON that grows cell by cell with the language of every answer, and the answers to read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .answers_file import AnswersFile
from .journal import Plain
from .json_file import read_json
from .ppl_file import precision_of

Seen = list[str | None]
"""The language of each answer; None where it cannot be told."""


class ForcingFile(AnswersFile):
    """The JSON of one forcing table, and the folder of its answers, a file for each cell."""

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
            self._check({**cell["made_from"], **cell["engine"]}, wanted, which=f" ({name})")
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
        self._write(name, answers, {"cells": cells})

    def _cells(self) -> dict[str, Any]:
        """All cells in the file; none where there is no file, or where it is to be replaced."""
        content = None if self._replace else read_json(self.path, _is_whole, command="lna force")
        return {} if content is None else content["cells"]


_PARTS = {"made_from": dict, "engine": dict, "languages": list}


def _is_whole(content: Plain) -> bool:
    return all(isinstance(cell[key], kind) for cell in content["cells"].values() for key, kind in _PARTS.items())

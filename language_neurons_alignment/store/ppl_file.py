"""Perplexity maps on disk: JSON that grows cell by cell (SPEC 6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from filelock import FileLock

from ..core.perplexity import Perplexity
from ..errors import ArtifactError, ConflictError
from .atomic import unwritable, write_text
from .json_file import read_json, unreadable
from .layout import with_ending
from .ppl_cell import from_plain, to_json, to_plain

Cells = dict[tuple[str, str], Perplexity]
Provenance = dict[str, Any]

_COMMAND = "lna ppl"


class PerplexityFile:
    """The JSON of one map. A cell is on disk as soon as it is done; several processes may add cells to one file."""

    def __init__(self, path: Path, provenance: Provenance, *, replace: bool = False) -> None:
        """Name the file.

        Args:
            path: without ending.
            provenance: what the cells are made from; `corpus` in it holds one digest per language.
            replace: start anew; what is there stays until the first cell is done.
        """
        self.path = with_ending(path, ".json")
        self.provenance = provenance
        self._replace = replace
        self._lock = FileLock(str(path.with_name(f".{path.name}.lock")))

    def read(self, *, engine: Provenance | None = None) -> Cells:
        """The cells that are done.

        Args:
            engine: engine and dtype that the cells have to come from; what is not in it does not matter.

        Raises:
            ConflictError: cells made from another model, mask, corpus, engine or dtype are in the file.
            ArtifactError: the file cannot be read.
        """
        stored = self._checked(engine or {})
        return {} if stored is None else self.cells_of(stored)

    def cells_of(self, content: dict[str, Any]) -> Cells:
        """The cells in what was read.

        Raises:
            ArtifactError: one of them is no cell.
        """
        try:
            return dict(map(from_plain, content["cells"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._unreadable(error) from error

    def add(self, row: str, column: str, cell: Perplexity, *, engine: Provenance) -> None:
        """Put one cell on disk, beside those that are there.

        Raises:
            ConflictError: cells of other inputs, or of another engine or dtype, have got into the file meanwhile.
            ArtifactError: the file cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            stored = self._checked(precision_of(engine)) or {"cells": [], "provenance": {"corpus": {}}}
            content = {
                # the digests of languages, and the cells, that earlier runs did stand as they are
                "provenance": {
                    **self.provenance,
                    "corpus": {**stored["provenance"]["corpus"], **self.provenance["corpus"]},
                },
                "engine": engine,
                "cells": [*self._without(stored["cells"], row, column), to_plain((row, column), cell)],
            }
            write_text(self.path, to_json(content))
            self._replace = False
        finally:
            self._lock.release()

    def _checked(self, engine: Provenance) -> dict[str, Any] | None:
        """All that is in the file, made from the same as ours; None where nothing is there, or it is to be replaced."""
        stored = None if self._replace else self.content()
        if stored is not None:
            self._check_provenance(stored, engine)
        return stored

    def _without(self, cells: list[Any], row: str, column: str) -> list[Any]:
        """The other cells, as they stand in the file: in a large map they hold numbers of a hundred thousand texts."""
        try:
            return [one for one in cells if (one["deactivated"], one["text_language"]) != (row, column)]
        except (KeyError, TypeError) as error:
            raise self._unreadable(error) from error

    def _check_provenance(self, stored: Provenance, engine: Provenance) -> None:
        """Raise ConflictError unless the stored cells are made from the same as ours."""
        seen, wanted = stored["provenance"], self.provenance
        differing = [key for key in wanted if key != "corpus" and seen.get(key) != wanted[key]]
        shared = [language for language in wanted["corpus"] if language in seen["corpus"]]
        differing += [f"corpus ({code})" for code in shared if seen["corpus"][code] != wanted["corpus"][code]]
        made_by = stored.get("engine") or {}
        differing += [f"{key} ({made_by.get(key)})" for key in engine if made_by.get(key) != engine[key]]
        if differing:
            raise ConflictError(
                f"{self.path} holds cells made from another {', '.join(differing).replace('_', ' ')}: "
                "use --force to compute the map again, or another --root"
            )

    def content(self) -> dict[str, Any] | None:
        """All that is in the file, as it stands; None where there is none.

        Raises:
            ArtifactError: it cannot be read.
        """
        return read_json(self.path, _is_whole, command=_COMMAND)

    def made_from(self) -> Provenance:
        """What decided the value of the cells."""
        return (self.content() or {}).get("provenance") or {}

    def engine(self) -> Provenance:
        """What the cells were computed by."""
        return (self.content() or {}).get("engine") or {}

    def _unreadable(self, error: Exception) -> ArtifactError:
        return unreadable(self.path, error, command=_COMMAND)


def _is_whole(content: Provenance) -> bool:
    return isinstance(content["cells"], list) and isinstance(content["provenance"]["corpus"], dict)


def precision_of(engine: Provenance) -> Provenance:
    """Of an engine's provenance, what cells of one map must share."""
    return {key: engine[key] for key in ("engine", "dtype") if key in engine}

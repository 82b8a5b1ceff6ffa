"""Perplexity maps on disk: JSON that grows cell by cell, CSV for spreadsheets (SPEC 6)."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock
from jaxtyping import Float64
from torch import Tensor

from ..core.perplexity import Perplexity
from ..core.perplexity_map import PerplexityMap
from ..errors import ArtifactError, ConflictError, MissingArtifactError
from .atomic import atomic_file, unwritable, write_text
from .layout import with_ending

Cells = dict[tuple[str, str], Perplexity]
Provenance = dict[str, Any]


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
        stored = None if self._replace else self.content()
        if stored is None:
            return {}
        self._check_provenance(stored, engine or {})
        return self.cells_of(stored)

    def cells_of(self, content: dict[str, Any]) -> Cells:
        """The cells in what was read.

        Raises:
            ArtifactError: one of them is no cell.
        """
        try:
            return dict(map(_cell, content["cells"]))
        except (KeyError, TypeError, ValueError) as error:
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
            cells = {**self.read(engine=precision_of(engine)), (row, column): cell}
            content = {
                "provenance": self._merged_provenance(),
                "engine": engine,
                "cells": [_plain(key, value) for key, value in cells.items()],
            }
            write_text(self.path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
            self._replace = False
        finally:
            self._lock.release()

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

    def _merged_provenance(self) -> Provenance:
        """Ours, with the digests of the languages that earlier runs did."""
        stored = None if self._replace else self.content()
        corpus = {**(stored["provenance"]["corpus"] if stored else {}), **self.provenance["corpus"]}
        return {**self.provenance, "corpus": corpus}

    def content(self) -> dict[str, Any] | None:
        """All that is in the file, as it stands; None where there is none.

        Raises:
            ArtifactError: it cannot be read.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if not (isinstance(content["cells"], list) and isinstance(content["provenance"]["corpus"], dict)):
                raise ValueError("no cells in it")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._unreadable(error) from error
        return content

    def _unreadable(self, error: Exception) -> ArtifactError:
        return ArtifactError(f"{self.path} cannot be read ({error!r}): delete it and run `lna ppl` again")


def load_map(path: Path) -> tuple[PerplexityMap, Provenance]:
    """Read a stored map whoever made it: all its languages, and the provenance to judge it by. `path` has no ending.

    Raises:
        MissingArtifactError: it is not there.
        ArtifactError: it cannot be read.
    """
    file = PerplexityFile(path, {})
    content = file.content()
    if content is None:
        raise MissingArtifactError(f"{file.path} is not there: make it with `lna ppl`")
    made_from = content["provenance"]
    return PerplexityMap(tuple(made_from["corpus"]), file.cells_of(content)), {
        **made_from,
        **(content.get("engine") or {}),
    }


def precision_of(engine: Provenance) -> Provenance:
    """Of an engine's provenance, what cells of one map must share."""
    return {key: engine[key] for key in ("engine", "dtype") if key in engine}


def save_csv(path: Path, result: PerplexityMap) -> Path:
    """Write the map as a table: one line per cell. `path` is without ending."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["deactivated", "text_language", "ppl_token", "ppl_text", "percent", "log1p", "nll", "tokens", "texts"]
    )
    percent, log1p = (_with_undisturbed(result.change(scale=scale)) for scale in ("percent", "log1p"))
    for i, row in enumerate(result.rows):
        for j, column in enumerate(result.languages):
            cell = result.cells[row, column]
            writer.writerow(
                [row, column, cell.token, cell.text, percent[i][j], log1p[i][j], cell.nll, cell.tokens, cell.texts]
            )
    written = with_ending(path, ".csv")
    write_text(written, text.getvalue())
    return written


def save_figure(path: Path, figure: Any, *, dpi: int = 160) -> Path:
    """Write a matplotlib figure as PNG, whole or not at all. `path` is without ending."""
    written = with_ending(path, ".png")
    with atomic_file(written) as file:
        figure.savefig(file, format="png", dpi=dpi)
    return written


def _with_undisturbed(change: Float64[Tensor, "deactivated lang"]) -> list[list[float]]:
    """The changes, below a row of none for the undisturbed model."""
    return [[0.0] * change.shape[1], *change.tolist()]


def _plain(key: tuple[str, str], cell: Perplexity) -> dict[str, Any]:
    """A cell as JSON, which has no infinity: null stands for it."""
    values = {name: value if math.isfinite(value) else None for name, value in asdict(cell).items()}
    return {"deactivated": key[0], "text_language": key[1], **values}


def _cell(stored: dict[str, Any]) -> tuple[tuple[str, str], Perplexity]:
    """The inverse of `_plain`."""
    token, text, nll = (math.inf if stored[name] is None else float(stored[name]) for name in ("token", "text", "nll"))
    counted = Perplexity(token, text, nll, int(stored["tokens"]), int(stored["texts"]))
    return (stored["deactivated"], stored["text_language"]), counted

"""Perplexity maps on disk: JSON that grows cell by cell (SPEC 6)."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from filelock import FileLock
from jaxtyping import Float64
from torch import Tensor

from ..core.effects import Effects
from ..core.perplexity import (
    Perplexity,
    PerplexityMap,
    TextLikelihood,
    control_row,
    perplexity_effects,
)
from ..errors import ArtifactError, ConflictError, MissingArtifactError
from .files import atomic_file, read_json, unreadable, unwritable, write_text
from .layout import with_ending

# ── The cells of a perplexity map, as JSON holds them.


def to_plain(key: tuple[str, str], cell: Perplexity) -> dict[str, Any]:
    """A cell as JSON, which has no infinity: null stands for it. Each text's numbers stand in one line."""
    sums = {"token": cell.token, "text": cell.text, "nll": cell.nll, "tokens": cell.tokens, "texts": cell.texts}
    single = {
        "text_nll": " ".join(repr(one.nll) for one in cell.likelihoods),
        "text_tokens": " ".join(str(one.tokens) for one in cell.likelihoods),
    }
    finite = {name: value if math.isfinite(value) else None for name, value in sums.items()}
    return {"deactivated": key[0], "text_language": key[1], **finite, **(single if cell.likelihoods else {})}


def from_plain(stored: dict[str, Any]) -> tuple[tuple[str, str], Perplexity]:
    """The inverse of `to_plain`; cells of older files know only their sums."""
    token, text, nll = (math.inf if stored[name] is None else float(stored[name]) for name in ("token", "text", "nll"))
    each = zip(stored.get("text_nll", "").split(), stored.get("text_tokens", "").split(), strict=True)
    likelihoods = tuple(TextLikelihood(float(one), int(tokens)) for one, tokens in each)
    counted = Perplexity(token, text, nll, int(stored["tokens"]), int(stored["texts"]), likelihoods)
    return (stored["deactivated"], stored["text_language"]), counted


def to_json(content: dict[str, Any]) -> str:
    """A whole file with each cell in a line of its own: a file of controls is written hundreds of times."""
    head = json.dumps({key: value for key, value in content.items() if key != "cells"}, indent=1, ensure_ascii=False)
    cells = ",\n  ".join(json.dumps(cell, ensure_ascii=False) for cell in content["cells"])
    return head.removesuffix("\n}") + f',\n "cells": [\n  {cells}\n ]\n}}\n'


Cells = dict[tuple[str, str], Perplexity]
Json = dict[str, Any]

_COMMAND = "lna ppl"


class PerplexityFile:
    """The JSON of one map. A cell is on disk as soon as it is done; several processes may add cells to one file."""

    def __init__(self, path: Path, provenance: Json, *, replace: bool = False) -> None:
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

    def read(self, *, engine: Json | None = None) -> Cells:
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

    def add(self, row: str, column: str, cell: Perplexity, *, engine: Json) -> None:
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

    def _checked(self, engine: Json) -> dict[str, Any] | None:
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

    def _check_provenance(self, stored: Json, engine: Json) -> None:
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

    def made_from(self) -> Json:
        """What decided the value of the cells."""
        return (self.content() or {}).get("provenance") or {}

    def engine(self) -> Json:
        """What the cells were computed by."""
        return (self.content() or {}).get("engine") or {}

    def _unreadable(self, error: Exception) -> ArtifactError:
        return unreadable(self.path, error, command=_COMMAND)


def _is_whole(content: Json) -> bool:
    return isinstance(content["cells"], list) and isinstance(content["provenance"]["corpus"], dict)


def precision_of(engine: Json) -> Json:
    """Of an engine's provenance, what cells of one map must share."""
    return {key: engine[key] for key in ("engine", "dtype") if key in engine}


# ── A stored perplexity map as a whole: its own cells, and the controls beside it.

FEWEST_SETS = 2
"""Of controls, for a range."""


def load_map(path: Path) -> tuple[PerplexityMap, Json]:
    """Read a stored map whoever made it: all its languages, and the provenance to judge it by. `path` has no ending.

    Control sets that are whole, and made from the same as the map, come with it.

    Raises:
        MissingArtifactError: it is not there.
        ArtifactError: it cannot be read.
    """
    file = PerplexityFile(path, {})
    content = file.content()
    if content is None:
        raise MissingArtifactError(f"{file.path} is not there: make it with `lna ppl`")
    made_from, made_by = content["provenance"], content.get("engine") or {}
    found = PerplexityMap(tuple(made_from["corpus"]), file.cells_of(content))
    return with_stored_controls(found, path, made_from, made_by), {**made_from, **made_by}


def with_stored_controls(result: PerplexityMap, path: Path, made_from: Json, made_by: Json) -> PerplexityMap:
    """A map with the controls that lie beside it, of whichever seed, if they are whole and made from the same.

    Raises:
        ArtifactError: their file cannot be read.
    """
    try:
        cells = PerplexityFile(controls_path(path), made_from).read(engine=precision_of(made_by))
    except ConflictError:
        return result  # of another map: to this one they say nothing
    return with_whole_sets(result, cells)


def with_whole_sets(result: PerplexityMap, cells: Cells) -> PerplexityMap:
    """A map with those sets of its controls that are whole, if they are enough for a range."""
    sets = whole_sets(result, cells)
    return result.with_controls(cells, sets=sets) if sets >= FEWEST_SETS else result


def whole_sets(result: PerplexityMap, cells: Cells) -> int:
    """How many control sets of a finished map are there, counted from the first, with no cell missing."""
    wanted = [(row, text) for row in result.rows for text in result.languages]
    if any(key not in result.cells for key in wanted):
        return 0
    number = 0
    while all((control_row(row, number + 1), text) in cells for row in result.changed for text in result.languages):
        number += 1
    return number


def controls_path(path: Path) -> Path:
    """Where a map's controls lie, without ending."""
    return with_ending(path, ".controls")


# ── A perplexity map as a table and as a picture (SPEC 6).

_HEADER = ("deactivated", "text_language", "ppl_token", "ppl_text", "percent", "log1p", "nll", "tokens", "texts")
_AGAINST = ("low", "high", "control_low", "control_high", "inside_control")
"""Of `percent`: its 95 % interval, its control's range, and whether it lies in there; empty where there is none."""


def save_csv(path: Path, result: PerplexityMap) -> Path:
    """Write the map as a table: one line per cell. `path` is without ending."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_HEADER, *_AGAINST])
    effects = perplexity_effects(result)
    percent, log1p = (_with_undisturbed(change) for change in (effects.change, result.change(scale="log1p")))
    for i, row in enumerate(result.rows):
        for j, column in enumerate(result.languages):
            cell = result.cells[row, column]
            values = [cell.token, cell.text, percent[i][j], log1p[i][j], cell.nll, cell.tokens, cell.texts]
            against = _against(effects, i - 1, j) if i else [""] * len(_AGAINST)
            writer.writerow([row, column, *values, *against])
    written = with_ending(path, ".csv")
    write_text(written, text.getvalue())
    return written


def save_figure(path: Path, figure: Any, *, dpi: int = 160) -> Path:
    """Write a matplotlib figure as PNG, whole or not at all. `path` is without ending."""
    written = with_ending(path, ".png")
    with atomic_file(written) as file:
        figure.savefig(file, format="png", dpi=dpi)
    return written


def _with_undisturbed(change: Float64[Tensor, "changed lang"]) -> list[list[float]]:
    """The changes, below a row of none for the undisturbed model."""
    return [[0.0] * change.shape[1], *change.tolist()]


def _against(effects: Effects, i: int, j: int) -> list[float | str]:
    """What one change is held against."""
    control = effects.control
    ends = [effects.interval.low[i, j], effects.interval.high[i, j]]
    ends += [] if control is None else [control.low[i, j], control.high[i, j]]
    numbers = ["" if math.isnan(end) else end for end in map(float, ends)]
    inside = effects.inside
    return [*numbers, "", "", ""] if inside is None else [*numbers, "true" if inside[i, j] else "false"]

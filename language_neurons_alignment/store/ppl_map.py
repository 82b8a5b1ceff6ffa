"""A stored perplexity map as a whole: its own cells, and the controls beside it."""

from __future__ import annotations

from pathlib import Path

from ..core.perplexity_map import PerplexityMap, control_row
from ..errors import ConflictError, MissingArtifactError
from .layout import with_ending
from .ppl_file import Cells, PerplexityFile, Provenance, precision_of

FEWEST_SETS = 2
"""Of controls, for a range."""


def load_map(path: Path) -> tuple[PerplexityMap, Provenance]:
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


def with_stored_controls(
    result: PerplexityMap, path: Path, made_from: Provenance, made_by: Provenance
) -> PerplexityMap:
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

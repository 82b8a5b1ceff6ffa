"""Perplexity maps on disk: the grid of their cells, the summaries, the table and the picture.

The cells of a map and of its controls are one grid (`store.grid`), and each keeps the negative log-likelihood and the
number of tokens of every text. `<path>.json` and `<path>.controls.json` are summaries, written when a run ends.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from ..core.effects import Effects
from ..core.frames import Columns
from ..core.perplexity import (
    Perplexity,
    PerplexityMap,
    TextLikelihood,
    control_row,
    perplexity_effects,
)
from ..errors import MissingArtifactError
from .files import DIGESTS, Json, atomic_file, digests_with, unreadable, write_text
from .grid import (
    Cells,
    Difference,
    GridFile,
    Key,
    Stored,
    asked_for,
    cells_path,
    differences,
    merged,
    older_map,
    precision_of,
    read_cells,
)
from .layout import with_ending

_SUMS = ("token", "text", "nll")
_EACH = ("text_nll", "text_tokens")

FEWEST_SETS = 2
"""Of controls, for a range."""


def map_grid(path: Path, wanted: Mapping[Key, Json], *, overwrite: bool = False) -> GridFile:
    """Name the file of a map's cells. `path` is without ending; see `store.grid.GridFile`."""
    return GridFile(path, wanted, older=older_map, tell=_tell, check=_check, overwrite=overwrite)


def _check(cell: Stored) -> None:
    """Raise where a cell of a map is damaged, or says what cannot be."""
    corpus = cell.made_from["corpus"]
    if not isinstance(corpus, dict):
        raise TypeError(f"its corpus is {corpus!r}, not a digest for each language")
    for name in _SUMS:
        if cell.content[name] is not None and type(cell.content[name]) not in (int, float):
            raise TypeError(f"its {name} is {cell.content[name]!r}, not a number")
    for name in ("tokens", "texts"):
        if type(cell.content[name]) is not int or cell.content[name] < 0:
            raise ValueError(f"its {name} are {cell.content[name]!r}, not a whole number of at least 0")
    read = cell_from_json(cell.content)
    each = len(read.likelihoods), sum(one.tokens for one in read.likelihoods)
    if read.likelihoods and each != (read.texts, read.tokens):
        raise ValueError(f"its {read.texts} texts of {read.tokens} tokens are {each[0]} of {each[1]}, one by one")


def _tell(_key: Key, found: Iterable[Difference]) -> str:
    names = {}
    for (name, *inner), seen, _ in found:
        shown = {"corpus": inner, "engine": [seen], "dtype": [seen]}.get(name)
        names[name.replace("_", " ") + (f" ({shown[0]})" if shown else "")] = None
    return f"cells made from another {', '.join(names)}: use --force to compute the map again, or another --root"


def cell_to_json(cell: Perplexity) -> Json:
    """Write a cell as JSON, which has no infinity: null stands for it. The numbers of its texts are one string each."""
    sums: Json = {name: getattr(cell, name) for name in _SUMS}
    content = {name: value if math.isfinite(value) else None for name, value in sums.items()}
    content |= {"tokens": cell.tokens, "texts": cell.texts}
    if cell.likelihoods:
        content["text_nll"] = " ".join(repr(one.nll) for one in cell.likelihoods)
        content["text_tokens"] = " ".join(str(one.tokens) for one in cell.likelihoods)
    return content


def cell_from_json(stored: Json) -> Perplexity:
    """Read a cell; the oldest files know only sums over all texts."""
    token, text, nll = (math.inf if stored[name] is None else float(stored[name]) for name in _SUMS)
    each = zip(stored.get("text_nll", "").split(), stored.get("text_tokens", "").split(), strict=True)
    likelihoods = tuple(TextLikelihood(float(one), int(tokens)) for one, tokens in each)
    return Perplexity(token, text, nll, int(stored["tokens"]), int(stored["texts"]), likelihoods)


def perplexities(cells: Cells) -> dict[Key, Perplexity]:
    """Read what cells hold."""
    found = {}
    for key, one in cells.items():
        try:
            found[key] = cell_from_json(one.content)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise unreadable(one.file, error, command="lna ppl") from error
    return found


def controls_path(path: Path) -> Path:
    """Return where the summary of a map's controls lies."""
    return with_ending(path, ".controls.json")


def load_map(path: Path) -> tuple[PerplexityMap, Json]:
    """Read a stored map, whoever made it, and what it was made from. `path` has no ending.

    Control sets come with it if they are complete and made from the same.
    """
    cells = read_cells(path, older_map, _check)
    own = _own(cells)
    if not own:
        raise MissingArtifactError(f"{with_ending(path, '.json')} is not there: make it with `lna ppl`")
    made_from = merged(one.made_from for one in own.values())
    found = PerplexityMap(tuple(made_from["corpus"]), perplexities(own))
    return with_controls(found, cells), {**made_from, **list(own.values())[-1].engine}


def map_exists(path: Path) -> bool:
    """Return whether there is a map, finished or not."""
    return cells_path(path).is_file() or with_ending(path, ".json").is_file()


def with_controls(result: PerplexityMap, cells: Cells) -> PerplexityMap:
    """Add those control sets among the cells that are complete and made from the same, if they make a range."""
    if any((row, text) not in result.cells for row in result.rows for text in result.languages):
        return result
    found = perplexities(controls_of(cells))
    sets = 0
    while all((control_row(row, sets + 1), text) in found for row in result.changed for text in result.languages):
        sets += 1
    return result.with_controls(found, sets=sets) if sets >= FEWEST_SETS else result


def controls_of(cells: Cells) -> Cells:
    """Choose the control cells that were made from the same as the map, and all with the same seed."""
    own, controls = _own(cells), {key: one for key, one in cells.items() if "~" in key[0]}
    if not own or not controls:
        return {}
    made_from = merged(one.made_from for one in own.values())
    corpus, precision = made_from["corpus"], precision_of(list(own.values())[-1].engine)
    drawn = next(iter(controls.values())).made_from
    wanted = {key: value for key, value in drawn.items() if key.startswith("control_")} | made_from
    return {
        key: one
        for key, one in controls.items()
        if not differences(one.made_from, {**wanted, "corpus": {key[1]: corpus.get(key[1])}}, asked_for)
        and not differences(one.engine, precision, asked_for)
    }


def _own(cells: Cells) -> Cells:
    return {key: one for key, one in cells.items() if "~" not in key[0]}


def save_map(path: Path, cells: Cells, *, table: Path) -> None:
    """Write the summaries of a map and of its controls, with the digest of the map's table (`save_csv`).

    `path` is without ending.
    """
    beside = [table]
    if controls := controls_of(cells):
        write_text(controls_path(path), _summary(controls))
        beside.append(controls_path(path))
    else:
        controls_path(path).unlink(missing_ok=True)
    whole = with_ending(path, ".json")
    write_text(whole, _summary(_own(cells), digests_with(whole, beside)))  # last: where it is there, so is all the rest


def _summary(cells: Cells, digests: Json | None = None) -> str:
    """Write a summary with each cell in a line of its own."""
    made_from = merged(one.made_from for one in cells.values())
    head = {"provenance": made_from, "engine": list(cells.values())[-1].engine}
    head |= {DIGESTS: digests} if digests else {}
    lines = []
    for (row, text), one in cells.items():
        numbers = {name: value for name, value in one.content.items() if name not in _EACH}
        lines.append(json.dumps({"deactivated": row, "text_language": text, **numbers}, ensure_ascii=False))
    start, between = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}"), ",\n  ".join(lines)
    return f'{start},\n "cells": [\n  {between}\n ]\n}}\n'


_HEADER = ("deactivated", "text_language", "ppl_token", "ppl_text", "percent", "log1p", "nll", "tokens", "texts")
_AGAINST = ("low", "high", "control_low", "control_high", "inside_control")
"""Of `percent`: its 95 % interval, its control's range, and whether it lies in there; empty where there is none."""


def save_csv(path: Path, result: PerplexityMap) -> Path:
    """Write the map as a table: one line per cell. `path` is without ending."""
    columns, text = table(result), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    written = with_ending(path, ".csv")
    write_text(written, text.getvalue())
    return written


def table(result: PerplexityMap) -> Columns:
    """A map as a table: one row per cell."""
    rows: list[list[Any]] = []
    effects = perplexity_effects(result)
    none = [0.0] * len(result.languages)  # the undisturbed row
    percent, log1p = ([none, *change.tolist()] for change in (effects.change, result.change(scale="log1p")))
    for i, row in enumerate(result.rows):
        for j, column in enumerate(result.languages):
            cell = result.cells[row, column]
            values = [cell.token, cell.text, percent[i][j], log1p[i][j], cell.nll, cell.tokens, cell.texts]
            against = _against(effects, i - 1, j) if i else [""] * len(_AGAINST)
            rows.append([row, column, *values, *against])
    return {name: list(values) for name, values in zip((*_HEADER, *_AGAINST), zip(*rows, strict=True), strict=True)}


def save_picture(path: Path, write: Callable[[IO[bytes]], None]) -> Path:
    """Write the PNG that `write` gives, whole or not at all. `path` is without ending."""
    written = with_ending(path, ".png")
    with atomic_file(written) as file:
        write(file)
    return written


def _against(effects: Effects, i: int, j: int) -> list[float | str]:
    """What one change is held against."""
    ranges = [one for one in (effects.interval, effects.control) if one is not None]
    ends = [float(end[i, j]) for one in ranges for end in (one.low, one.high)]
    numbers = ["" if math.isnan(end) else end for end in ends]
    inside = effects.inside
    return [*numbers, "", "", ""] if inside is None else [*numbers, "true" if inside[i, j] else "false"]

"""A perplexity map as a table and as a picture (SPEC 6)."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

from jaxtyping import Float64
from torch import Tensor

from ..core.perplexity_effects import PerplexityEffects, perplexity_effects
from ..core.perplexity_map import PerplexityMap
from .atomic import atomic_file, write_text
from .layout import with_ending

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


def _against(effects: PerplexityEffects, i: int, j: int) -> list[float | str]:
    """What one change is held against."""
    control = effects.control
    ends = [effects.interval.low[i, j], effects.interval.high[i, j]]
    ends += [] if control is None else [control.low[i, j], control.high[i, j]]
    numbers = ["" if math.isnan(end) else end for end in map(float, ends)]
    if control is None:
        return [*numbers, "", "", ""]
    return [*numbers, "true" if effects.inside[i, j] else "false"]

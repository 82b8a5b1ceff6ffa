"""A forcing table as a heatmap: rows the language asked in, columns the one steered to, colour the change."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from ..core.forcing import ForcingTable
from .axes import language_axis
from .charts import Heatmap
from .heatmap import heatmap


def forcing_chart(found: ForcingTable, sources: Sequence[str], targets: Sequence[str]) -> Heatmap:
    """What steering adds to the share of answers in the target language; cells in their controls' range are marked."""
    inside = None if found.inside is None else tuple(map(tuple, found.inside.tolist()))
    return Heatmap(
        rows=language_axis(sources, "language of the question"),
        columns=language_axis(targets, "language steered to"),
        values=tuple(map(tuple, found.change.tolist())),
        label="change [percentage points]",
        diverging=True,
        diagonal=tuple(sources) == tuple(targets),
        inside=inside,
    )


def forcing_heatmap(
    found: ForcingTable, sources: Sequence[str], targets: Sequence[str], *, title: str = "", done: str = ""
) -> Figure:
    """Draw a forcing table (`forcing_chart`); `title` is the model's name, `done` what is done to it."""
    caption = f"{title}\nanswers in the language steered to\n{done}".strip()
    return heatmap(forcing_chart(found, sources, targets), title=caption)

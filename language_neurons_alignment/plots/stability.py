"""How well a corpus knows its language neurons, as charts: classes layer by layer, and language by language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.halves import ALL
from ..core.masks import CLASSES
from ..languages import language_name
from .axes import layer_axis, plain_axis
from .charts import Bars, Panel, Series

Table = Mapping[str, Sequence[Any]]


def layer_chart(layers: Table) -> Bars:
    """The classes layer by layer, a panel each, with whiskers for their intervals.

    Args:
        layers: columns layer, class, value, low, high.
    """
    panels = []
    for name in CLASSES:
        rows = [row for row, of in enumerate(layers["class"]) if of == name]
        value, low, high = (tuple(layers[column][row] for row in rows) for column in ("value", "low", "high"))
        panels.append(Panel(f"{name} neurons", (Series(name, value, name, low, high),)))
    return Bars(layer_axis(max(layers["layer"]) + 1), tuple(panels))


def language_chart(halves: Table, inclusion: Table) -> Bars:
    """Above, what halves of the corpus agree on (whiskers: smallest and largest); below, how sure a mask's neurons are.

    Args:
        halves: columns language, jaccard, low, high; the last row is all languages.
        inclusion: columns language, mean.
    """
    codes = list(halves["language"])
    names = [code if code == ALL else language_name(code) for code in codes]
    agreement = Series("halves", tuple(halves["jaccard"]), "before", tuple(halves["low"]), tuple(halves["high"]))
    sure = Series("inclusion", (*inclusion["mean"], float("nan")), "after")
    panels = (Panel("Jaccard of two halves", (agreement,)), Panel("mean inclusion probability", (sure,)))
    return Bars(plain_axis(codes, "language", names), panels)

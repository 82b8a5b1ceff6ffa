"""A chart → its picture."""

from __future__ import annotations

from matplotlib.figure import Figure

from .bars import bars
from .charts import Bars, Chart, Heatmap
from .heatmap import heatmap
from .lines import lines


def draw(chart: Chart, *, title: str = "") -> Figure:
    """Draw any chart with matplotlib; the caller saves it."""
    if isinstance(chart, Heatmap):
        return heatmap(chart, title=title)
    if isinstance(chart, Bars):
        return bars(chart, title=title)
    return lines(chart, title=title)

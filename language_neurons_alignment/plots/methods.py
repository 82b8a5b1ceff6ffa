"""Methods side by side: what switching their neurons off does to a language and to others, and how selective it is."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ..core.method_table import MEASURES, MethodTable
from .numbers import tick
from .palette import INKS

_LINEAR_UP_TO = 10.0
"""Changes up to this many percent are shown on a linear scale, larger ones on a logarithmic one."""

_OWN, _ELSEWHERE, _F1 = (INKS[name].light for name in ("specific", "lost", "only"))


def methods_figure(table: MethodTable, *, title: str = "") -> Figure:
    """Draw the table: a row a method, means over languages with their 95 % intervals, languages as small points.

    Returns:
        A figure that the caller saves; nothing is shown on a screen.
    """
    figure = Figure(figsize=(10.5, 1.7 + 0.55 * len(table.methods)), layout="constrained")
    change, selective = figure.subplots(1, 2, sharey=True)
    _means(change, table, "own", shift=-0.13, color=_OWN, marker="o", label="the language itself")
    _means(change, table, "elsewhere", shift=0.13, color=_ELSEWHERE, marker="s", label="the other languages")
    change.set_xscale("symlog", linthresh=_LINEAR_UP_TO)
    change.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value, signed=True)))
    change.axvline(0, color="0.6", linewidth=0.8)
    change.set_xlabel("change of perplexity with a language's neurons off [%]")
    change.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    for row, values in enumerate(table.f1.tolist()):
        selective.plot(values, [row] * len(values), ".", color="0.7", markersize=6, zorder=1)
    _means(selective, table, "f1", shift=0.0, color=_F1, marker="D", label="mean")
    selective.set_xlim(-0.03, 1.03)
    selective.set_xlabel("selectivity F1 (points: single languages)")
    sizes = table.neurons.double().mean(dim=1).tolist()
    names = [f"{name}\n{size:,.0f} neurons a language" for name, size in zip(table.methods, sizes, strict=True)]
    change.set_yticks(range(len(names)), names, fontsize=9)
    change.set_ylim(len(names) - 0.5, -0.5)
    for axes in (change, selective):
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.suptitle(f"{title}\nmethods, by what their masks do".strip(), fontsize=11)
    return figure


def _means(axes: Axes, table: MethodTable, measure: str, *, shift: float, color: str, marker: str, label: str) -> None:
    """One measure of every method, with its interval where there is one."""
    column = MEASURES.index(measure)
    rows = [row + shift for row in range(len(table.methods))]
    ends = zip(rows, table.intervals.low[:, column].tolist(), table.intervals.high[:, column].tolist(), strict=True)
    for row, low, high in ends:
        axes.plot([low, high], [row, row], color=color, linewidth=1.6, solid_capstyle="butt")
    means = table.means[:, column].tolist()
    axes.plot(means, rows, linestyle="none", marker=marker, color=color, markersize=6, label=label, zorder=3)

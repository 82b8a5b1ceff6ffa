"""The perplexity map as a heatmap: rows what is off, columns the text, colour the change (SPEC 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ..config import CLASSES
from ..core.accuracy import AccuracyMap, ForcingTable
from ..core.effects import Effects
from ..core.flow import ALL
from ..core.perplexity import METHOD_MEASURES, MethodTable, PerplexityMap, range_of_controls
from ..languages import language_name
from .charts import INKS, Bars, Heatmap, Panel, Series, language_axis, layer_axis, plain_axis, tick
from .draw import heatmap

LABELS = {"percent": "change of perplexity [%]", "log1p": "change of ln(1 + perplexity)"}
AVERAGES = {"token": "", "text": ", mean over texts"}

_LINEAR_UP_TO = {"percent": 10.0, "log1p": 0.1}
"""Below this the colour scale is linear, above it logarithmic: small effects stay small, large ones stay apart."""

_DIGITS = {"percent": 0, "log1p": 2}


def ppl_chart(result: PerplexityMap, *, scale: str = "percent", average: str = "token") -> Heatmap:
    """A map's change against its undisturbed row. The diagonal, a language without its own neurons, is framed.

    Changes that lie in their control's range are marked.

    Args:
        result: the map.
        scale: "percent", or "log1p" for the paper's change of ln(1 + PPL).
        average: "token" or "text", the two ways to pool a perplexity over texts.
    """
    change = result.change(scale=scale, average=average)
    control = range_of_controls(result, scale=scale, average=average)
    changed = language_axis(result.changed, "language whose neurons are off")
    return Heatmap(
        rows=changed if result.by_language else plain_axis(result.changed, "intervention"),
        columns=language_axis(result.languages, "language of the text"),
        values=tuple(map(tuple, change.tolist())),
        label=LABELS[scale] + AVERAGES[average],
        diverging=True,
        linear_up_to=_LINEAR_UP_TO[scale],
        digits=_DIGITS[scale],
        diagonal=result.by_language,
        inside=None if control is None else tuple(map(tuple, control.holds(change).tolist())),
    )


def ppl_heatmap(result: PerplexityMap, *, scale: str = "percent", average: str = "token", title: str = "") -> Figure:
    """Draw a map's change (`ppl_chart`); `title` is the model's name."""
    caption = f"{title}\nperplexity with each language's neurons deactivated".strip()
    return heatmap(ppl_chart(result, scale=scale, average=average), title=caption)


# ── An accuracy map as a heatmap: rows what is changed, columns the language asked in, colour the change.

ACCURACY_LABELS = {
    "accuracy": "change of accuracy [percentage points]",
    "number": "change of right numbers [percentage points]",
    "language": "change of answers in the language asked [percentage points]",
}


def accuracy_chart(
    result: AccuracyMap, found: Effects, measure: str = "accuracy", *, done: str = "zero each"
) -> Heatmap:
    """A map's change against its undisturbed row; cells inside the range of their controls are marked.

    Args:
        result: the map.
        found: its effects on this measure.
        measure: "accuracy", "number" or "language".
        done: the steps, in their words.
    """
    by_language = result.changed == result.languages
    inside = None if found.inside is None else tuple(map(tuple, found.inside.tolist()))
    return Heatmap(
        rows=language_axis(result.changed, "language whose neurons are changed")
        if by_language
        else plain_axis(result.changed, "what is done", [done]),
        columns=language_axis(result.languages, "language of the question"),
        values=tuple(map(tuple, found.change.tolist())),
        label=ACCURACY_LABELS[measure],
        diverging=True,
        diagonal=by_language,
        inside=inside,
    )


def accuracy_heatmap(
    result: AccuracyMap, found: Effects, measure: str = "accuracy", *, title: str = "", done: str = "zero each"
) -> Figure:
    """Draw a map's change (`accuracy_chart`); `title` is the model's name."""
    caption = f"{title}\n{_CAPTIONS[measure]}, done to the model: {done}".strip()
    return heatmap(accuracy_chart(result, found, measure, done=done), title=caption)


_CAPTIONS = {
    "accuracy": "right number in the right language",
    "number": "right number",
    "language": "answer in the language asked",
}


# ── A forcing table as a heatmap: rows the language asked in, columns the one steered to, colour the change.


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


# ── Methods side by side: what switching their neurons off does to a language and to others, and how selective it is.

_METHODS_LINEAR_UP_TO = 10.0
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
    change.set_xscale("symlog", linthresh=_METHODS_LINEAR_UP_TO)
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
    column = METHOD_MEASURES.index(measure)
    rows = [row + shift for row in range(len(table.methods))]
    ends = zip(rows, table.intervals.low[:, column].tolist(), table.intervals.high[:, column].tolist(), strict=True)
    for row, low, high in ends:
        axes.plot([low, high], [row, row], color=color, linewidth=1.6, solid_capstyle="butt")
    means = table.means[:, column].tolist()
    axes.plot(means, rows, linestyle="none", marker=marker, color=color, markersize=6, label=label, zorder=3)


# ── How well a corpus knows its language neurons, as charts: classes layer by layer, and language by language.

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

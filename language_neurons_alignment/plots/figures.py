"""One function per figure that a command writes: results in, a matplotlib figure out.

The report makes its own charts (`report.model`, `report.comparison`), except `ppl_chart`. `title` replaces the whole
title, and "" draws none; by default it is the model's name and what the figure shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ..config import CLASSES, DEFAULT_DO
from ..core.accuracy import AccuracyMap, ForcingTable
from ..core.effects import Effects
from ..core.flow import ALL
from ..core.perplexity import MethodTable, PerplexityMap, range_of_controls
from ..core.profiles import LanguageProfile
from ..languages import language_name
from .charts import Axis, BarChart, Heatmap, Panel, Series, language_axis, layer_axis, plain_axis, tick
from .colours import FAINT, INKS, ZERO
from .draw import draw

_SCALES = {"percent": ("change of perplexity [%]", 10.0, 0), "log1p": ("change of ln(1 + perplexity)", 0.1, 2)}
"""Each scale's label, decimals, and before them the size up to which its colours are linear, above it logarithmic."""

_MEASURES = {
    "accuracy": ("accuracy", "correct number in the right language"),
    "number": ("correct numbers", "correct number"),
    "language": ("answers in the language asked", "answer in the language asked"),
}
"""What each measure of answers counts: for the colour scale and for the title."""


def _titled(title: str | None, model: str, caption: str) -> str:
    """The title given, else the model's name and what the figure shows."""
    return f"{model}\n{caption}".strip() if title is None else title


def _under(do: Sequence[str]) -> str:
    """How a title names an intervention."""
    return "with each language's neurons off" if tuple(do) == DEFAULT_DO else f"under {', '.join(do) or 'nothing'}"


def _state(do: Sequence[str]) -> str:
    return "off" if tuple(do) == DEFAULT_DO else "changed"


def ppl_chart(
    result: PerplexityMap, *, scale: str = "percent", average: str = "token", do: Sequence[str] = DEFAULT_DO
) -> Heatmap:
    """Chart a perplexity map's change against the unmodified model, with the diagonal framed.

    Rows are the neurons that `do` changes, columns the language of the text. Changes within the control range are
    marked.
    """
    change = result.change(scale=scale, average=average)  # refuses unknown scales
    label, linear_up_to, digits = _SCALES[scale]
    control = range_of_controls(result, scale=scale, average=average)
    changed = language_axis(result.changed, f"language whose neurons are {_state(do)}")
    return Heatmap(
        rows=changed if result.by_language else plain_axis(result.changed, "intervention"),
        columns=language_axis(result.languages, "language of the text"),
        values=change.tolist(),
        label=f"{label}, mean over texts" if average == "text" else label,
        diverging=True,
        linear_up_to=linear_up_to,
        digits=digits,
        diagonal=result.by_language,
        inside=None if control is None else control.holds(change).tolist(),
    )


def ppl_heatmap(
    result: PerplexityMap,
    *,
    scale: str = "percent",
    average: str = "token",
    do: Sequence[str] = DEFAULT_DO,
    model: str = "",
    title: str | None = None,
) -> Figure:
    """Draw a perplexity map (`ppl_chart`)."""
    chart = ppl_chart(result, scale=scale, average=average, do=do)
    return draw(chart, title=_titled(title, model, f"perplexity {_under(do)}"))


def neurons_figure(profile: LanguageProfile, *, title: str = "") -> Figure:
    """Draw how many neurons each language has in each layer."""
    rows, columns = language_axis(profile.languages), layer_axis(len(profile.counts))
    counts = profile.counts.sum(dim=-1).T.tolist()
    return draw(Heatmap(rows, columns, counts, "specific + related neurons"), title=title)


def accuracy_heatmap(
    result: AccuracyMap,
    found: Effects,
    measure: str = "accuracy",
    *,
    do: Sequence[str] = DEFAULT_DO,
    model: str = "",
    title: str | None = None,
) -> Figure:
    """Draw an accuracy map's change against the unmodified model; cells within the control range are marked."""
    measured, caption = _MEASURES[measure]
    if result.changed == result.languages:
        rows = language_axis(result.changed, f"language whose neurons are {_state(do)}")
    else:
        rows = plain_axis(result.changed, "intervention", [", ".join(do)])
    chart = _answers(found, rows, result.languages, "language of the question", f"change of {measured}")
    return draw(chart, title=_titled(title, model, f"{caption} {_under(do)}"))


def forcing_heatmap(
    found: ForcingTable,
    sources: Sequence[str],
    targets: Sequence[str],
    *,
    do: Sequence[str],
    model: str = "",
    title: str | None = None,
) -> Figure:
    """Draw how far steering changes the share of answers in the target language; marks as in `accuracy_heatmap`."""
    chart = _answers(
        found, language_axis(sources, "language of the question"), targets, "language steered to", "change"
    )
    return draw(chart, title=_titled(title, model, f"answers in the language steered to {_under(do)}"))


def _answers(found: Effects, rows: Axis, languages: Sequence[str], columns: str, label: str) -> Heatmap:
    """Chart changes of a share of answers, with the diagonal framed if rows and columns are the same languages."""
    return Heatmap(
        rows=rows,
        columns=language_axis(languages, columns),
        values=found.change.tolist(),
        label=f"{label} [percentage points]",
        diverging=True,
        diagonal=rows.keys == tuple(languages),
        inside=None if found.inside is None else found.inside.tolist(),
    )


def methods_figure(table: MethodTable, *, model: str = "", title: str | None = None) -> Figure:
    """Draw a row per method: means over languages with their 95 % intervals; points are single languages."""
    figure = Figure(figsize=(10.5, 1.7 + 0.55 * len(table.methods)), layout="constrained")
    change, selective = figure.subplots(1, 2, sharey=True)
    looks = [
        (change, -0.13, "specific", "o", "the language itself"),
        (change, 0.13, "lost", "s", "the other languages"),
        (selective, 0.0, "only", "D", "mean"),
    ]
    for k, (axes, shift, ink, marker, label) in enumerate(looks):
        colour, rows = INKS[ink].light, [row + shift for row in range(len(table.methods))]
        ends = [table.intervals.low[:, k].tolist(), table.intervals.high[:, k].tolist()]
        axes.plot(ends, [rows, rows], color=colour, linewidth=1.6, solid_capstyle="butt")
        means = table.means[:, k].tolist()
        axes.plot(means, rows, linestyle="none", marker=marker, color=colour, markersize=6, label=label, zorder=3)
    change.set_xscale("symlog", linthresh=_SCALES["percent"][1])
    change.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value, signed=True)))
    change.axvline(0, color=ZERO, linewidth=0.8)
    change.set_xlabel("change of perplexity with a language's neurons off [%]")
    change.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    for row, values in enumerate(table.f1.tolist()):
        selective.plot(values, [row] * len(values), ".", color=FAINT, markersize=6, zorder=1)
    selective.set_xlim(-0.03, 1.03)
    selective.set_xlabel("selectivity F1 (points: single languages)")
    sizes = table.neurons.double().mean(dim=1).tolist()
    names = [f"{name}\n{size:,.0f} neurons per language" for name, size in zip(table.methods, sizes, strict=True)]
    change.set_yticks(range(len(names)), names, fontsize=9)
    change.set_ylim(len(names) - 0.5, -0.5)
    for axes in (change, selective):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(_titled(title, model, "methods, by the effect of their masks"), fontsize=11)
    return figure


Table = Mapping[str, Sequence[Any]]


def stability_by_layer(layers: Table) -> BarChart:
    """Chart the classes layer by layer, one panel per class, with intervals as whiskers."""
    panels = []
    for name in CLASSES:
        rows = [row for row, of in enumerate(layers["class"]) if of == name]
        value, low, high = ([layers[column][row] for row in rows] for column in ("value", "low", "high"))
        panels.append(Panel(f"{name} neurons", [Series(name, value, name, low, high)]))
    return BarChart(layer_axis(max(layers["layer"]) + 1), panels)


def stability_by_language(halves: Table, inclusion: Table) -> BarChart:
    """Chart the split-half overlap (whiskers: smallest and largest) above the mean inclusion probability."""
    codes = halves["language"]
    names = [code if code == ALL else language_name(code) for code in codes]
    agreement = Series("halves", halves["jaccard"], "before", halves["low"], halves["high"])
    sure = Series("inclusion", (*inclusion["mean"], float("nan")), "after")
    panels = [Panel("split-half Jaccard", [agreement]), Panel("mean inclusion probability", [sure])]
    return BarChart(plain_axis(codes, "language", names), panels)

"""One function per figure that a command writes: results in, a matplotlib figure out.

The report makes its own charts (`report.model`, `report.comparison`), except `ppl_chart`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Bool, Float64
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from torch import Tensor

from ..config import CLASSES
from ..core.accuracy import AccuracyMap, ForcingTable
from ..core.effects import Effects
from ..core.flow import ALL
from ..core.perplexity import METHOD_MEASURES, MethodTable, PerplexityMap, range_of_controls
from ..languages import language_name
from .charts import Bars, Heatmap, Panel, Series, language_axis, layer_axis, plain_axis, tick
from .colours import FAINT, INKS, ZERO
from .draw import heatmap, intervals, open_frame

LABELS = {"percent": "change of perplexity [%]", "log1p": "change of ln(1 + perplexity)"}
AVERAGES = {"token": "", "text": ", mean over texts"}

_LINEAR_UP_TO = {"percent": 10.0, "log1p": 0.1}
"""Up to this size the colour scale is linear, above it logarithmic: it shows small effects and separates large ones."""

_DIGITS = {"percent": 0, "log1p": 2}

ACCURACY_LABELS = {
    "accuracy": "change of accuracy [percentage points]",
    "number": "change of correct numbers [percentage points]",
    "language": "change of answers in the language asked [percentage points]",
}

_ACCURACY_CAPTIONS = {
    "accuracy": "correct number in the right language",
    "number": "correct number",
    "language": "answer in the language asked",
}


def ppl_chart(result: PerplexityMap, *, scale: str = "percent", average: str = "token") -> Heatmap:
    """Chart a perplexity map's change against the unmodified model, with the diagonal framed.

    Rows are the neurons that are off, columns the language of the text. Changes within the control range are marked.

    Args:
        result: the map.
        scale: "percent", or "log1p" for the paper's change of ln(1 + PPL).
        average: "token" or "text", the two ways to average over texts.
    """
    change = result.change(scale=scale, average=average)
    control = range_of_controls(result, scale=scale, average=average)
    changed = language_axis(result.changed, "language whose neurons are off")
    return Heatmap(
        rows=changed if result.by_language else plain_axis(result.changed, "intervention"),
        columns=language_axis(result.languages, "language of the text"),
        values=_rows(change),
        label=LABELS[scale] + AVERAGES[average],
        diverging=True,
        linear_up_to=_LINEAR_UP_TO[scale],
        digits=_DIGITS[scale],
        diagonal=result.by_language,
        inside=None if control is None else _rows(control.holds(change)),
    )


def ppl_heatmap(result: PerplexityMap, *, scale: str = "percent", average: str = "token", title: str = "") -> Figure:
    """Draw a perplexity map (`ppl_chart`); `title` is the model's name."""
    caption = f"{title}\nperplexity with each language's neurons deactivated".strip()
    return heatmap(ppl_chart(result, scale=scale, average=average), title=caption)


def accuracy_heatmap(
    result: AccuracyMap, found: Effects, measure: str = "accuracy", *, title: str = "", done: str = "zero each"
) -> Figure:
    """Draw an accuracy map's change against the unmodified model; cells within the control range are marked.

    Args:
        result: the map.
        found: its effects on this measure.
        measure: "accuracy", "number" or "language".
        title: the model's name.
        done: the intervention, in the words of `--do`.
    """
    by_language = result.changed == result.languages
    rows = language_axis(result.changed, "language whose neurons are changed")
    chart = Heatmap(
        rows=rows if by_language else plain_axis(result.changed, "intervention", [done]),
        columns=language_axis(result.languages, "language of the question"),
        values=_rows(found.change),
        label=ACCURACY_LABELS[measure],
        diverging=True,
        diagonal=by_language,
        inside=None if found.inside is None else _rows(found.inside),
    )
    return heatmap(chart, title=f"{title}\n{_ACCURACY_CAPTIONS[measure]}, intervention: {done}".strip())


def forcing_heatmap(
    found: ForcingTable, sources: Sequence[str], targets: Sequence[str], *, title: str = "", done: str = ""
) -> Figure:
    """Draw how far steering changes the share of answers in the target language; marks as in `accuracy_heatmap`.

    Args:
        found: effects, a row for each language asked in and a column for each language steered to.
        sources: languages asked in.
        targets: languages steered to.
        title: the model's name.
        done: the intervention, in the words of `--do`.
    """
    chart = Heatmap(
        rows=language_axis(sources, "language of the question"),
        columns=language_axis(targets, "language steered to"),
        values=_rows(found.change),
        label="change [percentage points]",
        diverging=True,
        diagonal=tuple(sources) == tuple(targets),
        inside=None if found.inside is None else _rows(found.inside),
    )
    return heatmap(chart, title=f"{title}\nanswers in the language steered to\n{done}".strip())


def methods_figure(table: MethodTable, *, title: str = "") -> Figure:
    """Draw a row per method: means over languages with their 95 % intervals; points are single languages."""
    figure = Figure(figsize=(10.5, 1.7 + 0.55 * len(table.methods)), layout="constrained")
    change, selective = figure.subplots(1, 2, sharey=True)
    own, elsewhere, f1 = (
        (table.means[:, k].tolist(), table.intervals.low[:, k].tolist(), table.intervals.high[:, k].tolist())
        for k in range(len(METHOD_MEASURES))
    )
    intervals(change, *own, shift=-0.13, colour=INKS["specific"].light, marker="o", label="the language itself")
    intervals(change, *elsewhere, shift=0.13, colour=INKS["lost"].light, marker="s", label="the other languages")
    change.set_xscale("symlog", linthresh=_LINEAR_UP_TO["percent"])
    change.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value, signed=True)))
    change.axvline(0, color=ZERO, linewidth=0.8)
    change.set_xlabel("change of perplexity with a language's neurons off [%]")
    change.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    for row, values in enumerate(table.f1.tolist()):
        selective.plot(values, [row] * len(values), ".", color=FAINT, markersize=6, zorder=1)
    intervals(selective, *f1, colour=INKS["only"].light, marker="D", label="mean")
    selective.set_xlim(-0.03, 1.03)
    selective.set_xlabel("selectivity F1 (points: single languages)")
    sizes = table.neurons.double().mean(dim=1).tolist()
    names = [f"{name}\n{size:,.0f} neurons per language" for name, size in zip(table.methods, sizes, strict=True)]
    change.set_yticks(range(len(names)), names, fontsize=9)
    change.set_ylim(len(names) - 0.5, -0.5)
    for axes in (change, selective):
        open_frame(axes)
    figure.suptitle(f"{title}\nmethods, by the effect of their masks".strip(), fontsize=11)
    return figure


Table = Mapping[str, Sequence[Any]]


def stability_by_layer(layers: Table) -> Bars:
    """Chart the classes layer by layer, one panel per class, with intervals as whiskers.

    Args:
        layers: columns layer, class, value, low, high.
    """
    panels = []
    for name in CLASSES:
        rows = [row for row, of in enumerate(layers["class"]) if of == name]
        value, low, high = (tuple(layers[column][row] for row in rows) for column in ("value", "low", "high"))
        panels.append(Panel(f"{name} neurons", (Series(name, value, name, low, high),)))
    return Bars(layer_axis(max(layers["layer"]) + 1), tuple(panels))


def stability_by_language(halves: Table, inclusion: Table) -> Bars:
    """Chart the split-half overlap (whiskers: smallest and largest) above the mean inclusion probability.

    Args:
        halves: columns language, jaccard, low, high; the last row is all languages.
        inclusion: columns language, mean.
    """
    codes = list(halves["language"])
    names = [code if code == ALL else language_name(code) for code in codes]
    agreement = Series("halves", tuple(halves["jaccard"]), "before", tuple(halves["low"]), tuple(halves["high"]))
    sure = Series("inclusion", (*inclusion["mean"], float("nan")), "after")
    panels = (Panel("split-half Jaccard", (agreement,)), Panel("mean inclusion probability", (sure,)))
    return Bars(plain_axis(codes, "language", names), panels)


def _rows(values: Float64[Tensor, "row column"] | Bool[Tensor, "row column"]) -> tuple[tuple[Any, ...], ...]:
    return tuple(map(tuple, values.tolist()))

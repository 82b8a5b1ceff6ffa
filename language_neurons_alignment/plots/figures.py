"""One function per figure that a command writes: results in, a matplotlib figure out.

The report makes its own charts (`report.model`, `report.comparison`), except `ppl_chart`. `title` replaces the whole
title, and "" draws none; by default it is the model's name and what the figure shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from ..config import CLASSES, DEFAULT_DO
from ..core.accuracy import AccuracyMap, ForcingTable
from ..core.effects import Effects
from ..core.flow import ALL
from ..core.lens import AMBIGUOUS, NO_LANGUAGE, ROLES, Lens
from ..core.perplexity import MethodTable, PerplexityMap, range_of_controls
from ..core.profiles import ClassProfile, LanguageProfile
from ..languages import language_name
from .charts import Axis, BarChart, Heatmap, Mark, Panel, Series, language_axis, layer_axis, plain_axis, tick
from .colours import FAINT, FRAME, INKS, SEQUENTIAL, ZERO
from .draw import DASHES, draw, draw_marks

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


def lens_figure(
    lenses: Mapping[str, Lens], profile: ClassProfile | None = None, cuts: Sequence[int] = (), *, title: str = ""
) -> Figure:
    """Draw what the logit lens reads, a column for each condition, all panels over the layers.

    From top to bottom: the share of each role, as a mean over the languages but the pivot, with its 95 % interval; the
    share of the text's own language; the pivot's share, with a frame where it exceeds the language's own and the
    pivot's share of all tokens (dotted in the first panel); and, if given, the classes of neurons, with the stages that
    begin at `cuts`.
    """
    first = next(iter(lenses.values()))
    own, pivot, layers = "the text's own language", first.pivot and language_name(first.pivot), first.layers
    grids = [("own", own, first.languages), *([("pivot", str(pivot), first.followed)] if pivot else [])]
    tall = [2.4, *(0.24 * len(codes) + 0.5 for _, _, codes in grids), *([1.6] if profile is not None else [])]
    size = (max(6.4, 0.17 * layers + 2.6) * len(lenses) + 0.8, sum(tall) + 1.3)
    figure = Figure(figsize=size, layout="constrained")
    table = figure.subplots(len(tall), len(lenses), sharex=True, squeeze=False, height_ratios=tall)
    largest = max(float(one.own.max()) for one in lenses.values())
    if pivot:
        largest = max(largest, *(float(one.share(str(first.pivot)).max()) for one in lenses.values()))
    names = {"own": own, "pivot": pivot, "other": "other languages", AMBIGUOUS: "ambiguous", NO_LANGUAGE: "no letters"}
    marks = [Mark(cut - 0.5, f"stage {number}") for number, cut in enumerate(cuts, start=2)]
    for (condition, lens), axes in zip(lenses.items(), table.T, strict=True):
        _role_lines(axes[0], lens, names)
        axes[0].set_title(condition, fontsize=10, loc="left", pad=14 if marks else 6)
        for place, (role, name, codes) in zip(axes[1:], grids, strict=False):
            rows = lens.own if role == "own" else lens.share(str(lens.pivot))
            values = rows[[lens.languages.index(code) for code in codes]].numpy()
            mesh = place.pcolormesh(
                np.arange(layers + 1) - 0.5,
                np.arange(len(codes) + 1) - 0.5,
                values,
                cmap=LinearSegmentedColormap.from_list("lna", SEQUENTIAL),
                vmin=0.0,
                vmax=largest,
            )
            place.invert_yaxis()
            place.set_yticks(range(len(codes)), [language_name(code) for code in codes], fontsize=8)
            place.set_title(f"share of {name}, by language of the text", fontsize=9)
            place.tick_params(length=0)
            place.spines[:].set_visible(False)
            if role == "pivot":
                _frame_runs(place, lens)
            if lens is list(lenses.values())[-1]:
                bar = figure.colorbar(mesh, ax=place, format=PercentFormatter(1.0, decimals=0), aspect=10)
                bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue] - matplotlib's stub has another type
        if profile is not None:
            for name in (one for one in profile.classes if one in CLASSES):
                ink = INKS[name]
                axes[-1].plot(profile.of(name).tolist(), label=name, color=ink.light, linestyle=DASHES[ink.dash])
            axes[-1].set_ylabel("neurons")
            axes[-1].set_yscale("symlog", linthresh=10)
            axes[-1].legend(frameon=False, fontsize=8, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
            axes[-1].spines[["top", "right"]].set_visible(False)
        draw_marks(list(axes), marks)
        axes[-1].set_xlabel("layer")
        axes[-1].set_xlim(-0.5, layers - 0.5)
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, labels = table[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5 if layers > 20 else 3, frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure


def _role_lines(axes: Axes, lens: Lens, names: Mapping[str, str | None]) -> None:
    """Draw the mean share of each role with its interval as a band."""
    values, ends = lens.roles()
    for at, role in enumerate(ROLES):
        if names[role] is None:
            continue
        ink, line = INKS[role], values[:, at].tolist()
        axes.plot(line, label=names[role], color=ink.light, linestyle=DASHES[ink.dash], linewidth=1.8)
        axes.fill_between(
            range(lens.layers),
            ends.low[:, at].numpy(),
            ends.high[:, at].numpy(),
            color=ink.light,
            alpha=0.2,
            linewidth=0,
        )
    if lens.pivot is not None:
        at = float(lens.chance[lens.groups.index(lens.pivot)])
        axes.axhline(at, color=INKS["pivot"].light, linewidth=0.8, linestyle=DASHES["dot"])
    others = "" if lens.pivot is None else f" of texts not in {names['pivot']}"
    axes.set_ylabel(f"share of the readout{others}", fontsize=8)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.spines[["top", "right"]].set_visible(False)


def _frame_runs(axes: Axes, lens: Lens) -> None:
    """Frame the layers in which texts are read in the pivot."""
    runs = lens.pivot_columns()
    for row, (begin, end) in enumerate(zip(runs["begin"], runs["end"], strict=True)):
        if begin is not None:
            axes.add_patch(
                Rectangle((begin - 0.5, row - 0.5), end - begin + 1, 1, fill=False, edgecolor=FRAME, clip_on=False)
            )


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

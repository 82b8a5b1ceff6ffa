"""The sections that compare two models, one function each, and the section about the checkpoints of a training."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from ..core.flow import ClassFlow, LanguageFlow, TrainingPath
from ..core.profiles import NO_CLASS, UNASSIGNED, GroupMeans, LanguagesAbove
from ..core.selection import CLASSES
from ..languages import language_name
from ..plots.charts import Bars, Heatmap, Panel, Series, language_axis, layer_axis, plain_axis
from .sections import FigureSection, MissingSection, View, exact, floats, single

_NAMES = {UNASSIGNED: "selected, no language", NO_CLASS: "none"}
"""States of a neuron that are not classes."""

_SHARED_CHANGE = "How many languages share a neuron, in both models"


def flow_section(flow: ClassFlow) -> FigureSection:
    """Show how many neurons changed from each class to each other (paper figures 4 and 16)."""
    names = [_NAMES.get(state, state) for state in flow.states]
    total = flow.total
    chart = Heatmap(
        rows=plain_axis(flow.states, "class in the first", names),
        columns=plain_axis(flow.states, "class in the second model", names),
        values=tuple(map(floats, total.tolist())),
        label="neurons",
        linear_up_to=10.0,
        diagonal=True,
    )
    classed = total.sum() - total[-1, -1]
    stayed = total.diagonal().sum() - total[-1, -1]
    return FigureSection(
        "flow",
        "Where neurons went",
        "Row: a neuron's class in the first model. Column: the class of the same neuron (same layer, same index) in "
        "the second. Framed cells are neurons that kept their class. The other cells are changes: from specific to "
        "related, a neuron serves more languages; from related to general, it serves all. “None” are neurons that "
        "were not selected, the great majority. Colours are logarithmic, so single neurons stay visible.",
        single(chart),
        f"Of {exact(int(classed))} neurons selected or general in either model, {exact(int(stayed))} kept their class.",
    )


def change_section(flow: ClassFlow, *, before: str, after: str) -> FigureSection:
    """Show the change of each class over the layers, and both models' counts side by side."""
    shown = [name for name in CLASSES if name in flow.states]
    layers = layer_axis(len(flow.counts))
    change, one, other = (
        {name: floats(counts[:, flow.states.index(name)].tolist()) for name in shown}
        for counts in (flow.change, flow.before, flow.after)
    )
    changes = [Panel(f"{name}, change", (Series(name, change[name], name),)) for name in shown]
    both = [Panel(name, (Series(before, one[name], "before"), Series(after, other[name], "after"))) for name in shown]
    totals = ", ".join(f"{name} {_signed(int(sum(change[name])))}" for name in shown)
    return FigureSection(
        "change",
        "What changed in each layer",
        "The number of neurons of each class that every layer gained (above 0) or lost (below 0) in the second model. "
        "In the paper, alignment adds specific and related neurons in the first layers and general neurons in the "
        "middle, and turns specific neurons into related ones in late layers. Compare with the second view: the first "
        "does not show whether a change is large relative to the count.",
        (
            View("change", "change", Bars(layers, tuple(changes))),
            View("both", "both models", Bars(layers, tuple(both))),
        ),
        f"In total: {totals}.",
    )


def gained_lost_section(flow: LanguageFlow) -> FigureSection:
    """Show the neurons that each language gained and lost, in total and by layer."""
    views = [View(f"all-{name}", name, _gained_lost(flow, name)) for name in reversed(flow.sets)]
    views += [View(f"layers-{name}", f"{name}, by layer", _by_layer(flow, name)) for name in reversed(flow.sets)]
    own = flow.sets.index("mask")
    net = (flow.gained - flow.lost).sum(dim=0)[:, own]
    most, least = int(net.argmax()), int(net.argmin())
    names = list(map(language_name, flow.languages))
    return FigureSection(
        "gained-lost",
        "What each language gained and lost",
        "Above 0: a language's neurons that only the second model has. Below 0: those that only the first one has. "
        "High bars on both sides mean that the mask was replaced rather than extended. The views by layer show the "
        "net change: red where a language gained neurons, blue where it lost them. The paper speaks of spontaneous "
        "multilingual alignment if languages that were not trained change like the trained ones.",
        tuple(views),
        f"Net, from {names[least]} ({_signed(int(net[least]))}) to {names[most]} ({_signed(int(net[most]))}).",
    )


def _gained_lost(flow: LanguageFlow, name: str) -> Bars:
    own = flow.sets.index(name)
    gained, lost = (counts.sum(dim=0)[:, own].tolist() for counts in (flow.gained, flow.lost))
    series = (
        Series("gained", floats(gained), "gained"),
        Series("lost", tuple(-float(count) for count in lost), "lost"),
    )
    return Bars(language_axis(flow.languages), (Panel(f"{name} neurons", series),), stacked=True)


def _by_layer(flow: LanguageFlow, name: str) -> Heatmap:
    net: Int64[Tensor, "layer lang"] = torch.select(flow.gained - flow.lost, 2, flow.sets.index(name))
    return Heatmap(
        rows=language_axis(flow.languages),
        columns=layer_axis(len(net)),
        values=tuple(map(floats, net.T.tolist())),
        label=f"{name} neurons, net change",
        diverging=True,
    )


def alike_section(flow: LanguageFlow) -> FigureSection:
    """Show how much of each language's neurons the second model kept (paper table 4)."""
    panels = []
    for label, shares in (("Jaccard", flow.jaccard), ("share kept", flow.retained)):
        series = [
            Series(name, tuple(shares[:, flow.sets.index(name)].tolist()), ink)
            for name, ink in (("specific", "specific"), ("related", "related"), ("mask", "only"))
        ]
        panels.append(Panel(label, tuple(series)))
    whole = flow.jaccard[:, flow.sets.index("mask")]
    known = whole[~whole.isnan()]
    note = f"Mean Jaccard of the masks: {float(known.mean()):.2f}." if known.numel() else ""
    return FigureSection(
        "alike",
        "How much stays the same",
        "The Jaccard index is the share of neurons that both models have, among those that either has. The share kept "
        "is relative to the first model alone. 1 means the same set. In the paper more than nine tenths are kept, so "
        "alignment moves few neurons. A neuron that changes from specific to related is lost by one class but kept by "
        "the mask.",
        single(Bars(language_axis(flow.languages), tuple(panels))),
        note,
    )


def groups_section(means: GroupMeans, *, trained: bool) -> FigureSection:
    """Show the mean changes of groups of languages (paper table 2).

    Args:
        means: the groups: trained languages and the others, or English and the others.
        trained: whether the groups are trained and other languages.
    """
    series = [
        Series(one, tuple(means.means[:, column].tolist()), one if one in ("specific", "related") else "only")
        for column, one in enumerate(means.classes)
    ]
    panel = Panel("mean change of neurons", tuple(series))
    members = "; ".join(f"{group}: {', '.join(map(language_name, codes))}" for group, codes in means.groups.items())
    return FigureSection(
        "groups",
        "Trained languages and the others" if trained else "English and the others",
        "The mean change of neurons per language, for the languages that the model was trained on and for the others. "
        "If both change in the same direction, alignment also reached languages without training data: the paper's "
        "spontaneous multilingual alignment (its table 2: −37 specific and +232 related for trained languages, −36 "
        "and +205 for the others)."
        if trained
        else "The mean change of neurons per language. If you name the languages that the model was trained on "
        "(--trained zh,de), this figure compares them with the others. The paper uses this comparison to show that "
        "alignment reaches languages without training data.",
        single(Bars(plain_axis(tuple(means.groups), "languages"), (panel,), numbers=True)),
        f"{members[0].upper()}{members[1:]}.",
    )


def shared_change_section(
    before: LanguagesAbove | None, after: LanguagesAbove | None, *, names: tuple[str, str]
) -> FigureSection | MissingSection:
    """Show how many languages share a neuron in both models (paper figures 5 and 15); None for a mask alone."""
    if before is None or after is None:
        reason = "For one of the models there is only a mask, which does not contain the neurons outside it."
        return MissingSection("shared-change", _SHARED_CHANGE, reason)
    counts = [one.all.sum(dim=0).tolist() for one in (before, after)]
    last = len(counts[0]) - 1
    series = [
        Series(name, floats(of_one[1:]), ink)
        for name, of_one, ink in zip(names, counts, ("before", "after"), strict=True)
    ]
    chart = Bars(
        plain_axis(range(1, last + 1), "languages in which a neuron is above τ"), (Panel("neurons", tuple(series)),)
    )
    general, specific = (counts[1][n] - counts[0][n] for n in (last, 1))
    return FigureSection(
        "shared-change",
        _SHARED_CHANGE,
        "All neurons, selected or not, by the number N of languages in which they are above τ, in the first model and "
        "in the second. Each model has its own τ. After alignment, the paper's models have fewer neurons of one "
        "language (N = 1) and more of several or all languages: languages share more neurons.",
        single(chart),
        f"N = 1: {_signed(specific)}; N = {last}, the general neurons: {_signed(general)}.",
    )


def training_section(path: TrainingPath) -> FigureSection:
    """Show the classes of several models along a training, in total and by layer (paper figures 16 to 19)."""
    shown = [name for name in CLASSES if name in path.classes]
    totals = [
        Panel(name, (Series(name, floats(path.totals[:, path.classes.index(name)].tolist()), name),)) for name in shown
    ]
    views = [View("totals", "in total", Bars(plain_axis(path.models, "model"), tuple(totals), numbers=True))]
    views += [View(f"layers-{name}", f"{name}, by layer", _training_by_layer(path, name)) for name in shown]
    return FigureSection(
        "training",
        "Along the training",
        "The models in the order given: the first one, then its checkpoints. The first view counts each class in the "
        "whole model. The others show in which layers a class grows or shrinks against the first model (red: more, "
        "blue: fewer). A change that appears early and stays is an effect of training; one that appears and disappears "
        "is noise between checkpoints.",
        tuple(views),
    )


def _training_by_layer(path: TrainingPath, name: str) -> Heatmap:
    counts = path.per_layer[..., path.classes.index(name)]
    change = counts[1:] - counts[:1]
    return Heatmap(
        rows=plain_axis(path.models[1:], "model"),
        columns=layer_axis(counts.shape[1]),
        values=tuple(map(floats, change.tolist())),
        label=f"{name} neurons, change since {path.models[0]}",
        diverging=True,
    )


def _signed(number: int) -> str:
    return f"{number:+,}".replace("-", "−")

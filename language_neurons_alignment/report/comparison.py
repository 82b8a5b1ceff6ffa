"""The sections in which a model is compared with another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64
from torch import Tensor

from ..core.flow import ClassFlow, LanguageFlow, TrainingPath
from ..core.profiles import NO_CLASS, UNASSIGNED, GroupMeans, LanguagesAbove
from ..languages import language_name
from ..plots.charts import Bars, Heatmap, Panel, Series, language_axis, layer_axis, plain_axis
from .sections import FigureSection, MissingSection, Part, Section, View, exact, single

# ── From one model to another: where neurons went, and what that changed in each layer (paper figures 4 and 16).

_SAID = {UNASSIGNED: "selected, no language", NO_CLASS: "none"}


def flow_section(flow: ClassFlow) -> FigureSection:
    """How many neurons went from each class to each."""
    names = [_SAID.get(state, state) for state in flow.states]
    total = flow.total
    chart = Heatmap(
        rows=plain_axis(flow.states, "class in the first", names),
        columns=plain_axis(flow.states, "class in the second model", names),
        values=tuple(tuple(map(float, row)) for row in total.tolist()),
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
        "the second. Framed: neurons that kept their class. Below and above the frame are the moves: specific → "
        "related is a neuron that came to serve more languages, related → general one that came to serve all. “None” "
        "are neurons that were not selected, the great majority. Colours are logarithmic, so that single neurons stay "
        "visible.",
        single(chart),
        f"Of {exact(int(classed))} neurons selected or general in either model, {exact(int(stayed))} stayed so.",
    )


def change_section(flow: ClassFlow, *, before: str, after: str) -> FigureSection:
    """The change of each class over the layers, and both models' counts side by side."""
    shown = [name for name in ("specific", "related", "general") if name in flow.states]
    layers = layer_axis(len(flow.counts))
    change, one, other = (
        {name: _column(counts, flow.states.index(name)) for name in shown}
        for counts in (flow.change, flow.before, flow.after)
    )
    changes = [Panel(f"{name}, change", (Series(name, change[name], name),)) for name in shown]
    both = [Panel(name, (Series(before, one[name], "before"), Series(after, other[name], "after"))) for name in shown]
    totals = ", ".join(f"{name} {sum(change[name]):+,.0f}".replace("-", "−") for name in shown)
    return FigureSection(
        "change",
        "What changed in each layer",
        "How many neurons of each class every layer has more (above 0) or fewer (below 0) in the second model. In the "
        "paper, alignment brings specific and related neurons to the first layers, general ones to the middle, and "
        "turns specific neurons into related ones late. Compare with the second view: a large change of a small count "
        "and a small change of a large one look alike here.",
        (
            View("change", "change", Bars(layers, tuple(changes))),
            View("both", "both models", Bars(layers, tuple(both))),
        ),
        f"In all: {totals}.",
    )


def _column(counts: Int64[Tensor, "layer state"], state: int) -> tuple[float, ...]:
    """One class over the layers."""
    return tuple(map(float, counts[:, state].tolist()))


# ── From one model to another, language by language: gained and lost, how alike, where (paper tables 2 and 4).


def gained_lost_section(flow: LanguageFlow) -> FigureSection:
    """What each language gained and lost, in all and where."""
    views = [View(f"all-{name}", name, _gained_lost(flow, name)) for name in reversed(flow.sets)]
    views += [View(f"layers-{name}", f"{name}, by layer", _by_layer(flow, name)) for name in reversed(flow.sets)]
    own = flow.sets.index("mask")
    net = (flow.gained - flow.lost).sum(dim=0)[:, own]
    most, least = int(net.argmax()), int(net.argmin())
    names = list(map(language_name, flow.languages))
    return FigureSection(
        "gained-lost",
        "What each language gained and lost",
        "Above 0: neurons that only the second model has for a language; below 0: neurons that only the first one "
        "has. Tall bars on both sides are a mask that was dealt anew rather than one that grew. The views by layer "
        "show the net change: blue where a language lost neurons, red where it gained. If languages that were never "
        "trained change like the trained ones, that is what the paper calls spontaneous multilingual alignment.",
        tuple(views),
        f"Net, from {names[least]} ({_signed(int(net[least]))}) to {names[most]} ({_signed(int(net[most]))}).",
    )


def alike_section(flow: LanguageFlow) -> FigureSection:
    """How much of each language's set is still there."""
    jaccard, retained = flow.jaccard, flow.retained
    panels = []
    for label, shares in (("Jaccard", jaccard), ("share kept", retained)):
        series = [
            Series(name, tuple(shares[:, flow.sets.index(name)].tolist()), ink)
            for name, ink in (("specific", "specific"), ("related", "related"), ("mask", "only"))
        ]
        panels.append(Panel(label, tuple(series)))
    whole = jaccard[:, flow.sets.index("mask")]
    known = whole[~whole.isnan()]
    note = f"Mean Jaccard of the masks: {float(known.mean()):.2f}." if known.numel() else ""
    return FigureSection(
        "alike",
        "How much stays the same",
        "Jaccard is the share of neurons that both models have, of those that either has; the share kept is of the "
        "first model's neurons alone. 1 is the same set. The paper finds more than nine tenths kept after alignment: "
        "it moves few neurons. A neuron that stays with its language and goes from specific to related is lost by the "
        "one class and kept by the mask.",
        single(Bars(language_axis(flow.languages), tuple(panels))),
        note,
    )


def groups_section(name: str, title: str, reading: str, means: GroupMeans, *, label: str) -> FigureSection:
    """Mean numbers of groups of languages."""
    members = [", ".join(map(language_name, codes)) for codes in means.groups.values()]
    series = [
        Series(one, tuple(means.means[:, column].tolist()), one if one in ("specific", "related") else "only")
        for column, one in enumerate(means.classes)
    ]
    chart = Bars(plain_axis(tuple(means.groups), "languages"), (Panel(label, tuple(series)),), numbers=True)
    told = "; ".join(f"{group}: {names}" for group, names in zip(means.groups, members, strict=True))
    return FigureSection(name, title, reading, single(chart), f"{told[0].upper()}{told[1:]}.")


def _gained_lost(flow: LanguageFlow, name: str) -> Bars:
    own = flow.sets.index(name)
    gained, lost = (counts.sum(dim=0)[:, own].tolist() for counts in (flow.gained, flow.lost))
    series = (
        Series("gained", tuple(map(float, gained)), "gained"),
        Series("lost", tuple(-float(count) for count in lost), "lost"),
    )
    return Bars(language_axis(flow.languages), (Panel(f"{name} neurons", series),), stacked=True)


def _by_layer(flow: LanguageFlow, name: str) -> Heatmap:
    net: Int64[Tensor, "layer lang"] = torch.select(flow.gained - flow.lost, 2, flow.sets.index(name))
    return Heatmap(
        rows=language_axis(flow.languages),
        columns=layer_axis(len(net)),
        values=tuple(tuple(map(float, row)) for row in net.T.tolist()),
        label=f"{name} neurons, net change",
        diverging=True,
    )


def _signed(number: int) -> str:
    return f"{number:+,}".replace("-", "−")


@dataclass(frozen=True)
class PairResults:
    """What there is of two models.

    Attributes:
        names: of the first and of the second.
        classes: neurons by their class in both.
        languages: what each language lost, gained and kept.
        groups: mean changes of groups of languages.
        trained: whether the groups are trained and untrained languages; else English and the others.
        above: of both, neurons by the number of languages above τ; empty of masks alone.
    """

    names: tuple[str, str]
    classes: ClassFlow
    languages: LanguageFlow
    groups: GroupMeans
    trained: bool
    above: tuple[LanguagesAbove, ...]


def pair_parts(pairs: Sequence[PairResults]) -> list[Part]:
    """A part for each pair of models; with several, their sections' names are numbered."""
    parts = []
    for number, pair in enumerate(pairs, start=1):
        mark = f"pair-{number}-" if len(pairs) > 1 else ""
        sections = tuple(replace(one, name=mark + one.name) for one in _sections(pair))
        parts.append(Part(f"{mark}comparison", " → ".join(pair.names), sections))
    return parts


def _sections(pair: PairResults) -> list[Section]:
    before, after = pair.names
    sections: list[Section] = [
        flow_section(pair.classes),
        change_section(pair.classes, before=before, after=after),
        gained_lost_section(pair.languages),
        alike_section(pair.languages),
        _groups(pair),
    ]
    if len(pair.above) == len(pair.names):
        sections.append(shared_change_section(*pair.above, names=pair.names))
    else:
        reason = "One of the models is known by its mask alone, which does not hold the neurons outside it."
        sections.append(MissingSection("shared-change", "How many languages share a neuron, in both models", reason))
    return sections


def _groups(pair: PairResults) -> Section:
    """Trained and untrained languages; where none are named as trained, English and the others."""
    if pair.trained:
        title = "Trained languages and the others"
        reading = (
            "The mean change of neurons per language, for the languages that the training was on and for the rest. If "
            "the others change in the same direction, alignment reached languages that it never saw: the paper's "
            "spontaneous multilingual alignment (its table 2: −37 specific and +232 related for trained languages, "
            "−36 and +205 for the others)."
        )
    else:
        title = "English and the others"
        reading = (
            "The mean change of neurons per language. Name the languages that the training was on (--trained zh,de) "
            "and this figure sets them against the rest, which is how the paper shows that alignment reaches "
            "languages it never saw."
        )
    return groups_section("groups", title, reading, pair.groups, label="mean change of neurons")


# ── Along the checkpoints of a training: the classes, in all and over the layers (paper figures 16 to 19).


def training_section(path: TrainingPath) -> FigureSection:
    """Class counts of several models in a row."""
    shown = [name for name in ("specific", "related", "general") if name in path.classes]
    totals = [
        Panel(name, (Series(name, tuple(map(float, path.totals[:, path.classes.index(name)].tolist())), name),))
        for name in shown
    ]
    views = [View("totals", "in all", Bars(plain_axis(path.models, "model"), tuple(totals), numbers=True))]
    views += [View(f"layers-{name}", f"{name}, by layer", _training_by_layer(path, name)) for name in shown]
    return FigureSection(
        "training",
        "Along the training",
        "The models in the order given: the first, and what became of it. The first view counts each class in the "
        "whole model; the others show in which layers it grows or shrinks against the first model (red: more, blue: "
        "fewer). A change that comes early and stays is what the training did; one that comes and goes is noise "
        "between checkpoints.",
        tuple(views),
    )


def _training_by_layer(path: TrainingPath, name: str) -> Heatmap:
    counts = path.per_layer[..., path.classes.index(name)]
    change = counts[1:] - counts[:1]
    return Heatmap(
        rows=plain_axis(path.models[1:], "model"),
        columns=layer_axis(counts.shape[1]),
        values=tuple(tuple(map(float, row)) for row in change.tolist()),
        label=f"{name} neurons, change since {path.models[0]}",
        diverging=True,
    )


# ── What languages have in common: how many share a neuron, which pairs, and which sets (paper figures 5 and 15).


def shared_change_section(before: LanguagesAbove, after: LanguagesAbove, *, names: tuple[str, str]) -> FigureSection:
    """The same for two models, side by side."""
    counts = [one.all.sum(dim=0).tolist() for one in (before, after)]
    last = len(counts[0]) - 1
    series = [
        Series(name, tuple(map(float, of_one[1:])), ink)
        for name, of_one, ink in zip(names, counts, ("before", "after"), strict=True)
    ]
    chart = Bars(
        plain_axis(range(1, last + 1), "languages in which a neuron is above τ"), (Panel("neurons", tuple(series)),)
    )
    general, specific = (counts[1][n] - counts[0][n] for n in (last, 1))
    return FigureSection(
        "shared-change",
        "How many languages share a neuron, in both models",
        "All neurons, selected or not, by the number N of languages in which they are above τ, in the first model and "
        "in the second. τ is each model's own. In the paper's pairs, fewer neurons are left with one language (N = 1) "
        "and more serve several or all: neurons come to be shared.",
        single(chart),
        f"N = 1: {specific:+,}; N = {last}, the general ones: {general:+,}.".replace("-", "−"),
    )

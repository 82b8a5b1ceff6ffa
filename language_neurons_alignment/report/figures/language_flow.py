"""From one model to another, language by language: gained and lost, how alike, where (paper tables 2 and 4)."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from ...core.flow import LanguageFlow
from ...core.groups import GroupMeans
from ...languages import language_name
from ...plots.axes import language_axis, layer_axis, plain_axis
from ...plots.charts import Bars, Heatmap, Panel, Series
from ..sections import FigureSection, View, single


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

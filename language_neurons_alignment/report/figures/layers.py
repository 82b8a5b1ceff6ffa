"""Where in the model the classes lie, and how many stages that shows (paper figures 3 and 14)."""

from __future__ import annotations

from ...core.class_profile import ClassProfile
from ...core.segmentation import Segmentation
from ...plots.axes import layer_axis, plain_axis
from ...plots.charts import Bars, Mark, Panel, Series
from ..sections import FigureSection, single

STAGES = 4
"""As many as the paper reads off its figure 3."""


def layers_section(profile: ClassProfile, stages: Segmentation) -> FigureSection:
    """Each class over the layers, cut into the best four stages."""
    shown = [name for name in ("specific", "related", "general") if name in profile.classes]
    panels = [Panel(name, (Series(name, tuple(map(float, profile.of(name).tolist())), name),)) for name in shown]
    cut = min(STAGES, len(stages.cuts))
    marks = [Mark(first - 0.5, f"stage {number}") for number, (first, _) in enumerate(stages.stages(cut), start=1)]
    return FigureSection(
        "layers",
        "The classes over the layers",
        "Each panel counts one class, layer by layer; mind that the panels have scales of their own. The dashed lines "
        "cut "
        f"the layers into the {cut} contiguous stages within which the profile of the classes is as even as it can be "
        "(least squares, found by dynamic programming). The paper reads four stages off this picture: understanding "
        "(an early peak of specific and related neurons), shared reasoning (a middle of almost only general ones), "
        "turning back to a language (a late peak), and output (general neurons at their most in the last layer). "
        "Whether this model shows four is the next figure's question.",
        single(Bars(layer_axis(len(profile.counts)), tuple(panels), marks=tuple(marks))),
        _extremes(profile, shown),
    )


def stages_section(stages: Segmentation) -> FigureSection:
    """How much of the profile each number of stages explains."""
    explained = [100.0 * share for share in stages.explained.tolist()]
    gain = [100.0 * share for share in stages.gain.tolist()]
    chart = Bars(
        plain_axis(range(1, len(explained) + 1), "stages"),
        (
            Panel("variance explained [%]", (Series("explained", tuple(explained), "only"),)),
            Panel("BIC (lower is better)", (Series("BIC", tuple(stages.bic.tolist()), "kept"),)),
            Panel("p of the last stage", (Series("p", tuple(stages.p.tolist()), "after"),)),
        ),
    )
    best, supported = stages.best, stages.supported()
    note = f"By BIC: {best}. " + (
        f"Each stage up to {supported} gains more than noise would (p ≤ 0.05)."
        if supported > 1
        else "No second stage gains more than noise would (p > 0.05)."
    )
    if len(gain) >= STAGES:
        note += f" The fourth stage adds {gain[STAGES - 1]:.1f} points to {explained[STAGES - 2]:.1f} %."
    return FigureSection(
        "stages",
        "Are there four stages?",
        "The share of the profile's variance that 1 to 6 contiguous stages explain. It can only grow, so what matters "
        "is where a further stage stops to pay: a bend in the first panel, the lowest bar of the second (Bayes's "
        "information criterion, which charges for every stage), or the last p below 0.05 in the third (how often "
        "permuted residuals gain as much). A profile that changes smoothly over the layers gains by every further "
        "cut, so both criteria tend to name too many stages rather than too few.",
        single(chart),
        note,
    )


def _extremes(profile: ClassProfile, shown: list[str]) -> str:
    """Where each class is at its most."""
    told = []
    for name in shown:
        counts = profile.of(name)
        told.append(f"{name} {int(counts.max()):,} in layer {int(counts.argmax())} (of {int(counts.sum()):,})")
    return f"At their most: {', '.join(told)}."

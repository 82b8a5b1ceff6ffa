"""From one model to another: where neurons went, and what that changed in each layer (paper figures 4 and 16)."""

from __future__ import annotations

from jaxtyping import Int64
from torch import Tensor

from ...core.class_profile import NO_CLASS, UNASSIGNED
from ...core.flow import ClassFlow
from ...plots.axes import layer_axis, plain_axis
from ...plots.charts import Bars, Heatmap, Panel, Series
from ..sections import FigureSection, View, exact, single

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

"""Along the checkpoints of a training: the classes, in all and over the layers (paper figures 16 to 19)."""

from __future__ import annotations

from ...core.training_path import TrainingPath
from ...plots.axes import layer_axis, plain_axis
from ...plots.charts import Bars, Heatmap, Panel, Series
from ..sections import FigureSection, View


def training_section(path: TrainingPath) -> FigureSection:
    """Class counts of several models in a row."""
    shown = [name for name in ("specific", "related", "general") if name in path.classes]
    totals = [
        Panel(name, (Series(name, tuple(map(float, path.totals[:, path.classes.index(name)].tolist())), name),))
        for name in shown
    ]
    views = [View("totals", "in all", Bars(plain_axis(path.models, "model"), tuple(totals), numbers=True))]
    views += [View(f"layers-{name}", f"{name}, by layer", _by_layer(path, name)) for name in shown]
    return FigureSection(
        "training",
        "Along the training",
        "The models in the order given: the first, and what became of it. The first view counts each class in the "
        "whole model; the others show in which layers it grows or shrinks against the first model (red: more, blue: "
        "fewer). A change that comes early and stays is what the training did; one that comes and goes is noise "
        "between checkpoints.",
        tuple(views),
    )


def _by_layer(path: TrainingPath, name: str) -> Heatmap:
    counts = path.per_layer[..., path.classes.index(name)]
    change = counts[1:] - counts[:1]
    return Heatmap(
        rows=plain_axis(path.models[1:], "model"),
        columns=layer_axis(counts.shape[1]),
        values=tuple(tuple(map(float, row)) for row in change.tolist()),
        label=f"{name} neurons, change since {path.models[0]}",
        diverging=True,
    )

"""An accuracy map as a heatmap: rows what is changed, columns the language asked in, colour the change."""

from __future__ import annotations

from matplotlib.figure import Figure

from ..core.accuracy_map import AccuracyMap, Effects
from .axes import language_axis, plain_axis
from .charts import Heatmap
from .heatmap import heatmap

LABELS = {
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
        label=LABELS[measure],
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

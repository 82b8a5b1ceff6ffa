"""The perplexity map as a heatmap: rows what is off, columns the text, colour the change (SPEC 6)."""

from __future__ import annotations

from matplotlib.figure import Figure

from ..core.perplexity_effects import range_of_controls
from ..core.perplexity_map import PerplexityMap
from .axes import language_axis, plain_axis
from .charts import Heatmap
from .heatmap import heatmap

LABELS = {"percent": "change of perplexity [%]", "log1p": "change of ln(1 + perplexity)"}
AVERAGES = {"token": "", "text": ", mean over texts"}

_LINEAR_UP_TO = {"percent": 10.0, "log1p": 0.1}
"""Below this the colour scale is linear, above it logarithmic: small effects stay small, large ones stay apart."""

_DIGITS = {"percent": 0, "log1p": 2}


def ppl_chart(result: PerplexityMap, *, scale: str = "percent", average: str = "token") -> Heatmap:
    """A map's change against its undisturbed row. The diagonal, a language without its own neurons, is framed.

    Changes that lie in their control's range are marked.

    Args:
        result: the map.
        scale: "percent", or "log1p" for the paper's change of ln(1 + PPL).
        average: "token" or "text", the two ways to pool a perplexity over texts.
    """
    change = result.change(scale=scale, average=average)
    control = range_of_controls(result, scale=scale, average=average)
    changed = language_axis(result.changed, "language whose neurons are off")
    return Heatmap(
        rows=changed if result.by_language else plain_axis(result.changed, "intervention"),
        columns=language_axis(result.languages, "language of the text"),
        values=tuple(map(tuple, change.tolist())),
        label=LABELS[scale] + AVERAGES[average],
        diverging=True,
        linear_up_to=_LINEAR_UP_TO[scale],
        digits=_DIGITS[scale],
        diagonal=result.by_language,
        inside=None if control is None else tuple(map(tuple, control.holds(change).tolist())),
    )


def ppl_heatmap(result: PerplexityMap, *, scale: str = "percent", average: str = "token", title: str = "") -> Figure:
    """Draw a map's change (`ppl_chart`); `title` is the model's name."""
    caption = f"{title}\nperplexity with each language's neurons deactivated".strip()
    return heatmap(ppl_chart(result, scale=scale, average=average), title=caption)

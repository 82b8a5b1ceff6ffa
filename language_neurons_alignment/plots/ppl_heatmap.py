"""The perplexity map as a heatmap: rows what is off, columns the text, colour the change (SPEC 6)."""

from __future__ import annotations

from matplotlib.figure import Figure

from ..core.perplexity_map import PerplexityMap
from .charts import Heatmap, language_axis
from .heatmap import heatmap

LABELS = {"percent": "change of perplexity [%]", "log1p": "change of ln(1 + perplexity)"}
AVERAGES = {"token": "", "text": ", mean over texts"}

_LINEAR_UP_TO = {"percent": 10.0, "log1p": 0.1}
"""Below this the colour scale is linear, above it logarithmic: small effects stay small, large ones stay apart."""

_DIGITS = {"percent": 0, "log1p": 2}


def ppl_chart(result: PerplexityMap, *, scale: str = "percent", average: str = "token") -> Heatmap:
    """A map's change against its undisturbed row. The diagonal, a language without its own neurons, is framed.

    Args:
        result: the map.
        scale: "percent", or "log1p" for the paper's change of ln(1 + PPL).
        average: "token" or "text", the two ways to pool a perplexity over texts.
    """
    change = result.change(scale=scale, average=average).tolist()
    return Heatmap(
        rows=language_axis(result.languages, "language whose neurons are off"),
        columns=language_axis(result.languages, "language of the text"),
        values=tuple(map(tuple, change)),
        label=LABELS[scale] + AVERAGES[average],
        diverging=True,
        linear_up_to=_LINEAR_UP_TO[scale],
        digits=_DIGITS[scale],
        diagonal=True,
    )


def ppl_heatmap(result: PerplexityMap, *, scale: str = "percent", average: str = "token", title: str = "") -> Figure:
    """Draw a map's change (`ppl_chart`); `title` is the model's name."""
    caption = f"{title}\nperplexity with each language's neurons deactivated".strip()
    return heatmap(ppl_chart(result, scale=scale, average=average), title=caption)

"""The perplexity map as a heatmap: rows what is off, columns the text, colour the change (SPEC 6)."""

from __future__ import annotations

import math

import numpy as np
import seaborn as sns
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, NullLocator
from torch import Tensor

from ..core.perplexity_map import PerplexityMap
from ..languages import language_name

LABELS = {"percent": "change of perplexity [%]", "log1p": "change of ln(1 + perplexity)"}
AVERAGES = {"token": "", "text": ", mean over texts"}

_LINEAR_UP_TO = {"percent": 10.0, "log1p": 0.1}
"""Below this the colour scale is linear, above it logarithmic: small effects stay small, large ones stay apart."""

_DIGITS = {"percent": 0, "log1p": 2}
_ANNOTATE_UP_TO = 40
_NO_NUMBER = "0.85"
"""The grey of a cell in which infinity is compared with infinity."""


def ppl_heatmap(result: PerplexityMap, *, scale: str = "percent", average: str = "token", title: str = "") -> Figure:
    """Draw a map's change against its undisturbed row.

    An infinite change has the colour of the largest finite one, and says ∞. The diagonal, a language without its own
    neurons, is framed.

    Args:
        result: the map.
        scale: "percent", or "log1p" for the paper's change of ln(1 + PPL).
        average: "token" or "text", the two ways to pool a perplexity over texts.
        title: the model's name.

    Returns:
        A figure that the caller saves; nothing is shown on a screen.
    """
    change = result.change(scale=scale, average=average)
    size = len(result.languages)
    side = max(5.5, (0.62 if size <= 16 else 0.48) * size + 2.2)
    figure = Figure(figsize=(side + 1.4, side), layout="constrained")
    axes = figure.subplots()
    largest = _largest(change, _LINEAR_UP_TO[scale])
    names = [language_name(code) for code in result.languages]
    sns.heatmap(
        change.clamp(-largest, largest).numpy(),
        ax=axes,
        cmap="vlag",
        norm=SymLogNorm(_LINEAR_UP_TO[scale], vmin=-largest, vmax=largest),
        square=True,
        linewidths=0.5,
        cbar_kws={"label": LABELS[scale] + AVERAGES[average], "shrink": 0.8, "format": FuncFormatter(_tick)},
        xticklabels=names,
        yticklabels=names,
    )
    axes.set_facecolor(_NO_NUMBER)
    figure.axes[-1].yaxis.set_minor_locator(NullLocator())
    if size <= _ANNOTATE_UP_TO:
        _annotate(axes, change, digits=_DIGITS[scale], fontsize=9.0 if size <= 16 else 7.0)
    for k in range(size):
        axes.add_patch(Rectangle((k, k), 1, 1, fill=False, edgecolor="0.15", linewidth=1.2, clip_on=False))
    axes.set_xlabel("language of the text")
    axes.set_ylabel("language whose neurons are off")
    axes.set_title(f"{title}\nperplexity with each language's neurons deactivated".strip(), fontsize=11)
    axes.set_xticks(axes.get_xticks(), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="y", rotation=0)
    return figure


def _largest(change: Float64[Tensor, "deactivated lang"], at_least: float) -> float:
    """The end of the colour scale on both sides."""
    finite = change[change.isfinite()].abs()
    return max(float(finite.max()) if finite.numel() else 0.0, at_least)


def _annotate(axes: Axes, change: Float64[Tensor, "deactivated lang"], *, digits: int, fontsize: float) -> None:
    """Write each cell's number into it, dark on light and light on dark."""
    (mesh,) = (drawn for drawn in axes.collections if isinstance(drawn, QuadMesh))
    mesh.update_scalarmappable()
    colours = np.asarray(mesh.get_facecolor()).reshape(*change.shape, 4)
    for i, row in enumerate(change.tolist()):
        for j, value in enumerate(row):
            ink = "0.1" if math.isnan(value) or _luminance(colours[i, j]) > 0.25 else "white"
            axes.text(j + 0.5, i + 0.5, _written(value, digits), ha="center", va="center", color=ink, fontsize=fontsize)


def _written(value: float, digits: int) -> str:
    """A change as short as it can be said: +109, −3, 0, +25k, ∞, – where there is no number."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if abs(value) >= 10_000:
        return f"{value / 1000:+,.0f}k" if abs(value) < 1e7 else f"{value:+.0e}".replace("e+0", "e").replace("e+", "e")
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else "0"


def _tick(value: float, _position: int | None = None) -> str:
    """A tick of the colour scale, in plain numbers."""
    return "0" if value == 0 else f"{value:+,g}".replace("-", "−")


def _luminance(colour: Float64[Tensor, " rgba"]) -> float:
    """Relative luminance of an sRGB colour (WCAG)."""
    red, green, blue = ((c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4) for c in map(float, colour[:3]))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

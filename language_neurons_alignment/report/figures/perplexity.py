"""What switching neurons off does to perplexity: the map, in every variant that there is."""

from __future__ import annotations

from collections.abc import Mapping

from ...core.perplexity_map import PerplexityMap
from ...languages import language_name
from ...plots.ppl_heatmap import ppl_chart
from ..sections import FigureSection, View, exact

SCALES = {"percent": "percent", "log1p": "ln(1 + PPL)"}

_CONTROLLED = (
    " Numbers within their control's range are those that as many random neurons of no language, matched by layer and "
    "by activity, may bring about as well: the tables and pictures mark them, the page tells it when pointed at."
)


def perplexity_section(maps: Mapping[str, PerplexityMap]) -> FigureSection:
    """The maps by what tells them apart ("" for the default classes and text)."""
    views = [
        View(
            f"{variant.strip('.').replace('.', '-')}-{scale}".strip("-"),
            f"{_said(variant)}, {label}" if len(maps) > 1 else label,
            ppl_chart(one, scale=scale),
        )
        for variant, one in maps.items()
        for scale, label in SCALES.items()
    ]
    return FigureSection(
        "perplexity",
        "What breaks when a language's neurons are off",
        "Row: the language whose neurons are switched off, in every layer, for every token. Column: the language of "
        "the text that the model then has to predict. A number is the change of perplexity against the undisturbed "
        "model. Read along a row: the framed cell on the diagonal should stand out, its relatives may suffer with it, "
        "and the rest should not. A row that is strong everywhere is a set of neurons that everything needs; a column "
        "that is strong everywhere is a language that is easily disturbed. Colours are logarithmic beyond the first "
        "tick, so that small effects stay visible beside large ones."
        + (_CONTROLLED if any(one.controls for one in maps.values()) else ""),
        tuple(views),
        _diagonal(next(iter(maps.values()))),
    )


def _said(variant: str) -> str:
    """A variant of a file's name in words."""
    return variant.strip(".").replace(".", ", ") or "mask"


def _diagonal(result: PerplexityMap) -> str:
    """In how many rows the language itself suffers most."""
    change = result.change()
    own = [code for k, code in enumerate(result.languages) if int(change[k].nan_to_num().argmax()) == k]
    others = [language_name(code) for code in result.languages if code not in own]
    note = f"In {exact(len(own))} of {len(result.languages)} rows the language itself suffers most"
    return f"{note}; not so: {', '.join(others)}." if others and own else f"{note}."

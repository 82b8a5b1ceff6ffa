"""Colours: Okabe and Ito's eight, which colour-blind readers tell apart, on white and on black paper."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ink:
    """A colour, and a hatching that says the same without colour.

    Attributes:
        light: on white.
        dark: on black.
        hatch: as matplotlib and plotly write it; empty: filled.
    """

    light: str
    dark: str
    hatch: str = ""


_BLUE, _SKY, _ORANGE, _GREEN = "#0072b2", "#56b4e9", "#e69f00", "#009e73"
_VERMILION, _PURPLE = "#d55e00", "#cc79a7"

INKS = {
    "specific": Ink(_BLUE, _SKY),
    "related": Ink(_ORANGE, _ORANGE, "/"),
    "general": Ink(_GREEN, "#2bbf95", "x"),
    "unassigned": Ink("#8a8f98", "#9aa0aa", "."),
    "gained": Ink(_BLUE, _SKY),
    "lost": Ink(_VERMILION, "#f08a4b", "/"),
    "kept": Ink("#a9afb8", "#6d7480", "."),
    "before": Ink("#7c8592", "#9aa0aa"),
    "after": Ink(_PURPLE, "#dd9abf", "/"),
    "only": Ink("#3c6e91", "#7fb2d3"),
}
"""Each meaning has one colour, in every figure."""

SEQUENTIAL = ("#f4f8f5", "#a9e1bd", "#60ceac", "#3eb4ad", "#3497a9", "#357aa2", "#395d9c", "#413f80", "#382a54")
"""Nothing to much, ever darker: seaborn's mako, which is even in lightness, begun at the colour of paper."""

SEQUENTIAL_DARK = ("#1d2127", "#382a54", "#413f80", "#395d9c", "#357ba3", "#3497a9", "#3eb4ad", "#60ceac", "#a9e1bd")
"""The same on black: ever lighter."""

DIVERGING = ("#2369bd", "#5a8ac6", "#8fadd3", "#c3d0e0", "#f7f5f4", "#e5c5bf", "#d4958c", "#bd6459", "#a9373b")
"""Below 0 blue, above 0 red, both darker away from it: in the manner of seaborn's vlag."""

DIVERGING_DARK = ("#81bfcf", "#4798ce", "#4167c7", "#3d477f", "#1d2127", "#5c2831", "#96353c", "#d2503d", "#f39a5f")
"""The same on black, lighter away from 0: in the manner of seaborn's icefire."""

"""Every colour of the figures and of the report page, for white and for black paper: change colours here.

The inks are Okabe and Ito's eight colours, which colour-blind readers can tell apart. A heatmap takes `SEQUENTIAL` for
counts and `DIVERGING` for changes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ink:
    """A colour on white and on black, with a hatching for bars and a dash for lines that mean the same."""

    light: str
    dark: str
    hatch: str = ""  # as matplotlib and plotly write it; empty: filled
    dash: str = "solid"  # or "dash", "dot", "dashdot"


_BLUE, _SKY, _ORANGE, _GREEN = "#0072b2", "#56b4e9", "#e69f00", "#009e73"
_VERMILION, _PURPLE = "#d55e00", "#cc79a7"

INKS = {
    "specific": Ink(_BLUE, _SKY),
    "related": Ink(_ORANGE, _ORANGE, "/", "dash"),
    "general": Ink(_GREEN, "#2bbf95", "x", "dot"),
    "unassigned": Ink("#8a8f98", "#9aa0aa", ".", "dashdot"),
    "gained": Ink(_BLUE, _SKY),
    "lost": Ink(_VERMILION, "#f08a4b", "/"),
    "kept": Ink("#a9afb8", "#6d7480", "."),
    "before": Ink("#7c8592", "#9aa0aa"),
    "after": Ink(_PURPLE, "#dd9abf", "/"),
    "only": Ink("#3c6e91", "#7fb2d3"),
    "own": Ink(_BLUE, _SKY),
    "pivot": Ink(_VERMILION, "#f08a4b", "", "dash"),
    "other": Ink(_GREEN, "#2bbf95", "", "dot"),
    "ambiguous": Ink("#8a8f98", "#9aa0aa", "", "dashdot"),
    "none": Ink("#c79a3a", "#d9b45f", "", "dot"),
}
"""Each meaning has one colour, in every figure."""

SEQUENTIAL = ("#f4f8f5", "#a9e1bd", "#60ceac", "#3eb4ad", "#3497a9", "#357aa2", "#395d9c", "#413f80", "#382a54")
"""From nothing to much, always darker: seaborn's mako, which is even in lightness, starting at the colour of paper."""

SEQUENTIAL_DARK = ("#1d2127", "#382a54", "#413f80", "#395d9c", "#357ba3", "#3497a9", "#3eb4ad", "#60ceac", "#a9e1bd")
"""The same on black: always lighter."""

DIVERGING = ("#2369bd", "#5a8ac6", "#8fadd3", "#c3d0e0", "#f7f5f4", "#e5c5bf", "#d4958c", "#bd6459", "#a9373b")
"""Blue below 0, red above 0, both darker away from it, like seaborn's vlag."""

DIVERGING_DARK = ("#81bfcf", "#4798ce", "#4167c7", "#3d477f", "#1d2127", "#5c2831", "#96353c", "#d2503d", "#f39a5f")
"""The same on black, lighter away from 0, like seaborn's icefire."""

PAPERS = {
    "light": {"paper": "#ffffff", "text": "#1c2026", "quiet": "#626a76", "grid": "#e3e6ea", "raised": "#f4f5f7",
              "link": "#0b5cad", "missing": "#d9dce0"},
    "dark": {"paper": "#14171b", "text": "#e6e8eb", "quiet": "#9aa3ae", "grid": "#2e343c", "raised": "#20252b",
             "link": "#7ab8f5", "missing": "#3a4049"},
}  # fmt: skip
"""The report page: background, text, lines, controls, links, and heatmap cells without a number."""

MISSING = "0.85"
"""In pictures: a heatmap cell without a number, for example infinity compared with infinity."""
QUIET, FAINT = "0.45", "0.7"
"""In pictures: lines and names of marks; points behind a mean."""
DARK_TEXT, LIGHT_TEXT = "0.1", "white"
"""In pictures: numbers in light and in dark heatmap cells."""
FRAME, WHISKER, ZERO, GAP = "0.15", "0.2", "0.6", "white"
"""In pictures: the frame of diagonal cells, the ends of intervals, the line at zero, the gaps of cells and bars."""
VEIL, VEIL_LINES, VEIL_KEY = "white", "0.72", "0.6"
"""In pictures: cells within the control range, their hatching, and the hatching in the legend."""
FADED = 0.65
"""The opacity of that veil."""

"""Colours can be told apart without hues, on white and on black."""

from __future__ import annotations

from itertools import pairwise

from matplotlib.colors import to_rgb

from language_neurons_alignment.plots.colours import DIVERGING, DIVERGING_DARK, INKS, SEQUENTIAL, SEQUENTIAL_DARK


def luminance(colour: str) -> float:
    """Relative luminance (WCAG)."""
    red, green, blue = ((c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4) for c in to_rgb(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_more_is_ever_darker_on_white_and_ever_lighter_on_black_so_that_no_one_needs_hues() -> None:
    light, dark = ([luminance(colour) for colour in scale] for scale in (SEQUENTIAL, SEQUENTIAL_DARK))
    assert all(a > b for a, b in pairwise(light))
    assert all(a < b for a, b in pairwise(dark))
    for scale, sign in ((DIVERGING, -1), (DIVERGING_DARK, 1)):
        half = [sign * luminance(colour) for colour in scale]
        assert all(a > b for a, b in pairwise(half[:5]))
        assert all(a < b for a, b in pairwise(half[4:]))


def test_every_ink_can_be_seen_on_its_paper_and_neighbours_differ_in_hatching() -> None:
    for name, ink in INKS.items():
        assert 1.05 / (luminance(ink.light) + 0.05) > 2.0, name
        assert (luminance(ink.dark) + 0.05) / (luminance("#14171b") + 0.05) > 3.0, name
    for together in (("specific", "related", "general", "unassigned"), ("gained", "lost"), ("before", "after")):
        assert len({INKS[name].hatch for name in together}) == len(together)

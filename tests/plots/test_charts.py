"""A chart's picture shows its numbers, at their places; its table holds them all."""

from __future__ import annotations

import io
import math
from itertools import pairwise

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from language_neurons_alignment.plots.charts import (
    DIVERGING,
    DIVERGING_DARK,
    INKS,
    SEQUENTIAL,
    SEQUENTIAL_DARK,
    Bars,
    Chart,
    Heatmap,
    Lines,
    Mark,
    Panel,
    Series,
    language_axis,
    layer_axis,
    number_at_bar,
    plain_axis,
    scale_ticks,
    short,
    symlog,
)
from language_neurons_alignment.plots.draw import draw, write_png, write_svg

NAN = math.nan


def boxes(axes: Axes) -> list[tuple[float, float, float, float]]:
    """Each bar's left, bottom, width and height."""
    bars = [bar for bar in axes.patches if isinstance(bar, Rectangle)]
    return [(bar.get_x(), bar.get_y(), bar.get_width(), bar.get_height()) for bar in bars]


def three(*, stacked: bool = False, horizontal: bool = False) -> Bars:
    series = (Series("gained", (1.0, 2.0, 3.0), "gained"), Series("lost", (-4.0, 5.0, NAN), "lost"))
    return Bars(language_axis(("en", "sw", "ko")), (Panel("neurons", series),), stacked=stacked, horizontal=horizontal)


def test_stacked_bars_stand_on_each_other_and_those_below_zero_hang_from_it() -> None:
    drawn = boxes(draw(three(stacked=True)).axes[0])
    heights = [(bottom, height) for _, bottom, _, height in drawn]
    assert heights[:5] == [(0, 1), (0, 2), (0, 3), (0, -4), (2, 5)]
    assert math.isnan(heights[5][1])


def test_bars_of_a_place_stand_side_by_side_and_do_not_overlap() -> None:
    drawn = boxes(draw(three()).axes[0])
    for place in range(3):
        one, other = drawn[place], drawn[place + 3]
        assert one[0] + one[2] == pytest.approx(other[0])
        assert place - 0.5 < one[0] < place < other[0] + other[2] < place + 0.5


def test_lying_bars_are_as_long_as_their_numbers_and_the_first_is_at_the_top() -> None:
    axes = draw(three(horizontal=True)).axes[0]
    assert [box[2] for box in boxes(axes)[:3]] == [1, 2, 3]
    assert axes.yaxis_inverted()
    assert [name.get_text() for name in axes.get_yticklabels()] == ["English", "Swahili", "Korean"]


def test_panels_share_their_places_and_marks_cross_them_all() -> None:
    panels = tuple(Panel(name, (Series(name, (1.0, 2.0), name),)) for name in ("specific", "related", "general"))
    figure = draw(Bars(layer_axis(2), panels, marks=(Mark(0.5, "stage 2"),)), title="classes")
    assert [axes.get_ylabel() for axes in figure.axes] == ["specific", "related", "general"]
    for axes in figure.axes:
        assert [line.get_xdata()[0] for line in axes.lines] == [0.5]  # type: ignore[index]
    assert "stage 2" in [text.get_text() for text in figure.axes[0].texts]


def test_steps_hold_their_number_until_the_next_and_joined_lines_do_not() -> None:
    series = (Series("specific", (3.0, 1.0, 1.0), "specific"), Series("related", (0.0, 2.0, 2.0), "related"))
    for steps, style in ((True, "steps-post"), (False, "default")):
        axes = draw(Lines((0.0, 0.1, 0.2), "λ", "neurons", series, steps=steps)).axes[0]
        assert [line.get_drawstyle() for line in axes.lines] == [style, style]
        assert [list(line.get_ydata()) for line in axes.lines] == [list(one.values) for one in series]  # type: ignore[arg-type]
        assert axes.lines[0].get_linestyle() != axes.lines[1].get_linestyle(), "not told apart by colour alone"


@pytest.mark.parametrize(
    ("chart", "header", "first", "rows"),
    [
        (three(), ("language", "gained: neurons", "lost: neurons"), ("en", 1.0, -4.0), 3),
        (Heatmap(language_axis(("en", "sw")), layer_axis(3), ((1.0, 2.0, 3.0), (4.0, 5.0, NAN)), "neurons"),
         ("language", "layer", "neurons"), ("en", 0, 1.0), 6),
        (Lines((0.0, 0.5), "λ", "neurons", (Series("specific", (7.0, 8.0), "specific"),)),
         ("λ", "specific"), (0.0, 7.0), 2),
    ],
)  # fmt: skip
def test_the_table_has_every_number_once(chart: Chart, header: tuple, first: tuple, rows: int) -> None:
    assert chart.header == header
    assert chart.table[0] == first
    assert len(chart.table) == rows


def test_counts_are_written_in_full_where_there_is_room_and_short_where_there_is_none() -> None:
    few = Heatmap(plain_axis("ab", "r"), plain_axis("xy", "c"), ((8869.0, 458752.0), (0.0, NAN)), "neurons")
    assert few.texts == [["8,869", "458,752"], ["0", "–"]]
    many = Heatmap(plain_axis("a", "r"), plain_axis(range(13), "c"), ((458752.0,) * 13,), "neurons")
    assert many.texts == [["459k"] * 13]


def test_a_heatmap_of_layers_is_named_and_not_square_and_one_of_nothing_is_grey() -> None:
    axes = draw(Heatmap(language_axis(("en", "sw")), layer_axis(3), ((NAN,) * 3,) * 2, "neurons")).axes[0]
    assert [name.get_text() for name in axes.get_yticklabels()] == ["English", "Swahili"]
    assert {text.get_text() for text in axes.texts} == {"–"}
    assert axes.get_aspect() == "auto"


# ── Numbers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [(3.2, False, "3"), (3.2, True, "+3"), (-3.2, True, "−3"), (25_000, False, "25k"), (2e8, False, "2e8"),
     (math.inf, True, "∞"), (-math.inf, True, "−∞"), (NAN, True, "–"), (-0.4, True, "0")],
)  # fmt: skip
def test_a_number_is_as_short_as_it_can_be_said(value: float, signed: bool, text: str) -> None:
    assert short(value, signed=signed) == text


def test_a_count_at_a_bar_is_whole() -> None:
    assert [number_at_bar(value) for value in (23235.0, -4.0, 0.125, NAN)] == ["23,235", "−4", "0.125", ""]


def test_the_colour_scale_is_linear_up_to_its_turn_continuous_there_and_ascending() -> None:
    places = [symlog(value, linear_up_to=10.0) for value in (-1000, -10, -5, 0, 5, 10, 10.0001, 1000)]
    assert places == sorted(places)
    assert places[1:6] == [-1, -0.5, 0, 0.5, 1]
    assert places[6] == pytest.approx(1, abs=1e-4)
    assert places[0] == -places[-1] == pytest.approx(-(1 + math.log(100)))
    assert symlog(7.0, linear_up_to=None) == 7.0


@pytest.mark.parametrize("largest", [0.3, 1.0, 7.0, 44.0, 217.0, 9999.0])
@pytest.mark.parametrize("linear_up_to", [None, 0.1, 10.0])
def test_ticks_lie_on_the_scale_in_order_and_are_few(largest: float, linear_up_to: float | None) -> None:
    end = max(largest, linear_up_to or 0)
    for diverging in (False, True):
        ticks = scale_ticks(end, linear_up_to=linear_up_to, diverging=diverging)
        assert ticks == sorted(set(ticks))
        assert 0 in ticks
        assert max(ticks) <= end * (1 + 1e-9)
        assert 2 <= len(ticks) <= 13
        assert not diverging or ticks == [-tick for tick in reversed(ticks)]


# ── Colours ─────────────────────────────────────────────────────────────────────────────────────────────────────────


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


# ── Files ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def both(figure: Figure) -> tuple[bytes, str]:
    pixels, drawing = io.BytesIO(), io.BytesIO()
    write_png(figure, pixels)
    write_svg(figure, drawing)
    return pixels.getvalue(), drawing.getvalue().decode()


def test_pictures_are_the_same_every_time_and_texts_in_a_drawing_stay_texts() -> None:
    one, two = (both(draw(three(), title="Neurons of Swahili")) for _ in range(2))
    assert one == two
    assert one[0].startswith(b"\x89PNG")
    assert "Neurons of Swahili" in one[1]
    assert ">English<" in one[1]

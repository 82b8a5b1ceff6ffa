"""A chart's picture shows its numbers at their places, and is the same file every time."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from language_neurons_alignment.plots.charts import (
    BarChart,
    Heatmap,
    LineChart,
    Mark,
    Panel,
    Series,
    language_axis,
    layer_axis,
)
from language_neurons_alignment.plots.draw import CellNumbers, Number, draw, write_png, write_svg
from tests.plots.test_charts import NAN, three


def boxes(axes: Axes) -> list[tuple[float, float, float, float]]:
    """Each bar's left, bottom, width and height."""
    bars = [bar for bar in axes.patches if isinstance(bar, Rectangle)]
    return [(bar.get_x(), bar.get_y(), bar.get_width(), bar.get_height()) for bar in bars]


def numbers_in(axes: Axes) -> Sequence[Number]:
    """The numbers in a heatmap's cells."""
    (drawn,) = (text for text in axes.texts if isinstance(text, CellNumbers))
    return drawn.numbers


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
    figure = draw(BarChart(layer_axis(2), panels, marks=(Mark(0.5, "stage 2"),)), title="classes")
    assert [axes.get_ylabel() for axes in figure.axes] == ["specific", "related", "general"]
    for axes in figure.axes:
        assert [line.get_xdata()[0] for line in axes.lines] == [0.5]  # type: ignore[index]
    assert "stage 2" in [text.get_text() for text in figure.axes[0].texts]


def test_steps_hold_their_number_until_the_next_and_joined_lines_do_not() -> None:
    series = (Series("specific", (3.0, 1.0, 1.0), "specific"), Series("related", (0.0, 2.0, 2.0), "related"))
    for steps, style in ((True, "steps-post"), (False, "default")):
        axes = draw(LineChart((0.0, 0.1, 0.2), "λ", "neurons", series, steps=steps)).axes[0]
        assert [line.get_drawstyle() for line in axes.lines] == [style, style]
        assert [list(line.get_ydata()) for line in axes.lines] == [list(one.values) for one in series]  # type: ignore[arg-type]
        assert axes.lines[0].get_linestyle() != axes.lines[1].get_linestyle(), "not told apart by colour alone"


def test_a_heatmap_of_layers_is_named_and_not_square_and_one_of_nothing_is_grey() -> None:
    axes = draw(Heatmap(language_axis(("en", "sw")), layer_axis(3), ((NAN,) * 3,) * 2, "neurons")).axes[0]
    assert [name.get_text() for name in axes.get_yticklabels()] == ["English", "Swahili"]
    assert [number.text for number in numbers_in(axes)] == ["–"] * 6
    assert axes.get_aspect() == "auto"


def test_numbers_in_cells_are_drawn_as_matplotlib_draws_texts() -> None:
    chart = Heatmap(language_axis(("en", "sw")), layer_axis(3), ((1.0, -25_000.0, 70.0), (NAN, math.inf, 0.0)), "x")
    numbers, texts = draw(chart), draw(chart)
    axes = texts.axes[0]
    for drawn in axes.texts:
        assert isinstance(drawn, CellNumbers)
        drawn.remove()
        for number in drawn.numbers:
            style = {"color": number.ink, "fontsize": drawn.get_fontsize()}
            axes.text(*number.place, number.text, ha="center", va="center", **style).set_in_layout(False)
    (png, svg), (png_of_texts, svg_of_texts) = both(numbers), both(texts)
    assert png == png_of_texts
    found = [re.findall(r'(text-anchor.*?)" x="(.*?)" y="(.*?)".*>(.*)</text>', one) for one in (svg, svg_of_texts)]
    placed, as_texts = ([(style, text) for style, _, _, text in one] for one in found)
    assert placed == as_texts
    assert "−25,000" in [text for _, text in placed]
    at, at_as_texts = ([(float(x), float(y)) for _, x, y, _ in one] for one in found)
    assert np.array(at) == pytest.approx(np.array(at_as_texts), abs=1e-4)


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


def test_the_colour_bar_ends_with_the_data_and_zero_keeps_its_neutral_colour() -> None:
    axis = language_axis(("en", "sw"))
    chart = Heatmap(axis, axis, ((-2.0, 40.0), (250.0, 3.0)), "change [%]", diverging=True, linear_up_to=10.0)
    cells, bar = draw(chart).axes
    assert bar.get_ylim() == (-10.0, 250.0)
    assert cells.collections[0].norm.vmin == -250.0


def test_the_number_at_the_highest_of_stacked_bars_lies_inside_of_the_axes() -> None:
    series = (Series("specific", (1149, 0.0), "specific"), Series("related", (0.0, 1411), "related"))
    chart = BarChart(layer_axis(2), (Panel("neurons", series),), stacked=True, numbers=True)
    assert draw(chart).axes[0].get_ylim()[1] > 1.1 * 1411


def test_counts_have_whole_ticks_and_shares_have_others() -> None:
    for values, whole in (((2.0, 1.0), True), ((0.2, 0.1), False)):
        axes = draw(BarChart(layer_axis(2), (Panel("", (Series("", values, "specific"),)),))).axes[0]
        assert all(float(tick).is_integer() for tick in axes.get_yticks()) == whole


def test_a_wide_figure_has_larger_words_and_a_long_title_or_label_is_broken() -> None:
    narrow, wide = (
        draw(
            Heatmap(layer_axis(2), layer_axis(columns), [[1.0] * columns] * 2, "change [percentage points]"), title="x"
        )
        for columns in (3, 30)
    )
    assert narrow.axes[0].xaxis.label.get_fontsize() == 10.0
    assert wide.axes[0].xaxis.label.get_fontsize() == pytest.approx(10.0 * wide.get_figwidth() / 11.0)
    assert narrow.axes[1].get_ylabel() == "change\n[percentage points]"
    long = draw(three(), title="a title, " * 30).get_suptitle().split("\n")
    assert len(long) > 2
    assert " ".join(long) == ("a title, " * 30).strip()

"""A chart's table contains every number once, and numbers are written short and exact."""

from __future__ import annotations

import math

import pytest

from language_neurons_alignment.plots.charts import (
    BarChart,
    Chart,
    Heatmap,
    LineChart,
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

NAN = math.nan


def three(*, stacked: bool = False, horizontal: bool = False) -> BarChart:
    series = (Series("gained", (1.0, 2.0, 3.0), "gained"), Series("lost", (-4.0, 5.0, NAN), "lost"))
    return BarChart(
        language_axis(("en", "sw", "ko")), (Panel("neurons", series),), stacked=stacked, horizontal=horizontal
    )


@pytest.mark.parametrize(
    ("chart", "header", "first", "rows"),
    [
        (three(), ("language", "gained: neurons", "lost: neurons"), ("en", 1.0, -4.0), 3),
        (Heatmap(language_axis(("en", "sw")), layer_axis(3), ((1.0, 2.0, 3.0), (4.0, 5.0, NAN)), "neurons"),
         ("language", "layer", "neurons"), ("en", 0, 1.0), 6),
        (LineChart((0.0, 0.5), "λ", "neurons", (Series("specific", (7.0, 8.0), "specific"),)),
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


def test_a_small_change_outside_the_control_range_is_not_written_as_0() -> None:
    axis = language_axis(("en", "sw"))
    values, inside = ((0.3, 0.3), (-0.4, 40.0)), ((False, True), (False, False))
    chart = Heatmap(axis, axis, values, "change [%]", diverging=True, inside=inside)
    assert chart.texts == [["+0.3", "0"], ["−0.4", "+40"]]
    assert Heatmap(axis, axis, values, "change [%]", diverging=True).texts == [["0", "0"], ["0", "+40"]]

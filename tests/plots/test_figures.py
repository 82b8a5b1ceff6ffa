"""The perplexity heatmap shows the map's numbers, and nothing else."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from language_neurons_alignment.core.perplexity import UNDISTURBED, Perplexity, PerplexityMap
from language_neurons_alignment.errors import IncompatibleError, SettingsError
from language_neurons_alignment.plots.draw import INSIDE, write_png
from language_neurons_alignment.plots.figures import ppl_chart, ppl_heatmap
from language_neurons_alignment.store.maps import save_picture
from tests.plots.test_draw import numbers_in

TEN = ("en", "ru", "es", "fr", "de", "zh", "ja", "bn", "th", "sw")
THIRTY = (
    *TEN,
    *[
        "ko",
        "te",
        "hi",
        "ar",
        "pt",
        "it",
        "nl",
        "pl",
        "tr",
        "vi",
        "id",
        "el",
        "cs",
        "ro",
        "hu",
        "sv",
        "fi",
        "uk",
        "he",
        "ta",
    ],
)


def a_map(languages: tuple[str, ...], factors: dict[tuple[str, str], float] | None = None) -> PerplexityMap:
    """A map whose row and column number can be read off each cell: factor 1 + (row + 1) / 100 + column / 1000."""
    cells = {}
    for j, column in enumerate(languages):
        base = 10.0 + j
        cells[UNDISTURBED, column] = Perplexity(base, 2 * base, 1.0, 1, 1)
        for i, row in enumerate(languages):
            factor = (factors or {}).get((row, column), 1 + (i + 1) / 100 + j / 1000)
            cells[row, column] = Perplexity(base * factor, 2 * base * factor, 1.0, 1, 1)
    return PerplexityMap(languages, cells)


def mesh_of(figure: Figure) -> QuadMesh:
    (mesh,) = (drawn for drawn in figure.axes[0].collections if isinstance(drawn, QuadMesh))
    return mesh


def colours(figure: Figure) -> np.ndarray:
    return np.ma.filled(mesh_of(figure).get_array().astype(float), np.nan)


def written(figure: Figure, size: int) -> list[list[str]]:
    texts = {(round(row - 0.5), round(column - 0.5)): text for (column, row), text, _ in numbers_in(figure.axes[0])}
    return [[texts[i, j] for j in range(size)] for i in range(size)]


@pytest.mark.parametrize("languages", [("en",), ("en", "sw"), TEN, THIRTY], ids=len)
@pytest.mark.parametrize(("scale", "average"), [("percent", "token"), ("log1p", "text")])
def test_colours_and_numbers_are_those_of_the_map(languages: tuple[str, ...], scale: str, average: str) -> None:
    result = a_map(languages)
    figure = ppl_heatmap(result, scale=scale, average=average)
    expected = result.change(scale=scale, average=average)
    assert colours(figure).reshape(expected.shape) == pytest.approx(expected.numpy())
    digits = 0 if scale == "percent" else 2
    for i, row in enumerate(written(figure, len(languages))):
        for j, text in enumerate(row):
            assert float(text.replace("−", "-")) == pytest.approx(float(expected[i, j]), abs=0.5001 * 10**-digits)


def test_rows_and_columns_are_named_in_the_order_of_the_map_and_not_transposed() -> None:
    figure = ppl_heatmap(a_map(("sw", "en", "ko"), {("sw", "ko"): 3.0}))
    axes = figure.axes[0]
    names = ["Swahili", "English", "Korean"]
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert written(figure, 3)[0][2] == "+200"
    assert axes.yaxis_inverted(), "the first row is at the top"
    assert "off" in axes.get_ylabel()
    assert "text" in axes.get_xlabel()


def test_the_title_names_the_model_and_what_was_done_or_is_the_users_own() -> None:
    result = a_map(("en", "es"))
    titles = {
        "SmolLM2\nperplexity with each language's neurons off": {"model": "SmolLM2"},
        "SmolLM2\nperplexity under scale:2 each": {"model": "SmolLM2", "do": ["scale:2 each"]},
        "Figure 1": {"model": "SmolLM2", "title": "Figure 1"},
        "": {"model": "SmolLM2", "title": ""},
    }
    assert [ppl_heatmap(result, **given).get_suptitle() for given in titles.values()] == list(titles)
    assert "changed" in ppl_heatmap(result, do=["scale:2 each"]).axes[0].get_ylabel()


@pytest.mark.parametrize("factors", [{("en", "en"): 3.0}, {("en", "en"): 0.2}, {("en", "en"): 1.0}])
def test_the_colour_scale_is_symmetric_so_that_no_change_is_neutral(factors: dict[tuple[str, str], float]) -> None:
    for scale in ("percent", "log1p"):
        norm = mesh_of(ppl_heatmap(a_map(("en", "es"), factors), scale=scale)).norm
        assert norm.vmin == -norm.vmax
        assert norm.vmax > 0
        assert float(norm(0.0)) == pytest.approx(0.5)


def test_infinite_and_undefined_changes_are_drawn_and_do_not_flatten_the_others() -> None:
    result = a_map(("en", "es", "sw"), {("en", "en"): math.inf, ("es", "es"): 3.0})
    cells = dict(result.cells)
    for row in (UNDISTURBED, "en", "es", "sw"):
        cells[row, "sw"] = Perplexity(math.inf, math.inf, 1e9, 1, 1)
    figure = ppl_heatmap(PerplexityMap(result.languages, cells))
    numbers = written(figure, 3)
    assert (numbers[0][0], numbers[1][1], numbers[2][2]) == ("∞", "+200", "–")
    assert mesh_of(figure).norm.vmax == pytest.approx(200.0)
    assert colours(figure).reshape(3, 3)[0, 0] == pytest.approx(200.0)
    png(figure)


def test_a_map_in_which_everything_is_infinite_is_drawn_all_the_same() -> None:
    factors = dict.fromkeys([(row, column) for row in ("en", "es") for column in ("en", "es")], math.inf)
    figure = ppl_heatmap(a_map(("en", "es"), factors))
    assert {text for row in written(figure, 2) for text in row} == {"∞"}
    png(figure)


@pytest.mark.parametrize(
    ("factor", "text"),
    [
        (1.0, "0"),
        (1.004, "0"),
        (0.996, "0"),
        (1.006, "+1"),
        (0.97, "−3"),
        (2.09, "+109"),
        (250.0, "+25k"),
        (1e9, "+1e11"),
    ],
)
def test_a_number_is_written_as_short_as_it_can_be_said(factor: float, text: str) -> None:
    assert written(ppl_heatmap(a_map(("en",), {("en", "en"): factor})), 1) == [[text]]


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    return buffer.getvalue()


def test_every_label_lies_inside_the_picture() -> None:
    for languages in (("en", "sw"), TEN):
        figure = ppl_heatmap(a_map(languages), title="Llama-SmolLM2-135M-Instruct")
        figure.draw_without_rendering()  # lays it out at the resolution in which it is measured
        for axes in figure.axes:
            box = axes.get_tightbbox()
            assert box is not None
            assert figure.bbox.x0 <= box.x0
            assert box.x1 <= figure.bbox.x1
            assert figure.bbox.y0 <= box.y0
            assert box.y1 <= figure.bbox.y1


def test_the_saved_file_is_a_png_and_the_same_every_time(tmp_path: Path) -> None:
    one, two = (
        save_picture(tmp_path / name, partial(write_png, ppl_heatmap(a_map(("en", "es")))))
        for name in ("ppl.Llama-v1.5", "other")
    )
    assert one.name == "ppl.Llama-v1.5.png"
    assert one.read_bytes().startswith(b"\x89PNG")
    assert one.read_bytes() == two.read_bytes()


def test_an_incomplete_map_or_an_unknown_scale_is_refused() -> None:
    result = a_map(("en", "es"))
    cells = {key: cell for key, cell in result.cells.items() if key != ("en", "es")}
    with pytest.raises(IncompatibleError, match="misses 1 cells"):
        ppl_heatmap(PerplexityMap(("en", "es"), cells))
    with pytest.raises(SettingsError, match="scale"):
        ppl_heatmap(result, scale="log")


def test_no_window_is_opened_and_no_pyplot_figure_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("a window was opened"))
    before, backend = plt.get_fignums(), matplotlib.get_backend()
    png(ppl_heatmap(a_map(("en", "es"))))
    assert plt.get_fignums() == before
    assert matplotlib.get_backend() == backend


@pytest.mark.slow
def test_it_is_drawn_where_there_is_no_screen_at_all(tmp_path: Path) -> None:
    code = (
        "from tests.plots.test_figures import a_map\n"
        "from language_neurons_alignment.plots.figures import ppl_heatmap\n"
        "import matplotlib\n"
        "ppl_heatmap(a_map(('en', 'es'))).savefig('out.png')\n"
    )
    import os

    environment = {
        key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MPLBACKEND", "WAYLAND_DISPLAY")
    }
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "out.png").is_file()


def controlled(languages: tuple[str, ...], factors: dict[tuple[str, str], float]) -> PerplexityMap:
    """A map with three controls, each of which changes everything by −1, 0 or +1 percent."""
    result = a_map(languages, factors)
    cells = {
        (f"{row}~{number}", column): Perplexity(base := (10.0 + j) * (0.98 + number / 100), 2 * base, 1.0, 1, 1)
        for row in languages
        for j, column in enumerate(languages)
        for number in (1, 2, 3)
    }
    return result.with_controls(cells, sets=3)


def veiled(figure: Figure) -> set[tuple[int, int]]:
    """(row, column) of the cells that are hatched."""
    return {(round(p.get_y()), round(p.get_x())) for p in figure.axes[0].patches if p.get_hatch()}  # type: ignore[attr-defined]


def test_exactly_the_cells_inside_the_controls_range_are_veiled_and_a_line_says_what_that_means() -> None:
    factors = {("en", "en"): 3.0, ("es", "es"): 0.5, ("en", "es"): 1.02, ("es", "en"): 0.99}
    figure = ppl_heatmap(controlled(("en", "es"), factors))
    assert veiled(figure) == {(0, 1), (1, 0)}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [INSIDE]
    assert png(figure) != png(ppl_heatmap(a_map(("en", "es"), factors)))
    assert not ppl_heatmap(a_map(("en", "es"), factors)).legends


def test_numbers_in_veiled_cells_stay_dark_on_light() -> None:
    wide = {("en", "en"): 1.04, ("es", "es"): 1.0001, ("en", "es"): 1.04, ("es", "en"): 1.04}
    figure = ppl_heatmap(controlled(("en", "es"), wide), scale="log1p")
    inks = {number.ink for number in numbers_in(figure.axes[0])}
    assert veiled(figure) == {(i, j) for i in range(2) for j in range(2)}
    assert inks == {"0.1"}


def test_the_chart_s_table_tells_what_is_within_control() -> None:
    factors = {("en", "en"): 3.0, ("es", "es"): 1.0, ("en", "es"): 1.0, ("es", "en"): 1.0}
    chart = ppl_chart(controlled(("en", "es"), factors))
    assert chart.header[-1] == "within control"
    assert [row[-1] for row in chart.table] == ["no", "yes", "yes", "yes"]
    assert len(ppl_chart(a_map(("en",))).header) == 3

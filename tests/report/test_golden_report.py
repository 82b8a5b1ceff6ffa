"""The report on the real counts of Mistral-7B over MGSM shows the published numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from language_neurons_alignment._report import compose, gather
from language_neurons_alignment.config import Selection
from language_neurons_alignment.plots.charts import Bars
from language_neurons_alignment.report.page import render_page
from language_neurons_alignment.report.sections import Report, pictures
from language_neurons_alignment.store.layout import Layout

MODEL = "Mistral-de76d14562b1da1ba0e52d5b245cf9c0859e2af3"
GENERAL = [181, 106, 103, 114, 192, 194, 253, 253, 270, 307, 334, 431, 417, 443, 555, 445, 348, 423, 316, 261, 151, 92,
           66, 48, 50, 51, 54, 66, 108, 136, 284, 745]  # fmt: skip
SHARED = [23235, 9802, 5617, 3693, 2680, 2126, 1982, 2002, 2322, 7797]
APPEAR = [1369, 1866, 617, 310, 153, 127, 59, 40, 27, 20, 0]
SIZES = [142, 556, 523, 821, 941, 412, 676, 948, 622, 666]

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def told(mistral_reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    root = tmp_path_factory.mktemp("mistral")  # the counts are read in place, without the mask that lies beside them
    (root / "activations").symlink_to(mistral_reference / "activations")
    return compose(gather([Layout(root, "mgsm", MODEL)], Selection(0.01, 0.109375, 0.95), called=["/models/mistral"]))


def columns(told: Report, name: str) -> list[list[float]]:
    """The numbers of a figure of bars, series by series."""
    (chart,) = (picture.chart for picture in pictures(told) if picture.name == name)
    assert isinstance(chart, Bars)
    return [[value or 0.0 for value in series.values] for panel in chart.panels for series in panel.series]


def test_the_figures_show_the_papers_numbers(told: Report) -> None:
    specific, related, general = columns(told, "layers")
    assert general == GENERAL
    assert (sum(specific), sum(related), sum(general)) == (1866, 1353, 7797)
    assert all(count <= 2 for count in specific[7:18])
    assert columns(told, "shared") == [SHARED]
    assert [sum(both) for both in zip(*columns(told, "languages"), strict=True)] == SIZES
    appear = [max(filter(lambda value: value == value, one)) for one in zip(*columns(told, "appear"), strict=True)]
    assert appear == APPEAR


def test_the_page_says_them_and_stays_under_its_size(told: Report) -> None:
    page = render_page(told, folder="report")
    assert len(page.encode()) < 8_000_000
    for said in ("1,866", "1,353", "7,797", "1,369", "0.109375", "397,496 of 458,752"):
        assert said in page, said
    assert list(told.missing) == ["What breaks when a language's neurons are off"]

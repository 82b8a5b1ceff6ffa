"""The page in a headless Chromium: everything is drawn, nothing complains, nothing is fetched, the filters work."""

from __future__ import annotations

from pathlib import Path

import pytest

from language_neurons_alignment._report import WrittenReport
from language_neurons_alignment.report.page import render_page
from tests.browser import Browser
from tests.report.conftest import composed, counted, identified, mapped
from tests.workspace import TEN

pytestmark = [pytest.mark.browser]

MORE = "ko te hi ar pt it nl pl tr vi id el cs ro hu sv fi uk he ta"
THIRTY = (*TEN, *MORE.split())

PLOTS = "return [...document.querySelectorAll('section.figure')]"
DRAWN = (
    PLOTS
    + """.map((figure) => [figure.id,
  figure.querySelectorAll('.plot .main-svg').length > 0 && figure.querySelectorAll(
    '.plot .bars path, .plot .hm image, .plot .scatter path.js-line').length > 0])"""
)
OVERFLOW = "return document.documentElement.scrollWidth - innerWidth"


@pytest.fixture(scope="module")
def thirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of thirty languages."""
    root = tmp_path_factory.mktemp("thirty")
    layout = counted(root, "Llama-base", THIRTY)
    mapped(layout, identified(layout, THIRTY))
    page = root / "page.html"
    page.write_text(render_page(composed(root), folder="page"), encoding="utf-8")
    return page


def clean(browser: Browser, page: Path) -> None:
    """Nothing was said on the console, and nothing asked for but the page."""
    assert browser.complaints() == []
    assert set(browser.requests()) <= {page.as_uri()}


@pytest.mark.parametrize("dark", [False, True])
def test_every_figure_is_drawn_without_a_complaint_or_a_request(
    browser: Browser, written: WrittenReport, dark: bool
) -> None:
    browser.open(written.page, dark=dark)
    drawn = dict(browser.run(DRAWN))
    assert set(drawn) == {figure.name for figure in written.report.figures}
    assert all(drawn.values()), drawn
    clean(browser, written.page)
    paper = browser.run("return getComputedStyle(document.body).backgroundColor")
    ink = browser.run("return document.querySelector('.plot .xtick text').style.fill")
    assert (paper, ink) == (("rgb(20, 23, 27)", "rgb(230, 232, 235)") if dark else
                            ("rgb(255, 255, 255)", "rgb(28, 32, 38)"))  # fmt: skip


def test_every_view_can_be_chosen_with_the_keyboard_and_is_drawn(browser: Browser, written: WrittenReport) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(written.page)
    for figure in written.report.figures:
        for view in figure.views[1:]:
            chosen = browser.run(f"return document.querySelector('#{figure.name} .views input:checked')")
            chosen.send_keys(Keys.ARROW_RIGHT)
            label = browser.run(
                f"return document.querySelector('#{figure.name} .views :checked').parentElement.innerText"
            )
            assert label == view.label
            assert dict(browser.run(DRAWN))[figure.name], view
    clean(browser, written.page)


def test_the_language_filter_acts_on_every_figure_that_has_languages(browser: Browser, written: WrittenReport) -> None:
    browser.open(written.page)
    shown = "return document.getElementById(arguments[0]).querySelector('.plot').data[0]"
    assert len(browser.run(shown, "languages")["x"]) == 10
    for code in ("en", "fr"):
        browser.run("document.querySelector(`#filter-languages input[value=${arguments[0]}]`).click()", code)
    names = "return document.getElementById(arguments[0]).querySelector('.plot').layout"
    assert browser.run(names, "languages")["xaxis"]["ticktext"] == [
        "Russian", "Spanish", "German", "Chinese", "Japanese", "Bengali", "Thai", "Swahili"
    ]  # fmt: skip
    for name in ("overlap", "perplexity"):
        heat = browser.run(shown, name)
        assert (len(heat["z"]), len(heat["z"][0])) == (8, 8)
        assert heat["customdata"][0][0][:2] == ["Russian", "Russian"]
    assert len(browser.run(shown, "language-layers")["z"]) == 8
    assert len(browser.run(shown, "corpus")["x"]) == len(browser.run(shown, "alike")["x"]) == 8
    assert len(browser.run(shown, "layers")["x"]) == 6, "layers have no languages"
    assert "8 of 10 languages" in browser.run("return document.getElementById('filter-shown').textContent")
    browser.run("document.getElementById('filter-none').click()")
    assert browser.run("return document.querySelector('#overlap .none-chosen').offsetHeight") > 0
    browser.run("document.getElementById('filter-reset').click()")
    assert len(browser.run(shown, "languages")["x"]) == 10
    assert all(drawn for _, drawn in browser.run(DRAWN))
    clean(browser, written.page)


def test_what_was_lost_hangs_below_zero_and_what_was_gained_stands_on_it(
    browser: Browser, written: WrittenReport
) -> None:
    browser.open(written.page)
    bars = "return document.querySelector('#gained-lost .plot').calcdata[arguments[0]].map((bar) => [bar.b, bar.s])"
    gained, lost = browser.run(bars, 0), browser.run(bars, 1)
    assert all(base == 0 and size >= 0 for base, size in gained)
    assert all(base == 0 and size <= 0 for base, size in lost)
    assert any(size < 0 for _, size in lost)


def test_the_layer_filter_acts_on_every_figure_that_has_layers(browser: Browser, written: WrittenReport) -> None:
    browser.open(written.page)
    script = """const box = document.getElementById(arguments[0]); box.value = arguments[1];
      box.dispatchEvent(new Event('input', {bubbles: true}));"""
    browser.run(script, "filter-from", "2")
    browser.run(script, "filter-to", "3")
    plot = "return document.getElementById(arguments[0]).querySelector('.plot')"
    for name in ("layers", "change"):
        assert browser.run(plot + ".layout", name)["xaxis"]["ticktext"] == ["2", "3"], name
    heat = browser.run(plot + ".data[0]", "language-layers")
    assert [cell[1] for cell in heat["customdata"][0]] == ["2", "3"]
    (figure,) = (one for one in written.report.figures if one.name == "language-layers")
    assert [[cell[2] for cell in row] for row in heat["customdata"]] == [
        [f"{value:.0f}" for value in row[2:4]]
        for row in figure.views[0].chart.values  # type: ignore[union-attr]
    ]
    assert len(browser.run(plot + ".data[0]", "languages")["x"]) == 10, "languages have no layers"


@pytest.mark.parametrize("size", [(1360, 900), (390, 844)])
def test_thirty_languages_are_drawn_and_named_and_the_page_never_scrolls_sideways(
    browser: Browser, thirty: Path, size: tuple[int, int]
) -> None:
    browser.open(thirty, size=size)
    assert all(drawn for _, drawn in browser.run(DRAWN))
    assert browser.run(OVERFLOW) <= 0
    layout = browser.run("return document.querySelector('#perplexity .plot').layout")
    assert len(layout["yaxis"]["ticktext"]) == len(layout["xaxis"]["ticktext"]) == 30
    size_of = "return parseFloat(document.querySelector('#perplexity .plot .heatmap-label text').style.fontSize)"
    assert browser.run(size_of) >= 8
    clean(browser, thirty)


def test_it_prints_on_white_without_its_controls_even_from_dark_mode(browser: Browser, written: WrittenReport) -> None:
    browser.open(written.page, dark=True)
    browser.media(dark=True, medium="print")
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("return document.querySelector('.plot .xtick text').style.fill") == "rgb(28, 32, 38)"
    assert browser.run("return document.querySelector('aside').offsetHeight") == 0
    widths = browser.run(PLOTS + ".map((figure) => figure.querySelector('.plot .main-svg').clientWidth)")
    assert max(widths) <= 690
    browser.run("dispatchEvent(new Event('afterprint'))")
    browser.media(dark=True)
    assert browser.run("return document.querySelector('.plot .xtick text').style.fill") == "rgb(230, 232, 235)"
    clean(browser, written.page)

"""Every page of the documentation, opened from disk in a headless browser, on a desk and on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import Browser

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[1]
# What is wider than the window and neither scrolls nor lies in something that does.
TOO_WIDE = """
const inside = (e) => { for (let p = e; p && p !== document.body; p = p.parentElement)
  if (["auto", "scroll", "hidden"].includes(getComputedStyle(p).overflowX)) return true; return false; };
return [...document.querySelectorAll("article *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1 &&
  !inside(e)).slice(0, 3).map((e) => e.tagName + "." + e.className + ": " + e.textContent.slice(0, 60));
"""
# Code that neither shows all of itself nor scrolls.
CUT = """
return [...document.querySelectorAll("article pre, article pre code, article table")].filter((e) =>
  e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX === "hidden"
).map((e) => e.textContent.slice(0, 60));
"""
# An empty index: else every page indexes the whole site for its search, which takes most of its time.
NO_INDEX = """
Object.defineProperty(window, "__index", {value: {docs: [], config: {lang: ["en"], separator: " "}, options: {}}});
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built in this process; a warning of MkDocs is an error."""
    commands = pytest.importorskip("mkdocs.commands.build")
    from mkdocs.config import load_config

    out = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        commands.build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(out), strict=True))
    return out


def test_search_finds_a_page_without_a_server(site: Path, browser: Browser) -> None:
    browser.visit(site / "index.html", size=(1400, 900))
    browser.run(
        'const field = document.querySelector("input.md-search__input"); field.focus(); field.value = "AutoSweep";'
        'field.dispatchEvent(new Event("input", {bubbles: true})); field.dispatchEvent(new KeyboardEvent("keyup"));'
    )
    found = browser.wait('return document.querySelector(".md-search-result__item a[href*=autosweep]")?.href')
    assert found.startswith(site.as_uri())


def test_every_page_fits_its_window_is_silent_and_asks_for_nothing_outside(site: Path, browser: Browser) -> None:
    pages = sorted(path for path in site.rglob("*.html") if path.name != "404.html")
    decisions = [path for path in pages if path.parent.name == "decisions"]
    pages = [page for page in pages if page not in decisions[:-10]]  # all decisions are alike: the last ten
    assert len(pages) > 40
    wrong = []
    browser.before_each_page(NO_INDEX)
    for page in pages:
        browser.visit(page, size=(1400, 900))
        for width in (1400, 400):
            browser.resize((width, 900))
            wide = browser.run("return document.documentElement.scrollWidth")
            found = [*browser.run(TOO_WIDE), *browser.run(CUT)]
            if wide > width or found:
                wrong.append(f"{page.name} at {width}: {wide} wide, {found}")
        wrong += [f"{page.name} asks for {url}" for url in browser.requests() if not url.startswith("file:")]
        wrong += [f"{page.name} says {line}" for line in browser.complaints()]
    assert wrong == []

"""The page of neurons in a headless Chromium: 5,000 neurons, hostile and difficult texts, filters and links."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from language_neurons_alignment.core.cards import Context, Effect, LanguageCard, Neighbour, NeuronCard, TokenLogit
from language_neurons_alignment.core.readings import BINS
from language_neurons_alignment.report.neurons import PER_CHUNK, NeuronPage, PageContext
from tests.browser import Browser

NEURONS = 5000
CODES = ("en", "th", "ar", "zh")
EVIL = '<script>document.title="owned"</script><img src=x onerror="document.title=1">'
PIECES = {
    "en": (" The", " house", EVIL, "\n", "\t", " ", "'", "é"),
    "th": ("รา", "คา", "น้ำ", " ๓", " บาท", "ก"),
    "ar": ("مرحبا", " يا", " عالم", " ١٢", "،", "ب"),
    "zh": ("房子", "有", "两扇", "门", "。", "👩‍👩‍👧"),
}
NUMBER = "return document.querySelectorAll('#list li').length"
COUNT = "return document.getElementById('count').textContent"


def card(number: int, draw: random.Random) -> NeuronCard:
    """A made-up neuron."""
    languages = {}
    for k, code in enumerate(CODES):
        pieces = (*PIECES[code] * 3,)[:15]
        contexts = tuple(Context(n, 0, 20 + n, pieces[7], 1.5 - n / 10, pieces, (0.5,) * 15, 7) for n in range(2))
        effect = Effect((number % 7) * (k == 1) / 10, -0.1, 0.1, -0.05, 0.05, 0.02)
        languages[code] = LanguageCard(draw.random(), 500, contexts, (250, *range(BINS - 1)), 0.1, effect)
    words = [
        TokenLogit(draw.choice((" wasser", "\n", " ", "กา", EVIL)), draw.random(), None, "latin") for _ in range(10)
    ]
    if number == 4321:
        words[0] = TokenLogit(" unmistakable", 9.0, "en", "latin")
    own = (CODES[number % 4],) if number % 3 else CODES[:2]
    near = (Neighbour(number // 250, (number + 1) % 250, 0.5, 0.25),)
    kind = "specific" if number % 3 else "related"
    more = {"scripts": {"latin": 3}, "margin": draw.random(), "positive": 0.4, "nearest": near}
    return NeuronCard(number // 250, number % 250, kind, own, languages, (*words,), (*words[:5],), **more)


def page_of(neurons: int) -> NeuronPage:
    """A page of so many."""
    draw, page = random.Random(0), NeuronPage("Model <b>", "a & b", CODES, ("a note",))
    for number in range(neurons):
        one, places = card(number, draw), {}
        for code in CODES:
            texts = page.texts.setdefault(code, [])
            if number % 5 == 0:  # others quote the same texts
                texts.append((len(texts), 0, one.languages[code].contexts[0].pieces))
            places[code] = [PageContext(len(texts) - 1, 0)] * 2
        page.add(one, places)
    return page


def test_no_text_of_the_corpus_stands_in_the_page_itself() -> None:
    html = page_of(PER_CHUNK + 1).render()
    assert "owned" not in html
    assert "<b>" not in html
    assert "Model &lt;b&gt;" in html
    assert html.count('type="text/plain" id="neuron-') == 2
    assert "http:" not in html
    assert "https:" not in html


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("neurons") / "page.html"
    path.write_text(page_of(NEURONS).render(), encoding="utf-8")
    return path


@pytest.mark.browser
def test_it_opens_within_two_seconds_without_a_complaint_or_a_request(browser: Browser, page: Path) -> None:
    browser.open(page)
    drawn = browser.run("return performance.getEntriesByName('drawn')[0].startTime")  # from the start of the navigation
    assert drawn < 2000, f"{drawn} ms"
    assert browser.run(COUNT) == "5,000 of 5,000 neurons"
    assert browser.complaints() == []
    assert set(browser.requests()) == {page.as_uri()}


@pytest.mark.browser
def test_filters_sorting_and_links_find_the_neurons_that_they_should(browser: Browser, page: Path) -> None:
    def choose(name: str, value: str) -> None:
        browser.run(
            "const one = document.getElementById(arguments[0]); one.value = arguments[1];"
            "one.dispatchEvent(new Event('input', {bubbles: true}))",
            name,
            value,
        )

    browser.visit(Path(page))
    browser.wait("return document.documentElement.dataset.drawn")
    choose("by-token", "unmistakable")
    assert browser.run(COUNT) == "1 of 5,000 neurons"
    assert browser.run("return document.querySelector('#list .name').textContent") == "17.71"
    browser.run("document.querySelector('#list a').click()")
    browser.wait("return document.documentElement.dataset.card === '17.71'")
    assert "unmistakable" in browser.run("return document.getElementById('card').textContent")
    choose("by-token", "")
    choose("by-language", "1")
    thai = sum("th" in card_own(number) for number in range(NEURONS))
    assert browser.run(COUNT) == f"{thai:,} of 5,000 neurons"
    choose("by-order", "effect")
    assert browser.run("return document.querySelector('#list .value').textContent") == "0.60 %"
    choose("by-first", "3")
    choose("by-last", "3")
    choose("by-class", "related")
    expected = sum(number // 250 == 3 and number % 3 == 0 for number in range(NEURONS))
    assert browser.run(COUNT) == f"{expected} of 5,000 neurons"
    assert browser.run(NUMBER) == expected
    browser.run("document.getElementById('filters').reset()")
    browser.wait("return document.getElementById('count').textContent.startsWith('5,000')")
    assert browser.run(NUMBER) == 200
    browser.run("document.getElementById('more').click()")
    assert browser.run(NUMBER) == 400
    browser.run("location.hash = '99.99'")
    browser.wait("return document.getElementById('card').textContent.includes('no neuron 99.99')")
    assert browser.complaints() == []


def card_own(number: int) -> tuple[str, ...]:
    return (CODES[number % 4],) if number % 3 else CODES[:2]


@pytest.mark.browser
def test_texts_stay_texts_and_fit_a_phone_dark_and_printed(browser: Browser, page: Path, tmp_path: Path) -> None:
    browser.run("location.href = 'about:blank'")
    browser.visit(page, size=(400, 860), dark=True)
    browser.wait("return document.documentElement.dataset.drawn")
    browser.run("location.hash = '0.0'")
    browser.wait("return document.documentElement.dataset.card === '0.0'")
    assert browser.run("return document.title").startswith("0.0")
    assert browser.run("return document.querySelectorAll('#card script, #card img').length") == 0
    shown = browser.run("return document.getElementById('card').textContent")
    assert EVIL in shown
    for part in ("น้ำ", "مرحبا", "👩‍👩‍👧", "⏎", "⇥"):
        assert part in shown
    assert browser.run("return document.documentElement.scrollWidth - innerWidth") <= 0
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    directions = browser.run(
        "return [...document.querySelectorAll('.language')].map((one) => [one.lang, getComputedStyle("
        "one.querySelector('.text')).direction])"
    )
    assert dict(directions)["ar"] == "rtl"
    assert dict(directions)["th"] == "ltr"
    browser.media(medium="print")
    assert browser.run("return getComputedStyle(document.querySelector('aside')).display") == "none"
    browser.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").stat().st_size > 5000
    browser.media()
    assert browser.complaints() == []
    assert set(browser.requests()) == {page.as_uri()}

"""The playground's page, served from this process and driven in a headless Chromium."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import language_neurons_alignment as lna
from language_neurons_alignment import _playground_page
from language_neurons_alignment._interventions import NeuronSource
from language_neurons_alignment._playground import Choice, Playground
from language_neurons_alignment._playground_page import Served, _is_loopback, check_ready, serve
from language_neurons_alignment.config import Sampling, Selection
from language_neurons_alignment.errors import MissingPackageError, SettingsError
from tests.browser import Browser
from tests.test_playground import LONG, TEXTS, Unhurried
from tests.tiny_models import save_tiny_model

MARKUP = "<b>Two</b> doors,"
OVERFLOW = "return document.documentElement.scrollWidth - innerWidth"

WIDE_OPEN = {
    "GRADIO_SHARE": "True",
    "GRADIO_SERVER_NAME": "0.0.0.0",
    "GRADIO_ALLOWED_PATHS": str(Path(__file__).parent),
    "GRADIO_ANALYTICS_ENABLED": "True",
    "GRADIO_MCP_SERVER": "True",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
}
"""Settings of the environment that would open the page to others, or stand in between."""

called: list[Any] = []
"""Addresses outside this machine that this process has connected to, or asked the name of."""


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Of Python's audit hooks, which cannot be taken away again; it only writes down."""
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if str(host) not in ("127.0.0.1", "localhost", "::1", "None", "b'127.0.0.1'", "b'localhost'"):
        called.append((event, host))


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Playground]]:
    pytest.importorskip("gradio")
    sys.addaudithook(watch)
    model = lna.load(str(save_tiny_model("llama", tmp_path_factory.mktemp("models") / "llama")), device="cpu")
    neurons = model.count(TEXTS, moments=True).find_neurons(Selection(0.1, bar=0.8))
    playground = Unhurried(model, NeuronSource.open(None, mask=neurons))
    with pytest.MonkeyPatch.context() as patched:
        for name, value in WIDE_OPEN.items():
            patched.setenv(name, value)
        served = serve(playground, name="<i>tiny</i>", examples={"en": MARKUP, "es": "Dos puertas,"})
        assert WIDE_OPEN.items() <= os.environ.items(), "it is the caller's again"
    yield served, playground
    served.close()
    playground.close()


@pytest.fixture
def page(opened: tuple[Served, Playground]) -> Served:
    return opened[0]


@pytest.fixture
def asking(opened: tuple[Served, Playground]) -> list[Any]:
    """Those who wait for answers, or get them."""
    return opened[1]._asking


def eventually(holds: Callable[[], object]) -> None:
    """Wait until something holds, for 20 seconds at most."""
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


class Visitor:
    """A tab of the browser, with the page of a link in it."""

    def __init__(self, browser: Browser, page: Served, choice: Choice, *, tab: bool = False) -> None:
        self._browser, self._driver = browser, browser.driver
        if tab:
            self._driver.switch_to.new_window("tab")
        self._window = self._driver.current_window_handle
        self._driver.get(f"{page.url}/?{choice.query()}")
        browser.wait("return document.querySelector('#prompt textarea')?.value")

    def click(self, name: str) -> None:
        self._driver.switch_to.window(self._window)
        self._driver.find_element("css selector", f"#{name}").click()

    def text(self, name: str) -> str:
        """What stands in a text box, once anything does."""
        self._driver.switch_to.window(self._window)
        return self._browser.wait(f"return document.querySelector('#{name} textarea')?.value")

    def said(self, name: str) -> str:
        """What is known of an answer, once it is finished."""
        self._driver.switch_to.window(self._window)
        said = f"document.querySelector('#{name}-said')?.innerText"
        return self._browser.wait(f"return {said}?.includes('tokens') && {said}")

    def answers(self) -> tuple[str, str]:
        self.said("changed")
        return self.text("undisturbed"), self.text("changed")


@pytest.mark.browser
def test_two_visitors_from_prompt_to_answers_and_stop(browser: Browser, page: Served, asking: list[Any]) -> None:
    browser.resize((1360, 900))
    browser.requests(), browser.complaints()  # forget what the browser itself did
    choice = Choice(MARKUP, {"es": 0.0, "sw": 1.5}, layers=(1, 2), sampling=Sampling(max_new_tokens=12))
    one = Visitor(browser, page, choice)
    assert one.text("line") == "--do 'zero es - layers:0-0' --do 'scale:1.5 sw - layers:0-0'"
    assert one.text("prompt") == MARKUP
    assert browser.run("return document.querySelector('h1').innerText") == "<i>tiny</i>"
    one.click("go")
    assert one.said("changed").endswith("12 tokens · cut off at its longest")
    assert "perplexity under the undisturbed model" in one.said("undisturbed")
    mine = one.answers()
    assert mine[0] != mine[1]
    assert Choice.of_query(browser.run("return location.search.slice(1)")) == choice
    assert browser.run(OVERFLOW) <= 0

    other = Visitor(browser, page, Choice("Dos puertas,", {"es": 0.0}, sampling=LONG), tab=True)
    other.click("go")
    other.text("undisturbed")
    one.click("go")
    browser.wait("return document.querySelector('#undisturbed-said').innerText === 'waiting: 1 before you'")
    other.click("stop")
    assert other.said("changed").endswith("stopped")
    assert one.answers() == mine

    other.click("go")
    eventually(lambda: asking)
    browser.driver.close()
    eventually(lambda: not asking)  # whoever leaves is not waited for: it would be 50 seconds
    browser.driver.switch_to.window(browser.driver.window_handles[0])

    browser.resize((400, 860))
    assert browser.run(OVERFLOW) <= 0
    assert browser.complaints() == []
    assert {url.split("/")[2] for url in browser.requests()} == {page.url.removeprefix("http://")}
    assert called == []


def test_only_this_machine_reaches_the_page_and_only_by_its_own_name(page: Served) -> None:
    import httpx

    assert not page.public
    with httpx.Client(trust_env=False) as client:
        assert client.get(page.url).status_code == 200
        assert client.get(page.url, headers={"Host": "elsewhere.example"}).status_code == 400
        assert client.get(f"{page.url}/config").json()["analytics_enabled"] is False
        assert client.get(f"{page.url}/gradio_api/file={__file__}").status_code == 403
        assert client.get(f"{page.url}/gradio_api/mcp/").status_code == 404
        assert client.post(f"{page.url}/gradio_api/upload", files={"files": b"abc"}).status_code == 413
    assert page.blocks.share is False


def test_a_port_that_is_taken_and_a_missing_gradio_are_told_in_one_line(
    opened: tuple[Served, Playground], monkeypatch: pytest.MonkeyPatch
) -> None:
    served, playground = opened
    with pytest.raises(SettingsError, match=r"cannot listen on 127.0.0.1:\d+ .*give another --port"):
        serve(playground, name="tiny", port=int(served.url.rpartition(":")[2]))
    monkeypatch.setattr(_playground_page, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"language_neurons_alignment\[playground\]"):
        check_ready()


def test_an_address_says_whether_other_machines_reach_it() -> None:
    assert [_is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "10.0.0.7")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    with pytest.raises(SettingsError, match="'example' is no address"):
        _is_loopback("example")

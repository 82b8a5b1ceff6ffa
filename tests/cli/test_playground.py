"""`lna playground` up to its page: the mask, the examples, the address, and how it ends."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from language_neurons_alignment import _playground_page
from language_neurons_alignment.cli.process import Ended
from tests.cli.conftest import Lna


class FakePage:
    """A page that is left at once."""

    def __init__(self, playground: Any, **given: Any) -> None:
        self.playground, self.given = playground, given
        self.url, self.public, self.closed = "http://127.0.0.1:7860", given["host"] != "127.0.0.1", False

    def wait(self) -> None:
        raise Ended(signal.SIGINT)

    def close(self) -> None:
        self.closed = True


def test_the_page_gets_the_mask_and_examples_and_ctrl_c_ends_it(
    work: Path, lna: Lna, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[FakePage] = []
    monkeypatch.setattr(
        _playground_page, "serve", lambda *given, **more: opened.append(FakePage(*given, **more)) or opened[-1]
    )
    monkeypatch.chdir(work)
    model = ("playground", "--model-path", "tiny-llama", "-s", "small", "--root", "out", "-r", "0.1", "--device", "cpu")
    call = lna(*model, "-d", "corpus.json", "--json")
    assert (call.code, call.json["url"], call.json["public"]) == (0, "http://127.0.0.1:7860", False)
    assert "the playground is closed" in call.err
    assert "lna activation --moments" in call.err
    (page,) = opened
    assert page.closed
    assert page.playground.languages == ("en", "es", "sw")
    assert page.given["examples"]["es"] == "1. La casa tiene dos puertas."
    assert (page.given["name"], page.given["port"]) == ("Llama-tiny-llama", None)
    call = lna(*model, "--host", "0.0.0.0")
    assert call.lines == ["http://127.0.0.1:7860"]
    assert "0.0.0.0 lets every machine in" in call.err
    assert opened[1].given["examples"]["en"].startswith("Maria")


def test_without_a_mask_it_says_what_to_do(fresh: Path, lna: Lna, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fresh)
    call = lna("playground", "--model-path", "tiny-llama", "-s", "small", "--root", "out")
    assert call.code == 2
    assert "playground needs the λ of a mask" in call.err

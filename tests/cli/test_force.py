"""`lna force` as it is typed: what it refuses, in one line, before a model is loaded."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Lna

NAMED = ("force", "--model-path", "nowhere", "-s", "words", "-d", "nothing.json")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "force needs the λ of a mask"),
        (("-l", "0.1", "--do", "zero each"), "steers to no target"),
        (("-l", "0.1", "--do", "zero source"), "steers to no target"),
        (("-l", "0.1", "--controls", "1"), "--controls"),
        (("-l", "0.1", "--targets", "xx-nothing"), "unknown language"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(lna: Lna, flags: tuple[str, ...], said: str) -> None:
    call = lna(*NAMED, *flags)
    assert call.code == 2
    assert call.out == ""
    assert said in call.err
    assert len(call.err.splitlines()) == 1

"""`lna evaluate`: its table, its JSON, its notes, errors in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Lna
from tests.cli.test_commands import assert_one_line
from tests.workspace import small_records, write_corpus

MODEL = ("--model-path", "tiny-llama", "-d", "q.json", "-s", "words")


@pytest.fixture
def lam(lna: Lna, here: Path) -> float:
    """λ of a mask of the tiny model, and questions with numbers in two languages."""
    records = [
        {**one, "id": f"q{n % 2}", "target": "7"} for n, one in enumerate(small_records(("en", "es"), questions=2))
    ]
    write_corpus(here / "q.json", records)
    ran = lna("run", *MODEL, "--langs", "en,es", "-r", 0.1, "-b", 0.8, "--hi", 2, "--controls", 0, "--json")
    assert ran.code == 0, ran.err
    return ran.json["lambda"]


def test_an_evaluation_is_shown_with_what_it_is_held_against(lna: Lna, here: Path, lam: float) -> None:
    flags = ("evaluate", *MODEL, "--langs", "en,es", "-r", 0.1, "-l", lam, "--max-new-tokens", 4, "--controls", 2)
    first = lna(*flags)
    assert first.code == 0, first.err
    header = "accuracy in undisturbed changed points [95 %] p control's range selectivity"
    assert first.lines[0].split() == header.split()
    assert [line.split()[0] for line in first.lines[2:4]] == ["English", "Spanish"]
    assert first.lines[-1].endswith("evaluate.Llama-tiny-llama.answers")
    assert all(Path(line).exists() for line in first.lines[-4:])
    second = lna(*flags, "--show", "number", "--json")
    assert "28 of 28 answers were there already (--force answers again)" in second.err
    assert second.json["answered"] == 0
    assert second.json["measure"] == "number"
    assert second.json["rows"] == ["none", "en", "es", "en~1", "es~1", "en~2", "es~2"]
    assert len(second.json["change"]) == len(second.json["inside_control"]) == 2
    assert len(second.json["selectivity"]["f1"]) == 2
    once = lna(*flags[:-2], "--controls", 0, "--do", "scale:2 en", "--json")
    assert once.json["rows"] == ["none", "do"]
    assert not {"selectivity", "control_low"} & set(once.json)


@pytest.mark.parametrize(
    ("flags", "code", "named"),
    [
        ((), 2, "needs the λ of a mask"),
        (("-l", 0.1, "--controls", 1), 2, "--controls"),
        (("-l", 0.1, "--show", "both"), 2, "--show"),
        (("-l", 0.1, "--overlong", "drop"), 2, "--overlong"),
        (("-l", 0.1, "--do", "zoro fr"), 2, "zoro"),
        (("-l", 0.1), 1, "activation_masks"),
    ],
)
def test_what_cannot_be_is_one_line(lna: Lna, here: Path, flags: tuple[object, ...], code: int, named: str) -> None:
    write_corpus(here / "q.json")
    assert_one_line(lna("evaluate", *MODEL, *flags), code, named)

"""`lna lens`: its tables, its JSON, the intervention, errors in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Lna
from tests.cli.test_commands import assert_one_line
from tests.small_run import LANGUAGES

WHERE = ("--model-path", "tiny-llama", "-d", "corpus.json", "-s", "small", "--root", "out", "--device", "cpu")


@pytest.fixture
def there(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, a corpus, counts and a mask."""
    monkeypatch.chdir(work)
    return work


def test_a_lens_is_shown_undisturbed_and_changed(lna: Lna, there: Path, lam: float) -> None:
    flags = ("lens", *WHERE, "-r", 0.1, "--read", 2, "--classes", "specific,related,general", "--do", "scale:0.5 each")
    found = lna(*flags)
    assert found.code == 0, found.err
    assert found.lines[0].split()[:2] == ["tokens", "of"]
    assert [line.split()[0] for line in found.lines[2:6]] == ["English", "Spanish", "Swahili", "all"]
    assert {"undisturbed", "scale:0.5 each"} < set(found.lines)
    assert found.lines[-1].endswith(".layers.png")
    assert all((there / line).is_file() for line in found.lines[-6:])
    assert f"0.1-{lam!r}" in found.lines[-1]
    read = lna(*flags, "--json").json
    assert read["languages"] == list(LANGUAGES)
    assert len(read["layers"]["change"]) == len(LANGUAGES) * 3 * (len(LANGUAGES) + 2 + 3)
    assert read["pivot"]["condition"] == ["undisturbed"] * 2 + ["scale:0.5 each"] * 2
    assert len(read["stages"]) == 2, "three layers have three stages at most"
    assert "there is no mask" not in found.err


@pytest.mark.parametrize(
    ("flags", "code", "named"),
    [
        (("--read", -1), 2, "--read must be at least 0"),
        (("--do", "zero target"), 2, "stands for no language"),
        (("--text", "all"), 2, "--text"),
        (("--engine", "vllm"), 1, "--engine transformers"),
        (("--langs", "fr"), 1, "fr"),
    ],
)
def test_what_cannot_be_is_one_line(lna: Lna, there: Path, flags: tuple[object, ...], code: int, named: str) -> None:
    assert_one_line(lna("lens", *WHERE, *flags), code, named)

"""`lna check`: what it prints, and how it exits."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Lna
from tests.small_run import map_file


def test_it_says_what_it_found(work: Path, lam: float, lna: Lna) -> None:
    done = lna("check", str(work / "out"))
    assert done.code == 0
    assert "everything is in order" in done.out
    map_file(work, lam, ".cells.jsonl").write_text("{\n")
    done = lna("check", str(work / "out"), "--json")
    assert done.code == 1
    assert [one["kind"] for one in done.json["findings"]] == ["damaged"]
    assert done.err.strip().splitlines()[-1].startswith(f"lna: {work / 'out'}: 1 damaged")


def test_a_folder_without_results(tmp_path: Path, lna: Lna) -> None:
    done = lna("check", str(tmp_path))
    assert done.code == 1
    assert done.err.strip().splitlines()[-1].startswith(f"lna: no results under {tmp_path}: give the root folder")

"""Less than a minute of the campaign, from a fixed seed; `make campaign` is the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaign.__main__ import COLUMNS, added_up, table
from tests.campaign.processes import Child

ROOT = Path(__file__).resolve().parents[2]
POSIX = pytest.mark.skipif(sys.platform != "linux", reason="forks, signals and /proc of Linux")


@POSIX
@pytest.mark.slow
def test_a_short_campaign_does_no_harm(tmp_path: Path) -> None:
    flags = ("--minutes", "0.8", "--seed", "1", "--workers", "1", "--folder", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "tests.campaign", *flags], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    tried = {
        words[0]: int(words[3 if words[1] == "fuzzed" else 2])
        for line in done.stdout.splitlines()
        if (words := line.split())[:1] == ["all"]
    }
    assert tried
    assert all(tried.values())


@POSIX
@pytest.mark.parametrize(
    ("work", "seen"),
    [
        (lambda: 0, ""),
        (lambda: 2, ""),
        (lambda: 3, "exit code 3"),
        (lambda: 1 // 0, "ZeroDivisionError"),
    ],
)
def test_how_a_child_ended_is_known(tmp_path: Path, work: object, seen: str) -> None:
    ended = Child(work, tmp_path).wait(limit=20)  # type: ignore[arg-type]
    assert seen in ended.traceback
    assert bool(seen) == bool(ended.traceback)


@POSIX
def test_a_child_without_an_end_hangs(tmp_path: Path) -> None:
    def work() -> int:
        while True:
            pass

    assert Child(work, tmp_path).wait(limit=0.5).hung


def test_harm_is_added_up_and_shown_with_its_recipe(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    harm = '["lost", "ppl", "3 of 9 units", "--again kill:ppl:0:write:3"]'
    log.write_text(
        f'{{"row": "kill at an event", "tried": 1, "memory": 7, "found": [{harm}]}}\n'
        '{"row": "kill at an event", "tried": 1, "memory": 9, "found": []}\n'
    )
    rows, harms = added_up(log)
    assert rows["kill at an event"] == {"tried": 2, **dict.fromkeys(COLUMNS, 0), "lost": 1, "memory": 9}
    assert harms == {("kill at an event", "lost", "ppl"): ("--again kill:ppl:0:write:3", "3 of 9 units", 1)}
    assert table(rows).splitlines()[-1].split() == ["all", "kills", "2", "0", "1", "0", "0", "0", "9"]

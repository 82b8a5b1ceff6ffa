"""`--force` and SIGKILL: a run that replaces results goes on after any kill, and repeats nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = REPOSITORY / "tests" / "data" / "results_0_1"
ON = ["--model-path", str(DATA / "models" / "planted-v0.1"), "-s", "words", "--root", "{root}", "--device", "cpu"]
CORPUS = ["-d", str(DATA / "corpus.json")]
QUESTIONS = ["-d", str(DATA / "questions.json")]
TWO = ["--langs", "en,es"]
MASK = ["-r", "0.35", "-l", "0.0"]
SHORT = ["--controls", "0", "--max-new-tokens", "3", "--batch-tokens", "90"]
COUNT = [["activation", *ON, *CORPUS, "-l", code] for code in ("en", "es")]
FOUND = [*COUNT, ["identify", *[one for one in ON if one not in ("--device", "cpu")], *MASK, "-b", "0.8", *TWO]]
RUN = ["run", *ON, *QUESTIONS, *MASK, "-b", "0.8", *TWO, *SHORT]
PPL = ["ppl", *ON, *CORPUS, *MASK, *TWO, "--controls", "0"]
EVALUATE = ["evaluate", *ON, *CORPUS, *MASK, *TWO, *SHORT]
FORCE = ["force", *ON, *CORPUS, *MASK, *TWO, "--targets", "es", "--do", "zero source", *SHORT]
GENERATE = ["generate", "--model-path", ON[1], "--device", "cpu", *QUESTIONS, "-o", "{root}/a.json", *TWO, *SHORT[2:]]
METHODS = ["methods", *ON, *CORPUS, *MASK, "-b", "0.8", *TWO, "--methods", "entropy-lambda,lape"]


def kills(folder: Path, first: list[list[str]], command: list[str], again: list[str], number: int) -> list[Any]:
    asked = {"folder": str(folder), "first": first, "killed": [*command, "--force"], "again": again}
    path = os.environ.get("PYTHONPATH") or str(REPOSITORY)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    settings = json.dumps({**asked, "kills": number})
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "tests" / "killing.py"), settings],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


COMMANDS = {
    "ppl": ([*FOUND, PPL], PPL),
    "evaluate": ([*FOUND, EVALUATE], EVALUATE),
    "force": ([*FOUND, FORCE], FORCE),
    "generate": ([GENERATE], GENERATE),
    "run": ([RUN], RUN),
    "methods": ([*FOUND, METHODS], METHODS),
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_forced_run_goes_on_after_a_kill_at_any_step_and_ends_like_an_uninterrupted_one(
    tmp_path: Path, name: str
) -> None:
    first, command = COMMANDS[name]
    *killed, last = kills(tmp_path, first, command, [*command, "--force"], 20)
    assert len(killed) > 5
    for one in killed:
        assert one["code"] == 0, one
        assert (one["lost"], one["differing"], one["left"]) == ([], [], []), one
        assert one["before"] + one["after"] - one["work"] in (0, 1), f"finished work is repeated: {one}"
    assert (last["code"], last["after"]) == (0, last["work"]), "after its end, the same command begins anew"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
@pytest.mark.parametrize("name", COMMANDS)
def test_without_force_too_a_replacement_that_has_begun_goes_on(tmp_path: Path, name: str) -> None:
    first, command = COMMANDS[name]
    *killed, _ = kills(tmp_path, first, command, command, 8)
    for one in killed:
        assert one["code"] == 0, one
        assert (one["lost"], one["differing"], one["left"]) == ([], [], []), one
        if one["before"]:
            assert one["before"] + one["after"] - one["work"] in (0, 1), f"finished work is repeated: {one}"

"""A real model answers questions in ten languages, is killed half-way, and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from language_neurons_alignment.store.answers import Journal
from tests.workspace import write_corpus

WORDS = {
    "en": ("Question", "Answer"), "ru": ("Вопрос", "Ответ"), "es": ("Pregunta", "Respuesta"),
    "fr": ("Question", "Réponse"), "de": ("Frage", "Antwort"), "zh": ("问题", "答案"), "ja": ("質問", "答え"),
    "bn": ("প্রশ্ন", "উত্তর"), "th": ("คำถาม", "คำตอบ"), "sw": ("Swali", "Jibu"),
}  # fmt: skip
SUMS = ((3, 4), (20, 22))
ANSWERING = ("-n", "2", "--temperature", "0.8", "--max-new-tokens", "16", "--seed", "1", "--batch-tokens", "512")


def questions() -> list[dict[str, Any]]:
    """Two short sums in each of ten languages."""
    return [
        {
            "lang": code,
            "id": f"{a}+{b}",
            "instruction": f"{ask}: {a} + {b} = ?\n{answer}:",
            "answers": [],
            "target": a + b,
        }
        for code, (ask, answer) in WORDS.items()
        for a, b in SUMS
    ]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "language_neurons_alignment.cli", *arguments]


def lna(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return done


def killed_half_way(arguments: tuple[str, ...], out: Path) -> int:
    """Start a run, kill it when half of its answers are on disk, and count these."""
    running = subprocess.Popen(
        command(*arguments), cwd=out.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    there = 0
    while running.poll() is None and there < 20:
        time.sleep(0.02)
        there = sum(len(entry["answers"]) for entry in Journal(out).read()[1:])
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert not out.exists(), "it was done before it could be killed"
    return there


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_forty_answers_through_a_kill_none_lost_none_twice(smollm2: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "q.json", questions())
    model = ("--model-path", str(smollm2), "--engine", "transformers", "--dtype", "float32")
    asking = ("generate", *model, "-d", "q.json", *ANSWERING)
    there = killed_half_way((*asking, "-o", "a.json"), tmp_path / "a.json")
    done = json.loads(lna(*asking, "-o", "a.json", "--json", cwd=tmp_path).stdout)
    assert (done["made"], done["skipped"]) == (40, 0)
    assert there <= done["resumed"] < 40
    written = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert [len(one["answers"]) for one in written] == [2] * 20
    said = {(one["lang"], one["id"], answer["generated"]) for one in written for answer in one["answers"]}
    assert len(said) > 35, "samples of one question differ"

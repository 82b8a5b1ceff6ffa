"""The fast demo, as `make demo` runs it, on its real model. SmolLM2 on vLLM: test_vllm_models.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FAST = ("en", "es", "fr", "de")
FLOAT32 = ("--dtype", "float32")
"""The same on every CPU, and close enough between the engines to compare their masks."""


def lna_demo(root: Path, *flags: str) -> tuple[dict[str, Any], str]:
    """`lna demo --fast --json` in a process of its own: the result, and what it said on the way."""
    command = [sys.executable, "-m", "language_neurons_alignment.cli", "demo", "--fast", "--json", "--root", str(root)]
    done = subprocess.run(
        [*command, *flags],
        capture_output=True,
        text=True,
        check=False,
        timeout=850,
        env={**os.environ, "TQDM_DISABLE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def demo(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("demo")
    return root, lna_demo(root, *FLOAT32, "--engine", "transformers")[0]


@pytest.mark.slow
def test_the_fast_demo_walks_every_step(demo: tuple[Path, dict[str, Any]]) -> None:
    root, result = demo
    assert result["identification"]["appear"][-1] == 0
    assert sum(result["identification"]["appear"]) == round(0.01 * 30 * 1536)
    assert list(result["activations"]) == list(FAST)
    names = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"}
    model = "Llama-SmolLM2-135M-Instruct"
    rates = f"0.01-{result['lambda']!r}"
    assert names == {
        *(f"activations/demo-fast/{prefix}activation.{code}.{model}.pt" for code in FAST for prefix in ("", "prefix.")),
        *(f"activation_masks/demo-fast/{rates}/mask.{model}{ending}" for ending in ("", ".json")),
        *(f"ppl_maps/demo-fast/{rates}/ppl.{model}.{ending}" for ending in ("png", "json", "csv", "cells.jsonl")),
    }


@pytest.mark.slow
def test_a_language_s_neurons_carry_that_language_more_than_english(demo: tuple[Path, dict[str, Any]]) -> None:
    percent = demo[1]["map"]["percent"]
    for row, code in enumerate(FAST):
        if code != "en":
            own, english = percent[row][row], percent[row][FAST.index("en")]
            assert own > 2 * max(english, 5.0), (code, own, english)


@pytest.mark.slow
def test_a_second_demo_computes_nothing(demo: tuple[Path, dict[str, Any]]) -> None:
    root, first = demo
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.pt")}
    again, said = lna_demo(root, *FLOAT32, "--engine", "transformers")
    assert again["reused"] == list(FAST)
    assert again["map"]["computed"] == 0
    assert "already counted" in said
    assert "20 cells of the perplexity map were there already" in said
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.pt")} == before
    assert again["map"]["perplexity"] == first["map"]["perplexity"]

"""Benchmarks that need a GPU or a real model, tried at a tiny shape without them."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny_models import save_tiny_model
from tests.workspace import small_records, write_corpus

ROOT = Path(__file__).resolve().parents[1]

NOT_ON_A_CPU = {"waiting", "vllm", "nnsight", "compiled"}
"""Sections that need CUDA, take too long, or are for what may not be installed."""


def run(name: str, *arguments: object) -> str:
    """What a benchmark prints, on one thread of the CPU."""
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_for_gpus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What `benchmarks/gpu.py` prints; in this process, where what it imports is loaded already."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    with pytest.raises(SystemExit) as ended:
        import_module("gpu").main(["--tiny", "--device", "cpu", *map(str, arguments)])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_benchmark_for_gpus_runs_at_a_tiny_shape_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = run_for_gpus(monkeypatch, capsys, "--json", tmp_path / "gpu.json")
    assert "| **counting, tokens/s** | **" in said
    result = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert result["tests"] == {"left_out": "there is no CUDA device for `pytest -m gpu`"}
    tiny = result["models"]["tiny"]
    left_out = {name: figures["left_out"] for name, figures in tiny.items() if "left_out" in figures}
    assert left_out.keys() <= NOT_ON_A_CPU, left_out
    assert all(f"{name}: {why}" in said for name, why in left_out.items())
    assert tiny["passes"]["same_counts_by_hand"]
    assert tiny["one_pass"]["one_answer_tokens"] > tiny["passes"]["tokens"]
    assert tiny["cells"]["cells_per_s"] > 0
    assert tiny["answers"]["own_tokens_per_s"] > 0


@pytest.mark.slow
def test_the_benchmark_for_gpus_counts_the_same_in_compiled_forwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_for_gpus(monkeypatch, capsys, "--compile", "aot_eager", "--no-tests", "--json", tmp_path / "gpu.json")
    figures = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["models"]["tiny"]["compiled"]
    assert figures.get("same_counts"), figures
    assert figures["compiling_s"] > 0


def test_the_comparison_with_other_tools_times_nothing_that_counts_otherwise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    neighbours = importlib.import_module("neighbours")
    monkeypatch.setattr(sys, "argv", ["neighbours.py", "--tiny", "--repeats", "1"])
    monkeypatch.setattr(neighbours, "installed", lambda _package: "")
    neighbours.main()
    rows = [line.split(" | ")[1] for line in capsys.readouterr().out.splitlines() if line.startswith("| sdpa")]
    assert rows == ["bare decoder", "counting", "plain hooks"]
    right = neighbours.by_hand

    def wrong(*given: Any) -> Tensor:
        return right(*given).index_put((torch.tensor(0), torch.tensor(0)), torch.tensor(-1))

    monkeypatch.setattr(neighbours, "by_hand", wrong)
    with pytest.raises(SystemExit, match="plain hooks gives other counts for 1 neurons: nothing is timed"):
        neighbours.main()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_benchmark_of_reuse_runs_and_its_two_ways_give_the_same(tmp_path: Path) -> None:
    save_tiny_model("llama", tmp_path / "model", intermediate_size=512, num_hidden_layers=6)
    corpus = write_corpus(tmp_path / "corpus.json", small_records(("en", "es"), questions=4))
    said = run("reuse.py", tmp_path / "model", "-d", corpus, "--questions", 4)
    assert len([line for line in said.splitlines() if line.startswith("| model, float32, ")]) == 3


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_benchmark_of_batches_runs_and_finds_batch_invariant_counts_equal(tmp_path: Path) -> None:
    save_tiny_model("llama", tmp_path / "model", intermediate_size=96)
    corpus = write_corpus(tmp_path / "corpus.json", small_records(("en", "es"), questions=4))
    said = run("batches.py", tmp_path / "model", "-d", corpus, "--repeats", 1)
    exact = [line for line in said.splitlines() if "against it whole | 0 of " in line]
    assert len(exact) == 2, said
    assert "| bfloat16, en | 4, " in said

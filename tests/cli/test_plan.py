"""`lna plan` and `lna shards`: what they print, and what comes of the jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import plan_tables
from tests.cli.conftest import Lna


def test_a_model_that_needs_several_devices_is_planned_from_its_config(tmp_path: Path, lna: Lna) -> None:
    folder = plan_tables.save_config("Llama-3.1-70B", tmp_path)
    limit = ("--engine-arg", "max_model_len=4096")
    said = lna("plan", folder, "--tokens", 10**6, "--tokens-per-second", 1000, *limit)
    assert said.code == 0
    assert (
        "fits in bfloat16 on one GPU of 24 GiB: no; needs --tensor-parallel-size 8, 18.6 GiB on each of 8" in said.out
    )
    assert "activation  1,000,000    0               17 min " in said.out
    assert "- vLLM keeps room for one text of 4,096 tokens" in said.out
    shown = lna("plan", "--model-path", folder, "--gpu-memory", "200", *limit, "--json").json
    assert [(one["gib"], one["tensor_parallel_size"]) for one in shown["fits"]] == [(200, 1)]
    assert shown["memory"][0]["total"] == sum(
        shown["memory"][0][part] for part in ("weights", "counts", "batch", "cache", "logits")
    )


def test_the_throughput_is_measured_where_that_is_asked_for(here: Path, lna: Lna) -> None:
    shown = lna("plan", "tiny-llama", "-d", "datasets/mgsm.json", "--langs", "en,fr", "--measure", "--json").json
    assert shown["tokens_per_second"] > 100
    assert shown["corpus"]["languages"] == 2
    assert shown["steps"][0]["seconds"] == shown["steps"][0]["read"] / shown["tokens_per_second"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "no model is given"),
        (("tiny-llama", "--gpu-memory", "24,big"), "--gpu-memory must be numbers of GiB, got '24,big'"),
        (("tiny-llama", "--engine-arg", "seed=3"), "--engine-arg seed=3 changes nothing in a plan"),
        (("tiny-llama", "--engine-arg", "max_model_len=-3"), "--engine-arg max_model_len=-3 is no number above 0"),
    ],
)
def test_a_plan_of_wrong_settings(here: Path, lna: Lna, flags: tuple[str, ...], said: str) -> None:
    call = lna("plan", *flags)
    assert call.code == 2
    assert call.err.startswith(f"lna: {said}")

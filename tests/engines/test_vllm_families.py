"""Families on vLLM: the recorded result of each, and some of them tried again.

`vllm_families.json` is what `python -m tests.engines.vllm_families FOLDER` printed for all of them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.campaign.processes import Child
from tests.engines.families_table import PAGE, RECORD, rows_of
from tests.engines.vllm_engines import needs_vllm
from tests.engines.vllm_families import KINDS, tell
from tests.tiny_models import CONFIGS

RECORDED: dict[str, dict[str, str]] = {
    one["model_type"]: one for one in map(json.loads, RECORD.read_text("utf-8").splitlines())
}

TRIED = ("gpt2", "cohere2", "glm4", "smollm3", "apertus", "mixtral", "qwen2_moe", "qwen3_moe", "llama4_text")
"""Classes of vLLM's own with plain and merged MLPs, parallel blocks and sandwich norms; the transformers library's code
in vLLM with one module, two, and gate and up computed together; a refusal; experts without and with shared ones, and
with weighted inputs."""


def test_every_family_was_tried_and_what_was_not_equal_was_refused() -> None:
    assert set(RECORDED) == set(KINDS)
    assert {one["vllm"] for one in RECORDED.values()} == {"equal", "refused"}
    assert all(one.get("reason") for one in RECORDED.values() if one["vllm"] == "refused")


def test_the_page_has_a_row_for_every_family_and_readme_and_changelog_their_number() -> None:
    assert rows_of(PAGE.read_text("utf-8")) == sorted(CONFIGS)
    equal = sum(one["vllm"] == "equal" for one in RECORDED.values())
    assert len(re.findall(r"^\| `\w+` \| 0 \| equal", PAGE.read_text("utf-8"), re.M)) == equal
    readme, changelog = (Path(PAGE.parents[1], name).read_text("utf-8") for name in ("README.md", "CHANGELOG.md"))
    assert f"[{len(CONFIGS)} families](docs/models.md)" in readme
    assert f"The counts of {len(CONFIGS)} families" in changelog
    assert f"The greedy answers of {equal} families" in changelog


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What the families give now, all in one process that may change the transformers library's classes."""
    folder = tmp_path_factory.mktemp("families")
    done = Child(lambda: tell(folder, TRIED), folder).wait(limit=600)
    assert done.code == 0, done.err[-3000:]
    return {one["model_type"]: one for one in map(json.loads, done.out.splitlines())}


@pytest.mark.vllm
@needs_vllm
@pytest.mark.parametrize("kind", TRIED)
def test_a_family_is_computed_as_the_transformers_engine_computes_it_or_refused(
    results: dict[str, dict[str, str]], kind: str
) -> None:
    assert results[kind] == RECORDED[kind]

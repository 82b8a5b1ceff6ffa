"""The page "Your own languages, your own text", followed literally: its blocks, in a shell, in an empty folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.forked import forked_commands
from tests.tiny_models import save_tiny_model

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "your-own-text.md"
PLACEHOLDER = "/ABS/PATH/TO/MODEL"


def blocks() -> list[str]:
    """The page's shell blocks, in order."""
    return re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def follow(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder where `lna` is this tree's: `lna dataset build` a new Python, the others forked."""
    with forked_commands(apart="dataset build") as commands:
        environment = {
            **os.environ,
            "PATH": f"{commands}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TQDM_DISABLE": "1",
        }
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip


def read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_page_leads_from_a_folder_of_text_to_the_perplexity_map(tmp_path: Path) -> None:
    model = save_tiny_model("llama", tmp_path / "tiny-llama")
    folder = tmp_path / "here"
    folder.mkdir()
    first, *others = blocks()
    assert first.strip() == f"MODEL={PLACEHOLDER}"
    done = follow("\n".join([first.replace(PLACEHOLDER, str(model)), *others]), folder)
    assert done.returncode == 0, done.stderr
    asked, answered = (read(folder / "datasets" / f"{name}.json") for name in ("mine", "mine-answered"))
    assert [(one["lang"], one["id"]) for one in asked] == [(code, n) for code in ("en", "sw", "te") for n in "123"]
    assert [len(one["answers"]) for one in answered] == [2] * 9
    kept = [{key: new[key] for key in old if key != "answers"} for old, new in zip(asked, answered, strict=True)]
    assert kept == [{key: value for key, value in old.items() if key != "answers"} for old in asked]
    results = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"mask.Llama-tiny-llama", "ppl.Llama-tiny-llama.png", "ppl.Llama-tiny-llama.json"} <= results


def test_the_page_names_no_command_and_no_flag_that_there_is_not() -> None:
    """Each `lna …` of the page, in blocks and tables, is known to the program's help."""
    from typer.main import get_command

    from language_neurons_alignment.cli.app import app

    program = get_command(app)
    for line in re.findall(r"lna [^`\n|]+", PAGE.read_text(encoding="utf-8")):
        words = line.split()[1:]
        command = program.commands[words[0]]  # type: ignore[attr-defined]
        if words[0] == "dataset":
            command = command.commands[words[1]]
        known = {flag for parameter in command.params for flag in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, line

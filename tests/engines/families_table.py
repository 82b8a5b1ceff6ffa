"""The table of families × engines in docs/models.md, made by comparing a tiny model of each family.

    python -m tests.engines.families_table

compares the transformers engine with independent hooks, and vLLM, where it is installed, with the transformers engine
(`vllm_families`), and writes the result into the page. It takes some minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from language_neurons_alignment.engines.transformers import TransformersEngine
from tests.engines.contract import counting_error
from tests.engines.oracle import NaiveEngine
from tests.tiny_models import CONFIGS, save_tiny_model

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- families -->\n", "<!-- /families -->"


def in_transformers(folder: Path) -> str:
    """Σ |counts − independent hooks|, and what is counted."""
    engine = TransformersEngine.load(folder, device="cpu", dtype="float32")
    info = engine.model
    experts = f", {info.experts.number} experts" if info.experts else ""
    said = f"{counting_error(engine, NaiveEngine(folder))} | {info.architecture}{experts}"
    engine.close()
    return said


def in_vllm(folder: Path) -> dict[str, str]:
    """What `vllm_families` says of each family; nothing where vLLM is not installed."""
    if find_spec("vllm") is None:
        return {}
    ran = subprocess.run(
        [sys.executable, "-m", "tests.engines.vllm_families", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    told = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    return {one["model_type"]: one["vllm"] + (f": {one['reason']}" if one.get("reason") else "") for one in told}


def rows_of(page: str) -> list[str]:
    """The families in the page's table, in order."""
    lines = page[page.index(BEGIN) : page.index(END)].splitlines()
    return [line.split("`")[1] for line in lines if line.startswith("| `")]


def main() -> None:
    """Make the table, and write it into the page."""
    lines = ["| Family (`model_type`) | transformers: Σ\\|Δ\\| | Class | vLLM |", "|---|---|---|---|"]
    with TemporaryDirectory() as place:
        vllm = in_vllm(Path(place) / "vllm")
        for kind in sorted(CONFIGS):
            said = in_transformers(save_tiny_model(kind, Path(place) / kind))
            lines.append(f"| `{kind}` | {said} | {vllm.get(kind, 'not tried').replace('|', '/')} |")
            print(lines[-1], flush=True)
    page = PAGE.read_text(encoding="utf-8")
    before, after = page[: page.index(BEGIN)], page[page.index(END) :]
    PAGE.write_text(before + BEGIN + "\n".join(lines) + "\n" + after, encoding="utf-8")


if __name__ == "__main__":
    main()

"""The table of families × engines in docs/models.md, made by comparing a tiny model of each family.

    python -m tests.engines.families_table [KIND …]           transformers against independent hooks
    python -m tests.engines.families_table --vllm [KIND …]    and vLLM against transformers (`vllm_families`), recorded

It takes some minutes. With KIND, only these families are compared, and the others' rows stay as they are.
To try the models of text and images too, make torchvision importable (decision 0075).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten

from language_neurons_alignment.engines.transformers import TransformersEngine
from tests.engines.contract import counting_error
from tests.engines.oracle import NaiveEngine
from tests.tiny_models import CONFIGS, save_tiny_model

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
RECORD = Path(__file__).with_name("vllm_families.json")
BEGIN, END = "<!-- families -->\n", "<!-- /families -->"


def in_transformers(folder: Path) -> int:
    """Σ |counts − independent hooks|."""
    engine = TransformersEngine.load(folder, device="cpu", dtype="float32")
    error = counting_error(engine, NaiveEngine(folder))
    engine.close()
    return error


def record_vllm(folder: Path, kinds: Collection[str]) -> None:
    """Try these families on vLLM, and keep what comes out.

    What is recorded of a family that needs another package stays where that is not installed.
    """
    command = [sys.executable, "-m", "tests.engines.vllm_families", str(folder), *kinds]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    told = {one["model_type"]: one for one in _recorded()}
    for one in (json.loads(line) for line in printed.splitlines() if line.startswith("{")):
        if _is_there(told.get(one["model_type"], {}).get("needs")):
            told[one["model_type"]] = one
    lines = (json.dumps(told[kind], ensure_ascii=False) for kind in CONFIGS if kind in told)
    RECORD.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _recorded() -> list[dict[str, str]]:
    return [json.loads(line) for line in RECORD.read_text(encoding="utf-8").splitlines()]


def _is_there(package: str | None) -> bool:
    return package is None or find_spec(package) is not None


def in_vllm() -> dict[str, str]:
    """What the record says of each family, in few words."""
    return {
        one["model_type"]: one["vllm"] + _with(one.get("needs")) + _why(one.get("reason", "")) for one in _recorded()
    }


def _with(package: str | None) -> str:
    return "" if package is None else f", with {package}"


def _why(reason: str) -> str:
    """A reason without the model's name in front of it and the advice behind it."""
    name = r"^(\w+ \(model_type '\w+'\) is not served by vLLM|vLLM cannot load \w+|the neurons of .* cannot be proved)"
    reason = re.sub(f"{name}: ", "", reason)
    reason = re.sub(r"^vLLM does not run .* \(try --engine transformers\): ", "it does not run: ", reason)
    advice = r"; try --engine| \(--debug|; its numbers could|; such a model|: pip install| Supported arch"
    reason = re.split(advice, reason)[0]
    return f": {shorten(reason, 150, placeholder=' …').replace('|', '/')}" if reason else ""


def rows_of(page: str) -> list[str]:
    """The families in the page's table, in order."""
    return [line.split("`")[1] for line in _lines(page)]


def _lines(page: str) -> list[str]:
    """Their rows."""
    return [line for line in page[page.index(BEGIN) : page.index(END)].splitlines() if line.startswith("| `")]


def main() -> None:
    """Make the table, or some of its rows, and write it into the page."""
    kinds = [one for one in sys.argv[1:] if one != "--vllm"] or list(CONFIGS)
    page = PAGE.read_text(encoding="utf-8")
    before, after = page[: page.index(BEGIN)], page[page.index(END) :]
    kept = dict(zip(rows_of(page), _lines(page), strict=True))
    lines = ["| family (`model_type`) | transformers: Σ\\|Δ\\| | vLLM |", "|---|---|---|"]
    with TemporaryDirectory() as place:
        if "--vllm" in sys.argv[1:]:
            record_vllm(Path(place) / "vllm", kinds)
        vllm = in_vllm()
        for kind in sorted(CONFIGS):
            if kind in kept and kind not in kinds:
                lines.append(kept[kind])
                continue
            said = in_transformers(save_tiny_model(kind, Path(place) / kind))
            lines.append(f"| `{kind}` | {said} | {vllm.get(kind, 'not tried')} |")
            print(lines[-1], flush=True)
    PAGE.write_text(before + BEGIN + "\n".join(lines) + "\n" + after, encoding="utf-8")


if __name__ == "__main__":
    main()

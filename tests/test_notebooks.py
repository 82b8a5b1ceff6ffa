"""The notebooks of the documentation run, and show what is stored in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[1] / "docs" / "notebooks"


def read(name: str) -> Any:
    """A notebook as it is stored."""
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def outputs(notebook: Any) -> list[list[tuple[str, str]]]:
    """What each code cell shows: kind and text, pictures without their bytes, objects without their addresses."""
    shown = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            kept = [one for one in cell.outputs if not (one.output_type == "stream" and one.name == "stderr")]
            shown.append([(one.output_type, one.get("text") or one.data["text/plain"]) for one in kept])
    return shown


def execute(name: str) -> tuple[Any, Any]:
    """A notebook as stored, and as it comes out now."""
    nbclient = pytest.importorskip("nbclient")
    stored, fresh = read(name), read(name)
    nbclient.NotebookClient(
        fresh,
        timeout=300,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(NOTEBOOKS)}},
    ).execute()
    return stored, fresh


@pytest.mark.parametrize("name", ["mistral", "demo", "first-lines"])
def test_a_notebook_is_stored_executed_small_and_without_paths_of_a_machine(name: str) -> None:
    notebook, text = read(name), (NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8")
    assert len(text.encode()) < 300_000
    assert [path for path in ("/tmp", "/home", "/root", "/work", "site-packages") if path in text] == []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum("image/png" in one.get("data", {}) for cell in code for one in cell.outputs) >= 2


@pytest.mark.reference
@pytest.mark.slow
def test_the_mistral_notebook_shows_what_the_real_counts_give(mistral_reference: Path) -> None:
    stored, fresh = execute("mistral")
    assert outputs(fresh) == outputs(stored)


@pytest.mark.slow
def test_the_demo_notebook_runs_on_the_demo_model(smollm2: Path) -> None:
    stored, fresh = execute("demo")
    assert [len(cell) for cell in outputs(fresh)] == [len(cell) for cell in outputs(stored)]


def test_the_first_lines_run_on_a_tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, with a tiny model in place of the demo's: the stored outputs are those of the demo's."""
    from language_neurons_alignment import _demo
    from tests.tiny_models import save_tiny_model

    folder = save_tiny_model("llama", tmp_path / "model", seed=4, intermediate_size=480)  # all have neurons
    monkeypatch.setattr(_demo, "demo_model_path", lambda: folder)
    names: dict[str, Any] = {}
    for cell in read("first-lines").cells:
        if cell.cell_type == "code":
            lines = [line for line in cell.source.splitlines() if not line.startswith("%")]
            exec(compile("\n".join(lines), cell.id, "exec"), names)
    assert names["neurons"].languages == ("en", "fr", "es")
    assert tuple(names["done"].map.change().shape) == (3, 3)
    assert names["mine"](names["tokens"]).logits.equal(names["before"])

"""The page "Interventions", followed literally: its Python is run, its steps are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from language_neurons_alignment._operations import Steps
from language_neurons_alignment._session import open_session
from language_neurons_alignment.activation import collect_activations
from language_neurons_alignment.config import PipelineSettings, Selection
from language_neurons_alignment.pipeline import run_pipeline
from tests.tiny_models import save_tiny_model
from tests.workspace import TEN, small_records, write_corpus

PAGE = Path(__file__).resolve().parents[1] / "docs" / "concepts" / "interventions.md"


def text() -> str:
    return PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_python_of_the_page_does_what_it_says(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    model = save_tiny_model("llama", tmp_path / "tiny-llama")
    write_corpus(tmp_path / "datasets" / "mgsm.json", small_records(questions=1))
    with open_session(str(model), "datasets/mgsm.json", "mgsm") as session:
        run_pipeline(session, TEN, PipelineSettings(selection=Selection(0.5, 0.109375, 0.5)))
        collect_activations(session, "en", moments=True)
    (block,) = re.findall(r"^```python\n(.*?)^```", text(), re.DOTALL | re.MULTILINE)
    assert "/ABS/PATH/TO/MODEL" in block
    assert "top_rate=0.01" in block
    names: dict[str, Any] = {}
    exec(block.replace("/ABS/PATH/TO/MODEL", str(model)).replace("top_rate=0.01", "top_rate=0.5"), names)
    assert len({one.nll for key in ("plain", "changed", "more") for one in names[key]}) == 3


def test_every_step_and_every_form_on_the_page_can_be_read() -> None:
    steps = re.findall(r'--do "(.*?)"', text())
    assert Steps.parse(steps).texts == tuple(steps)
    forms = re.findall(r"^\| `([a-z]+\S*)` \|", text(), re.MULTILINE)[:7]
    assert [form.split(":")[0] for form in forms] == ["zero", "scale", "set", "mean", "replace", "add", "diffmean"]
    for form in forms:
        filled = re.sub(r":[svα](?=$|:)", ":2", form).replace("LANG", "fr")
        assert Steps.parse(f"{filled} de").steps

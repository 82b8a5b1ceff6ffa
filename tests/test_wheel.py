"""The wheel as its user has it: everything is in it, and a type checker knows the first lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]

FIRST_LINES = """
import language_neurons_alignment as lna
from language_neurons_alignment.config import Selection

model = lna.load("a-folder", device="cpu")
counts = model.count({"en": ["One house."], "fr": [("Une ?", " Oui.")]})
neurons = counts.find_neurons(Selection(top_rate=0.02))
shared = neurons["fr"] & neurons["en"]
with model.ablate(shared), model.intervene("scale:2 fr", neurons):
    one, several = model.generate("One", max_new_tokens=3), model.generate(["One", "Two"])
score, scores = model.perplexity("One house."), model.perplexity({"en": ["One house."]})
done = lna.perplexity_map(model, {"en": ["One house."]}, neurons)
reveal_type((model, counts, shared, one, several, score, scores, done, neurons.plot()))
with lna.open_session("a-folder", "corpus.json", "toy") as session:
    reveal_type(lna.perplexity_map(session, top_rate=0.1, lam=0.2))
model.count({"en": 3})
lna.perplexity_map(model, neurons)
"""
REVEALED = (
    "tuple[Model, AnswerCounts, Mask, str, list[str], Perplexity, dict[str, Perplexity], MapResult, Figure]",
    "MapResult",
)


@pytest.mark.slow
def test_the_wheel_of_the_sdist_runs_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = pytest.importorskip("hatchling.build")
    monkeypatch.chdir(ROOT)
    with tarfile.open(tmp_path / build.build_sdist(str(tmp_path))) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    monkeypatch.chdir(source)
    site = tmp_path / "site"
    with zipfile.ZipFile(tmp_path / build.build_wheel(str(tmp_path))) as wheel:
        wheel.extractall(site)
    (metadata,) = site.glob("*.dist-info/METADATA")
    said = metadata.read_text(encoding="utf-8")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert f"Version: {cited['version']}\n" in said
    assert f"Author: {cited['authors'][0]['name']}\n" in said
    assert f"Project-URL: Paper, {cited['preferred-citation']['url']}\n" in said
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    where = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "language_neurons_alignment.cli", "dataset", "check"]
    corpus = site / "language_neurons_alignment" / "datasets" / "demo.json"
    run = [*command, str(corpus), "--no-language-id"]
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=folder, env=where)
    assert done.returncode == 0, done.stderr
    own = "import language_neurons_alignment as lna; print(lna.__file__)"
    shown = subprocess.run(
        [sys.executable, "-c", own], capture_output=True, text=True, check=True, cwd=folder, env=where
    )
    assert Path(shown.stdout.strip()).is_relative_to(site)


@pytest.mark.slow
def test_a_type_checker_reads_the_installed_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyright")
    build = pytest.importorskip("hatchling.build")
    monkeypatch.chdir(ROOT)
    site = tmp_path / "site"
    with zipfile.ZipFile(tmp_path / build.build_wheel(str(tmp_path))) as wheel:
        names = set(wheel.namelist())
        wheel.extractall(site)
    ours = (path for path in (ROOT / "language_neurons_alignment").rglob("*.py"))
    assert names >= {path.relative_to(ROOT).as_posix() for path in ours}
    assert {f"language_neurons_alignment/{name}" for name in ("py.typed", "datasets/demo.json")} <= names
    folder = tmp_path / "user"
    folder.mkdir()
    (folder / "lines.py").write_text(FIRST_LINES, encoding="utf-8")
    (folder / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(site)]}), encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(folder)]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder).stdout)
    found = [(one["severity"], one["range"]["start"]["line"], one["message"]) for one in said["generalDiagnostics"]]
    revealed = [message.partition(" is ")[2].strip('"') for severity, _, message in found if severity == "information"]
    assert tuple(revealed) == REVEALED
    last = FIRST_LINES.count("\n") - 1
    assert [line for severity, line, _ in found if severity == "error"] == [last - 1, last], found

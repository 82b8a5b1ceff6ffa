"""The wheel as its user has it: everything is in it, and a type checker knows the first lines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from sysconfig import get_path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow

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


MYPY = """
[mypy]
follow_imports = skip
[mypy-language_neurons_alignment.*]
follow_imports = silent
"""
"""What the package imports is not read: that would take longer than all the rest."""
USER = """
import language_neurons_alignment as lna

model = lna.load("a-folder", device="cpu")
counts = model.count({"en": ["One house."], "fr": ["Une maison."]})
neurons = counts.find_neurons()
shared = neurons["fr"] & neurons["en"]
with model.ablate(shared):
    answer = model.generate("One", max_new_tokens=3)
reveal_type((counts, shared, answer, lna.perplexity_map(model, {"en": ["One house."]}, neurons)))
model.count({"en": 3})
"""


def built(folder: Path, into: Path, what: str) -> Path:
    """Build a wheel or sdist of the sources in a folder."""
    build = pytest.importorskip("hatchling.build")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return into / getattr(build, f"build_{what}")(str(into))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the sdist, with nothing else of the checkout beside it."""
    folder = tmp_path_factory.mktemp("built")
    with tarfile.open(built(ROOT, folder, "sdist")) as sdist:
        sdist.extractall(folder, filter="data")
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    return built(source, folder, "wheel")


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files as an installation lays them."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    return folder


def test_the_wheel_of_the_sdist_holds_the_whole_package_and_says_what_it_is(wheel: Path, site: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = (path for path in (ROOT / "language_neurons_alignment").rglob("*.py"))
    assert names >= {path.relative_to(ROOT).as_posix() for path in ours}
    assert {f"language_neurons_alignment/{name}" for name in ("py.typed", "datasets/demo.json")} <= names
    (metadata,) = site.glob("*.dist-info/METADATA")
    said = metadata.read_text(encoding="utf-8")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert f"Version: {cited['version']}\n" in said
    assert f"Author: {cited['authors'][0]['name']}\n" in said
    assert f"Project-URL: Paper, {cited['preferred-citation']['url']}\n" in said
    links = re.findall(r"\]\(([^)]+)\)", said.partition("Description-Content-Type: text/markdown")[2])
    assert links
    assert {link.partition(":")[0] for link in links} == {"https"}, "an index has no files beside the text"


def test_the_image_is_built_of_all_that_the_wheel_needs(wheel: Path, tmp_path: Path) -> None:
    """.dockerignore lets the same wheel through; the image's own build needs a daemon."""
    context = tmp_path / "context"
    context.mkdir()
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in allowed:
        (context / name).parent.mkdir(exist_ok=True)
        (context / name).symlink_to(ROOT / name)
    of_image = built(context, tmp_path, "wheel")
    assert set(zipfile.ZipFile(of_image).namelist()) == set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_runs_where_nothing_else_was_installed_beside_its_dependencies(wheel: Path, tmp_path: Path) -> None:
    """Its command and the demo's corpus, from another folder.

    The environment borrows what the wheel depends on, so that torch is not installed twice. The whole demo on another
    Python is CI's job `package`.
    """
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    (mine,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (mine / "borrowed.pth").write_text(get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*install, "--no-compile", str(wheel)], check=True, capture_output=True, text=True)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    where = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    own = "import language_neurons_alignment as lna; print(lna.__file__)"
    asked = {"capture_output": True, "text": True, "check": False, "cwd": folder, "env": where}
    shown = subprocess.run([python, "-c", own], **asked)
    assert Path(shown.stdout.strip()).is_relative_to(mine), shown.stderr
    corpus = mine / "language_neurons_alignment" / "datasets" / "demo.json"
    done = subprocess.run([python.with_name("lna"), "dataset", "check", str(corpus), "--no-language-id"], **asked)
    assert done.returncode == 0, done.stderr


def test_a_type_checker_reads_the_installed_wheel(site: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyright")
    (tmp_path / "lines.py").write_text(FIRST_LINES, encoding="utf-8")
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(site)]}), encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(tmp_path)]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path).stdout)
    found = [(one["severity"], one["range"]["start"]["line"], one["message"]) for one in said["generalDiagnostics"]]
    revealed = [message.partition(" is ")[2].strip('"') for severity, _, message in found if severity == "information"]
    assert tuple(revealed) == REVEALED
    last = FIRST_LINES.count("\n") - 1
    assert [line for severity, line, _ in found if severity == "error"] == [last - 1, last], found


def test_mypy_reads_the_installed_wheel_too(site: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    (tmp_path / "mypy.ini").write_text(MYPY, encoding="utf-8")
    where = {**os.environ, "MYPYPATH": str(site)}
    command = [sys.executable, "-m", "mypy", "--cache-dir", os.devnull, "--config-file", "mypy.ini", "user.py"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=where).stdout
    revealed, error, *_ = said.splitlines()
    kinds = ["store.counts.AnswerCounts", "store.masks.Mask", "str", "ppl.MapResult"]
    full = [one if one == "str" else f"language_neurons_alignment.{one}" for one in kinds]
    assert f'Revealed type is "tuple[{", ".join(full)}]"' in revealed
    assert error.startswith(f"user.py:{USER.count(chr(10))}: error: Argument 1")

"""What is said about the package outside of its code agrees: pyproject.toml, the recipe, the images, the citation."""

from __future__ import annotations

import doctest
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from language_neurons_alignment import __version__

ROOT = Path(__file__).resolve().parents[1]
RENAMED = {"torch": "pytorch", "matplotlib": "matplotlib-base", "language_data": "language-data"}
"""What conda-forge calls a package otherwise."""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="Python reads TOML from 3.11 on")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_conda_recipe_says_what_pyproject_says(project: dict[str, Any]) -> None:
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    said = project["project"]
    assert recipe["context"]["version"] == said["version"]
    assert (recipe["about"]["summary"], recipe["about"]["license"]) == (said["description"], said["license"])
    assert recipe["about"]["license_file"] == said["license-files"]
    (python, *run), host = recipe["requirements"]["run"], recipe["requirements"]["host"]
    named = [re.fullmatch(r"([\w.-]+)([^;]*).*", one) for one in said["dependencies"]]
    assert sorted(run) == sorted(f"{RENAMED.get(one[1], one[1])} {one[2]}" for one in named if one)
    assert python == f"python {said['requires-python']}"
    (backend,) = project["build-system"]["requires"]
    assert host == [python, "pip", backend.replace(">=", " >=")]
    ((command, entry),) = said["scripts"].items()
    assert recipe["build"]["python"]["entry_points"] == [f"{command} = {entry}"]


def test_the_version_is_the_same_everywhere(project: dict[str, Any]) -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {project["project"]["version"], cited["version"]} == {__version__}


def test_the_images_have_a_python_that_is_served_and_copy_what_is_in_their_context(project: dict[str, Any]) -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    steps = [line.split() for line in lines if line and not line.startswith("#")]
    (version,) = (step[1].partition("=")[2] for step in steps if step[1].startswith("PYTHON="))
    assert f"Programming Language :: Python :: {version}" in project["project"]["classifiers"]
    targets = [step[3] for step in steps if step[0] == "FROM"]
    bases = [step[1] for step in steps if step[0] == "FROM"]
    assert {"cpu", "cuda"} <= set(targets)
    assert all(base in targets[:k] or base.startswith("python:") for k, base in enumerate(bases))
    copied = {step[1] for step in steps if step[0] == "COPY" and not step[1].startswith("--")} - {"."}
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"
    }
    assert copied <= allowed
    assert all((ROOT / name).exists() for name in allowed)
    assert {"tools/index_readme.py", *project["project"]["license-files"]} <= {*allowed, "datasets/LICENSE"}
    (extras,) = (step[1].partition("=")[2].split(",") for step in steps if step[1].startswith("EXTRAS="))
    assert set(extras) <= set(project["project"]["optional-dependencies"])


def test_every_link_of_readme_leads_to_a_file_or_into_the_repository() -> None:
    pytest.importorskip("hatchling")
    spec = importlib.util.spec_from_file_location("index_readme", ROOT / "tools" / "index_readme.py")
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    home = "https://example.org/someone/lna"
    whole, links = hook.as_on_an_index(readme, home), re.compile(r"(!?)\[[^\]]*\]\(([^)]+)\)")
    before, after = links.findall(readme), links.findall(whole)
    assert [picture for picture, _ in before] == [picture for picture, _ in after]
    for (picture, old), (_, new) in zip(before, after, strict=True):
        if not old.startswith("https:"):
            assert (ROOT / old.partition("#")[0]).is_file()
            assert new == f"{home}/{'raw' if picture else 'blob'}/HEAD/{old}"
    assert doctest.testmod(hook) == (0, 2)
    alone = hook.as_on_an_index(readme, None)
    assert "Perplexity map of Gemma" in whole
    assert "Perplexity map of Gemma" not in alone
    assert "The output of `make demo MODEL=gemma3-270m`" not in alone, "a caption without its picture"
    assert [target for _, target in links.findall(alone)] == [old for _, old in before if old.startswith("https:")]
    assert "covers vLLM on a CPU" in alone

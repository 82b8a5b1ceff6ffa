"""The examples in docstrings run, in a folder with a tiny model, a corpus and questions beside them."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import language_neurons_alignment as lna

from .tiny_models import save_tiny_model
from .workspace import small_records, write_corpus

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def modules() -> Iterator[ModuleType]:
    """Every module of the package that can be imported without vLLM's workers."""
    yield lna
    for found in pkgutil.walk_packages(lna.__path__, f"{lna.__name__}."):
        if ".engines.vllm" not in found.name and not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def examples() -> list[doctest.DocTest]:
    """The docstrings with examples, each where it is defined."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for module in modules() for test in finder.find(module, module.__name__, module=module)]
    return [test for test in found if test.examples]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples name: `model`, `corpus.json`, `questions.json`."""
    folder = tmp_path_factory.mktemp("toy")
    save_tiny_model("llama", folder / "model")
    records = small_records(("en", "es", "fr"))
    write_corpus(folder / "corpus.json", records)
    questions = [
        {"lang": one["lang"], "instruction": one["instruction"], "answers": [], "target": "4"} for one in records
    ]
    write_corpus(folder / "questions.json", questions)
    return folder


@pytest.mark.parametrize("example", examples(), ids=lambda one: one.name.removeprefix("language_neurons_alignment."))
def test_the_example_runs_and_prints_what_it_says(
    example: doctest.DocTest, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in toy.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    report: list[str] = []
    runner.run(example, out=report.append, clear_globs=False)
    assert not runner.failures, "".join(report)


PUBLIC = [name for name in lna.__all__ if callable(getattr(lna, name))]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example(name: str) -> None:
    found = getattr(lna, name)
    texts = [inspect.getdoc(found) or ""]
    if inspect.isclass(found):
        texts += [inspect.getdoc(member) or "" for _, member in inspect.getmembers(found, callable)]
    assert any(">>>" in text for text in texts) or (issubclass(type(found), type) and issubclass(found, Exception))

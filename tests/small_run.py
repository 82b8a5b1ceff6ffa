"""A tiny Llama on disk, a small corpus, and what comes of them: made once, copied for each test."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from language_neurons_alignment._session import Session, open_session
from language_neurons_alignment.config import PipelineSettings, Selection, SweepRange
from language_neurons_alignment.pipeline import PipelineResult, run_pipeline
from language_neurons_alignment.store.layout import Layout, with_ending
from tests.tiny_models import save_tiny_model
from tests.workspace import ForbiddenSource, small_records, write_corpus

LANGUAGES = ("en", "es", "sw")
SETTINGS = PipelineSettings(selection=Selection(0.1, bar=0.8, search=SweepRange(0.0, 2.0)))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a corpus, and the results of the whole pipeline."""
    folder = tmp_path_factory.mktemp("made")
    save_tiny_model("llama", folder / "tiny-llama")
    write_corpus(folder / "corpus.json", small_records(LANGUAGES))
    with open_session(str(folder / "tiny-llama"), folder / "corpus.json", "small", root=folder / "out") as session:
        run_pipeline(session, LANGUAGES, SETTINGS)
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return Path(shutil.copytree(made, tmp_path / "work"))


@pytest.fixture
def fresh(work: Path) -> Path:
    """A model and a corpus, and no results yet."""
    shutil.rmtree(work / "out")
    return work


@pytest.fixture
def lam(work: Path) -> float:
    """λ of the one mask that is there."""
    (folder,) = (work / "out" / "activation_masks" / "small").iterdir()
    return float(folder.name.split("-", 1)[1])


def opened(folder: Path, **choices: object) -> Session:
    """The session of such a folder."""
    return open_session(
        str(folder / "tiny-llama"),
        folder / "corpus.json",
        "small",
        **{"root": folder / "out", "device": "cpu", **choices},  # type: ignore[arg-type]
    )


def run(folder: Path, settings: PipelineSettings = SETTINGS, **choices: object) -> PipelineResult:
    """The whole pipeline on it."""
    with opened(folder, **choices) as session:
        return run_pipeline(session, LANGUAGES, settings)


def idle(session: Session) -> Session:
    """The same session with a model that must not be loaded."""
    return replace(session, source=ForbiddenSource())


def layout_of(folder: Path) -> Layout:
    return Layout(folder / "out", "small", "Llama-tiny-llama")


def map_file(folder: Path, lam: float, ending: str) -> Path:
    return with_ending(layout_of(folder).perplexity(0.1, lam), ending)


def change_weights(folder: Path) -> None:
    path = folder / "tiny-llama" / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1.5
    save_file(weights, path, metadata={"format": "pt"})


def change_corpus(folder: Path) -> None:
    write_corpus(folder / "corpus.json", small_records(LANGUAGES, questions=4))

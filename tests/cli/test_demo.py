"""`lna demo`: which model, which questions, which precision, and what it says about its choices."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from language_neurons_alignment import _demo, _session
from language_neurons_alignment.cli import run
from language_neurons_alignment.engines import EngineSettings, EngineSource
from language_neurons_alignment.errors import SettingsError
from tests.cli.conftest import Lna


@pytest.mark.parametrize("name", _demo.MODELS)
def test_the_demo_names_the_licence_before_it_asks_for_the_model(
    lna: Lna, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(_demo, "find_spec", lambda _name: None)
    monkeypatch.setenv("LNA_CACHE", str(tmp_path))
    call, model = lna("demo", "--model", name), _demo.MODELS[name]
    assert call.code == 1
    assert call.err.startswith(f"licence {model.folder}: {model.licence}\n")
    assert f"run `{model.command}`" in call.err


def test_the_demo_s_default_is_one_of_its_models() -> None:
    assert run._MODEL in _demo.MODELS


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the demo opens, which stops there."""
    asked: dict[str, Any] = {}

    def open_session(model: str, corpus: Any, dataset: str, **choices: Any) -> None:
        asked.update(choices, model=model, questions=len(corpus.records), dataset=dataset)
        raise SettingsError("far enough")

    monkeypatch.setattr(_session, "open_session", open_session)
    monkeypatch.setattr(_demo, "demo_model_path", lambda name: Path("made") / name)
    return asked


@pytest.mark.parametrize(
    ("flags", "dataset", "questions"),
    [((), "demo-half", 100), (("--full",), "demo", 200), (("--fast",), "demo-fast", 16)],
)
def test_each_size_of_the_demo_has_results_of_its_own(
    lna: Lna, opened: dict[str, Any], flags: tuple[str, ...], dataset: str, questions: int
) -> None:
    assert "far enough" in lna("demo", *flags).err
    assert (opened["dataset"], opened["questions"]) == (dataset, questions)


def test_both_sizes_at_once_are_refused(lna: Lna, opened: dict[str, Any]) -> None:
    call = lna("demo", "--fast", "--full")
    assert (call.code, opened) == (2, {})
    assert "give one of the two" in call.err


@pytest.mark.parametrize(("here", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_the_precision_is_what_the_cpu_is_fast_in_and_is_said(
    lna: Lna, opened: dict[str, Any], monkeypatch: pytest.MonkeyPatch, here: bool, dtype: str
) -> None:
    monkeypatch.setattr(_demo, "has_bfloat16_instructions", lambda: here)
    call = lna("demo", "--device", "cpu")
    assert opened["dtype"] == dtype
    assert f"\ndtype   {dtype} (this CPU has {'instructions' if here else 'no instructions'} for" in call.err


def test_a_precision_that_was_asked_for_and_another_model_s_own_are_left_alone(
    lna: Lna, opened: dict[str, Any]
) -> None:
    assert "\ndtype" not in lna("demo", "--dtype", "float16").err
    assert opened["dtype"] == "float16"
    assert "\ndtype" not in lna("demo", "--model", "my-model").err
    assert (opened["model"], opened["dtype"]) == ("my-model", "auto")


@pytest.mark.parametrize(
    ("wall", "processor", "threads", "said"),
    [
        (100.0, 190.0, 2, ""),
        (100.0, 66.0, 2, "the 2 threads had a processor for 33 % of the time"),
        (100.0, 33.0, 1, "the thread had a processor for 33 % of the time"),
        (5.0, 1.0, 2, ""),  # too short to tell
        (100.0, 3.0, 0, ""),  # a GPU computes
    ],
)
def test_threads_without_processors_are_noted(wall: float, processor: float, threads: int, said: str) -> None:
    sentences = run.starved(wall, processor, threads=threads)
    assert [one.startswith(said) for one in sentences] == ([True] if said else [])
    assert ("OMP_NUM_THREADS=1" in "".join(sentences)) == (bool(said) and threads > 1)


@pytest.mark.parametrize(
    ("provenance", "here"),
    [
        ({"engine": "transformers", "device": "cpu (x86_64)"}, True),
        ({"engine": "transformers", "device": "NVIDIA H100 80GB HBM3"}, False),
        ({"engine": "vllm", "device": "cpu"}, False),  # its workers are other processes
        (None, False),
    ],
)
def test_only_this_process_s_threads_on_a_cpu_are_held_to_account(
    monkeypatch: pytest.MonkeyPatch, provenance: dict[str, str] | None, here: bool
) -> None:
    source = EngineSource(EngineSettings("model"))
    monkeypatch.setattr(source, "_engine", provenance and SimpleNamespace(provenance=provenance))
    assert source.threads == (torch.get_num_threads() if here else 0)

"""The engine contract on the transformers engine, and on the oracle that it is held against."""

from __future__ import annotations

from pathlib import Path

from language_neurons_alignment.engines.transformers import TransformersEngine
from tests.engines.contract import EngineContract
from tests.engines.oracle import NaiveEngine


def load_transformers(folder: Path, *, batch_tokens: int | None = None) -> TransformersEngine:
    return TransformersEngine.load(folder, device="cpu", dtype="float32", batch_tokens=batch_tokens)


def load_oracle(folder: Path, *, batch_tokens: int | None = None) -> NaiveEngine:
    return NaiveEngine(folder)


class TestTransformers(EngineContract):
    load = staticmethod(load_transformers)


class TestOracle(EngineContract):
    load = staticmethod(load_oracle)

    test_an_intervention_for_another_model_is_refused = None  # it checks no shapes
    test_progress_adds_up_to_the_full_sequences = None  # it reports what it feeds, full and prefix

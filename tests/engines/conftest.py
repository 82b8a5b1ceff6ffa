"""Models that many engine tests share, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.oracle import NaiveEngine
from tests.planted import PlantedModel
from tests.tiny_models import save_tiny_model


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("llama", tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_llama_oracle(tiny_llama: Path) -> NaiveEngine:
    return NaiveEngine(tiny_llama)


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedModel:
    return PlantedModel.save(tmp_path_factory.mktemp("models") / "planted")

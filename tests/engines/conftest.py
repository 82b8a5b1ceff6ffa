"""Models that many engine tests share, made once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engines.oracle import NaiveEngine
from tests.planted import PlantedModel
from tests.tiny_models import save_tiny_model

MISLEADING = {
    "do_sample": True,
    "temperature": 0.2,
    "top_k": 2,
    "top_p": 0.5,
    "repetition_penalty": 1.9,
    "no_repeat_ngram_size": 2,
    "max_new_tokens": 3,
    "suppress_tokens": [165, 289],
    "eos_token_id": [2, 45],
}


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose generation config would change every answer, if an engine used more of it than the end tokens."""
    folder = save_tiny_model("llama", tmp_path_factory.mktemp("models") / "tiny-llama")
    (folder / "generation_config.json").write_text(json.dumps(MISLEADING), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_llama_oracle(tiny_llama: Path) -> NaiveEngine:
    return NaiveEngine(tiny_llama)


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedModel:
    return PlantedModel.save(tmp_path_factory.mktemp("models") / "planted")

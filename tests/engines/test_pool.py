"""The engine contract on a pool of two replicas, on a Ray cluster of two nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from language_neurons_alignment.engines import Engine, EngineSettings, load_engine
from tests.engines.generation_contract import GenerationContract
from tests.engines.intervention_contract import InterventionContract
from tests.engines.ray_cluster import needs_ray, ray_cluster

pytestmark = [needs_ray]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Any]:
    with ray_cluster() as cluster:
        yield cluster


def load_pool(folder: Path, *, batch_tokens: int | None = None) -> Engine:
    """Two replicas; one where batches are small, which gives the same: each takes seconds to import its libraries."""
    options = {"device": "cpu", "replicas": 2}
    if batch_tokens is not None:
        options |= {"batch_tokens": batch_tokens, "replicas": 1}
    return load_engine(EngineSettings(str(folder), "transformers", "float32", options))


class TestPool(InterventionContract, GenerationContract):
    load = staticmethod(load_pool)

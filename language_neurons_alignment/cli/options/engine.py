"""Which engine runs the model, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from ...errors import SettingsError


@dataclass(frozen=True)
class Engine:
    """Which engine runs the model, and how; what is not given is left to the engine."""

    engine: Annotated[str, typer.Option("--engine", help="transformers, vllm, or auto.", rich_help_panel="Engine")] = (
        "auto"
    )
    dtype: Annotated[
        str,
        typer.Option("--dtype", help="auto (the model's own), float32, bfloat16, float16.", rich_help_panel="Engine"),
    ] = "auto"
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            help="transformers: cpu, cuda, cuda:1, mps.",
            show_default="the best there is",
            rich_help_panel="Engine",
        ),
    ] = None
    batch_tokens: Annotated[
        int | None,
        typer.Option("--batch-tokens", help="Tokens per batch.", show_default="by device", rich_help_panel="Engine"),
    ] = None
    tensor_parallel_size: Annotated[
        int | None,
        typer.Option("--tensor-parallel-size", help="vllm: ranks that share each layer.", rich_help_panel="Engine"),
    ] = None
    pipeline_parallel_size: Annotated[
        int | None,
        typer.Option("--pipeline-parallel-size", help="vllm: ranks that share the layers.", rich_help_panel="Engine"),
    ] = None
    distributed_executor_backend: Annotated[
        str | None,
        typer.Option("--distributed-executor-backend", help="vllm: mp or ray.", rich_help_panel="Engine"),
    ] = None
    engine_arg: Annotated[
        list[str] | None,
        typer.Option("--engine-arg", metavar="K=V", help="vllm: any other of its options.", rich_help_panel="Engine"),
    ] = None

    def choices(self) -> dict[str, Any]:
        """What `open_session` takes: engine, precision, and the options that were given."""
        options = {
            "device": self.device,
            "batch_tokens": self.batch_tokens,
            "tensor_parallel_size": self.tensor_parallel_size,
            "pipeline_parallel_size": self.pipeline_parallel_size,
            "distributed_executor_backend": self.distributed_executor_backend,
            "engine_args": dict(_key_value(one) for one in self.engine_arg or []) or None,
        }
        given = {name: value for name, value in options.items() if value is not None}
        return {"engine": self.engine, "dtype": self.dtype, **given}


def _key_value(text: str) -> tuple[str, str]:
    """The key and the value of K=V; what a value means is the engine's to say."""
    key, equals, value = text.partition("=")
    if not (equals and key.strip()):
        raise SettingsError(
            f"--engine-arg must be K=V, got {text!r}: for example --engine-arg gpu_memory_utilization=0.8"
        )
    return key.strip().replace("-", "_"), value

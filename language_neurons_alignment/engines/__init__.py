"""Engines: the libraries that run a model. An engine's module is imported when a model is loaded in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .._gguf import is_gguf
from .._importing import importing
from ..errors import LNAError, SettingsError
from .base import Engine, each

__all__ = ["ENGINES", "Engine", "EngineSettings", "EngineSource", "each", "load_engine"]


@dataclass(frozen=True)
class EngineSpec:
    """An engine's class in the module of its name, and the options of its `load` besides model path and precision."""

    name: str
    options: tuple[str, ...]


ENGINES = {
    "transformers": EngineSpec("TransformersEngine", (
        "device", "batch_tokens", "batch_invariant", "adapter", "adapter_live", "quantization", "compiled",
    )),
    "vllm": EngineSpec("VLLMEngine", (
        "batch_tokens", "batch_invariant", "tensor_parallel_size", "pipeline_parallel_size",
        "distributed_executor_backend", "engine_args", "adapter", "adapter_live",
    )),
}  # fmt: skip

POOL = ("replicas", "ray")
"""Options of a pool of engines, whichever these are: how many, and on which Ray."""


@dataclass(frozen=True)
class EngineSettings:
    """Which model to load, and in which engine.

    Attributes:
        model_path: folder, GGUF file or hub id.
        engine: "transformers", "vllm" or "auto" (vLLM where it is installed and there is a GPU).
        dtype: precision, or "auto" for the model's own.
        options: more, some of which only one engine has (adapter, device, …), passed to its `load`; `replicas` and
            `ray` make the engine a pool (`engines.pool`).
    """

    model_path: str
    engine: str = "auto"
    dtype: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)


class EngineSource:
    """A model that is loaded once, at the first call, and closed at the end.

    Use it as a context manager. A step whose results are already there never calls it, so it never loads the model.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self._engine: Engine | None = None

    @property
    def explicit(self) -> dict[str, str | bool]:
        """The engine and the precision that the caller asked for, …; stored results without must not be reused."""
        asked: dict[str, Any] = {"engine": self.settings.engine, "dtype": self.settings.dtype}
        named = {key: value for key, value in asked.items() if value != "auto"}
        options = self.settings.options
        if options.get("batch_invariant"):
            named["batch_invariant"] = True
        if options.get("adapter") is not None:
            named["adapter_mode"] = "live" if options.get("adapter_live") else "merged"
        return named

    @property
    def threads(self) -> int:
        """Threads of this process that compute; 0 where a GPU or other processes do, or before the model is loaded."""
        made_by = {} if self._engine is None else self._engine.provenance
        if set(POOL) & set(self.settings.options):
            return 0
        if made_by.get("engine") != "transformers" or not str(made_by["device"]).startswith("cpu"):
            return 0
        import torch

        return torch.get_num_threads()

    def __call__(self) -> Engine:
        """The loaded engine."""
        if self._engine is None:
            self._engine = load_engine(self.settings)
        return self._engine

    def on_transformers(self, refusal: LNAError) -> Engine:
        """The loaded engine, for a step that vLLM cannot do: "auto" means transformers; raises `refusal` for vLLM."""
        if self.settings.engine == "vllm":
            raise refusal
        if self._engine is None:
            self._engine = load_engine(replace(self.settings, engine="transformers"))
        if self._engine.provenance.get("engine") != "transformers":  # it was loaded before
            raise refusal
        return self._engine

    def __enter__(self) -> EngineSource:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None


def load_engine(settings: EngineSettings) -> Engine:
    """Load a model in the engine that `settings` names; with the option `replicas`, in a pool of such engines.

    >>> engine = load_engine(EngineSettings("model", "transformers", "float32", {"device": "cpu"}))
    >>> engine.model.architecture
    'LlamaForCausalLM'

    Raises:
        SettingsError: no such engine, or an option that the engine does not have.
        EngineError: the model cannot be loaded; `errors` has the kinds.
    """
    if set(POOL) & set(settings.options):
        return _pool(settings)
    name = _automatic(settings) if settings.engine == "auto" else settings.engine
    spec = _spec(name, settings.options)
    with importing():
        engine = getattr(import_module(f".{name}", __name__), spec.name)
    return engine.load(settings.model_path, dtype=settings.dtype, **settings.options)


def _spec(name: str, options: Mapping[str, Any]) -> EngineSpec:
    """The engine of a name, which has these options."""
    if name not in ENGINES:
        raise SettingsError(f"unknown engine {name!r}: choose from {', '.join(ENGINES)}, auto")
    spec = ENGINES[name]
    foreign = sorted(set(options) - set(spec.options))
    if foreign:
        raise SettingsError(
            f"the {name} engine has no option {', '.join(foreign)}: it has {', '.join(spec.options)}; "
            "choose another --engine, or leave the option out"
        )
    return spec


def _pool(settings: EngineSettings) -> Engine:
    """Load a model in several engines that work as one."""
    options = dict(settings.options)
    replicas, ray = options.pop("replicas", None), options.pop("ray", None)
    if replicas is None:
        raise SettingsError(f"--ray {ray} does nothing without --replicas: say how many replicas of the model to run")
    if settings.engine != "auto":  # what is known to fail takes no time to fail
        _spec(settings.engine, options)
    from .pool import EnginePool

    return EnginePool.load(replace(settings, options=options), replicas=int(replicas), ray=ray)


def _automatic(settings: EngineSettings) -> str:
    """The engine whose own options are given; else vLLM if it is installed and there is a GPU; else transformers.

    vLLM is never chosen for a GGUF file, which it does not count in.
    """
    options = settings.options
    for name, other in (("vllm", "transformers"), ("transformers", "vllm")):
        if set(options) & (set(ENGINES[name].options) - set(ENGINES[other].options)):
            return name
    if find_spec("vllm") is None or is_gguf(settings.model_path):
        return "transformers"
    import torch

    return "vllm" if torch.cuda.is_available() else "transformers"

"""One rank of a vLLM model: its neuron sites, the intervention on them, and the hooks that are on while needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...core.interventions import LayerIntervention
from .firing import change_
from .messages import Message, unpack_intervention
from .sites import RankSite, Trace


class RankObserver(Protocol):
    """Callbacks around a rank's forward passes."""

    def step(self, scheduled: Any) -> None:
        """A scheduler step begins; None when it is over."""

    def before(self, inputs: Mapping[str, Any]) -> None:
        """The model is about to run on these inputs."""

    def layer(self, site: RankSite, inputs: Tensor, changed: tuple[Tensor, Tensor] | None) -> None:
        """A layer's activation module ran.

        `inputs`, [row, …], are the module's input where it is merged, else its output; `changed` has the neurons that
        the intervention changed, and their activations now.
        """

    def after(self, output: object) -> None:
        """The model ran."""

    def report(self) -> Message:
        """What the driver is told at the end."""
        ...


@dataclass
class Rank:
    """The part of a model that lives in one worker."""

    runner: Any  # vLLM's model runner
    sites: tuple[RankSite, ...]  # of this rank's layers
    tensor_rank: int  # which share of each layer's neurons is here
    pipeline_rank: int  # which share of the layers is here
    last: bool  # whether the final hidden states come out here
    d_mlp: int  # neurons per layer on this rank
    tensor_size: int = 1  # how many ranks share each layer
    changes: dict[int, LayerIntervention] = field(default_factory=dict)  # in force, by layer; neurons as numbered here
    acted: dict[int, int] = field(default_factory=dict)  # how often it acted, by layer
    forwards: int = 0  # how often the model ran since the intervention changed
    observer: RankObserver | None = None
    _handles: list[Any] = field(default_factory=list)
    _here: RankSite | None = None

    @classmethod
    def of(cls, runner: Any, *, d_mlp: int) -> Rank:
        """The rank in this worker, of a model with `d_mlp` neurons per layer; `find` finds where they are."""
        from vllm.distributed import get_pp_group, get_tp_group

        tensor, pipeline = get_tp_group(), get_pp_group()
        if not pipeline.is_first_rank and runner.intermediate_tensors is None:
            # The buffer in which a later pipeline stage receives its input; vLLM 0.32 makes it while it profiles the
            # model, which it skips on CPUs.
            runner.intermediate_tensors = runner.get_model().make_empty_intermediate_tensors(
                batch_size=runner.max_num_tokens, dtype=runner.model_config.dtype, device=runner.device
            )
        return cls(
            runner=runner,
            sites=(),
            tensor_rank=tensor.rank_in_group,
            pipeline_rank=pipeline.rank_in_group,
            last=pipeline.is_last_rank,
            d_mlp=d_mlp // tensor.world_size,
            tensor_size=tensor.world_size,
        )

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.runner.device

    def describe(self) -> Message:
        """What the driver must know of this rank, as plain values."""
        bases = [f"{base.__module__}.{base.__qualname__}" for base in type(self.runner).__mro__]
        compilation = self.runner.vllm_config.compilation_config
        return {
            "runner": bases[0],
            "v1_runner": "vllm.v1.worker.gpu_model_runner.GPUModelRunner" in bases
            and hasattr(self.runner, "_model_forward"),
            "eager": bool(self.runner.model_config.enforce_eager) and int(compilation.mode) == 0,
            "device": str(self.device),
            "tensor_rank": self.tensor_rank,
            "pipeline_rank": self.pipeline_rank,
            "layers": [site.layer for site in self.sites],
            "neurons": self.d_mlp,
        }

    def change(self, message: Mapping[str, Any] | None) -> Message:
        """Replace the intervention (None: none), and report how often the last one acted and the model ran."""
        report = {"forwards": self.forwards, "acted": [[layer, self.acted[layer]] for layer in self.changes]}
        offset = self.tensor_rank * self.d_mlp
        parts = {} if message is None else unpack_intervention(message, offset=offset, width=self.d_mlp)
        mine = {site.layer for site in self.sites}
        self.changes = {layer: part.to(self.device) for layer, part in parts.items() if layer in mine}
        self.acted = dict.fromkeys(self.changes, 0)
        self.forwards = 0
        self._wire()
        return report

    def trace(self) -> None:
        """Follow the next forward pass through every module of the layers."""
        self.observe(Trace(self.runner.get_model(), self.sites))

    def find(self) -> None:
        """Find and prove this rank's neurons in what was followed."""
        trace = self.observer
        if not isinstance(trace, Trace):
            raise RuntimeError("there is no trace to find neurons in")
        self.observe(None)
        self.sites = trace.found(width=self.d_mlp, tensor=self.tensor_size)

    def observe(self, observer: RankObserver | None) -> None:
        """Call this observer from now on, in place of the one before; None: no observer."""
        self.observer = observer
        self._wire()

    def _wire(self) -> None:
        """Install exactly the hooks and wrappers that are needed now."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for name in ("execute_model", "_model_forward"):
            self.runner.__dict__.pop(name, None)
        if self.observer is None and not self.changes:
            return
        self.runner._model_forward = self._forward(self.runner._model_forward)
        if self.observer is not None:
            self.runner.execute_model = self._execute(self.runner.execute_model, self.observer)
        self._handles += [site.block.register_forward_pre_hook(partial(self._enter, site)) for site in self.sites]
        modules = {id(site.module): site.module for site in self.sites}
        self._handles += [module.register_forward_hook(self._hook) for module in modules.values()]

    def _execute(self, original: Callable[..., Any], observer: RankObserver) -> Callable[..., Any]:
        def execute_model(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            observer.step(scheduler_output)
            try:
                return original(scheduler_output, *args, **kwargs)
            finally:
                observer.step(None)

        return execute_model

    def _forward(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def _model_forward(*args: Any, **kwargs: Any) -> Any:
            named = {**dict(zip(("input_ids", "positions"), args, strict=False)), **kwargs}
            self.forwards += 1
            if self.observer is not None:
                self.observer.before(named)
            output = original(*args, **kwargs)
            if self.observer is not None:
                self.observer.after(output)
            return output

        return _model_forward

    def _enter(self, site: RankSite, _block: nn.Module, _args: tuple[object, ...]) -> None:
        """Note which layer runs, because layers may share one activation module."""
        self._here = site

    def _hook(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        site = self._here
        if site is None or site.module is not module:
            raise RuntimeError(f"{type(module).__name__} ran outside of the layer that it belongs to")
        inputs, change, changed = _rows(args[0]), self.changes.get(site.layer), None
        if change is not None:
            changed = (change.neurons, change_(site, inputs, _rows(output), change))
            self.acted[site.layer] += 1
        if self.observer is not None:
            self.observer.layer(site, inputs if site.merged else _rows(output), changed)
        return output


def _rows(tensor: Tensor) -> Tensor:
    """[…, neuron] as [row, neuron], because vLLM's transformers backend keeps a batch axis."""
    return tensor.view(-1, tensor.shape[-1])

"""One rank of a vLLM model: its neuron sites, the intervention on them, and the hooks that are on while needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...core.interventions import LayerIntervention
from .experts import RoutedCall, correct_routers
from .firing import change_
from .messages import Message, unpack_intervention
from .runner import Runner
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

    def routed(self, site: RankSite, call: RoutedCall, change: LayerIntervention | None) -> None:
        """A layer's routed experts ran, under this change of their neurons."""

    def after(self, output: object) -> None:
        """The model ran."""

    def report(self) -> Message:
        """What the driver is told at the end."""
        ...


Place = tuple[int, int]
"""A site: its layer, and where in the layer its neurons begin."""


@dataclass
class Rank:
    """The part of a model that lives in one worker."""

    runner: Runner
    sites: tuple[RankSite, ...]  # of this rank's layers, in their order; a layer of experts may have two
    tensor_rank: int  # which share of each layer's neurons is here
    pipeline_rank: int  # which share of the layers is here
    last: bool  # whether the final hidden states come out here
    d_mlp: int  # neurons per layer on this rank
    tensor_size: int = 1  # how many ranks share each layer
    corrected: list[str] = field(default_factory=list)  # what computes its equation now, and did not before
    changes: dict[Place, LayerIntervention] = field(default_factory=dict)  # in force, neurons as numbered in the site
    acted: dict[Place, int] = field(default_factory=dict)  # how often each acted
    forwards: int = 0  # how often the model ran since the intervention changed
    observer: RankObserver | None = None
    _handles: list[Any] = field(default_factory=list)
    _here: int | None = None  # the layer that runs

    @classmethod
    def of(cls, own: Any, *, d_mlp: int) -> Rank:
        """The rank of a worker with this model runner and `d_mlp` neurons per layer; `find` finds where they are."""
        from vllm.distributed import get_pp_group, get_tp_group

        tensor, pipeline = get_tp_group(), get_pp_group()
        if not pipeline.is_first_rank and own.intermediate_tensors is None:
            # The buffer in which a later pipeline stage receives its input; the V1 runner makes it while it profiles
            # the model, which it skips on CPUs.
            own.intermediate_tensors = own.get_model().make_empty_intermediate_tensors(
                batch_size=own.max_num_tokens, dtype=own.model_config.dtype, device=own.device
            )
        runner = Runner(own)
        return cls(
            runner=runner,
            sites=(),
            tensor_rank=tensor.rank_in_group,
            pipeline_rank=pipeline.rank_in_group,
            last=pipeline.is_last_rank,
            d_mlp=d_mlp // tensor.world_size,
            tensor_size=tensor.world_size,
            corrected=["router"] if correct_routers(runner.model) else [],
        )

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.runner.device

    def describe(self) -> Message:
        """What the driver must know of this rank, as plain values."""
        return {
            "runner": self.runner.name,
            "runner_version": self.runner.version,
            "eager": self.runner.is_eager,
            "device": str(self.device),
            "tensor_rank": self.tensor_rank,
            "pipeline_rank": self.pipeline_rank,
            "layers": self.layers,
            "neurons": self.d_mlp,
            "corrected": self.corrected,
            "experts": [
                [site.layer, site.experts.number, site.experts.width, site.experts.top_k]
                for site in self.sites
                if site.experts is not None
            ],
        }

    @property
    def layers(self) -> list[int]:
        """The numbers of this rank's layers."""
        return sorted({site.layer for site in self.sites})

    def change(self, message: Mapping[str, Any] | None) -> Message:
        """Replace the intervention (None: none), and report how often the last one acted and the model ran."""
        report = {"forwards": self.forwards, "acted": [[layer, self.acted[layer, at]] for layer, at in self.changes]}
        offset = self.tensor_rank * self.d_mlp
        parts = {} if message is None else unpack_intervention(message, offset=offset, width=self.d_mlp)
        self.changes = {}
        for site in self.sites:
            part = parts[site.layer].within(site.start, site.start + site.width) if site.layer in parts else None
            if part is not None and len(part.neurons):
                self.changes[site.layer, site.start] = part.to(self.device)
        self.acted = dict.fromkeys(self.changes, 0)
        self.forwards = 0
        self._wire()
        return report

    def trace(self) -> None:
        """Follow the next forward pass through every module of the layers."""
        self.observe(Trace(self.runner.model, self.sites, twice=not self.changes))

    def find(self) -> bool:
        """Find and prove this rank's neurons in what was followed; False: follow again, because it was corrected."""
        trace = self.observer
        if not isinstance(trace, Trace):
            raise RuntimeError("there is no trace to find neurons in")
        self.observe(None)
        if trace.correct():
            trace.close()
            self.corrected.append("rotary embedding")
            return False
        self.sites = trace.found(width=self.d_mlp, tensor=self.tensor_size)
        self.d_mlp = max((site.start + site.width for site in self.sites), default=0)
        return True

    def observe(self, observer: RankObserver | None) -> None:
        """Call this observer from now on, in place of the one before; None: no observer."""
        self.observer = observer
        self._wire()

    def _wire(self) -> None:
        """Install exactly the hooks and wrappers that are needed now."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.runner.leave()
        for site in self.sites:
            if site.experts is not None:
                site.module.__dict__.pop("forward_modular", None)
        if self.observer is None and not self.changes:
            return
        step = None if self.observer is None else self.observer.step
        self.runner.follow(step=step, before=self._before, after=self._after)
        blocks = {site.layer: site.block for site in self.sites}
        self._handles += [one.register_forward_pre_hook(partial(self._enter, layer)) for layer, one in blocks.items()]
        modules = {id(site.module): site.module for site in self.sites if site.experts is None}
        self._handles += [module.register_forward_hook(self._hook) for module in modules.values()]
        for site in self.sites:
            if site.experts is not None:
                original = site.experts.module.forward_modular
                site.module.__dict__["forward_modular"] = partial(self._route, site, original)

    def _before(self, inputs: Mapping[str, Any]) -> None:
        self.forwards += 1
        if self.observer is not None:
            self.observer.before(inputs)

    def _after(self, output: object) -> None:
        if self.observer is not None:
            self.observer.after(output)

    def _enter(self, layer: int, _block: nn.Module, _args: tuple[object, ...]) -> None:
        """Note which layer runs, because layers may share one activation module."""
        self._here = layer

    def _hook(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        site = next((one for one in self.sites if one.layer == self._here and one.module is module), None)
        if site is None:
            raise RuntimeError(f"{type(module).__name__} ran outside of the layer that it belongs to")
        inputs, change, changed = _rows(args[0]), self.changes.get((site.layer, site.start)), None
        if change is not None:
            changed = (change.neurons, change_(site, inputs, _rows(output), change))
            self.acted[site.layer, site.start] += 1
        if self.observer is not None:
            self.observer.layer(site, inputs if site.merged else _rows(output), changed)
        return output

    def _route(
        self, site: RankSite, original: Any, x: Tensor, topk_weights: Tensor, topk_ids: Tensor, *args: Any, **more: Any
    ) -> Any:
        """Compute a layer's routed experts: by vLLM's kernel, or here under an intervention."""
        change = self.changes.get((site.layer, site.start))
        weighted = site.experts is not None and site.experts.weighted
        # vLLM's kernel for CPUs sets the weights to 1 once it has multiplied the inputs by them
        call = RoutedCall(x, topk_weights.clone() if weighted else topk_weights, topk_ids)
        if site.experts is None or change is None:
            output = original(x, topk_weights, topk_ids, *args, **more)
        else:
            output = site.experts.output(call, change)
            self.acted[site.layer, site.start] += 1
        if self.observer is not None:
            self.observer.routed(site, call, change)
        return output


def _rows(tensor: Tensor) -> Tensor:
    """[…, neuron] as [row, neuron], because vLLM's transformers backend keeps a batch axis."""
    return tensor.view(-1, tensor.shape[-1])

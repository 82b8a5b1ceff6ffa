"""Interventions on a loaded model: on its neurons by hooks, and on the routers of its experts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ...core.interventions import Intervention, LayerIntervention
from ...errors import SilentHookError, UnknownArchitectureError
from ..base import check_shape
from .experts import OpenExperts, experts_of
from .sites import NeuronSite, layer_widths

ForwardHook = Callable[[nn.Module, tuple[Any, ...], Any], Any]


@contextmanager
def hooked(hooks: Sequence[tuple[nn.Module, ForwardHook]]) -> Iterator[None]:
    """These modules have these forward hooks, in this order, while the context is open and never after it."""
    with ExitStack() as stack:
        for module, hook in hooks:
            stack.callback(module.register_forward_hook(hook).remove)
        yield


@contextmanager
def forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """This module runs `forward` while the context is open, and after it what it ran before: its class's or its own."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


class Interventions:
    """The intervention in force on a model: nested contexts compose into one affine map and one bias of the routers."""

    def __init__(self, decoder: nn.Module, sites: Sequence[NeuronSite]) -> None:
        self._widths = layer_widths(sites)
        self._decoder = decoder
        self._sites = sites
        self._opened = {site.layer: site.experts for site in sites if site.experts is not None}
        self.current = Intervention.identity(len(self._widths), max(self._widths))
        self._changes: list[_Change] = []
        self._forwards = 0
        self._hooks = ExitStack()

    @contextmanager
    def on_top(self, intervention: Intervention) -> Iterator[None]:
        """While the context is open, the model runs under `intervention`, on top of what is in force already."""
        check_shape(intervention, self._widths, experts=experts_of(self._opened))
        before = self.current
        try:
            self._switch(before.then(intervention))
            yield
        except BaseException:
            self._switch(before, check=False)  # the first error matters more
            raise
        self._switch(before)

    def skip(self, layers: int) -> None:
        """The first layers do not run in the next forward, so that no change is due in them (`reuse`)."""
        for one in self._changes:
            one.skipped += one.layer < layers

    def _switch(self, intervention: Intervention, *, check: bool = True) -> None:
        """Put an intervention in force, and check that the one before it acted."""
        self._hooks.close()
        changes, forwards = self._changes, self._forwards
        self.current, self._forwards = intervention, 0
        self._changes = self._changes_of(intervention)
        if self._changes:
            self._hooks.callback(self._decoder.register_forward_pre_hook(self._count_forward).remove)
            for one in self._changes:
                self._hooks.enter_context(one.in_force())
        if check:
            _check_acted(changes, forwards)

    def _changes_of(self, intervention: Intervention) -> list[_Change]:
        """What an intervention changes, site by site and router by router."""
        changes: list[_Change] = []
        touched = {layer: intervention.layer(layer) for layer in intervention.layers}
        for site in self._sites:
            if site.layer not in touched:
                continue
            here = touched[site.layer].within(site.start, site.stop)
            if len(here.neurons):
                changes.append(_NeuronChange(site, here) if site.experts is None else _ExpertChange(site.experts, here))
        if intervention.router is not None:
            for layer, bias in enumerate(intervention.router):
                if bias.any():
                    changes.append(_RouterChange(self._opened[layer], bias))
        return changes

    def _count_forward(self, _module: nn.Module, _inputs: tuple[object, ...]) -> None:
        self._forwards += 1


class _Change:
    """A change in one layer that counts how often it acted, and how often it should have."""

    def __init__(self, layer: int) -> None:
        self.layer = layer
        self.acted = 0
        self.skipped = 0  # forwards in which this layer did not run
        self.due: int | None = None  # None: once in each forward of the layer

    @property
    def forwards(self) -> int:
        """How many forwards it has seen: those in which it acted, or could have, and those that left its layer out."""
        return self.acted + self.skipped

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """The model is changed while the context is open."""
        raise NotImplementedError
        yield


class _NeuronChange(_Change):
    """Changes the activations of neurons that are computed for every token."""

    def __init__(self, site: NeuronSite, intervention: LayerIntervention) -> None:
        super().__init__(site.layer)
        self._module = site.module
        self._intervention = intervention

    @contextmanager
    def in_force(self) -> Iterator[None]:
        with hooked([(self._module, self._change)]):
            yield

    def _change(self, _module: nn.Module, _inputs: object, activation: Tensor) -> Tensor:
        here = self._intervention
        if here.scale.device != activation.device:  # the first time only
            here = self._intervention = here.to(activation.device)
        self.acted += 1
        return here.apply_(activation)


class _ExpertChange(_Change):
    """Changes the activations of experts' neurons, on the tokens that were sent to them."""

    def __init__(self, opened: OpenExperts, intervention: LayerIntervention) -> None:
        super().__init__(opened.layer)
        self._opened = opened
        width = opened.width
        self._of = {
            expert: intervention.within(expert * width, (expert + 1) * width)
            for expert in (intervention.neurons // width).unique().tolist()
        }
        self.due = 0
        self.routed = 0

    @property
    def forwards(self) -> int:
        return self.routed + self.skipped

    @contextmanager
    def in_force(self) -> Iterator[None]:
        with hooked([(self._opened.routing, self._routed), (self._opened.neurons, self._change)]):
            yield

    def _routed(self, _module: nn.Module, inputs: tuple[Any, ...], _output: object) -> None:
        self.routed += 1
        self.due = (self.due or 0) + sum(inputs[2][expert] > 0 for expert in self._of)

    def _change(self, _module: nn.Module, inputs: tuple[Any, ...], activation: Tensor) -> Tensor | None:
        expert = inputs[1]
        here = self._of.get(expert)
        if here is None:
            return None
        if here.scale.device != activation.device:
            here = self._of[expert] = here.to(activation.device)
        self.acted += 1
        return here.apply_(activation)


class _RouterChange(_Change):
    """Adds numbers to a router's logits before it chooses; −∞ bans an expert."""

    def __init__(self, opened: OpenExperts, bias: Float32[Tensor, " expert"]) -> None:
        super().__init__(opened.layer)
        if opened.router is None:
            raise UnknownArchitectureError(
                f"the experts of layer {opened.layer} ({opened.name}) are not chosen by a module that returns its "
                "choice, so ban and boost cannot act on it: leave them out"
            )
        self._opened = opened
        self._router = opened.router
        self._bias = bias
        self._banned = torch.isneginf(bias).nonzero().flatten().tolist()

    @contextmanager
    def in_force(self) -> Iterator[None]:
        router, forward = self._router, self._router.forward

        def steered(*args: Any, **more: Any) -> Any:
            if self._bias.device != (where := next(router.parameters()).device):
                self._bias = self._bias.to(where)
            with _Steering(self._bias) as steering:
                output = forward(*args, **more)
            self.acted += steering.acted == 1
            return output

        with forward_replaced(router, steered), hooked([(self._opened.routing, self._obeyed)]):
            yield

    def _obeyed(self, _module: nn.Module, inputs: tuple[Any, ...], _output: object) -> None:
        """A banned expert has no tokens; how many each has is on the host already."""
        sent = {expert: tokens for expert in self._banned if (tokens := inputs[2][expert])}
        if sent:
            expert, tokens = next(iter(sent.items()))
            raise SilentHookError(
                f"expert {expert} of layer {self.layer} is banned, but was sent {tokens} tokens: the router leaves no "
                "others to choose (it chooses among groups of experts, or by a table of tokens); ban fewer"
            )


class _Steering(TorchFunctionMode):
    """While a router runs, adds to its logits, and keeps banned experts out of every choice among all of them.

    The logits are what its linear map gives for all experts. A score that is added to them afterwards, or made of them
    by a sigmoid, may not keep −∞, so that banned experts are taken out of the top-k itself too.
    """

    def __init__(self, bias: Float32[Tensor, " expert"]) -> None:
        super().__init__()
        self._bias = bias
        self._banned = torch.isneginf(bias)
        self.acted = 0

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in (torch.topk, Tensor.topk) and args[0].shape[-1] == len(self._bias):
            args = (args[0].masked_fill(self._banned, -torch.inf), *args[1:])
        output = func(*args, **(kwargs or {}))
        if func is F.linear and output.shape[-1] == len(self._bias):
            self.acted += 1
            return output + self._bias.to(output.dtype)
        return output


def _check_acted(changes: Sequence[_Change], forwards: int) -> None:
    """Every change acted in each forward of its layer; those of experts, on each of them that had tokens."""
    silent = [one for one in changes if one.forwards != forwards or one.due not in (None, one.acted)]
    if silent:
        one = silent[0]
        times = one.forwards - one.skipped
        raise SilentHookError(
            f"the intervention acted {times} times in layer {one.layer} although the model ran "
            f"{forwards - one.skipped} times ({len(silent)} of {len(changes)} layers): results under it cannot be "
            "trusted; check that no fused kernel or compiled forward replaces the model's MLP"
        )

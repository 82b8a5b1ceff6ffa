"""Reading the activations of chosen neurons, forward by forward, at the places that were proved to hold them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from ...core.model import SILENT, Progress
from ...core.readings import LanguageReadings, Readings
from ...corpus.encode import PromptGroup
from ...errors import SilentHookError
from ..base import not_finite
from ..generation import batches
from .interventions import ForwardHook, hooked
from .network import Network
from .plan import padded, send
from .sites import NeuronSite


class NeuronReader:
    """Takes the activations of chosen neurons out of each forward, and what reaches the down projection beside them."""

    def __init__(self, network: Network, neurons: Int64[Tensor, "neuron 2"]) -> None:
        """Find the places of `neurons`, which are (layer, flat index) in ascending order."""
        self._sites: list[tuple[NeuronSite, slice, Tensor, nn.Module]] = []
        self.factors = True  # whether the factor beside every activation is seen
        self._shape = (0, 0)
        for site in network.sites:
            at = site.holds(neurons).nonzero().flatten()
            if len(at):
                local = (neurons[at, 1] - site.start).to(network.device)
                down = network.layers[site.layer].get_submodule(site.down)
                self._sites.append((site, slice(int(at[0]), int(at[-1]) + 1), local, down))
                self.factors &= site.experts is None
        self._number = len(neurons)
        self._seen: list[int] = []
        self._activation = self._given = torch.empty(0)

    def hooks(self) -> list[tuple[nn.Module, ForwardHook]]:
        """The forward hooks, each with its module."""
        hooks: list[tuple[nn.Module, ForwardHook]] = []
        for number, (site, _, _, down) in enumerate(self._sites):
            if site.experts is None:
                hooks.append((site.module, partial(self._take, number)))
                if self.factors:
                    hooks.append((down, partial(self._take_given, number)))
            else:
                hooks.append((site.experts.routing, partial(self._take_routing, number)))
                hooks.append((site.module, partial(self._take_expert, number)))
        return hooks

    def begin(self, tokens: Int64[Tensor, "row position"]) -> None:
        """A batch is about to be fed."""
        self._shape = tuple(tokens.shape)  # pyright: ignore[reportAttributeAccessIssue]
        self._activation = torch.zeros(*self._shape, self._number, device=tokens.device)
        self._given = torch.zeros_like(self._activation) if self.factors else self._activation
        self._seen = [0] * len(self._sites)

    def end(self) -> tuple[Float[Tensor, "row position neuron"], Bool[Tensor, "row position neuron"] | None]:
        """The activations of the batch, 0 where the neuron's expert did not run, and whether the factor is above 0."""
        silent = [self._sites[n][0] for n, seen in enumerate(self._seen) if seen != 1]
        if silent:
            raise SilentHookError(
                f"{len(silent)} of {len(self._seen)} reading hooks did not fire exactly once in a forward (the first "
                f"in layer {silent[0].layer}): check that no fused kernel or compiled forward replaces the model's MLP"
            )
        return self._activation, self._given > 0 if self.factors else None

    def _take(self, number: int, _module: nn.Module, _inputs: object, activation: Tensor) -> None:
        _, columns, local, _ = self._sites[number]
        self._seen[number] += 1
        self._activation[..., columns] = activation.detach().reshape(*self._shape, -1)[..., local].float()

    def _take_given(self, number: int, _module: nn.Module, inputs: tuple[Any, ...], _output: object) -> None:
        _, columns, local, _ = self._sites[number]
        self._given[..., columns] = inputs[0].detach().reshape(*self._shape, -1)[..., local].float()

    def _take_routing(self, number: int, _module: nn.Module, _inputs: object, _output: object) -> None:
        self._seen[number] += 1

    def _take_expert(self, number: int, _module: nn.Module, inputs: tuple[Any, ...], activation: Tensor) -> None:
        site, columns, local, _ = self._sites[number]
        _, expert, tokens = inputs
        assert site.experts is not None
        width = site.experts.width
        here = (local // width == expert).nonzero().flatten()
        if len(here):
            found = activation.detach()[:, local[here] - expert * width].float()
            flat = self._activation.view(-1, self._number)
            flat[tokens[:, None], here + columns.start] = found


def read(
    network: Network,
    groups: Sequence[PromptGroup],
    neurons: Int64[Tensor, "neuron 2"],
    *,
    keep: int,
    window: int,
    seed: int,
    budget: int,
    kinds: Int64[Tensor, " token"] | None = None,
    partners: Int64[Tensor, "neuron partner"] | None = None,
    progress: Progress = SILENT,
) -> LanguageReadings:
    """Feed every full sequence of one language, and keep what the neurons do on the answers' tokens.

    The number of a token is its place in all full sequences, laid end to end in their order.
    """
    sequences = [(tokens, border) for one in groups for tokens, border in zip(one.full, one.borders, strict=True)]
    offsets = [0]
    for tokens, _ in sequences:
        offsets.append(offsets[-1] + len(tokens))
    device, reader = network.device, NeuronReader(network, neurons)
    readings = Readings(
        len(neurons),
        keep=keep,
        window=window,
        kinds=0 if kinds is None else int(kinds.max()) + 1,
        partners=partners,
        factors=reader.factors,
        seed=seed,
        device=device,
    )
    kinds = None if kinds is None else kinds.to(device)
    order = batches(
        [number for number, (tokens, _) in enumerate(sequences) if tokens],
        length=lambda number: len(sequences[number][0]),
        budget=budget,
        switch=network.switch,
    )
    finite = torch.ones((), dtype=torch.bool, device=device)
    with hooked(reader.hooks()):
        for some in order:
            rows = padded([sequences[number][0] for number in some])
            numbers = torch.full_like(rows, -1)
            for row, number in enumerate(some):
                tokens, border = sequences[number]
                numbers[row, border : len(tokens)] = torch.arange(border, len(tokens)) + offsets[number]
            fed = send(rows, device)
            reader.begin(fed)
            finite &= torch.isfinite(network.run(fed).last_hidden_state).all()
            activation, positive = reader.end()
            lengths = torch.tensor([len(sequences[number][0]) for number in some], device=device)
            of_tokens = None if kinds is None else kinds[fed]
            readings.add(activation, send(numbers, device), lengths=lengths, kinds=of_tokens, positive=positive)
            progress(int(lengths.sum()))
    if not bool(finite):
        raise not_finite("hidden states", device)
    return readings.result()

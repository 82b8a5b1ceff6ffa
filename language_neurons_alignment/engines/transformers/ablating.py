"""What single neurons do to the likelihood of texts: each alone off, many to a forward; to first order, all at once.

    row 0     the text, nothing changed       the row that the others are compared with: computed by the same products
    row r     the text, neuron r off

Each row of a batch is a copy of one text with its own neuron off. In front of the first layer of a batch's neurons all
rows are the same, so the forward starts there, from the state of one row (`reuse.PartialForwards`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from ...core.model import SILENT, Progress
from ...corpus.encode import ScoredText
from ...errors import SilentHookError
from ..base import not_finite
from ..generation import batches
from .interventions import ForwardHook, hooked
from .network import Network, score, scored_losses
from .plan import padded, send
from .reuse import PartialForwards, State
from .sites import NeuronSite


def ablate_each(
    network: Network,
    texts: Sequence[ScoredText],
    neurons: Int64[Tensor, "neuron 2"],
    *,
    budget: int,
    progress: Progress = SILENT,
) -> Float64[Tensor, "neuron text"]:
    """The change of each text's negative log-likelihood, in nats, with each neuron alone off.

    `neurons` are (layer, flat index) in ascending order; `progress` adds up to neurons × the texts' tokens.
    """
    forwards, layers = PartialForwards(network), sorted({layer for layer, _ in neurons.tolist()})
    starts = sorted(forwards.prove({layer for layer in layers if layer > 0}))
    change = torch.zeros(len(neurons), len(texts), dtype=torch.float64)
    for number, text in enumerate(texts):
        if not text.scored_tokens:
            progress(len(neurons) * len(text.tokens))
            continue
        fed = send(torch.tensor([text.tokens]), network.device)
        states: dict[int, State] = {}
        forwards.forward(fed, found=states, keep=starts)
        for at in torch.arange(len(neurons)).split(max(1, budget // len(text.tokens) - 1)):
            some = neurons[at].tolist()
            start = max((layer for layer in starts if layer <= some[0][0]), default=0)
            rows = len(some) + 1
            off = _RowsOff(network.sites, some, rows)
            with hooked(off.hooks()):
                hidden = forwards.forward(
                    fed.expand(rows, -1).contiguous(), found={}, start=start, state=_expanded(states.get(start), rows)
                )
            off.check()
            nll = [one.nll for one in score([text] * rows, hidden, network.head)]
            change[at, number] = torch.tensor(nll[1:], dtype=torch.float64) - nll[0]
            progress(len(some) * len(text.tokens))
    return change


def _expanded(state: State, rows: int) -> State:
    """A state of one row as that of several."""
    if state is None or isinstance(state, Tensor):
        return None if state is None else state.expand(rows, *state.shape[1:])
    return (state[0].expand(rows, *state[0].shape[1:]), *state[1:])


class _RowsOff:
    """Sets one neuron to 0 in each row but the first."""

    def __init__(self, sites: Sequence[NeuronSite], neurons: Sequence[Sequence[int]], rows: int) -> None:
        self._rows = rows
        self._of: list[tuple[NeuronSite, list[tuple[int, int]]]] = []
        for site in sites:
            here = [
                (row, index - site.start)
                for row, (layer, index) in enumerate(neurons, start=1)
                if layer == site.layer and site.start <= index < site.stop
            ]
            if here:
                self._of.append((site, here))
        self._acted = [0] * len(self._of)

    def hooks(self) -> list[tuple[nn.Module, ForwardHook]]:
        hooks: list[tuple[nn.Module, ForwardHook]] = []
        for number, (site, _) in enumerate(self._of):
            if site.experts is None:
                hooks.append((site.module, partial(self._change, number)))
            else:
                hooks.append((site.experts.routing, partial(self._routed, number)))
                hooks.append((site.module, partial(self._change_expert, number)))
        return hooks

    def _change(self, number: int, _module: nn.Module, _inputs: object, activation: Tensor) -> Tensor:
        self._acted[number] += 1
        by_row = activation.view(self._rows, -1, activation.shape[-1])
        for row, index in self._of[number][1]:
            by_row[row, :, index] = 0
        return activation

    def _routed(self, number: int, _module: nn.Module, inputs: tuple[Any, ...], _output: object) -> None:
        self._acted[number] += 1
        self._length = len(inputs[0]) // self._rows

    def _change_expert(self, number: int, _module: nn.Module, inputs: tuple[Any, ...], activation: Tensor) -> Tensor:
        site, here = self._of[number]
        _, expert, tokens = inputs
        assert site.experts is not None
        width = site.experts.width
        for row, index in here:
            if index // width == expert:
                activation[tokens // self._length == row, index % width] = 0
        return activation

    def check(self) -> None:
        """Every change acted once."""
        silent = [self._of[number][0] for number, acted in enumerate(self._acted) if acted != 1]
        if silent:
            raise SilentHookError(
                f"a neuron of layer {silent[0].layer} was not switched off exactly once in a forward: check that no "
                "fused kernel or compiled forward replaces the model's MLP"
            )


def first_order(
    network: Network, texts: Sequence[ScoredText], *, budget: int, progress: Progress = SILENT
) -> Float64[Tensor, "layer neuron"]:
    """What switching each neuron off alone would change in Σ nll, to first order, for all neurons in one backward pass.

        Δ nll ≈ −Σ over tokens of a · ∂ nll / ∂ a

    `progress` adds up to the texts' tokens. A model with experts: a neuron's activation where its expert did not run
    adds nothing.
    """
    layers, d_mlp = network.shape
    total = torch.zeros(layers, d_mlp, dtype=torch.float64)
    wanted = [text for text in texts if text.scored_tokens]
    for some in batches(wanted, length=lambda text: len(text.tokens), budget=budget, switch=network.switch):
        taken: list[tuple[int, int, Tensor]] = []  # layer, first neuron, activation
        with torch.enable_grad(), hooked(_keeping(network.sites, taken)):
            fed = send(padded([text.tokens for text in some]), network.device)
            nll = scored_losses(some, network.run(fed).last_hidden_state, network.head).sum()
            gradients = torch.autograd.grad(nll, [one for _, _, one in taken], allow_unused=True)
        if not bool(torch.isfinite(nll)):
            raise not_finite("logits", network.device)
        for (layer, start, activation), gradient in zip(taken, gradients, strict=True):
            if gradient is not None:  # an activation that nothing reads has none
                found = -(activation.detach() * gradient).flatten(0, -2).sum(dim=0, dtype=torch.float32).double().cpu()
                total[layer, start : start + len(found)] += found
        progress(sum(len(text.tokens) for text in some))
    return total


def _keeping(sites: Sequence[NeuronSite], taken: list[tuple[int, int, Tensor]]) -> list[tuple[nn.Module, ForwardHook]]:
    """Hooks that keep each activation as a part of the graph."""

    def keep(site: NeuronSite, _module: nn.Module, inputs: tuple[Any, ...], activation: Tensor) -> Tensor:
        if not activation.requires_grad:  # the weights need no gradients, so a graph begins here
            activation = activation.detach().requires_grad_()
        within = 0 if site.experts is None else inputs[1] * site.experts.width
        taken.append((site.layer, site.start + within, activation))
        return activation

    return [(site.module, partial(keep, site)) for site in sites]

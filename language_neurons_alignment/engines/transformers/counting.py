"""Counting firings with the transformers library, fast and exactly.

`feed` and `feed_jobs` run rows through the model; forward hooks hand each site's activations to a `FiringCounter`.

On a CPU or a CUDA device, firings are counted many to a machine word. A firing is a 0 or a 1 in a lane of 8, 16 or 32
bits; 64 bits hold 8, 4 or 2 lanes, and one addition of 64-bit words adds them all. As long as no more terms are added
than a lane can count, nothing carries into the next lane, so the sums are exact integers and memory is read once.

    activations  [row, position, neuron]          bfloat16
    firings      [row, position, neuron]          int16, 0 or 1
    words        [row, position, neuron / 4]      int64
    Σ position   [row, neuron / 4]                int64, read again as int16 [row, neuron]
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial, reduce
from operator import add
from typing import Any

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn

from ...core.counts import LanguageCounts, SpanCounts
from ...core.model import Progress
from ...core.routing import routing_fault
from ...errors import SilentHookError, TallyError
from ..base import not_finite
from ..generation import batches
from ..moments import MomentSums, Scratch, language_moments
from ..routing import RoutingSums, language_routing
from .compiled import CompiledCounter
from .experts import experts_of
from .interventions import ForwardHook
from .network import Network
from .plan import Batch, BatchRow, Block, Job, send
from .sites import NeuronSite, layer_widths

_SIGNED = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_CAPACITY = {torch.uint8: 255, torch.int16: 2**15 - 1, torch.int32: 2**31 - 1, torch.int64: 2**63 - 1}


def firings(activation: Float[Tensor, "row position neuron"], scratch: Scratch) -> Int[Tensor, "row position neuron"]:
    """1 where an activation is above 0, else 0, in lanes that suit its device."""
    return from_bits(activation, scratch) if activation.device.type == "cpu" else from_comparison(activation)


def from_bits(activation: Float[Tensor, "row position neuron"], scratch: Scratch) -> Int[Tensor, "row position neuron"]:
    """Firings, by reading a float's bits as an integer of the same width and clamping it to [0, 1].

    The integer is above 0 exactly when the float is. (NaN may count as either; `FiringCounter` refuses it.) On CPUs
    this takes a fifth of the time of comparing floats.
    """
    bits = activation.contiguous().view(_SIGNED[activation.itemsize])
    return torch.clamp(bits, 0, 1, out=scratch.empty(bits.shape, bits.dtype))


def from_comparison(activation: Float[Tensor, "row position neuron"]) -> Int[Tensor, "row position neuron"]:
    """Firings of one byte each: the least memory traffic, which decides the time on GPUs."""
    return (activation > 0).contiguous().view(torch.uint8)


class Lanes:
    """Firings packed into machine words."""

    def __init__(self, fired: Int[Tensor, "row position neuron"]) -> None:
        """Pack the firings if a row of neurons fills whole words and the device can read memory as another type."""
        per_word = 8 // fired.itemsize
        self._lane = fired.dtype
        self._packed = fired.shape[-1] % per_word == 0 and fired.device.type != "mps"
        self._words = fired.view(torch.int64) if self._packed else fired

    def keep_(self, start: int, keep: Int64[Tensor, "row position 1"]) -> None:
        """From position `start` on, drop the firings where `keep` is 0 (padding)."""
        self._words[:, start:] *= keep.to(self._words.dtype)

    def per_row(
        self, start: int, stop: int, *, keep: Int64[Tensor, "row position 1"] | None = None
    ) -> Int64[Tensor, "row neuron"]:
        """Σ firings over the positions from `start` to `stop` (at least one), where `keep` is 1."""
        words = self._words[:, start:stop]
        if keep is not None:
            words = words * keep.to(words.dtype)
        if not self._packed:
            return words.sum(dim=1, dtype=torch.int64)
        capacity = _CAPACITY[self._lane]
        whole = (stop - start) // capacity * capacity
        total = words[:, whole:].sum(dim=1).view(self._lane).to(torch.int64)
        if whole:
            chunks = words[:, :whole].unflatten(1, (-1, capacity)).sum(dim=2).view(self._lane)
            total += chunks.sum(dim=1, dtype=torch.int64)
        return total


class FiringCounter:
    """Counts the firings that pass its hooks, site by site, and tallies the tokens.

    Everything stays on the sites' device until `counts`; the host waits for the device only where experts are routed.
    """

    def __init__(self, sites: Sequence[NeuronSite], device: torch.device, *, moments: bool = False) -> None:
        """Start at 0; with `moments`, also add up the activations."""
        widths = layer_widths(sites)
        layers, d_mlp = len(widths), max(widths)
        self._sites = sites
        self._counts = torch.zeros(2, layers, d_mlp, dtype=torch.int64, device=device)  # full, prefix
        self._tally = [[0, 0] for _ in sites]
        self._seen = [0] * len(sites)  # how often each site's hook fired in this forward
        self._due = [1] * len(sites)  # and how often it should
        self._finite = torch.ones((), dtype=torch.bool, device=device)
        self._scratch = Scratch()
        self._moments = MomentSums(layers, d_mlp, device) if moments else None
        self._experts = experts_of({site.layer: site.experts for site in sites if site.experts is not None})
        self._routing = RoutingSums(layers, self._experts.number, device) if self._experts is not None else None
        self._batch: Batch | None = None

    def hooks(self) -> list[tuple[nn.Module, ForwardHook]]:
        """The forward hooks, each with its module."""
        hooks: list[tuple[nn.Module, ForwardHook]] = []
        for number, site in enumerate(self._sites):
            if site.experts is None:
                hooks.append((site.module, partial(self._count, number)))
            else:
                hooks += [
                    (site.experts.routing, partial(self._count_routing, number)),
                    (site.module, partial(self._count_expert, number)),
                ]
        return hooks

    def expect(self, batch: Batch) -> None:
        """Take the batch that is about to be fed."""
        self._batch = batch
        self._seen = [0] * len(self._sites)
        self._due = [1 if site.experts is None else -1 for site in self._sites]  # a router says how many experts

    def settle(self, hidden: Tensor) -> None:
        """After a forward, check that every hook fired as often as it should, and look for NaN in the hidden states."""
        self._finite &= torch.isfinite(hidden).all()
        self._batch = None
        wrong = [number for number, seen in enumerate(self._seen) if seen != self._due[number]]
        if wrong:
            site, seen, due = self._sites[wrong[0]], self._seen[wrong[0]], self._due[wrong[0]]
            times, sent = (
                ("once", "") if site.experts is None else ("once for each expert that has tokens", f" of {due}")
            )
            raise SilentHookError(
                f"{len(wrong)} of {len(self._seen)} counting hooks did not fire exactly {times} in a forward (layer "
                f"{site.layer}: {seen}{sent} times); the model does not call its activation modules as expected: "
                "check that no fused kernel or compiled forward replaces its MLP"
            )

    def counts(self) -> LanguageCounts:
        """The counts, on the CPU."""
        if not bool(self._finite):
            raise not_finite("hidden states", self._counts.device)
        if any(tally != self._tally[0] for tally in self._tally):
            raise TallyError(f"the layers' hooks saw different numbers of tokens: {self._tally}; nothing was counted")
        full, prefix = self._tally[0]
        moments = self._moments and language_moments(self._moments.total(), full_tokens=full, prefix_tokens=prefix)
        routing = None
        if self._routing is not None and self._experts is not None:
            routing = language_routing(self._routing.total(), self._experts, full_tokens=full, prefix_tokens=prefix)
        if fault := routing and routing_fault(routing, full_tokens=full, prefix_tokens=prefix):
            raise TallyError(f"{fault}; nothing was counted")
        spans = [SpanCounts(tokens, one) for tokens, one in zip((full, prefix), self._counts.cpu(), strict=True)]
        return LanguageCounts(spans[0], spans[1], moments, routing)

    def _fed(self, number: int) -> Batch:
        """The batch that is being fed."""
        if self._batch is None:
            raise TallyError(f"layer {self._sites[number].layer} ran although nothing was fed to be counted")
        return self._batch

    def _count(self, number: int, _module: nn.Module, _inputs: object, activation: Tensor) -> None:
        batch, site = self._fed(number), self._sites[number]
        rows, positions = batch.tokens.shape
        if activation.numel() != rows * positions * site.d_mlp:
            raise TallyError(
                f"layer {site.layer} saw activations of shape {tuple(activation.shape)}, but {rows} × {positions} "
                f"tokens and {site.d_mlp} neurons were expected"
            )
        self._tally_tokens(number, batch)
        self._seen[number] += 1
        activation = activation.detach().reshape(rows, positions, -1)
        full, prefix = self._counts[:, site.layer, site.start : site.stop]
        for block in batch.blocks:
            here = activation[block.rows, : block.longest]
            add_firings(Lanes(firings(here, self._scratch)), block, full, prefix)
            if self._moments is not None:
                self._moments.add(site.layer, here.flatten(0, 1), block.weights, start=site.start)

    def _count_routing(self, number: int, _module: nn.Module, inputs: tuple[Any, ...], chosen: Any) -> None:
        batch, site = self._fed(number), self._sites[number]
        (index, weights), sent = chosen, inputs[2]
        if len(index) != batch.tokens.numel():
            raise TallyError(f"layer {site.layer} routed {len(index)} tokens, {batch.tokens.numel()} were expected")
        if self._due[number] >= 0:
            raise TallyError(f"layer {site.layer} routed its tokens twice in a forward; nothing was counted")
        self._tally_tokens(number, batch)
        self._due[number] = sum(some > 0 for some in sent)
        assert self._routing is not None
        self._routing.add(site.layer, index, weights.detach(), batch.weights)

    def _count_expert(self, number: int, _module: nn.Module, inputs: tuple[Any, ...], activation: Tensor) -> None:
        batch, site = self._fed(number), self._sites[number]
        _, expert, tokens = inputs
        assert self._experts is not None
        if activation.shape != (len(tokens), self._experts.width):
            raise TallyError(
                f"expert {expert} of layer {site.layer} saw activations of shape {tuple(activation.shape)}, but "
                f"{len(tokens)} tokens and {self._experts.width} neurons were expected"
            )
        self._seen[number] += 1
        neurons, weights = self._experts.neurons(expert), batch.weights[:, tokens]
        fired = (activation.detach() > 0).to(torch.int64)
        for counts, weight in zip(self._counts, weights, strict=True):
            counts[site.layer, neurons] += (fired * weight[:, None]).sum(0)
        if self._moments is not None:
            self._moments.add(site.layer, activation.detach(), weights, start=neurons.start)

    def _tally_tokens(self, number: int, batch: Batch) -> None:
        self._tally[number][0] += batch.full_tokens
        self._tally[number][1] += batch.prefix_tokens


def add_firings(lanes: Lanes, block: Block, full: Tensor, prefix: Tensor) -> None:
    """Add a block's firings in one layer to the layer's counts, in place, reading most of them once.

    Which positions count:

        position   0 … near   near … far      far … shortest   shortest … longest
        prefix     all        where `heads`   none
        full       all        all             all              where `ends`
    """
    if block.shortest < block.longest:
        lanes.keep_(block.shortest, block.ends)
    head = [lanes.per_row(0, block.near)] if block.near else []
    tail = [lanes.per_row(block.near, block.longest)] if block.near < block.longest else []
    full += (block.full * reduce(add, head + tail)).sum(0)
    if block.far:
        middle = [lanes.per_row(block.near, block.far, keep=block.heads)] if block.near < block.far else []
        prefix += (block.prefix * reduce(add, head + middle)).sum(0)


def feed(
    network: Network,
    counter: FiringCounter | CompiledCounter,
    rows: Sequence[BatchRow],
    *,
    progress: Progress,
    cache: Any = None,
) -> None:
    """Run a batch of rows, after the cached tokens if there are any, and count them."""
    batch = Batch.of(rows, network.device, d_mlp=network.shape[1])
    counter.expect(batch)
    counter.settle(network.run(batch.tokens, cache=cache).last_hidden_state)
    progress(batch.full_tokens)


def feed_jobs(
    network: Network,
    counter: FiringCounter | CompiledCounter,
    jobs: Sequence[Job],
    *,
    budget: int,
    progress: Progress,
) -> None:
    """Run the first rows of jobs, all of one length, and then the other rows on copies of their KV cache."""
    first = Batch.of([job.first for job in jobs], network.device, d_mlp=network.shape[1])
    counter.expect(first)
    output = network.run(first.tokens, keep_cache=True)
    counter.settle(output.last_hidden_state)
    progress(first.full_tokens)
    rest = [(row, index) for index, job in enumerate(jobs) for row in job.rest]
    for some in batches(rest, length=lambda one: len(one[0].tokens), budget=budget, before=first.tokens.shape[1]):
        cache = select(output.past_key_values, [index for _, index in some], network.device)
        feed(network, counter, [row for row, _ in some], progress=progress, cache=cache)


def select(cache: Any, rows: Sequence[int], device: torch.device) -> Any:
    """A copy of a KV cache whose row i is row `rows[i]` of the original."""
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(send(torch.tensor(rows), device))
    return chosen

"""From what the hooks see to activation counts (SPEC 2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...core.counts import LanguageCounts, SpanCounts
from ...errors import EngineError, SilentHookError, TallyError
from ..moments import MomentSums, language_moments
from .batch import Batch, Block
from .guards import not_finite
from .lanes import Lanes, Scratch, firings

Hook = Callable[[nn.Module, object, Tensor], None]


class FiringCounter:
    """Counts, layer by layer, what passes its hooks, and tallies how many tokens that was.

    Everything stays on the layers' device until `counts`; nothing in between waits for the device.
    """

    def __init__(self, layers: int, d_mlp: int, device: torch.device, *, moments: bool = False) -> None:
        """Start at 0; `moments`: add up the activations too."""
        self._full = torch.zeros(layers, d_mlp, dtype=torch.int64, device=device)
        self._prefix = torch.zeros(layers, d_mlp, dtype=torch.int64, device=device)
        self._tally = [[0, 0] for _ in range(layers)]
        self._seen = [0] * layers
        self._finite = torch.ones((), dtype=torch.bool, device=device)
        self._scratch = Scratch()
        self._moments = MomentSums(layers, d_mlp, device) if moments else None
        self._batch: Batch | None = None

    def hook(self, layer: int) -> Hook:
        """The forward hook of one layer's activation module."""

        def count(_module: nn.Module, _inputs: object, activation: Tensor) -> None:
            self._count(layer, activation)

        return count

    def expect(self, batch: Batch) -> None:
        """Say what is about to be fed."""
        self._batch = batch
        self._seen = [0] * len(self._seen)

    def settle(self, hidden: Tensor) -> None:
        """After a forward: hold every hook to having fired once, and look for NaN in what came out.

        Raises:
            SilentHookError: one fired more or less often.
        """
        self._finite &= torch.isfinite(hidden).all()
        self._batch = None
        wrong = {layer: seen for layer, seen in enumerate(self._seen) if seen != 1}
        if wrong:
            layer, seen = next(iter(wrong.items()))
            raise SilentHookError(
                f"{len(wrong)} of {len(self._seen)} counting hooks did not fire exactly once in a forward "
                f"(layer {layer}: {seen} times); the model does not call its activation modules as expected: "
                "check that no fused kernel or compiled forward replaces its MLP"
            )

    def counts(self) -> LanguageCounts:
        """What was counted, on the CPU.

        Raises:
            EngineError: the model computed NaN or infinity.
            TallyError: the layers did not all see the same tokens.
        """
        if not bool(self._finite):
            raise EngineError(not_finite("hidden states", self._full.device))
        if any(tally != self._tally[0] for tally in self._tally):
            raise TallyError(f"the layers' hooks saw different numbers of tokens: {self._tally}; nothing was counted")
        full, prefix = self._tally[0]
        moments = self._moments and language_moments(self._moments.total(), full_tokens=full, prefix_tokens=prefix)
        return LanguageCounts(SpanCounts(full, self._full.cpu()), SpanCounts(prefix, self._prefix.cpu()), moments)

    def _count(self, layer: int, activation: Tensor) -> None:
        batch = self._batch
        if batch is None:
            raise TallyError(f"layer {layer} ran although nothing was fed to be counted")
        rows, positions = batch.tokens.shape
        if activation.numel() != rows * positions * self._full.shape[1]:
            raise TallyError(
                f"layer {layer} saw activations of shape {tuple(activation.shape)}, but {rows} × {positions} tokens "
                f"and {self._full.shape[1]} neurons were expected"
            )
        self._seen[layer] += 1
        self._tally[layer][0] += batch.full_tokens
        self._tally[layer][1] += batch.prefix_tokens
        activation = activation.detach().reshape(rows, positions, -1)
        for block in batch.blocks:
            here = activation[block.rows, : block.longest]
            add_firings(Lanes(firings(here, self._scratch)), block, self._full[layer], self._prefix[layer])
            if self._moments is not None:
                self._moments.add(layer, here.flatten(0, 1), block.weights)


def add_firings(lanes: Lanes, block: Block, full: Tensor, prefix: Tensor) -> None:
    """Add a block's firings in one layer to its counts, in place, reading most of them once.

    Which positions count:

        position   0 … near   near … far      far … shortest   shortest … longest
        prefix     all        where `heads`   none
        full       all        all             all              where `ends`
    """
    if block.shortest < block.longest:
        lanes.keep_(block.shortest, block.ends)
    head = lanes.per_row(0, block.near) if block.near else None
    tail = lanes.per_row(block.near, block.longest) if block.near < block.longest else None
    full += (block.full * _sum(head, tail)).sum(0)
    if block.far:
        middle = lanes.per_row(block.near, block.far, keep=block.heads) if block.near < block.far else None
        prefix += (block.prefix * _sum(head, middle)).sum(0)


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor:
    if one is None or other is None:
        some = other if one is None else one
        if some is None:
            raise ValueError("nothing to add up")
        return some
    return one + other

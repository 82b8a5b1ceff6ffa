"""Counting inside of compiled forwards: one opaque operation on memory that stays where it is.

torch.compile traces what a hook does into the graph, where Python runs no more: what a hook would do for each batch
(choose blocks, look at borders) would be frozen, and compiled anew for each batch. So each hook calls one operation,
`lna::count`, that the compiler does not look into and cannot leave out, because it says which memory it changes:

    fired[row, neuron]       = activation > 0
    counts[span, neuron]    += Σ_row weight[span, row] · fired[row, neuron]
    tokens[span]            += Σ_row weight[span, row]
    sums[power, span, neuron] of activations and their squares, if moments are wanted

It decides nothing on the host, so a CUDA graph can hold it too. The weights of a batch are copied to the memory that
the graph knows before the graph runs. They are split into digits below 2¹⁰, so that products in float32 are exact:
at most 2¹⁴ rows are added up, (2¹⁰ − 1) · 2¹⁴ < 2²⁴, and float32 holds every integer up to 2²⁴.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...core.counts import LanguageCounts, SpanCounts
from ...errors import EngineError, SettingsError, SilentHookError
from ..base import not_finite
from ..moments import POWERS, SPANS, blocks, language_moments
from .interventions import forward_replaced
from .network import Network
from .plan import Batch

DIGIT = 2**10
DIGITS = 3
"""A position counts fewer than 2³⁰ times: nobody has as many answers to a question."""

_ROWS = 2**14
"""The most rows that are added up in float32."""


@torch.library.custom_op("lna::count", mutates_args=("counts", "tokens", "sums"))
def count(
    activation: Tensor, digits: Tensor, counts: Tensor, tokens: Tensor, sums: Tensor | None
) -> None:  # torch reads these types
    """Add up one site's firings in one forward, in place; the module's docstring has the equations.

    Args:
        activation: [row, neuron].
        digits: float32[digit, span, row], of which the first rows are these.
        counts: int64[span, neuron].
        tokens: int64[span].
        sums: float64[power, span, neuron], or None.
    """
    rows, neurons = activation.shape
    powers = DIGIT ** torch.arange(len(digits), device=counts.device)
    here = digits[:, :, :rows]
    tokens += (here.double().sum(-1) * powers[:, None]).sum(0).long()
    for start, end in blocks(rows, neurons, activation.device):
        for first in range(start, end, _ROWS):
            some = slice(first, min(first + _ROWS, end))
            weights = here[:, :, some]
            fired = (activation[some] > 0).float()
            products = (weights.flatten(0, 1) @ fired).long().unflatten(0, (-1, SPANS))
            counts += (products * powers[:, None, None]).sum(0)
            if sums is not None:
                times = (weights.double() * powers[:, None, None]).sum(0)
                values = activation[some].double()
                sums[0].addmm_(times, values)
                sums[1].addmm_(times, values.square())


def check_backend(name: str) -> None:
    """Refuse a backend that torch.compile does not have."""
    if name not in torch.compiler.list_backends(exclude_tags=()):
        usual = ", ".join(torch.compiler.list_backends())
        raise SettingsError(f"torch.compile has no backend {name!r}: choose one of {usual}, eager, aot_eager")


class CompiledCounter:
    """Counts what `FiringCounter` counts, in forwards that torch.compile has compiled, one pass after the other.

    Plain forwards of the model count too while a pass is open. The compiled decoder (`network`) is used for counting
    alone, and always with the same operations in it.
    """

    def __init__(self, network: Network, *, backend: str = "inductor") -> None:
        """Make the memory; nothing is compiled yet.

        Raises:
            EngineError: a mixture of experts, or a device without float64.
        """
        device, sites = network.device, network.sites
        if network.experts is not None:
            raise EngineError(
                "compiled counting cannot be used with a mixture of experts: how many tokens an expert has is known "
                "on the host alone, between its layers; leave it out"
            )
        if device.type not in ("cpu", "cuda"):
            raise EngineError(f"compiled counting was asked for on {device}: it runs on CUDA and on CPUs; leave it out")
        self._sites = sites
        self._counts = [torch.zeros(SPANS, site.d_mlp, dtype=torch.int64, device=device) for site in sites]
        self._tokens = [torch.zeros(SPANS, dtype=torch.int64, device=device) for _ in sites]
        self._sums: list[Tensor] = []
        self._digits = torch.zeros(DIGITS, SPANS, 0, device=device)
        self._finite = torch.ones((), dtype=torch.bool, device=device)
        self._due = [0, 0]
        self._moments = False
        self._forwards = [(site.module, self._forward(number)) for number, site in enumerate(sites)]
        self._plain, self._backend = network, backend

    @cached_property
    def network(self) -> Network:
        """The network with a decoder that is compiled when it first runs."""
        decoder: Any = torch.compile(self._plain.decoder, backend=self._backend, dynamic=True)
        return replace(self._plain, decoder=decoder)

    @contextmanager
    def counting(self, *, moments: bool) -> Iterator[CompiledCounter]:
        """A pass: begin at 0, with the operations in the model while the context is open."""
        self._moments, self._due = moments, [0, 0]
        if moments and not self._sums:
            self._sums = [one.new_zeros(POWERS, *one.shape, dtype=torch.float64) for one in self._counts]
        for one in (*self._counts, *self._tokens, *self._sums):
            one.zero_()
        self._finite.fill_(True)
        with ExitStack() as stack:
            for module, forward in self._forwards:
                stack.enter_context(forward_replaced(module, forward))
            try:
                yield self
            except RuntimeError as error:
                # loaded where anything was compiled, and slow to load
                from torch._dynamo.exc import TorchDynamoException

                if not isinstance(error, TorchDynamoException):
                    raise
                cause = getattr(error, "inner_exception", error)  # what the backend itself raised
                said = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
                raise EngineError(
                    f"torch.compile ({self._backend}) could not compile the decoder: {said[:200]}; leave compiled "
                    "counting out"
                ) from error

    def expect(self, batch: Batch) -> None:
        """Take the batch that is about to be fed."""
        weights, device = batch.weights, self._digits.device
        if weights.shape[1] > self._digits.shape[2]:
            self._digits = torch.zeros(DIGITS, SPANS, weights.shape[1], device=device)
        for power, digits in enumerate(self._digits):
            digits[:, : weights.shape[1]] = weights // DIGIT**power % DIGIT
        self._due[0] += batch.full_tokens
        self._due[1] += batch.prefix_tokens

    def settle(self, hidden: Tensor) -> None:
        """After a forward, look for NaN in the hidden states."""
        self._finite &= torch.isfinite(hidden).all()

    def counts(self) -> LanguageCounts:
        """The counts, on the CPU; SilentHookError if an operation did not see each token."""
        if not bool(self._finite):
            raise not_finite("hidden states", self._finite.device)
        tokens = torch.stack(self._tokens).tolist()
        silent = [site.layer for site, seen in zip(self._sites, tokens, strict=True) if seen != self._due]
        if silent:
            raise SilentHookError(
                f"the compiled forwards counted {tokens[0]} (full, prefix) tokens in layer {silent[0]}, {self._due} "
                f"were fed ({len(silent)} of {len(tokens)} sites): leave compiled counting out"
            )
        full, prefix = self._due
        layers, d_mlp = self._plain.shape
        over_zero = torch.zeros(SPANS, layers, d_mlp, dtype=torch.int64)
        sums = torch.zeros(layers, POWERS, SPANS, d_mlp, dtype=torch.float64)
        widths = [site.d_mlp for site in self._sites]
        for site, one in zip(self._sites, torch.cat(self._counts, dim=-1).cpu().split(widths, dim=-1), strict=True):
            over_zero[:, site.layer, site.start : site.stop] = one
        if self._moments:
            for site, one in zip(self._sites, torch.cat(self._sums, dim=-1).cpu().split(widths, dim=-1), strict=True):
                sums[site.layer, ..., site.start : site.stop] = one
        moments = language_moments(sums, full_tokens=full, prefix_tokens=prefix) if self._moments else None
        spans = [SpanCounts(n, one) for n, one in zip((full, prefix), over_zero, strict=True)]
        return LanguageCounts(spans[0], spans[1], moments)

    def _forward(self, number: int) -> Callable[..., Any]:
        original, counts, tokens = self._sites[number].module.forward, self._counts[number], self._tokens[number]

        def forward(*args: Any, **kwargs: Any) -> Any:
            activation = original(*args, **kwargs)
            sums = self._sums[number] if self._moments else None
            count(activation.flatten(0, -2), self._digits, counts, tokens, sums)
            return activation

        return forward

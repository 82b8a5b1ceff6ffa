"""Feeding rows to the model under counting hooks: alone, or on top of what their trunk left in the KV cache."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from ..base import Progress
from ..batching import batches
from .batch import Batch, send
from .counting import FiringCounter
from .network import Network
from .plan import Job, Row


def feed(
    network: Network, counter: FiringCounter, rows: Sequence[Row], *, progress: Progress, cache: Any = None
) -> None:
    """Run a batch of rows, after the cached tokens if there are any, and count it."""
    batch = Batch.of(rows, network.device, d_mlp=network.shape[1])
    counter.expect(batch)
    counter.settle(network.run(batch.tokens, cache=cache).last_hidden_state)
    progress(batch.full_tokens)


def feed_jobs(
    network: Network, counter: FiringCounter, jobs: Sequence[Job], *, budget: int, progress: Progress
) -> None:
    """Run trunks of one length together, and then their branches on copies of the trunks' KV cache."""
    trunks = Batch.of([job.trunk for job in jobs], network.device, d_mlp=network.shape[1])
    counter.expect(trunks)
    output = network.run(trunks.tokens, keep_cache=True)
    counter.settle(output.last_hidden_state)
    progress(trunks.full_tokens)
    branches = [(row, trunk) for trunk, job in enumerate(jobs) for row in job.branches]
    for some in batches(branches, length=lambda one: len(one[0].tokens), budget=budget, before=trunks.tokens.shape[1]):
        cache = select(output.past_key_values, [trunk for _, trunk in some], network.device)
        feed(network, counter, [row for row, _ in some], progress=progress, cache=cache)


def select(cache: Any, rows: Sequence[int], device: torch.device) -> Any:
    """A cache whose row i is row `rows[i]` of this one, which stays as it is."""
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(send(torch.tensor(rows), device))
    return chosen

"""Rows as tensors, with what is needed to count each of their positions as often as it counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int64
from torch import Tensor

from .plan import Row

CACHED = 2**18
"""Activations that a CPU core keeps at hand: firings are made and added up in blocks of this size."""


@dataclass(frozen=True)
class Block:
    """Some neighbouring rows of a batch, up to the end of the longest one.

    Attributes:
        rows: which rows of the batch.
        near: the nearest border: in front of it, every row's positions count for the prefix.
        far: the farthest border: from it on, none do.
        shortest: the shortest row's end: from it on, some positions are padding.
        longest: the longest row's end.
        full: how often each row counts for the full sequences.
        prefix: how often each row's positions in front of its border count for the prefix sequences.
        heads: 1 where a position from `near` to `far` is in front of its row's border.
        ends: 1 where a position from `shortest` to `longest` is no padding.
    """

    rows: slice
    near: int
    far: int
    shortest: int
    longest: int
    full: Int64[Tensor, "row 1"]
    prefix: Int64[Tensor, "row 1"]
    heads: Int64[Tensor, "row middle 1"]
    ends: Int64[Tensor, "row tail 1"]

    @classmethod
    def of(cls, rows: Sequence[Row], start: int, device: torch.device) -> Block:
        """The block of these rows, the first of which is row `start` of the batch."""
        lengths = [len(row.tokens) for row in rows]
        borders = [row.prefix_length if row.prefix else 0 for row in rows]
        return cls(
            slice(start, start + len(rows)),
            min(borders),
            max(borders),
            min(lengths),
            max(lengths),
            send(torch.tensor([[row.full] for row in rows]), device),
            send(torch.tensor([[row.prefix] for row in rows]), device),
            send(_up_to(borders), device),
            send(_up_to(lengths), device),
        )

    @cached_property
    def weights(self) -> Int64[Tensor, "span row*position"]:
        """How often each position counts for the full and for the prefix sequences; 0 where it is padding."""
        weights = torch.zeros(2, len(self.full), self.longest, dtype=torch.int64, device=self.full.device)
        weights[0, :, : self.shortest] = 1
        weights[0, :, self.shortest :] = self.ends[..., 0]
        weights[1, :, : self.near] = 1
        weights[1, :, self.near : self.far] = self.heads[..., 0]
        return (weights * torch.stack([self.full, self.prefix])).flatten(1)


@dataclass(frozen=True)
class Batch:
    """Rows, padded on the right to one length.

    Attributes:
        tokens: what is fed; what stands after a row's end is padding, which causal attention never looks at.
        blocks: the rows again, with how often they count.
        full_tokens: how many tokens these are of the full sequences.
        prefix_tokens: how many tokens these are of the prefix sequences.
    """

    tokens: Int64[Tensor, "row position"]
    blocks: tuple[Block, ...]
    full_tokens: int
    prefix_tokens: int

    @classmethod
    def of(cls, rows: Sequence[Row], device: torch.device, *, d_mlp: int = 1) -> Batch:
        """Pad rows and move them to the device; `d_mlp` decides how many of them make a block on a CPU."""
        longest = max(len(row.tokens) for row in rows)
        padded = [list(row.tokens) + [0] * (longest - len(row.tokens)) for row in rows]
        size = max(1, CACHED // (longest * d_mlp)) if device.type == "cpu" else len(rows)
        return cls(
            send(torch.tensor(padded), device),
            tuple(Block.of(rows[start : start + size], start, device) for start in range(0, len(rows), size)),
            sum(row.full * len(row.tokens) for row in rows),
            sum(row.prefix * row.prefix_length for row in rows),
        )


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on its way to the device; a GPU need not be done with its work for that."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _up_to(ends: Sequence[int]) -> Int64[Tensor, "row position 1"]:
    """1 in front of each row's end, else 0, for the positions between the nearest end and the farthest."""
    positions = torch.arange(min(ends), max(ends))
    return (positions < torch.tensor(ends)[:, None]).long()[:, :, None]

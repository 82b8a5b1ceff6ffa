"""What the driver and vLLM's workers send each other: dictionaries of bytes and numbers, no pickled code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...core.interventions import Intervention, LayerIntervention
from .tree import PrefixTree

Message = dict[str, Any]


def pack_tree(
    tree: PrefixTree, *, weights: np.ndarray | None = None, scored: np.ndarray | None = None, moments: bool = False
) -> Message:
    """A tree for the workers: its leaves' tokens and nodes, and what is wanted of the nodes.

    `weights`, [span, node], say how often each node counts for full and for prefix; `scored`, [node], whether its
    likelihood is wanted. None: nothing is counted or scored.
    """
    leaves = tree.leaves
    return {
        "lengths": np.array([len(leaf) for leaf in leaves], dtype=np.int32).tobytes(),
        "tokens": _joined(np.array(leaf, dtype=np.int32) for leaf in leaves),
        "paths": _joined(tree.paths[leaf] for leaf in leaves),
        "nodes": tree.nodes,
        "weights": None if weights is None else np.ascontiguousarray(weights, dtype=np.int64).tobytes(),
        "moments": moments,
        "scored": None if scored is None else np.ascontiguousarray(scored, dtype=np.uint8).tobytes(),
    }


def _joined(arrays: Iterable[np.ndarray]) -> bytes:
    return b"".join(np.ascontiguousarray(array, dtype=np.int32).tobytes() for array in arrays)


def unpack(message: Mapping[str, Any], key: str, dtype: type[np.generic]) -> np.ndarray:
    """An array from a message."""
    return np.frombuffer(message[key], dtype=dtype)


def pack_intervention(intervention: Intervention) -> Message:
    """The neurons that an intervention changes, by global layer and index, with their scale and shift."""
    where = intervention.touched.nonzero()
    layers, neurons = where[:, 0], where[:, 1]
    return {
        "layers": layers.int().numpy().tobytes(),
        "neurons": neurons.int().numpy().tobytes(),
        "scale": intervention.scale[layers, neurons].float().numpy().tobytes(),
        "shift": intervention.shift[layers, neurons].float().numpy().tobytes(),
    }


def unpack_intervention(message: Mapping[str, Any], *, offset: int, width: int) -> dict[int, LayerIntervention]:
    """The part of an intervention on neurons [offset, offset + width), by layer, numbered from `offset`."""
    layers, neurons = unpack(message, "layers", np.int32), unpack(message, "neurons", np.int32)
    scale, shift = unpack(message, "scale", np.float32), unpack(message, "shift", np.float32)
    mine = (neurons >= offset) & (neurons < offset + width)
    parts = {}
    for layer in np.unique(layers[mine]).tolist():
        here = mine & (layers == layer)
        index = torch.from_numpy((neurons[here] - offset).astype(np.int64))
        parts[layer] = LayerIntervention(
            index, torch.from_numpy(scale[here].copy()), torch.from_numpy(shift[here].copy())
        )
    return parts


@dataclass
class PassStatistics:
    """What vLLM's scheduler did in one pass, as a worker saw it; part of the worker's report."""

    steps: int = 0  # forwards
    rows: int = 0  # token positions computed, repeated ones included, without padding
    requests: int = 0  # sequences run
    chunked: int = 0  # sequences whose prompt took more than one step
    cached_tokens: int = 0  # positions that the prefix cache saved at a sequence's first step
    preemptions: int = 0  # times that a sequence went back to an earlier position
    strangers: int = 0  # requests that the driver did not send

    def __add__(self, other: PassStatistics) -> PassStatistics:
        """Two passes together."""
        return PassStatistics(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

"""What travels between the driver and the workers: dictionaries of bytes and numbers, no pickled code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from ...core.interventions import Intervention, LayerIntervention
from .tree import TokenTree

Message = dict[str, Any]


def pack_tree(
    tree: TokenTree, *, weights: np.ndarray | None = None, scored: np.ndarray | None = None, moments: bool = False
) -> Message:
    """A tree for the workers: its leaves' tokens and nodes, and what is wanted of the nodes.

    Args:
        tree: what will be fed.
        weights: [2, node], how often each node counts for full and for prefix; None: firings are not counted.
        scored: [node], whether the node's likelihood is wanted; None: none is.
        moments: add up the activations too, where firings are counted.
    """
    leaves = tree.leaves
    return {
        "lengths": np.array([len(leaf) for leaf in leaves], dtype=np.int32).tobytes(),
        "tokens": _flat(np.array(leaf, dtype=np.int32) for leaf in leaves),
        "paths": _flat(tree.paths[leaf] for leaf in leaves),
        "nodes": tree.nodes,
        "weights": None if weights is None else np.ascontiguousarray(weights, dtype=np.int64).tobytes(),
        "moments": moments,
        "scored": None if scored is None else np.ascontiguousarray(scored, dtype=np.uint8).tobytes(),
    }


def _flat(arrays: Iterable[np.ndarray]) -> bytes:
    return b"".join(np.ascontiguousarray(array, dtype=np.int32).tobytes() for array in arrays)


def pack_intervention(intervention: Intervention) -> Message:
    """The neurons that an intervention touches, by global layer and index, with their scale and shift."""
    where = intervention.touched.nonzero()
    layers, neurons = where[:, 0], where[:, 1]
    return {
        "layers": layers.int().numpy().tobytes(),
        "neurons": neurons.int().numpy().tobytes(),
        "scale": intervention.scale[layers, neurons].float().numpy().tobytes(),
        "shift": intervention.shift[layers, neurons].float().numpy().tobytes(),
    }


def unpack(message: Mapping[str, Any], key: str, dtype: type[np.generic]) -> np.ndarray:
    """An array out of a message."""
    return np.frombuffer(message[key], dtype=dtype)


def unpack_intervention(message: Mapping[str, Any], *, offset: int, width: int) -> dict[int, LayerIntervention]:
    """The part of an intervention on neurons [offset, offset + width), by layer, numbered from the offset."""
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

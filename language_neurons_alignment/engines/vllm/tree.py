"""Sequences as a tree of tokens: what they share from their start exists once (SPEC 2).

    p p p p a a        p─p─p─p─┬─a─a
    p p p p b                  ├─b
    p p p p                    (ends on an inner node: a prefix of others, nothing of its own to feed)

A *node* is a token with its whole history, so a causal model computes the same thing for every sequence that passes
through it: one firing per neuron, one likelihood. Counting "each token of each sequence once" is therefore: see each
node at least once, count it at first sight, with the number of sequences that pass through it as its weight. However
often a scheduler skips it (cached) or feeds it again (evicted), the sum is right, and a node never seen shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32, Int64

from ...core.interventions import Intervention, LayerIntervention
from ...corpus.encode import PromptGroup, Tokens, common_length


@dataclass(frozen=True)
class TokenTree:
    """Distinct sequences as paths through shared nodes.

    Attributes:
        paths: each sequence's nodes, in order.
        leaves: the sequences that no other one begins with, in lexicographic order: feeding these feeds every node.
        nodes: how many nodes there are. A node's number is greater than its parent's.
    """

    paths: Mapping[Tokens, Int32[np.ndarray, " position"]]
    leaves: tuple[Tokens, ...]
    nodes: int

    @classmethod
    def of(cls, sequences: Iterable[Tokens]) -> TokenTree:
        """The tree of these sequences; repeated and empty ones add nothing."""
        ordered = sorted({tokens for tokens in sequences if tokens})
        paths: dict[Tokens, Int32[np.ndarray, " position"]] = {}
        before: Tokens = ()
        nodes = 0
        for tokens in ordered:
            shared = common_length(before, tokens)
            own = np.arange(nodes, nodes + len(tokens) - shared, dtype=np.int32)
            paths[tokens] = np.concatenate([paths[before][:shared], own]) if shared else own
            nodes += len(own)
            before = tokens
        following = [*ordered[1:], ()] if ordered else []
        leaves = tuple(one for one, after in zip(ordered, following, strict=True) if after[: len(one)] != one)
        return cls(paths, leaves, nodes)

    def weights(self, times: Iterable[tuple[Tokens, int]]) -> Int64[np.ndarray, " node"]:
        """How many sequences pass through each node, each counted as often as stated."""
        total = np.zeros(self.nodes, dtype=np.int64)
        for tokens, count in times:
            if tokens:
                total[self.paths[tokens]] += count
        return total


@dataclass(frozen=True)
class WeightedTree:
    """A tree with the number of full sequences and of prefixes that pass through each node."""

    tree: TokenTree
    full: Int64[np.ndarray, " node"]
    prefix: Int64[np.ndarray, " node"]

    @classmethod
    def of(cls, groups: Iterable[PromptGroup]) -> WeightedTree:
        """The tree that counts these groups; groups without answers add nothing."""
        answered = [group for group in groups if group.full]
        tree = TokenTree.of(tokens for group in answered for tokens in (group.prefix, *group.full))
        full = tree.weights((tokens, 1) for group in answered for tokens in group.full)
        prefix = tree.weights((group.prefix, len(group.full)) for group in answered)
        return cls(tree, full, prefix)


def shards(groups: Iterable[PromptGroup], *, tokens: int) -> Iterable[list[PromptGroup]]:
    """Groups in lists of about `tokens` tokens, so that a corpus of any length needs bounded memory."""
    shard: list[PromptGroup] = []
    held = 0
    for group in groups:
        shard.append(group)
        held += len(group.prefix) + group.full_tokens
        if held >= tokens:
            yield shard
            shard, held = [], 0
    if shard:
        yield shard


# ── What travels between the driver and the workers: dictionaries of bytes and numbers, no pickled code.

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

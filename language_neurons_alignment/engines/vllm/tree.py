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

import numpy as np
from jaxtyping import Int32, Int64

from ...corpus.sequences import PromptGroup, Tokens, common_length


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

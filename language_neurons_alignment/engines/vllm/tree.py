"""Sequences as a prefix tree: tokens that several sequences begin with exist once.

    p p p p a a        p─p─p─p─┬─a─a
    p p p p b                  └─b
    p p p p            (ends at an inner node: it is a prefix of others, so it needs no request of its own)

A *node* is a token with everything before it. A causal model computes the same at a node for every sequence through it:
one firing per neuron, one likelihood. Counting each token of each sequence once therefore means: compute each node at
least once, and count its first computation with the number of sequences through it as the weight. However often the
scheduler skips a node (its state is cached) or computes it again (it was evicted), the sum is right, and a node that
was never computed is noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Int32, Int64

from ...config import Sampling
from ...corpus.encode import Prompt, PromptGroup, ScoredText, Tokens, common_length
from ..base import check_lengths
from ..generation import answer_batches

Item = TypeVar("Item")

PART = 2**15
"""Tokens of a corpus, about, that a replica of a pool is given at a time: enough for vLLM to compute many together."""


@dataclass(frozen=True)
class PrefixTree:
    """Distinct sequences as paths through shared nodes."""

    paths: Mapping[Tokens, Int32[np.ndarray, " position"]]  # each sequence's nodes, in order
    leaves: tuple[Tokens, ...]  # those that no other one begins with, in lexicographic order: they have every node
    nodes: int  # how many there are; a node's number is greater than its parent's

    @classmethod
    def of(cls, sequences: Iterable[Tokens]) -> PrefixTree:
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


def weighted_tree(groups: Iterable[PromptGroup]) -> tuple[PrefixTree, Int64[np.ndarray, "span node"]]:
    """The tree of some groups, and how many full sequences and prefixes pass through each node.

    A prefix counts once for every answer; groups without answers add nothing.
    """
    answered = [group for group in groups if group.full]
    tree = PrefixTree.of(tokens for group in answered for tokens in (group.prefix, *group.full))
    full = tree.weights((tokens, 1) for group in answered for tokens in group.full)
    prefix = tree.weights((group.prefix, len(group.full)) for group in answered)
    return tree, np.stack([full, prefix])


def shards(groups: Iterable[PromptGroup], *, tokens: int) -> Iterable[list[PromptGroup]]:
    """Groups in lists of about `tokens` tokens, so that a corpus of any length needs bounded memory."""
    return _in_parts(groups, lambda group: len(group.prefix) + group.full_tokens, tokens)


def _in_parts(items: Iterable[Item], size: Callable[[Item], int], most: int) -> Iterator[list[Item]]:
    """Neighbouring items in lists, each of which ends with the item that brings it to `most`."""
    part: list[Item] = []
    held = 0
    for item in items:
        part.append(item)
        held += size(item)
        if held >= most:
            yield part
            part, held = [], 0
    if part:
        yield part


@dataclass(frozen=True)
class Cut:
    """How work is cut into batches (`engines.base.Batching`); vLLM schedules inside a batch.

    Attributes:
        answering: tokens of prompts and answers inside vLLM at a time.
        invariant: each question is computed alone.
        longest: tokens of the longest sequence that the model reads.
    """

    answering: int
    invariant: bool
    longest: int

    def check(self, sequences: Iterable[Tokens]) -> None:
        """Refuse sequences that the model cannot read, before anything runs."""
        check_lengths(sequences, longest=self.longest)

    def count_batches(self, groups: Sequence[PromptGroup]) -> Iterable[list[PromptGroup]]:
        """Groups that are answered, in the order of the corpus; each batch is a prefix tree."""
        return shards((group for group in groups if group.full), tokens=1 if self.invariant else PART)

    def sequences(self, batch: Sequence[PromptGroup]) -> list[Tokens]:
        """The full sequences of a batch."""
        return [tokens for group in batch for tokens in group.full]

    def score_batches(self, texts: Sequence[ScoredText], *, every: bool = False) -> Iterator[list[int]]:
        """The batches, by position, in which texts are scored: every one of them is in one."""
        return _in_parts(range(len(texts)), lambda index: len(texts[index].tokens), 0 if self.invariant else PART)

    def answer_batches(self, prompts: Sequence[Prompt], *, sampling: Sampling) -> list[list[int]]:
        """The batches, by position, in which prompts are answered."""
        budget = 1 if self.invariant else self.answering
        return answer_batches(prompts, new=sampling.max_new_tokens, longest=self.longest, budget=budget)

"""The prefix tree, against counting by hand; no vLLM needed."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from language_neurons_alignment.corpus.encode import PromptGroup
from language_neurons_alignment.engines.vllm.tree import PrefixTree, shards, weighted_tree

sequences = st.lists(st.lists(st.integers(0, 2), max_size=7).map(tuple), max_size=12)
groups = st.lists(
    st.builds(
        PromptGroup, st.lists(st.integers(0, 2), max_size=5).map(tuple), sequences.map(lambda some: tuple(some[:4]))
    ),
    max_size=6,
)


def histories(tokens: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [tokens[: end + 1] for end in range(len(tokens))]


@given(sequences)
def test_a_node_is_a_token_with_its_history(some: list[tuple[int, ...]]) -> None:
    tree = PrefixTree.of(some)
    node_of: dict[tuple[int, ...], int] = {}
    for tokens in some:
        for history, node in zip(histories(tokens), tree.paths.get(tokens, ()), strict=True):
            assert node_of.setdefault(history, int(node)) == node
    assert len(set(node_of.values())) == len(node_of) == tree.nodes


@given(sequences)
def test_the_leaves_feed_every_node_and_none_needs_another(some: list[tuple[int, ...]]) -> None:
    tree = PrefixTree.of(some)
    fed = {int(node) for leaf in tree.leaves for node in tree.paths[leaf]}
    assert fed == set(range(tree.nodes))
    assert not any(one != other and other[: len(one)] == one for one in tree.leaves for other in tree.leaves)


@given(groups)
def test_weights_are_the_corpus_counted_by_history(some: list[PromptGroup]) -> None:
    tree, (full_weights, prefix_weights) = weighted_tree(some)
    full, prefix = Counter(), Counter()
    for group in some:
        for tokens in group.full:
            full.update(histories(tokens))
            prefix.update(histories(group.prefix))
    nodes = {
        history: int(node)
        for tokens, path in tree.paths.items()
        for history, node in zip(histories(tokens), path, strict=True)
    }
    assert {history: int(full_weights[node]) for history, node in nodes.items() if full_weights[node]} == full
    assert {history: int(prefix_weights[node]) for history, node in nodes.items() if prefix_weights[node]} == prefix
    assert full_weights.sum() == sum(group.full_tokens for group in some)
    assert prefix_weights.sum() == sum(group.prefix_tokens for group in some)


def test_a_parent_has_a_smaller_number_than_its_child() -> None:
    tree = PrefixTree.of([(5, 6, 7), (5, 6), (5, 9), (1,)])
    assert all((np.diff(path) > 0).all() for path in tree.paths.values())
    assert tree.leaves == ((1,), (5, 6, 7), (5, 9))
    assert tree.nodes == 5


@given(groups, st.integers(1, 30))
def test_shards_hold_the_corpus_in_its_order(some: list[PromptGroup], size: int) -> None:
    parts = list(shards(some, tokens=size))
    assert [group for part in parts for group in part] == some
    assert all(parts)
    assert all(sum(len(g.prefix) + g.full_tokens for g in part[:-1]) < size for part in parts)

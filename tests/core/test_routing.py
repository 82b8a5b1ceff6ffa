"""Flat indices go both ways, routing adds up, and what a router cannot have done is noticed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from language_neurons_alignment.core.counts import LanguageCounts, SpanCounts, check_tally
from language_neurons_alignment.core.routing import Experts, LanguageRouting, SpanRouting
from language_neurons_alignment.errors import IncompatibleError, TallyError

EXPERTS = Experts(layers=(1, 2), number=4, width=5, top_k=2)


def routing(tokens: int, *, seed: int = 0) -> SpanRouting:
    """What routers of layers 1 and 2 may have done; layer 0 is dense."""
    generator = torch.Generator().manual_seed(seed)
    routed, weight = torch.zeros(3, 4, dtype=torch.int64), torch.zeros(3, 4, dtype=torch.float64)
    for layer in EXPERTS.layers:
        for _ in range(tokens):
            chosen = torch.randperm(4, generator=generator)[:2]
            routed[layer, chosen] += 1
            weight[layer, chosen] += torch.tensor([0.7, 0.3], dtype=torch.float64)
    return SpanRouting(tokens, routed, weight)


def counted() -> LanguageCounts:
    spans = [SpanCounts(tokens, torch.zeros(3, 20, dtype=torch.int64)) for tokens in (9, 4)]
    return LanguageCounts(spans[0], spans[1], routing=LanguageRouting(EXPERTS, routing(9), routing(4)))


def test_every_flat_index_is_one_neuron() -> None:
    places = [EXPERTS.place(flat) for flat in range(4 * 5 + 3)]
    assert len(set(places)) == len(places)
    assert places[-3:] == [(None, 0), (None, 1), (None, 2)]
    assert [EXPERTS.flat(*place) for place in places] == list(range(len(places)))
    assert [EXPERTS.place(flat)[0] for flat in range(20)[EXPERTS.neurons(2)]] == [2] * 5


def test_routing_of_parts_adds_up() -> None:
    whole = routing(9) + routing(4, seed=1)
    assert whole.total_tokens == 13
    assert whole.routed.sum(1).tolist() == [0, 26, 26]
    back = whole - routing(9)
    assert torch.equal(back.routed, routing(4, seed=1).routed)
    torch.testing.assert_close(back.weight, routing(4, seed=1).weight)


def test_counts_keep_their_routing_when_added() -> None:
    total = LanguageCounts.zero(3, 20, experts=EXPERTS) + counted() + counted()
    assert total.routing is not None
    assert torch.equal(total.routing.full.routed, 2 * routing(9).routed)
    with pytest.raises(IncompatibleError, match="routing"):
        _ = counted() + replace(counted(), routing=None)
    other = replace(counted(), routing=LanguageRouting(replace(EXPERTS, top_k=3), routing(9), routing(4)))
    with pytest.raises(IncompatibleError, match="different models"):
        _ = counted() + other


def test_routing_that_tallies_is_let_through() -> None:
    check_tally(counted(), full_tokens=9, prefix_tokens=4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda one: replace(one, total_tokens=8), "of 8 tokens, the counts of 9"),
        (
            lambda one: replace(one, routed=one.routed + torch.tensor([[0], [1], [0]])),
            "sends 22 .* expected 18",
        ),
        (lambda one: replace(one, routed=one.routed.roll(1, 0)), "layer 0"),
        (lambda one: replace(one, weight=one.weight + torch.tensor([[1.0], [0.0], [0.0]])), "no token was sent"),
        (lambda one: replace(one, weight=one.weight * torch.nan), "not finite"),
    ],
)
def test_what_no_router_does_is_noticed(change: object, says: str) -> None:
    counts = counted()
    assert counts.routing is not None
    wrong = replace(counts.routing, full=change(counts.routing.full))  # type: ignore[operator]
    with pytest.raises(TallyError, match=says):
        check_tally(replace(counts, routing=wrong), full_tokens=9, prefix_tokens=4)

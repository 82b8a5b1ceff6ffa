"""Mixtures of experts: where an expert's neurons are, and which tokens the routers send to which expert.

In a layer of E experts of width w, a router sends each token to `top_k` of them. A neuron of such a layer is one of an
expert's, and its flat index within the layer, which masks, maps and files use, is

    expert · w + index              of a routed expert
    E · w + index                   of the shared experts, which read every token, if the layer has any

A token that is not sent to an expert does not fire its neurons. So an expert's counts are of the tokens sent to it, and
its probabilities are shares of *all* tokens. How many tokens were sent where is counted beside the firings:

    routed[l, e] = Σ_token [e is among the top_k of layer l]        weight[l, e] = Σ_token the router's weight of e

Both are sums over tokens, so they add up exactly as counts do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ..errors import IncompatibleError


@dataclass(frozen=True)
class Experts:
    """The experts of a model.

    Attributes:
        layers: those that have a router, in order; the others are dense.
        number: routed experts in each of these layers, E.
        width: neurons of each routed expert, w.
        top_k: experts to which each token is sent.

    >>> experts = Experts(layers=(1, 2), number=8, width=100, top_k=2)
    >>> experts.flat(expert=3, index=7)
    307
    >>> experts.place(307)
    (3, 7)
    >>> experts.place(805)  # behind the last routed expert: the shared ones
    (None, 5)
    """

    layers: tuple[int, ...]
    number: int
    width: int
    top_k: int

    def flat(self, expert: int | None, index: int) -> int:
        """The flat index within a layer of an expert's neuron; `expert` is None for the shared experts."""
        return (self.number if expert is None else expert) * self.width + index

    def place(self, flat: int) -> tuple[int | None, int]:
        """The expert, None for the shared ones, and the index within it, of a flat index in a layer with experts."""
        if flat >= self.number * self.width:
            return None, flat - self.number * self.width
        return divmod(flat, self.width)

    def neurons(self, expert: int) -> slice:
        """The flat indices of a routed expert's neurons."""
        return slice(expert * self.width, (expert + 1) * self.width)


@dataclass(frozen=True)
class SpanRouting:
    """The number of tokens of a span, how many of them were sent to each expert, and the sums of their weights.

    Rows of layers without a router are zero.
    """

    total_tokens: int
    routed: Int64[Tensor, "layer expert"]
    weight: Float64[Tensor, "layer expert"]

    @classmethod
    def zero(cls, layers: int, experts: int) -> SpanRouting:
        """The routing of no tokens, the neutral element of addition."""
        return cls(
            0,
            torch.zeros(layers, experts, dtype=torch.int64),
            torch.zeros(layers, experts, dtype=torch.float64),
        )

    def __add__(self, other: SpanRouting) -> SpanRouting:
        """The routing of two disjoint spans together; IncompatibleError if the models have other experts."""
        if self.routed.shape != other.routed.shape:
            raise IncompatibleError(
                f"cannot add the routing of {tuple(self.routed.shape)} and {tuple(other.routed.shape)} (layers, "
                "experts): they come from different models"
            )
        return SpanRouting(
            self.total_tokens + other.total_tokens, self.routed + other.routed, self.weight + other.weight
        )

    def __sub__(self, part: SpanRouting) -> SpanRouting:
        """The routing of the tokens that are not in `part`."""
        return self + SpanRouting(-part.total_tokens, -part.routed, -part.weight)


@dataclass(frozen=True)
class LanguageRouting:
    """One language's routing over whole texts and over prefixes."""

    experts: Experts
    full: SpanRouting
    prefix: SpanRouting

    @classmethod
    def zero(cls, experts: Experts, *, layers: int) -> LanguageRouting:
        """The routing of no text in a model of so many layers, dense ones included."""
        return cls(experts, *(SpanRouting.zero(layers, experts.number) for _ in range(2)))

    def __add__(self, other: LanguageRouting) -> LanguageRouting:
        """The routing of two disjoint corpora together; IncompatibleError if the models have other experts."""
        if self.experts != other.experts:
            raise IncompatibleError(
                f"cannot add the routing of {self.experts} and {other.experts}: they come from different models"
            )
        return LanguageRouting(self.experts, self.full + other.full, self.prefix + other.prefix)

    @property
    def answer(self) -> SpanRouting:
        """The routing of the answers alone: full − prefix."""
        return self.full - self.prefix


def routing_fault(routing: LanguageRouting, *, full_tokens: int, prefix_tokens: int) -> str | None:
    """Say what is impossible about the routing of so many tokens; None where nothing is.

    Σ_e routed[l, e] = top_k · tokens where layer l has a router, else 0        0 ≤ routed[l, e] ≤ tokens
    weight[l, e] = 0 where routed[l, e] = 0, and is finite
    """
    for name, span, tokens in (("full", routing.full, full_tokens), ("prefix", routing.prefix, prefix_tokens)):
        if span.total_tokens != tokens:
            return f"the {name} routing is of {span.total_tokens} tokens, the counts of {tokens}"
        expected = torch.zeros(len(span.routed), dtype=torch.int64)
        expected[list(routing.experts.layers)] = routing.experts.top_k * tokens
        sent = span.routed.sum(1)
        for layer in (sent != expected).nonzero().flatten().tolist()[:1]:
            return (
                f"the {name} routing of layer {layer} sends {int(sent[layer])} tokens to experts, expected "
                f"{int(expected[layer])} (top-{routing.experts.top_k} of {tokens} tokens)"
            )
        if bool((span.routed < 0).any()) or bool((span.routed > tokens).any()):
            low, high = map(int, span.routed.aminmax())
            return f"the {name} routing spans {low}..{high} tokens per expert for {tokens} tokens"
        if not bool(span.weight.isfinite().all()) or bool(span.weight[span.routed == 0].any()):
            return f"the {name} routing has weights that are not finite, or of experts to which no token was sent"
    return None

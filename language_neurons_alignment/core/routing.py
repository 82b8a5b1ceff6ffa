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

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ..errors import IncompatibleError
from .frames import Columns, Framed, crossed


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

    def expert_of(self, flat: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
        """The experts of flat indices; E for the shared ones."""
        return (flat // self.width).clamp(max=self.number)

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


@dataclass(frozen=True)
class ExpertShares(Framed):
    """How the tokens of each language's answers are shared out among the experts of each layer.

        share[l, e, k] = routed[l, e, k] / (top_k · tokens[k])        weight[l, e, k] = Σ weights / tokens[k]

    Shares of a layer add up to 1; l runs over the layers that have experts.
    """

    languages: tuple[str, ...]
    layers: tuple[int, ...]
    share: Float64[Tensor, "layer expert lang"]
    weight: Float64[Tensor, "layer expert lang"]

    def columns(self) -> Columns:
        """A row for each layer, expert and language: layer, expert, language, share, weight."""
        axes = {"layer": self.layers, "expert": range(self.share.shape[1]), "language": self.languages}
        return crossed(axes, {"share": self.share, "weight": self.weight})


@dataclass(frozen=True)
class RoutingProfile(Framed):
    """How evenly each layer spreads a language over its experts, and how far it is from the reference language.

        entropy[l, k]    = −Σ_e s_k ln s_k / ln E                  s_k = share[l, ·, k]; 1 = all experts alike
        divergence[l, k] = H((s_k + s_r) / 2) − (H(s_k) + H(s_r)) / 2,  H in bits; 0 = as the reference, at most 1

    Source: the Jensen–Shannon divergence from English by layer is that of arXiv 2510.04694, which finds a U: languages
    are routed apart in the first and the last layers, and alike between them.
    """

    languages: tuple[str, ...]
    layers: tuple[int, ...]
    reference: str
    entropy: Float64[Tensor, "layer lang"]
    divergence: Float64[Tensor, "layer lang"]

    def columns(self) -> Columns:
        """A row for each layer and language: layer, language, entropy, divergence."""
        axes = {"layer": self.layers, "language": self.languages}
        return crossed(axes, {"entropy": self.entropy, "divergence": self.divergence})


def expert_shares(routing: Sequence[LanguageRouting], *, languages: Sequence[str]) -> ExpertShares:
    """The shares of the answers of each language, whose routing it is.

    >>> one = SpanRouting(4, torch.tensor([[4, 3, 1]]), torch.tensor([[2.0, 1.5, 0.5]], dtype=torch.float64))
    >>> experts = Experts((0,), number=3, width=5, top_k=2)
    >>> english = LanguageRouting(experts, one, SpanRouting.zero(1, 3))
    >>> expert_shares([english], languages=["en"]).share.flatten().tolist()
    [0.5, 0.375, 0.125]

    Where a tokenizer merges across the border of instruction and answer, differences below 0 count as 0.
    """
    experts = routing[0].experts
    if any(one.experts != experts for one in routing):
        raise IncompatibleError("the languages were routed by different models: count them with one model")
    rows = list(experts.layers)
    answers = [one.answer for one in routing]
    routed = torch.stack([one.routed[rows].clamp(min=0).double() for one in answers], dim=-1)
    tokens = torch.tensor([max(one.total_tokens, 1) for one in answers], dtype=torch.float64)
    weight = torch.stack([one.weight[rows].clamp(min=0) for one in answers], dim=-1) / tokens
    return ExpertShares(tuple(languages), experts.layers, routed / routed.sum(1, keepdim=True).clamp(min=1), weight)


def routing_profile(shares: ExpertShares, *, reference: str = "en") -> RoutingProfile:
    """Entropy and divergence by layer; from the first language where `reference` is not among them.

    >>> share = torch.tensor([[[0.5, 1.0], [0.5, 0.0]]], dtype=torch.float64)
    >>> found = routing_profile(ExpertShares(("en", "fr"), (0,), share, share))
    >>> found.entropy.tolist(), [round(one, 4) for one in found.divergence[0].tolist()]
    ([[1.0, 0.0]], [0.0, 0.3113])
    """
    known = reference if reference in shares.languages else shares.languages[0]
    column = shares.languages.index(known)
    share, own = shares.share, shares.share[:, :, [column]]
    apart = _bits((share + own) / 2) - (_bits(share) + _bits(own)) / 2
    entropy = _bits(share) / math.log2(max(share.shape[1], 2))
    return RoutingProfile(shares.languages, shares.layers, known, entropy, apart.clamp(min=0))


def _bits(share: Float64[Tensor, "layer expert lang"]) -> Float64[Tensor, "layer lang"]:
    """The entropy over experts, in bits."""
    return 0.0 - torch.xlogy(share, share).sum(1) / math.log(2)  # 0, not −0

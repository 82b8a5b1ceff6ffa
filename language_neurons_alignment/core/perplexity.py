"""Perplexity from the likelihood of actual tokens (SPEC 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import CorpusError


@dataclass(frozen=True)
class TextLikelihood:
    """How likely a model finds one text.

    Attributes:
        nll: Σ −ln p(token | tokens before it), over the scored tokens, in nats.
        tokens: how many were scored; 0 where a text has nothing to predict (a single token).
    """

    nll: float
    tokens: int


@dataclass(frozen=True)
class Perplexity:
    """The perplexity of a set of texts, in both of the usual averages.

    Attributes:
        token: exp(Σ nll / Σ tokens), every token with the same weight.
        text: exp(mean over texts of nll / tokens), every text with the same weight: the paper's.
        nll: Σ nll, in nats.
        tokens: Σ tokens.
        texts: texts with at least one scored token.
        likelihoods: theirs, one by one, in the order of the texts; empty where only sums are known.
    """

    token: float
    text: float
    nll: float
    tokens: int
    texts: int
    likelihoods: tuple[TextLikelihood, ...] = ()


def perplexity(likelihoods: Sequence[TextLikelihood]) -> Perplexity:
    """Pool the likelihoods of single texts.

    Raises:
        CorpusError: no text has a token to predict.
    """
    scored = [one for one in likelihoods if one.tokens]
    if not scored:
        raise CorpusError(
            f"no perplexity: none of {len(likelihoods)} texts has a token to predict; texts need at least two tokens"
        )
    nll = math.fsum(one.nll for one in scored)
    tokens = sum(one.tokens for one in scored)
    mean_of_texts = math.fsum(one.nll / one.tokens for one in scored) / len(scored)
    return Perplexity(_exp(nll / tokens), _exp(mean_of_texts), nll, tokens, len(scored), tuple(scored))


def _exp(mean_nll: float) -> float:
    """e^x, infinite where a float cannot hold it: a broken model's perplexity is a result too."""
    try:
        return math.exp(mean_nll)
    except OverflowError:
        return math.inf

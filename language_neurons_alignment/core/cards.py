"""What is shown of one neuron: what it fires on, in which languages, what it writes, and what changes without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ..errors import SettingsError
from .readings import EDGES
from .resampling import Interval, interval, resampling_weights

NO_CLASS = "none"
"""The class of a neuron that is in no mask, and not general."""
_SHOWN = 3
"""Contexts and tokens of each kind in a short view."""


@dataclass(frozen=True)
class Context:
    """One of the tokens on which a neuron is strongest, and the text around it.

    Attributes:
        record: its number among the records of the language, from 0.
        answer: its number among the record's answers, from 0.
        position: of the token in the full sequence, instruction and answer, from 0.
        token: its text; where tokens are parts of one character, that of the whole character.
        activation: of the neuron on this token.
        pieces: the text around it, in pieces of whole characters.
        activations: of the neuron on each piece, the largest of its tokens.
        at: which piece holds the token.
    """

    record: int
    answer: int
    position: int
    token: str
    activation: float
    pieces: tuple[str, ...] = ()
    activations: tuple[float, ...] = ()
    at: int = 0

    @property
    def text(self) -> str:
        """The text around it."""
        return "".join(self.pieces)


@dataclass(frozen=True)
class TokenLogit:
    """A token whose logit a neuron changes, by an activation of 1 and a factor of 1 (`engines…writing`).

    `language` is None where the token is ambiguous.
    """

    token: str
    logit: float
    language: str | None = None
    script: str = ""


@dataclass(frozen=True)
class Effect:
    """What happens to a language's perplexity per token with this neuron alone off, in percent.

    Attributes:
        change: 100 · (PPL / PPL₀ − 1).
        low, high: ends of the 95 % interval over other texts.
        control_low, control_high: where one more random neuron of its layer would lie; None without controls.
        first_order: the change that activation × gradient predicts.
    """

    change: float
    low: float
    high: float
    control_low: float | None = None
    control_high: float | None = None
    first_order: float | None = None

    @property
    def inside(self) -> bool | None:
        """Whether it lies in the control's range; None without controls."""
        if self.control_low is None or self.control_high is None:
            return None
        return self.control_low <= self.change <= self.control_high


@dataclass(frozen=True)
class LanguageCard:
    """A neuron on the answer tokens of one language.

    Attributes:
        probability: share of the tokens on which it fires.
        tokens: how many there are.
        contexts: the strongest ones.
        histogram: tokens by activation: at or below 0, then between the `EDGES`.
        cosine: of what it writes with the mean unembedding of the language's tokens, from the mean over languages.
    """

    probability: float
    tokens: int
    contexts: tuple[Context, ...]
    histogram: tuple[int, ...] = ()
    cosine: float | None = None
    effect: Effect | None = None


@dataclass(frozen=True)
class Neighbour:
    """Another neuron that writes nearly the same: cos(d, d′).

    `together` is Jaccard's index of when they fire, |A ∩ B| / |A ∪ B| over the tokens of all languages; None where
    neither fires.
    """

    layer: int
    index: int
    cosine: float
    together: float | None


@dataclass(frozen=True)
class NeuronCard:
    """Everything that is shown of one neuron.

    Attributes:
        kind: its class: "specific", "related", "general", or "none".
        own: the languages of a mask that it belongs to.
        languages: what it does on each language's text.
        promotes, suppresses: the tokens whose logits it changes most, strongest first.
        scripts: the tokens on which it fires, by script.
        margin: the least probability in its own languages less the most in others (`core.readings.margins`).
        positive: share of the tokens on which it fires where the factor beside its activation is above 0, so that it
            promotes what `promotes` says; below one half it rather suppresses it. None where that is not seen.
        mean_logit: what it adds to every token's logit alike, which changes no probability.
        nearest: the other neurons of the page that write most nearly the same.
        expert: of a mixture of experts, the expert that it belongs to.
    """

    layer: int
    index: int
    kind: str
    own: tuple[str, ...]
    languages: Mapping[str, LanguageCard]
    promotes: tuple[TokenLogit, ...]
    suppresses: tuple[TokenLogit, ...]
    scripts: Mapping[str, int] = field(default_factory=dict)
    margin: float = 0.0
    positive: float | None = None
    mean_logit: float = 0.0
    nearest: tuple[Neighbour, ...] = ()
    expert: int | None = None

    @property
    def name(self) -> str:
        """Layer and index: "12.345"."""
        return f"{self.layer}.{self.index}"

    @property
    def writes(self) -> tuple[TokenLogit, ...]:
        """The tokens that it raises where it fires most often: of the two lists the one that its factor's sign says."""
        return self.suppresses if self.positive is not None and self.positive < 0.5 else self.promotes

    def as_json(self) -> dict[str, Any]:
        """Layer, index, class, contexts by language, and tokens that it promotes and suppresses, as plain values."""
        return {
            "layer": self.layer,
            "index": self.index,
            "class": self.kind,
            "languages": {
                code: {
                    "probability": one.probability,
                    "contexts": [
                        {
                            "record": context.record,
                            "answer": context.answer,
                            "position": context.position,
                            "token": context.token,
                            "activation": context.activation,
                        }
                        for context in one.contexts
                    ],
                }
                for code, one in self.languages.items()
            },
            "promotes": [{"token": one.token, "logit": one.logit} for one in self.promotes],
            "suppresses": [{"token": one.token, "logit": one.logit} for one in self.suppresses],
        }

    def as_row(self) -> dict[str, Any]:
        """Everything, as plain values with a list wherever there are several: a row of the table of neurons."""
        languages = []
        for code, one in self.languages.items():
            contexts = [{**vars(context), "text": context.text} for context in one.contexts]
            effect = None if one.effect is None else {**vars(one.effect), "inside": one.effect.inside}
            languages.append(
                {"language": code, "own": code in self.own, **vars(one), "contexts": contexts, "effect": effect}
            )
        return {
            "layer": self.layer,
            "index": self.index,
            "expert": self.expert,
            "class": self.kind,
            "own": list(self.own),
            "margin": self.margin,
            "positive": self.positive,
            "mean_logit": self.mean_logit,
            "languages": languages,
            "promotes": [dict(vars(one)) for one in self.promotes],
            "suppresses": [dict(vars(one)) for one in self.suppresses],
            "scripts": [{"script": name, "tokens": tokens} for name, tokens in self.scripts.items()],
            "nearest": [dict(vars(one)) for one in self.nearest],
        }

    def __repr__(self) -> str:
        fires = ", ".join(f"{code} {one.probability:.0%}" for code, one in self._by_probability()[:_SHOWN])
        says = " ".join(repr(one.token) for one in self.writes[:_SHOWN])
        return f"NeuronCard({self.name}, {self.kind}; fires on {fires}; writes {says})"

    def _by_probability(self) -> list[tuple[str, LanguageCard]]:
        return sorted(self.languages.items(), key=lambda pair: -pair[1].probability)

    def _repr_html_(self) -> str:
        rows = []
        for code, one in self._by_probability():
            contexts = "<br>".join(_context_html(context) for context in one.contexts[:_SHOWN])
            effect = "" if one.effect is None else f"<br>off: {one.effect.change:+.2f} %"
            rows.append(
                f"<tr><th>{escape(code)}</th><td>{one.probability:.1%}{effect}</td>"
                f'<td dir="auto" style="text-align:start">{contexts}</td></tr>'
            )
        sides = "".join(
            f"<p>{word}: {', '.join(f'<code>{escape(repr(one.token))}</code>' for one in tokens)}</p>"
            for word, tokens in (("promotes", self.promotes), ("suppresses", self.suppresses))
        )
        title = f"neuron {self.name}, {escape(self.kind)}{': ' if self.own else ''}{escape(', '.join(self.own))}"
        head = "<tr><th></th><th>fires</th><th>strongest on</th></tr>"
        return f"<table><caption>{title}</caption>{head}{''.join(rows)}</table>{sides}"


def _context_html(context: Context) -> str:
    """A context with each piece as dark as the neuron is strong on it."""
    most = max((one for one in context.activations if one == one), default=0.0)
    parts = []
    for number, (piece, value) in enumerate(zip(context.pieces, context.activations, strict=True)):
        share = value / most if most > 0 and value > 0 else 0.0
        bold = ";font-weight:bold" if number == context.at else ""
        parts.append(f'<span style="background:rgba(255,150,0,{share:.2f}){bold}">{escape(piece)}</span>')
    return "".join(parts)


def parse_place(text: str) -> tuple[int, int]:
    """Layer and index of "12.345".

    >>> parse_place("12.345")
    (12, 345)

    Raises:
        SettingsError: not two whole numbers.
    """
    layer, dot, index = text.strip().partition(".")
    if not (dot and layer.isascii() and index.isascii() and layer.isdigit() and index.isdigit()):
        raise SettingsError(f"a neuron is LAYER.INDEX, both from 0; got {text!r}: give for example 12.345")
    return int(layer), int(index)


def ablation_effects(
    change: Float64[Tensor, "neuron text"], tokens: Float64[Tensor, " text"], *, block: int = 512
) -> tuple[Float64[Tensor, " neuron"], Interval]:
    """The change of the perplexity per token with each neuron off, in percent, and its 95 % interval.

        100 · (exp(Σ Δnll / Σ tokens) − 1)        over the texts, and over texts drawn with replacement

    >>> value, ends = ablation_effects(torch.tensor([[1.0, 1.0]]).double(), torch.tensor([10.0, 10.0]).double())
    >>> round(float(value), 2), round(float(ends.low), 2)
    (10.52, 10.52)
    """
    weights = resampling_weights(len(tokens))
    spread = weights @ tokens
    low, high = [], []
    for some in change.split(block):
        ends = interval(_percent(weights @ some.T / spread[:, None]))
        low.append(ends.low)
        high.append(ends.high)
    return _percent(change.sum(dim=1) / tokens.sum()), Interval(torch.cat(low), torch.cat(high))


def _percent(change: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    return 100 * change.expm1()


def percent(change: float) -> float:
    """A change of the mean nll, in nats per token, as one of the perplexity, in percent."""
    return float(_percent(torch.tensor(change, dtype=torch.float64)))


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's ρ between two measures of the same neurons, with its 95 % interval over other neurons."""

    rho: float
    low: float
    high: float
    neurons: int


def rank_correlation(one: Sequence[float], other: Sequence[float], *, draws: int = 500) -> RankCorrelation:
    """Spearman's rank correlation, ties by their mean rank.

    >>> rank_correlation([1.0, 2.0, 3.0, 9.0], [1.0, 4.0, 9.0, 10.0]).rho
    1.0
    """
    from scipy import stats  # here: its import takes 0.7 s

    def rho(pairs: Tensor) -> Tensor:
        ranks = torch.from_numpy(stats.rankdata(pairs.numpy(), axis=-1))  # [..., 2, neuron]
        ranks = ranks - ranks.mean(dim=-1, keepdim=True)
        return (ranks[..., 0, :] * ranks[..., 1, :]).sum(dim=-1) / ranks.norm(dim=-1).prod(dim=-1)

    pairs = torch.tensor([list(one), list(other)], dtype=torch.float64)
    number = pairs.shape[1]
    drawn = torch.randint(number, (draws, number), generator=torch.Generator().manual_seed(0))
    found = rho(pairs[:, drawn].transpose(0, 1))
    ends = interval(found[~found.isnan()]) if bool((~found.isnan()).any()) else Interval(*2 * [torch.tensor(torch.nan)])
    return RankCorrelation(round(float(rho(pairs)), 12), float(ends.low), float(ends.high), number)


def histogram_labels() -> tuple[str, ...]:
    """What each bin of `LanguageCard.histogram` holds, in words.

    >>> histogram_labels()[:2], histogram_labels()[-1]
    (('≤ 0', '0 to 0.015625'), 'above 64')
    """
    inner = [f"{low:g} to {high:g}" for low, high in zip((0.0, *EDGES), EDGES, strict=False)]
    return ("≤ 0", *inner, f"above {EDGES[-1]:g}")

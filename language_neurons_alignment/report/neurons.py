"""The browser of neurons: one HTML page that needs no server and no network.

What the list and its filters need is one compressed chunk; the neurons themselves, and the texts of their contexts, are
many, each of which `template/neurons.js` unpacks when it is first looked at. All text is drawn as text, never as HTML.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.cards import NeuronCard, TokenLogit, histogram_labels
from ..languages import language_name
from ..version import __version__
from .page import TEMPLATES, THEMES

PER_CHUNK = 50
"""Neurons, and texts, in one chunk."""


@dataclass(frozen=True)
class PageContext:
    """Where a context lies in the page's texts: the text's number in its language, and the first of its pieces."""

    text: int
    first: int


@dataclass
class NeuronPage:
    """What the page shows.

    Attributes:
        title: the model's name.
        subtitle: dataset, mask, sizes.
        languages: of the texts.
        notes: sentences that a reader must know.
        texts: by language: record, answer and pieces of each text that a context is in.
    """

    title: str
    subtitle: str
    languages: tuple[str, ...]
    notes: tuple[str, ...] = ()
    texts: dict[str, list[tuple[int, int, Sequence[str]]]] = field(default_factory=dict)
    _index: dict[str, list[Any]] = field(default_factory=dict)
    _chunks: list[str] = field(default_factory=list)
    _open: list[Any] = field(default_factory=list)

    def add(self, card: NeuronCard, places: Mapping[str, Sequence[PageContext]]) -> None:
        """Take a neuron; `places` are those of its contexts, by language."""
        number = {code: k for k, code in enumerate(self.languages)}
        shown = [card.languages[code] for code in self.languages]
        strongest = max((one.contexts[0].activation for one in shown if one.contexts), default=0.0)
        words = [one.token for one in (*card.promotes, *card.suppresses)]
        words += [context.token for one in shown for context in one.contexts]
        row = {
            "place": [card.layer, card.index],
            "kind": card.kind,
            "own": [number[code] for code in card.own if code in number],
            "margin": round(card.margin, 4),
            "fires": [round(one.probability, 3) for one in shown],
            "most": _short(strongest),
            "says": [one.token for one in card.writes[:3]],
            "words": "\n".join(dict.fromkeys(word.strip().lower() for word in words)),
            "effect": [None if one.effect is None else _short(one.effect.change) for one in shown],
        }
        for name, value in row.items():
            self._index.setdefault(name, []).append(value)
        self._open.append(
            {
                "contexts": [
                    [
                        [at.text, at.first, context.at, context.position, _short(context.activation), _levels(context)]
                        for at, context in zip(places[code], card.languages[code].contexts, strict=True)
                    ]
                    for code in self.languages
                ],
                "histogram": [one.histogram for one in shown],
                "cosine": [None if one.cosine is None else round(one.cosine, 3) for one in shown],
                "effect": [
                    None
                    if (found := one.effect) is None
                    else [
                        _short(value)
                        for value in (
                            found.change,
                            found.low,
                            found.high,
                            found.control_low,
                            found.control_high,
                            found.first_order,
                        )
                    ]
                    for one in shown
                ],
                "promotes": _tokens(card.promotes, card.mean_logit),
                "suppresses": _tokens(card.suppresses, card.mean_logit),
                "scripts": list(card.scripts.items()),
                "positive": None if card.positive is None else round(card.positive, 3),
                "expert": card.expert,
                "near": [
                    [
                        one.layer,
                        one.index,
                        round(one.cosine, 3),
                        None if one.together is None else round(one.together, 3),
                    ]
                    for one in card.nearest
                ],
            }
        )
        if len(self._open) == PER_CHUNK:
            self._close()

    def _close(self) -> None:
        if self._open:
            self._chunks.append(_packed(self._open))
            self._open = []

    def render(self) -> str:
        """The page as HTML."""
        self._close()
        index = {
            "languages": [[code, language_name(code)] for code in self.languages],
            "bins": histogram_labels(),
            "perChunk": PER_CHUNK,
            "neurons": self._index,
        }
        texts = {
            f"text-{k}-{start // PER_CHUNK}": _packed(some[start : start + PER_CHUNK])
            for k, code in enumerate(self.languages)
            for some in [self.texts.get(code, [])]
            for start in range(0, len(some), PER_CHUNK)
        }
        chunks = {"index": _packed(index), **{f"neuron-{n}": one for n, one in enumerate(self._chunks)}, **texts}
        return TEMPLATES.get_template("neurons.html").render(
            page=self,
            number=len(self._index.get("kind", [])),
            css=TEMPLATES.get_template("neurons.css").render(themes=THEMES),
            script=TEMPLATES.get_template("neurons.js").render(),
            chunks=chunks,
            version=__version__,
        )


def _levels(context: Any) -> list[int]:
    """The activation on each piece, in hundredths of the context's own."""
    top = context.activation
    return [round(100 * value / top) if top > 0 and value > 0 else 0 for value in context.activations]


def _tokens(tokens: Sequence[TokenLogit], mean: float) -> list[list[Any]]:
    """Tokens with their logits, from the mean over the vocabulary: what is added to all alike changes nothing."""
    return [[one.token, _short(one.logit - mean), one.language, one.script] for one in tokens]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _packed(content: Iterable[Any] | Mapping[str, Any]) -> str:
    """JSON, compressed, as letters that HTML leaves alone."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8"), compresslevel=6, mtime=0)).decode("ascii")

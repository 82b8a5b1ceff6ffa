"""Commands that look at neurons one by one: neurons, neuron."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import NeuronSettings
from ..languages import language_name
from .options import MaskNeurons, Setup, answered, only, with_lambda
from .output import Bars, note, notes, result, table

if TYPE_CHECKING:
    from ..core.cards import NeuronCard, TokenLogit

_CONTEXTS = 3
"""Contexts of each language in the terminal; `--json` has all."""


def neurons(
    setup: Setup,
    settings: NeuronSettings,
    selection: MaskNeurons,
    listed: Annotated[
        Path | None,
        typer.Option("--list", help="Look at these neurons instead: JSON or CSV of layers and indices."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The page to write.", show_default="neurons/… under --root"),
    ] = None,
) -> None:
    """Write a page on which each language neuron is seen: what it fires on, what it writes, and what breaks without it.

    Reads the corpus once more, and keeps for each neuron its strongest contexts in each language. The page needs no
    server and no network; the same is written as JSON, as Parquet where pyarrow is installed, and as JSON in the shape
    of Neuronpedia's. --effects also switches each neuron off alone, which takes as long as reading the corpus once for
    each neuron.

    Example: lna neurons --model-path ./Mistral-7B-v0.1 -s mgsm -d datasets/mgsm.json -l 0.109375 --effects --top 20
    """
    selection = with_lambda(selection, setup.model, setup.results, "neurons")
    from .._neurons import write_neurons
    from ..store.masks import load_neurons

    places = None if listed is None else [(int(layer), int(index)) for layer, index in load_neurons(listed).tolist()]
    work = answered(setup.open(selection, existing=True))
    with work, Bars() as bars:
        rates: dict[str, Any] = {"top_rate": selection.top_rate, "lam": selection.lam}
        chosen = {"languages": selection.languages, "settings": settings, "out": out}
        written = write_neurons(work, places, **rates, **chosen, start=bars.start)
    notes(written.notes)
    cards, shown = written.cards, []
    for code in cards.languages:
        own = [number for number, languages in enumerate(cards.own) if code in languages]
        best = max(own, key=lambda number: float(cards.margin[number]), default=None)
        name = "–" if best is None else ".".join(map(str, cards.places[best]))
        margin = "–" if best is None else f"{float(cards.margin[best]):.3f}"
        shown.append([language_name(code), len(own), name, margin])
    data = {
        "neurons": len(cards),
        "classes": {kind: cards.kinds.count(kind) for kind in dict.fromkeys(cards.kinds)},
        "languages": cards.languages,
        "rank_correlation_of_first_order": {code: vars(one) for code, one in written.agreement.items()},
        "bytes_kept": written.kept,
        "notes": written.notes,
        "page": written.page,
        "files": written.files,
    }
    header = ["neurons of", "number", "largest margin", ""]
    result(setup.results.as_json, data, table(header, shown), [*map(str, written.files), str(written.page)])


def neuron(
    place: Annotated[str, typer.Argument(metavar="LAYER.INDEX", help="The neuron, for example 12.345.")],
    setup: Setup,
    settings: Annotated[
        NeuronSettings, only("contexts", "window", "tokens", "effects", "controls", "overlong", "seed")
    ],
    selection: MaskNeurons,
) -> None:
    """Show one neuron: its strongest contexts in each language, and the tokens that it promotes and suppresses.

    Any neuron of the model, in a mask or not; its class is that of the mask.

    Example: lna neuron 12.345 --model-path ./Mistral-7B-v0.1 -s mgsm -d datasets/mgsm.json -l 0.109375
    """
    from ..core.cards import parse_place

    wanted = parse_place(place)
    selection = with_lambda(selection, setup.model, setup.results, "neuron")
    from .._neuron_cards import neuron_cards

    work = answered(setup.open(selection, existing=True))
    with work, Bars() as bars:
        rates: dict[str, Any] = {"top_rate": selection.top_rate, "lam": selection.lam}
        cards = neuron_cards(
            work, [wanted], **rates, languages=selection.languages, settings=settings, start=bars.start
        )
    card = cards[wanted]
    if card.positive is not None and card.positive < 0.5:
        note(f"note: {factor_note(card)}")
    result(setup.results.as_json, card.as_json(), *card_sections(card))


def factor_note(card: NeuronCard) -> str:
    """What the sign of the factor beside the activation does to what is promoted."""
    assert card.positive is not None
    return (
        f"the factor beside its activation is below 0 on {1 - card.positive:.0%} of the tokens on which it fires: "
        "there it promotes what it suppresses, and the reverse"
    )


def card_sections(card: NeuronCard) -> list[list[str]]:
    """A neuron for the terminal."""
    named = f" of {', '.join(map(language_name, card.own))}" if card.own else ""
    sections = [[f"neuron {card.name}: {card.kind}{named}; margin {card.margin:+.3f}"]]
    rows = []
    for side in zip(card.promotes, card.suppresses, strict=False):
        rows.append(
            [part for one in side for part in (_visible(one.token), f"{one.logit - card.mean_logit:+.3f}", _said(one))]
        )
    sections.append(table(["promotes", "logit", "", "suppresses", "logit", ""], rows))
    for code, one in card.languages.items():
        off = ""
        if one.effect is not None:
            control = {None: "", True: ", within control", False: ", outside control"}[one.effect.inside]
            off = (
                f"; off: perplexity {one.effect.change:+.3f} % [{one.effect.low:+.3f}, {one.effect.high:+.3f}]{control}"
            )
        lines = [f"{language_name(code)}: fires on {one.probability:.1%} of {one.tokens:,} tokens{off}"]
        for context in one.contexts[:_CONTEXTS]:
            before, after = "".join(context.pieces[: context.at]), "".join(context.pieces[context.at + 1 :])
            text = f"{before}[{context.token}]{after}".replace("\n", "⏎").replace("\t", "⇥")
            lines.append(f"  {context.activation:8.3f}  {text}")
        sections.append(lines)
    return sections


def _said(one: TokenLogit) -> str:
    return one.language or ("" if one.script == "none" else one.script)


def _visible(token: str) -> str:
    """A token with its spaces and line breaks as signs."""
    return token.replace(" ", "␣").replace("\n", "⏎").replace("\r", "␍").replace("\t", "⇥")

"""Write what there is to see of a mask's neurons: a page to browse them, and the same as JSON and Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ._neuron_cards import NeuronCards, Place, neuron_cards
from ._session import Session
from .config import DEFAULT_NEURONS, NeuronSettings, Selection
from .core.cards import RankCorrelation, histogram_labels
from .core.model import StartProgress, silent
from .core.readings import EDGES
from .corpus.records import records_hash
from .errors import SettingsError
from .report.neurons import NeuronPage, PageContext
from .store.files import Json, write_text
from .store.layout import with_ending
from .store.masks import open_mask
from .store.neurons import has_parquet, save_neurons
from .version import __version__


@dataclass(frozen=True)
class WrittenNeurons:
    """A page of neurons on disk.

    Attributes:
        cards: the neurons.
        page: the HTML page.
        files: JSON, Neuronpedia's JSON, and Parquet where pyarrow is installed.
        kept: the bytes that the pass over the texts kept of these neurons.
        agreement: by language, how well the first-order estimate ranks the effects; empty without effects.
        notes: sentences that a reader must know; the page has them too.
    """

    cards: NeuronCards
    page: Path
    files: tuple[Path, ...]
    kept: int
    agreement: Mapping[str, RankCorrelation]
    notes: tuple[str, ...] = ()


def write_neurons(
    session: Session,
    neurons: Sequence[Place] | None = None,
    *,
    top_rate: float = Selection.top_rate,
    lam: float | None = None,
    languages: Sequence[str] | None = None,
    settings: NeuronSettings = DEFAULT_NEURONS,
    out: Path | None = None,
    start: StartProgress = silent,
) -> WrittenNeurons:
    """Look at the neurons of a mask, or at those of a list, and write the page on which they are browsed.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "corpus.json", "toy", engine="transformers") as session:
    ...     counted = [lna.collect_activations(session, code) for code in ("en", "es", "fr")]
    ...     found = lna.identify.identify(session.layout, ("en", "es", "fr"), lna.config.Selection(0.1, 0.0, 0.8))
    ...     written = write_neurons(session, top_rate=0.1, lam=0.0)
    >>> print(written.page.as_posix())
    neurons/toy/0.1-0.0/neurons.Llama-model.html

    Args:
        session: model, corpus and place; a corpus without answers stands for this model's own.
        neurons: (layer, index) of each; None: those of the mask, of `settings.classes`.
        top_rate: of the mask.
        lam: λ of the mask; None for a method without λ.
        languages: whose neurons, and in which texts; None for all languages of the mask.
        settings: which neurons, and what is kept of them.
        out: the page; by default among the results. The other files have its name.
        start: gives the progress bar.

    Raises:
        SettingsError: a page whose name does not end in .html, and as `neuron_cards`.
        LNAError: as `neuron_cards`.
    """
    if out is not None and out.suffix != ".html":
        raise SettingsError(f"--out must name a page that ends in .html, got {out}: for example {out.name}.html")
    rates = {"top_rate": top_rate, "lam": lam}
    cards = neuron_cards(session, neurons, **rates, languages=languages, settings=settings, start=start)
    layout, model = session.layout, session.layout.model
    path = layout.neurons(top_rate, lam, variant=settings.variant) if out is None else out.with_suffix("")
    page_path = with_ending(path, ".html")
    notes = _notes(cards)
    sizes = ", ".join(f"{cards.kinds.count(kind):,} {kind}" for kind in dict.fromkeys(cards.kinds))
    page = NeuronPage(
        model,
        f"{layout.dataset} · {sizes} · {layout.selection.at(top_rate, lam).folder} · {cards.model.size} neurons",
        cards.languages,
        notes,
    )
    header = {**_header(session, cards, settings, rates), "notes": list(notes)}
    files = save_neurons(path, header, _rows(cards, page), model=model, edges=EDGES)
    write_text(page_path, page.render())
    agreement = {} if cards.effects is None else cards.effects.agreement
    return WrittenNeurons(cards, page_path, tuple(files), cards.nbytes, agreement, notes)


def _rows(cards: NeuronCards, page: NeuronPage):  # noqa: ANN202
    """The rows of the table; the page takes each card as it passes."""
    numbers: dict[tuple[str, int], int] = {}
    for number, card in enumerate(cards):
        places: dict[str, list[PageContext]] = {}
        for language in cards.languages:
            places[language] = []
            for sequence, first, context in cards.contexts(language, number):
                texts = page.texts.setdefault(language, [])
                if (language, sequence) not in numbers:
                    numbers[language, sequence] = len(texts)
                    texts.append((context.record, context.answer, cards.pieces(language, sequence).texts))
                places[language].append(PageContext(numbers[language, sequence], first))
        page.add(card, places)
        yield card.as_row()


def _header(session: Session, cards: NeuronCards, settings: NeuronSettings, rates: Mapping[str, float | None]) -> Json:
    """What the neurons were seen in and how, for the JSON file."""
    mask = open_mask(session.layout, **rates, checkpoint=session.checkpoint)  # pyright: ignore[reportArgumentType]
    effects = None
    if cards.effects is not None:
        effects = {
            "controls": [list(place) for place in cards.effects.controls],
            "rank_correlation_of_first_order": {code: vars(one) for code, one in cards.effects.agreement.items()},
        }
    return {
        "model": session.layout.model,
        "dataset": session.layout.dataset,
        "languages": list(cards.languages),
        "top_rate": rates["top_rate"],
        "lambda": rates["lam"],
        "mask": mask.digest_of(settings.classes),
        "corpus": {code: records_hash(session.corpus.of_language(code)) for code in cards.languages},
        **session.hashes_of_all,
        "settings": {name: value for name, value in vars(settings).items() if name != "overlong"},
        "overlong_policy": settings.overlong,
        "histogram": list(histogram_labels()),
        "effects": effects,
        "version": __version__,
    }


def _notes(cards: NeuronCards) -> tuple[str, ...]:
    """What a reader must know."""
    notes = []
    if cards.effects is not None and cards.effects.agreement:
        some = cards.effects.agreement
        told = ", ".join(f"{code} {one.rho:.2f} [{one.low:.2f}, {one.high:.2f}]" for code, one in some.items())
        notes.append(f"rank correlation of the first-order estimate with the real effects (95 % interval): {told}")
    if not has_parquet():
        notes.append("no Parquet file: pip install pyarrow writes one too")
    return tuple(notes)

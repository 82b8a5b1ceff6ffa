"""Look at neurons: what each fires on in each language, what it writes, and what changes without it.

    from the text      the strongest contexts, the histogram of activations, tokens by script      (one pass)
    from the weights   tokens that it promotes and suppresses, cosines, the nearest other neurons
    with effects       each language's perplexity with this neuron alone off, and to first order

Contexts, probabilities and histograms are over the answers' tokens, those on which neurons are counted; what stands in
front of an answer is shown, and is no context of its own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from ._loaded import Model
from ._session import Session, with_stored_answers
from .config import DEFAULT_NEURONS, NeuronSettings, Selection
from .core.cards import (
    NO_CLASS,
    Context,
    Effect,
    LanguageCard,
    Neighbour,
    NeuronCard,
    RankCorrelation,
    TokenLogit,
    ablation_effects,
    parse_place,
    percent,
    rank_correlation,
)
from .core.interventions import matched_controls
from .core.model import ModelInfo, StartProgress, silent
from .core.readings import LanguageReadings, Readout, in_order, margins, nearest
from .core.resampling import Interval, control_range
from .core.widths import is_neuron
from .corpus.encode import EncodedCorpus, encode_groups, encode_texts
from .corpus.language_id import known_languages
from .corpus.pieces import Pieces, pieces_of, script_of, token_text
from .corpus.records import Record, Texts, corpus_of
from .corpus.token_languages import languages_of_tokens
from .errors import IncompatibleError, MissingArtifactError, SettingsError
from .languages import parse_languages
from .store.counts import AnswerCounts, load_answer_counts
from .store.masks import Mask, general_neurons, open_mask

if TYPE_CHECKING:
    from .engines.transformers import TransformersEngine

NEAREST = 5
"""Other neurons that are named beside each."""
_LIMITLESS = 2**62

Place = tuple[int, int]


@dataclass(frozen=True)
class _Texts:
    """One language's texts as tokens.

    Attributes:
        encoded: what the model reads.
        sequences: (record, answer) of each full sequence, in their order.
        offsets: the number of each sequence's first token, and behind the last.
    """

    encoded: EncodedCorpus
    sequences: tuple[tuple[int, int], ...]
    offsets: tuple[int, ...]

    @classmethod
    def of(cls, records: Sequence[Record], tokenizer: Any, *, max_length: int, overlong: str) -> _Texts:
        encoded = encode_groups(records, tokenizer, max_length=max_length, overlong=overlong)
        kept = {}
        if encoded.overlong and overlong == "skip":  # which answers are left
            whole = encode_groups(records, tokenizer, max_length=_LIMITLESS)
            for position, group in zip(whole.positions, whole.groups, strict=True):
                kept[position] = [n for n, tokens in enumerate(group.full) if len(tokens) <= max_length]
        sequences, offsets = [], [0]
        for position, group in zip(encoded.positions, encoded.groups, strict=True):
            answers = kept.get(position, range(len(group.full)))
            for answer, tokens in zip(answers, group.full, strict=True):
                sequences.append((position, answer))
                offsets.append(offsets[-1] + len(tokens))
        return cls(encoded, tuple(sequences), tuple(offsets))

    @cached_property
    def tokens(self) -> list[tuple[int, ...]]:
        """The full sequences."""
        return [tokens for group in self.encoded.groups for tokens in group.full]

    @cached_property
    def answer_tokens(self) -> list[int]:
        """The different tokens of the answers, ascending."""
        return sorted(
            {
                token
                for group in self.encoded.groups
                for tokens, border in zip(group.full, group.borders, strict=True)
                for token in tokens[border:]
            }
        )

    def place(self, number: int) -> tuple[int, int]:
        """The sequence that a token is in, and its position there."""
        sequence = bisect_right(self.offsets, number) - 1
        return sequence, number - self.offsets[sequence]


@dataclass(frozen=True)
class SingleEffects:
    """What neurons do to each language's likelihood, each alone.

    Attributes:
        change: of the perplexity, in percent.
        interval: over other texts.
        control: where one more random neuron of the same layer would lie; None without controls.
        first_order: what activation × gradient predicts.
        agreement: by language, the rank correlation of `first_order` with `change`, random neurons included.
        controls: the random neurons.
    """

    change: Float64[Tensor, "neuron lang"]
    interval: Interval
    control: Interval | None
    first_order: Float64[Tensor, "neuron lang"]
    agreement: Mapping[str, RankCorrelation]
    controls: tuple[Place, ...] = ()


@dataclass(frozen=True, repr=False)
class NeuronCards:
    """The cards of many neurons. Each is made when it is asked for, from what a pass kept.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "corpus.json", "toy", engine="transformers") as session:
    ...     counted = [lna.collect_activations(session, code) for code in ("en", "es", "fr")]
    ...     found = lna.identify.identify(session.layout, ("en", "es", "fr"), lna.config.Selection(0.1, 0.0, 0.8))
    ...     cards = lna.neuron_cards(session, [(0, 5), (2, 7)], top_rate=0.1, lam=0.0)
    >>> [card.name for card in cards], cards[2, 7].layer, cards["0.5"].index
    (['0.5', '2.7'], 2, 5)

    Attributes:
        model: what was looked at.
        languages: of the texts, in the mask's order.
        places: (layer, index) of each neuron, ascending.
        kinds: the class of each.
        own: the languages of each.
        settings: what was kept.
        effects: None where they were not asked for.
    """

    model: ModelInfo
    languages: tuple[str, ...]
    places: tuple[Place, ...]
    kinds: tuple[str, ...]
    own: tuple[tuple[str, ...], ...]
    settings: NeuronSettings
    effects: SingleEffects | None
    _readings: Mapping[str, LanguageReadings]
    _readout: Readout
    _near: tuple[Tensor, Tensor]
    _texts: Mapping[str, _Texts]
    _scripts: tuple[str, ...]
    _tokenizer: Any

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[NeuronCard]:
        return (self._card(number) for number in range(len(self)))

    def __getitem__(self, neuron: str | Place) -> NeuronCard:
        """The card of a neuron, by "12.345" or (12, 345); SettingsError for one that is not among them."""
        place = parse_place(neuron) if isinstance(neuron, str) else (int(neuron[0]), int(neuron[1]))
        if place not in self._numbers:
            raise SettingsError(
                f"neuron {place[0]}.{place[1]} is not among these {len(self)}: ask for it with "
                "lna.neuron_card, which takes any neuron"
            )
        return self._card(self._numbers[place])

    def __repr__(self) -> str:
        return f"NeuronCards({len(self)} neurons; texts in {', '.join(self.languages)})"

    @cached_property
    def _numbers(self) -> dict[Place, int]:
        return {place: number for number, place in enumerate(self.places)}

    @cached_property
    def probability(self) -> Float64[Tensor, "neuron lang"]:
        """The share of each language's answer tokens on which each neuron fires."""
        shares = [one.fired.double() / max(1, one.tokens) for one in self._readings.values()]
        return torch.stack(shares, dim=1)

    @cached_property
    def margin(self) -> Float[Tensor, " neuron"]:
        """`core.readings.margins` of the own languages among those of the texts."""
        own = [[code in languages for code in self.languages] for languages in self.own]
        return margins(self.probability, torch.tensor(own, dtype=torch.bool).reshape(self.probability.shape))

    @property
    def nbytes(self) -> int:
        """The bytes that were kept for these neurons: bounded by neurons × languages × K, whatever the corpus."""
        return sum(one.nbytes for one in self._readings.values())

    @cached_property
    def _words(self) -> dict[int, tuple[str, str | None, str]]:
        """Text, language and script of each token that is promoted or suppressed."""
        found = torch.cat([self._readout.promoted, self._readout.suppressed]).unique().tolist()
        texts = [token_text(token, self._tokenizer) for token in found]
        spoken = languages_of_tokens(found, {code: one.tokens for code, one in self._texts.items()}, self._tokenizer)
        described = ((text, code, script_of(text)) for text, code in zip(texts, spoken, strict=True))
        return dict(zip(found, described, strict=True))

    @cached_property
    def _pieces(self) -> dict[tuple[str, int], Pieces]:
        return {}

    def pieces(self, language: str, sequence: int) -> Pieces:
        """A full sequence as pieces of text."""
        key = language, sequence
        if key not in self._pieces:
            self._pieces[key] = pieces_of(self._texts[language].tokens[sequence], self._tokenizer)
        return self._pieces[key]

    def contexts(self, language: str, number: int) -> list[tuple[int, int, Context]]:
        """A neuron's strongest contexts in a language, each with its sequence and the piece that it begins with."""
        readings, texts, width = self._readings[language], self._texts[language], self.settings.window
        found = []
        for k, token in enumerate(readings.numbers[number].tolist()):
            if token < 0:
                break
            sequence, position = texts.place(token)
            pieces = self.pieces(language, sequence)
            start = max(0, position - width)
            stop = min(position + width + 1, len(pieces.of_token))
            first, last = pieces.of_token[start], pieces.of_token[stop - 1]
            values = [float("-inf")] * (last - first + 1)
            window = readings.windows[number, k].tolist()
            for at in range(start, stop):
                piece = pieces.of_token[at] - first
                values[piece] = max(values[piece], window[at - position + width])
            at = pieces.of_token[position]
            record, answer = texts.sequences[sequence]
            context = Context(
                record,
                answer,
                position,
                pieces.texts[at],
                float(readings.activation[number, k]),
                pieces.texts[first : last + 1],
                tuple(values),
                at - first,
            )
            found.append((sequence, first, context))
        return found

    def _card(self, number: int) -> NeuronCard:
        layer, index = self.places[number]
        languages = {}
        for k, code in enumerate(self.languages):
            readings = self._readings[code]
            languages[code] = LanguageCard(
                float(self.probability[number, k]),
                readings.tokens,
                tuple(context for _, _, context in self.contexts(code, number)),
                tuple(readings.histogram[number].tolist()),
                float(self._readout.cosine[number, k]),
                self._effect(number, k),
            )
        scripts = sum(one.scripts[number] for one in self._readings.values())
        assert isinstance(scripts, Tensor)
        fired, positive = self._fired[number], self._positive
        experts = self.model.experts
        return NeuronCard(
            layer,
            index,
            self.kinds[number],
            self.own[number],
            languages,
            self._tokens(self._readout.promoted[number], self._readout.promoted_logits[number]),
            self._tokens(self._readout.suppressed[number], self._readout.suppressed_logits[number]),
            {name: count for name, count in zip(self._scripts, scripts.tolist(), strict=True) if count},
            float(self.margin[number]),
            None if positive is None or not fired else float(positive[number] / fired),
            float(self._readout.mean_logit[number]),
            self._neighbours(number),
            experts.place(index)[0] if experts is not None and layer in experts.layers else None,
        )

    @cached_property
    def _fired(self) -> Int64[Tensor, " neuron"]:
        return torch.stack([one.fired for one in self._readings.values()]).sum(dim=0)

    @cached_property
    def _positive(self) -> Tensor | None:
        seen = [one.positive for one in self._readings.values()]
        known = [one for one in seen if one is not None]
        return torch.stack(known).sum(dim=0) if len(known) == len(seen) else None

    def _tokens(self, tokens: Tensor, logits: Tensor) -> tuple[TokenLogit, ...]:
        pairs = zip(tokens.tolist(), logits.tolist(), strict=True)
        words = ((self._words[token], logit) for token, logit in pairs)
        return tuple(TokenLogit(text, logit, language, script) for (text, language, script), logit in words)

    def _neighbours(self, number: int) -> tuple[Neighbour, ...]:
        found = []
        together = torch.stack([one.together[number] for one in self._readings.values()]).sum(dim=0).tolist()
        near, cosine = self._near
        for other, value, both in zip(near[number].tolist(), cosine[number].tolist(), together, strict=True):
            either = int(self._fired[number] + self._fired[other]) - both
            layer, index = self.places[other]
            found.append(Neighbour(layer, index, value, both / either if either else None))
        return tuple(found)

    def _effect(self, number: int, k: int) -> Effect | None:
        if self.effects is None:
            return None
        found = self.effects
        control = found.control
        return Effect(
            float(found.change[number, k]),
            float(found.interval.low[number, k]),
            float(found.interval.high[number, k]),
            None if control is None else float(control.low[number, k]),
            None if control is None else float(control.high[number, k]),
            float(found.first_order[number, k]),
        )


def neuron_cards(
    session: Session,
    neurons: Sequence[Place] | None = None,
    *,
    top_rate: float = Selection.top_rate,
    lam: float | None = None,
    languages: Sequence[str] | None = None,
    settings: NeuronSettings = DEFAULT_NEURONS,
    start: StartProgress = silent,
) -> NeuronCards:
    """Look at the neurons of a mask, or at those of a list, on a session's corpus.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "corpus.json", "toy", engine="transformers") as session:
    ...     counted = [lna.collect_activations(session, code) for code in ("en", "es", "fr")]
    ...     found = lna.identify.identify(session.layout, ("en", "es", "fr"), lna.config.Selection(0.1, 0.0, 0.8))
    ...     cards = neuron_cards(session, [(0, 5), (2, 7)], top_rate=0.1, lam=0.0)
    >>> cards, len(cards["0.5"].languages["fr"].contexts)
    (NeuronCards(2 neurons; texts in en, es, fr), 5)

    Args:
        session: model, corpus and place; a corpus without answers stands for this model's own.
        neurons: (layer, index) of each; None: those of the mask, of `settings.classes`.
        top_rate: of the mask.
        lam: λ of the mask; None for a method without λ.
        languages: whose neurons, and in which texts; None for all languages of the mask.
        settings: which neurons, and what is kept of them.
        start: gives the progress bar.

    Raises:
        MissingArtifactError: there is no such mask, or no counts where general neurons or `top` need them.
        MissingPackageError: lingua is not installed.
        SettingsError: a neuron that the model does not have, no neurons at all, or the engine vLLM.
        UnknownArchitectureError: what neurons write cannot be read in this model.
    """
    session = with_stored_answers(session)
    layout = session.layout
    mask = open_mask(layout, top_rate=top_rate, lam=lam, checkpoint=session.checkpoint)
    chosen = parse_languages(languages) if languages else mask.languages
    mask.check_languages(chosen)
    known_languages(())  # report a missing lingua now, not after the work
    counts = None
    needs_controls = settings.effects and settings.controls
    if "general" in settings.classes or settings.top is not None or needs_controls or neurons is not None:
        try:
            counts = load_answer_counts(layout, mask.languages)
        except MissingArtifactError:
            if settings.top is not None or "general" in settings.classes:
                raise
    if "replicas" in session.source.settings.options:
        raise SettingsError("neurons are looked at one by one in one model: leave --replicas out")
    engine: Any = session.source.on_transformers(SettingsError(_NOT_VLLM))
    records = {language: session.corpus.of_language(language) for language in chosen}
    return _look(engine, mask.over(engine.model), counts, records, neurons, settings, start)


@overload
def neuron_card(
    session: Session,
    neuron: str | Place,
    /,
    *,
    top_rate: float = Selection.top_rate,
    lam: float | None = None,
    settings: NeuronSettings = DEFAULT_NEURONS,
    start: StartProgress = silent,
) -> NeuronCard: ...
@overload
def neuron_card(
    model: Model,
    neuron: str | Place,
    texts: Texts,
    neurons: Mask | None = None,
    /,
    *,
    settings: NeuronSettings = DEFAULT_NEURONS,
    start: StartProgress = silent,
) -> NeuronCard: ...


def neuron_card(
    session: Session | Model,
    neuron: str | Place,
    texts: Any = None,
    neurons: Mask | None = None,
    /,
    *,
    top_rate: float | None = None,
    lam: float | None = None,
    settings: NeuronSettings = DEFAULT_NEURONS,
    start: StartProgress = silent,
) -> NeuronCard:
    """Look at one neuron: its strongest contexts in each language, what it promotes and suppresses, and what it does.

    `neuron_card(model, "12.345", texts)` looks at a model in memory (`lna.load`);
    `neuron_card(session, "12.345", top_rate=…, lam=…)` on a session's corpus, with the classes of its mask.

    >>> import language_neurons_alignment as lna
    >>> texts = {"en": ["Two doors, two keys."], "es": ["Dos puertas, dos llaves."], "sw": ["Milango miwili."]}
    >>> model = lna.load("model", device="cpu")
    >>> neurons = model.count(texts).find_neurons(lna.config.Selection(top_rate=0.1, bar=0.8))
    >>> card = neuron_card(model, "1.20", texts, neurons)
    >>> [context.record for context in card.languages["es"].contexts[:2]], len(card.promotes)
    ([0, 0], 10)
    >>> sorted(card.as_json())
    ['class', 'index', 'languages', 'layer', 'promotes', 'suppresses']

    Args:
        session: model, corpus and place; or a model in memory.
        neuron: "layer.index" or (layer, index), both from 0; in a mixture of experts the flat index within the layer.
        texts: of a model in memory, as for `Model.count`.
        neurons: of a model in memory: the mask that tells its class and its languages; None: the class is "none".
        top_rate: of a session's mask.
        lam: λ of a session's mask; None for a method without λ.
        settings: what is kept; `top` and `classes` decide nothing here.
        start: gives the progress bar.

    Raises:
        SettingsError: no such neuron, or the engine vLLM.
        UnknownArchitectureError: what neurons write cannot be read in this model.
    """
    place = parse_place(neuron) if isinstance(neuron, str) else (int(neuron[0]), int(neuron[1]))
    if not isinstance(session, Model):
        if texts is not None or neurons is not None:
            raise SettingsError(
                "a session has its own texts and mask: neuron_card(session, neuron, top_rate=…, lam=…); texts and "
                "neurons go with a model that lna.load gives"
            )
        rate = Selection.top_rate if top_rate is None else top_rate
        return neuron_cards(session, [place], top_rate=rate, lam=lam, settings=settings, start=start)[place]
    if texts is None or top_rate is not None or lam is not None:
        raise SettingsError(
            "a neuron of a model in memory takes the model, the neuron and texts: neuron_card(model, '12.345', texts); "
            "top_rate= and lam= are a session's"
        )
    corpus, info = corpus_of(texts), session.info
    known_languages(())
    engine = session.engine
    if engine.provenance.get("engine") != "transformers":
        raise SettingsError(_NOT_VLLM)
    nothing = torch.zeros(info.layers, info.d_mlp, len(corpus.languages), dtype=torch.bool)
    mask = Mask(corpus.languages, nothing) if neurons is None else session.check(neurons)
    records = {language: corpus.of_language(language) for language in corpus.languages}
    any_engine: Any = engine
    return _look(any_engine, mask, mask.counts, records, [place], settings, start)[place]


_NOT_VLLM = (
    "neurons are looked at one by one, which vLLM's compiled forwards do not show: give --engine transformers, also "
    "beside counts that vLLM made"
)


def _look(
    engine: TransformersEngine,
    mask: Mask,
    counts: AnswerCounts | None,
    records: Mapping[str, Sequence[Record]],
    neurons: Sequence[Place] | None,
    settings: NeuronSettings,
    start: StartProgress,
) -> NeuronCards:
    """Look at the neurons of a mask, or of a list, on texts."""
    general = None
    if "general" in settings.classes or (neurons is not None and counts is not None and _knows_general(mask)):
        general = general_neurons(mask, None, counts)
    chosen = _chosen(mask, tuple(records), general, counts, settings) if neurons is None else list(neurons)
    for layer, index in chosen:
        widths = engine.model.layer_widths
        if not (0 <= layer < len(widths) and 0 <= index < widths[layer]):
            raise SettingsError(
                f"there is no neuron {layer}.{index}: {engine.model.path} has {engine.model.size} neurons, layers and "
                "indices from 0"
            )
    at = in_order(chosen)
    if not len(at):
        raise SettingsError(
            f"{mask.name} has no {', '.join(settings.classes)} neurons, so there is nothing to look at: choose other "
            "--classes, or another mask (-r, -l)"
        )
    own, kinds = _classified(at, mask, general)
    tokenizer, limits = engine.tokenizer, {"max_length": engine.model.max_length, "overlong": settings.overlong}
    texts = {language: _Texts.of(of_language, tokenizer, **limits) for language, of_language in records.items()}
    scripts, by_token = _scripts(texts, tokenizer)
    spoken = [torch.tensor(one.answer_tokens, dtype=torch.int64) for one in texts.values()]
    readout = engine.readout(at, most=settings.tokens, languages=spoken)
    near = nearest(readout.directions, most=NEAREST)
    readings = {
        language: engine.read(
            one.encoded.groups,
            at,
            keep=settings.contexts,
            window=settings.window,
            seed=settings.seed,
            kinds=by_token,
            partners=near[0],
            progress=start(language, one.encoded.full_tokens),
        )
        for language, one in texts.items()
    }
    effects = None
    if settings.effects:
        effects = _effects(engine, at, mask, general, counts, records, settings, start)
    places = tuple((int(layer), int(index)) for layer, index in at.tolist())
    languages = tuple(records)
    return NeuronCards(
        engine.model,
        languages,
        places,
        kinds,
        own,
        settings,
        effects,
        readings,
        readout,
        near,
        texts,
        scripts,
        tokenizer,
    )


def _knows_general(mask: Mask) -> bool:
    """Whether the counts tell which neurons are general."""
    return mask.description is not None and mask.description.bar is not None


def _chosen(
    mask: Mask, languages: Sequence[str], general: Tensor | None, counts: AnswerCounts | None, settings: NeuronSettings
) -> list[Place]:
    """The neurons of the classes; with `top`, those of each language with the largest margins."""
    whole: dict[Place, None] = {}
    margin = None
    if settings.top is not None:
        if counts is None:
            raise MissingArtifactError(
                "--top orders neurons by their activation probabilities, and there are no counts beside the mask: "
                "count with `lna activation`, or leave --top out"
            )
        probability = counts.probability[..., [counts.languages.index(code) for code in mask.languages]]
        margin = margins(probability.flatten(0, 1), mask.tensor.flatten(0, 1)).view(mask.tensor.shape[:2])
    for language in languages:
        found = mask.neurons_of(language, settings.classes, general).nonzero()
        if margin is not None:
            order = margin[found[:, 0], found[:, 1]].argsort(descending=True, stable=True)
            found = found[order[: settings.top]]
        whole |= dict.fromkeys((int(layer), int(index)) for layer, index in found.tolist())
    return list(whole)


def _classified(
    neurons: Int64[Tensor, "neuron 2"], mask: Mask, general: Bool[Tensor, "layer neuron"] | None
) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """The languages and the class of each neuron."""
    own, kinds = [], []
    for layer, index in neurons.tolist():
        belongs = mask.tensor[layer, index].tolist()
        languages = tuple(code for code, one in zip(mask.languages, belongs, strict=True) if one)
        of_all = general is not None and bool(general[layer, index])
        own.append(mask.languages if of_all else languages)
        kinds.append("general" if of_all else (NO_CLASS, "specific", "related")[min(2, len(languages))])
    return tuple(own), tuple(kinds)


def _scripts(texts: Mapping[str, _Texts], tokenizer: Any) -> tuple[tuple[str, ...], Int64[Tensor, " token"]]:
    """The scripts of the answers' tokens, and the number of its script for each token of the vocabulary, or −1."""
    tokens = sorted(set().union(*(one.answer_tokens for one in texts.values())))
    highest = max((token for one in texts.values() for some in one.tokens for token in some), default=0)
    by_token = torch.full((highest + 1,), -1, dtype=torch.int64)
    names: dict[str, int] = {}
    for token in tokens:
        by_token[token] = names.setdefault(script_of(token_text(token, tokenizer)), len(names))
    return tuple(names), by_token


def _effects(
    engine: TransformersEngine,
    neurons: Int64[Tensor, "neuron 2"],
    mask: Mask,
    general: Tensor | None,
    counts: AnswerCounts | None,
    records: Mapping[str, Sequence[Record]],
    settings: NeuronSettings,
    start: StartProgress,
) -> SingleEffects:
    """Switch each neuron off alone, and random neurons of the same layers."""
    drawn = _controls(engine.model, neurons, mask, general, counts, settings) if settings.controls else neurons[:0]
    whole = in_order([(int(layer), int(index)) for layer, index in [*neurons.tolist(), *drawn.tolist()]])
    rows = {place: number for number, place in enumerate(map(tuple, whole.tolist()))}
    at = torch.tensor([rows[place] for place in map(tuple, neurons.tolist())])
    of_controls = torch.tensor([rows[place] for place in map(tuple, drawn.tolist())], dtype=torch.int64)
    columns, agreement = [], {}
    for language, of_language in records.items():
        texts = encode_texts(
            of_language,
            engine.tokenizer,
            text="answer",
            max_length=engine.model.max_length,
            overlong=settings.overlong,
        )
        scored = [text for text in texts if text.scored_tokens]
        tokens = torch.tensor([text.scored_tokens for text in scored], dtype=torch.float64)
        if not scored:
            raise IncompatibleError(f"no answer in {language} has a token to score: leave --effects out")
        progress = start(f"{language}, each neuron off", len(whole) * sum(len(text.tokens) for text in scored))
        change, ends = ablation_effects(engine.ablate_each(scored, whole, progress=progress), tokens)
        predicted = engine.first_order(scored)[whole[:, 0], whole[:, 1]] / tokens.sum()
        first = torch.tensor([percent(one) for one in predicted.tolist()], dtype=torch.float64)
        if len(whole) > 2:
            agreement[language] = rank_correlation(first.tolist(), change.tolist())
        columns.append((change, ends.low, ends.high, first))
    change, low, high, first = (torch.stack(parts, dim=1) for parts in zip(*columns, strict=True))
    control = _control_ranges(neurons, whole, of_controls, change) if len(of_controls) else None
    places = tuple((int(layer), int(index)) for layer, index in drawn.tolist())
    return SingleEffects(change[at], Interval(low[at], high[at]), control, first[at], agreement, places)


def _controls(
    model: ModelInfo,
    neurons: Int64[Tensor, "neuron 2"],
    mask: Mask,
    general: Tensor | None,
    counts: AnswerCounts | None,
    settings: NeuronSettings,
) -> Int64[Tensor, "neuron 2"]:
    """Random neurons of no language: as many in each layer as there are control sets, each as active as one of ours."""
    taken = mask.tensor.any(dim=-1) | ~is_neuron(model.layer_widths, model.d_mlp)
    taken[neurons[:, 0], neurons[:, 1]] = True
    if general is not None:
        taken |= general
    activity = None if counts is None else counts.probability.mean(dim=-1)
    generator = torch.Generator().manual_seed(settings.seed)
    found: list[Tensor] = []
    for number in range(settings.controls):
        wanted = torch.zeros_like(taken)
        for layer in neurons[:, 0].unique().tolist():
            of_layer = neurons[neurons[:, 0] == layer, 1]
            wanted[layer, of_layer[torch.randint(len(of_layer), (1,), generator=generator)]] = True
        drawn = matched_controls(wanted, activity=activity, eligible=~taken, seed=settings.seed + number)
        taken = taken | drawn
        found.append(drawn.nonzero())
    return torch.cat(found)


def _control_ranges(
    neurons: Int64[Tensor, "neuron 2"],
    whole: Int64[Tensor, "row 2"],
    controls: Int64[Tensor, " control"],
    change: Float64[Tensor, "row lang"],
) -> Interval:
    """Where one more random neuron of each neuron's layer would lie."""
    low, high = (torch.zeros(len(neurons), change.shape[1], dtype=torch.float64) for _ in range(2))
    for layer in neurons[:, 0].unique().tolist():
        of_layer = controls[whole[controls, 0] == layer]
        ends = control_range(change[of_layer])
        here = neurons[:, 0] == layer
        low[here], high[here] = ends.low, ends.high
    return Interval(low, high)

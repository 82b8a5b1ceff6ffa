"""The logit lens: in which language each layer of a model reads texts, undisturbed and under an intervention.

Behind every layer the model's own end (final norm and unembedding) turns the residual stream into a distribution over
tokens; `core.lens` has the equations. Tokens are assigned to languages from the corpus (`corpus.token_languages`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ._interventions import NeuronSource, intervene, neuron_source
from ._loaded import Model
from ._operations import Steps
from ._session import Session, with_stored_answers
from .analysis import ModelNeurons, open_neurons
from .config import DEFAULT_LENS, DEFAULT_SELECTION, LensSettings, Selection
from .core.frames import Columns, Framed
from .core.lens import AMBIGUOUS, NO_LANGUAGE, Lens
from .core.model import StartProgress, silent
from .core.profiles import ClassProfile, class_profile
from .core.segmentation import segment_profile
from .corpus.encode import Framing, ScoredText, Tokens, encode_texts
from .corpus.language_id import known_languages
from .corpus.records import Corpus, Record, Texts, corpus_of, records_hash
from .corpus.token_languages import TokenLanguages, token_languages
from .engines import Engine
from .engines.base import no_lens
from .errors import CorpusError, MissingArtifactError, SettingsError
from .languages import parse_languages
from .plots.draw import write_png
from .plots.figures import lens_figure
from .store.files import Json, save_with_tensors
from .store.lambdas import one_lambda
from .store.masks import Mask
from .version import __version__

if TYPE_CHECKING:
    from .plots.figures import Figure

STAGES = 4
"""The paper's."""


@dataclass(frozen=True, repr=False)
class LensResult(Framed):
    """What was read, and its files where it has any.

    Attributes:
        lens: the undisturbed model.
        changed: the same under `settings.do`; None without.
        tokens: which token is of which language, and how far that is right on held-out text.
        settings: what was read.
        profile: the classes of neurons over the layers; None where the model has no neurons beside it.
        cuts: first layers of the paper's four stages but the first.
        notes: sentences that a reader must know.
    """

    lens: Lens
    changed: Lens | None
    tokens: TokenLanguages
    settings: LensSettings
    profile: ClassProfile | None = None
    cuts: tuple[int, ...] = ()
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def conditions(self) -> dict[str, Lens]:
        """The lens of each condition, by its name."""
        changed = {} if self.changed is None else {" and then ".join(Steps.parse(self.settings.do).texts): self.changed}
        return {"undisturbed": self.lens, **changed}

    def columns(self) -> Columns:
        """A row for each language of the text, layer and measure (`Lens.columns`); with steps also its change."""
        columns = self.lens.columns()
        if self.changed is not None:
            for name, one in (("changed", self.changed), ("change", self.changed - self.lens)):
                more = one.columns()
                columns |= {name: more["value"], f"{name}_low": more["low"], f"{name}_high": more["high"]}
        return columns

    def pivot_columns(self) -> Columns:
        """A row for each condition and language but the pivot: where it is read in the pivot (`Lens.pivot_columns`)."""
        tables = {name: lens.pivot_columns() for name, lens in self.conditions.items()}
        first = next(iter(tables.values()))
        named: Columns = {"condition": [name for name, one in tables.items() for _ in one["language"]]}
        return named | {column: [value for one in tables.values() for value in one[column]] for column in first}

    def plot(self, *, title: str = "") -> Figure:
        """Draw the layers and languages, over the classes of neurons where they are known."""
        return lens_figure(self.conditions, self.profile, self.cuts, title=title)

    def tables(self) -> dict[str, Columns]:
        """The tables, by the names of their files."""
        return {"layers": self.columns(), "pivot": self.pivot_columns(), "tokens": self.tokens.columns()}

    def __repr__(self) -> str:
        texts = ", ".join(self.lens.languages)
        return f"LensResult({self.lens.layers} layers, texts in {texts}, accuracy of tokens {self.tokens.accuracy:.3f})"


def lens(
    session: Session | Model,
    languages: Sequence[str] | Texts | None = None,
    neurons: Mask | None = None,
    *,
    selection: Selection = DEFAULT_SELECTION,
    settings: LensSettings = DEFAULT_LENS,
    start: StartProgress = silent,
) -> LensResult:
    """Read every layer of a model by the language of its readout, undisturbed and under the steps of `settings.do`.

    `lens(model, texts, neurons)` reads a model in memory (`lna.load`) and writes nothing; `lens(session)` writes a
    figure, tables and tensors, anew each time.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "corpus.json", "toy") as session:
    ...     found = lna.lens(session, settings=lna.config.LensSettings(read=4))
    >>> found.lens.values.shape[:2], found.files[0].as_posix()  # texts, layers
    (torch.Size([3, 3]), 'lenses/toy/answer/lens.Llama-model.json')
    >>> model = lna.load("model", device="cpu")
    >>> found = lna.lens(model, {"en": ["Two doors, two keys."], "es": ["Dos puertas, dos llaves."]})
    >>> found.to_frame().columns.tolist()
    ['language', 'layer', 'measure', 'value', 'low', 'high']

    Args:
        session: model, corpus and place; or a model in memory.
        languages: whose texts are read; None: those of the corpus. Of a model in memory, the texts, as for
            `Model.count`.
        neurons: of a model in memory: whose languages the steps name; None for steps that name files alone.
        selection: the mask that the steps name, and whose classes of neurons the figure shows; a λ of None is that of
            the only mask.
        settings: what is read, and the steps.
        start: gives the progress bars.

    Raises:
        UnknownArchitectureError: the lens cannot be proved on this model.
        EngineError: vLLM, which does not show what layers give.
        CorpusError: a language has nothing to read, or texts are too long.
        LNAError: as `intervene`.
    """
    steps = Steps.parse(settings.do)
    if isinstance(session, Model):
        if languages is None:
            raise SettingsError("a model in memory reads texts that are given: lens(model, {'en': […], 'fr': […]})")
        corpus = corpus_of(languages)  # pyright: ignore[reportArgumentType]
        source = NeuronSource.open(None, steps, mask=neurons, classes=settings.classes, checkpoint=session.checkpoint)
        return _read(session.engine, corpus, corpus.languages, source, settings, start)
    if neurons is not None:
        raise SettingsError("a session's steps name the neurons of its mask: leave neurons= out, or give a model")
    session = with_stored_answers(session)
    chosen = parse_languages(languages) if languages else session.corpus.languages  # pyright: ignore[reportArgumentType]
    layout, masked = session.layout.by(selection), None
    lam = selection.lam if selection.lam is not None else one_lambda(layout, selection)
    source = neuron_source(session, steps, top_rate=selection.top_rate, lam=lam, classes=settings.classes)
    if lam is not None:
        masked = _neurons(layout, replace(selection, lam=lam, languages=None))
    known_languages(chosen)  # where lingua is missing it says so now, and not when the model is loaded
    engine = session.source.on_transformers(no_lens())
    done = _read(engine, session.corpus, chosen, source, settings, start)
    if masked is None:
        done = replace(done, notes=(*done.notes, "there is no mask, so the figure shows no classes of neurons"))
    else:
        profile = class_profile(masked.members, widths=masked.description.widths)
        stages = segment_profile(profile, permutations=1)
        done = replace(done, profile=profile, cuts=stages.cuts[min(STAGES, len(stages.cuts)) - 1])
    rates = f".{selection.top_rate!r}-{lam!r}" if steps.needs_mask else ""
    path = layout.lens(settings.text, variant=f"{settings.variant}{rates}")
    title = f"{layout.model} on {layout.dataset}: logit lens"
    pictures = {"layers": partial(write_png, done.plot(title=title))}
    content = {**_made_from(session, chosen, source, steps, settings), **_plain(done)}
    return replace(done, files=tuple(save_with_tensors(path, content, done.tables(), _tensors(done), pictures)))


def _neurons(layout: Any, selection: Selection) -> ModelNeurons:
    """A model's neurons from its counts, with all classes; from its mask alone where there are none."""
    try:
        return open_neurons(layout, selection)
    except MissingArtifactError:
        return open_neurons(layout, selection, mask_only=True)


@dataclass(frozen=True)
class _Reading:
    """The texts of one language: which record each is of, and the places of the tokens that are read."""

    texts: tuple[ScoredText, ...]
    record: tuple[int, ...]
    places: tuple[tuple[int, ...], ...]

    @classmethod
    def of(
        cls, records: Sequence[Record], language: str, tokenizer: Any, settings: LensSettings, longest: int
    ) -> _Reading:
        """Encode and draw; the same places in whatever batch, and whatever other languages are read."""
        how = {"text": settings.text, "max_length": longest, "overlong": settings.overlong}
        encode_texts(records, tokenizer, **how)  # says at once how many are too long
        numbers = range(len(records))
        if 0 < settings.records < len(records):  # the same questions of parallel records in every language
            numbers = sorted(random.Random(settings.seed).sample(numbers, settings.records))
        texts, record, places = [], [], []
        for number in numbers:
            for order, text in enumerate(encode_texts([records[number]], tokenizer, **how)):
                scored = range(max(text.start, 1), len(text.tokens))
                if not scored:
                    continue
                drawn = random.Random(f"{settings.seed} {language} {number} {order}")
                some = drawn.sample(scored, settings.read) if 0 < settings.read < len(scored) else scored
                texts.append(text)
                record.append(number)
                places.append(tuple(sorted(some)))
        if not texts:
            raise CorpusError(
                f"the texts ({settings.text}) in {language!r} have no token to read: give others (--text)"
            )
        return cls(tuple(texts), tuple(record), tuple(places))


def _read(
    engine: Engine,
    corpus: Corpus,
    languages: Sequence[str],
    source: NeuronSource,
    settings: LensSettings,
    start: StartProgress,
) -> LensResult:
    """Assign the tokens, then read every language under every condition."""
    tokenizer, steps = engine.tokenizer, Steps.parse(settings.do)
    records = {code: corpus.of_language(code) for code in languages}
    readings = {
        code: _Reading.of(some, code, tokenizer, settings, engine.model.max_length) for code, some in records.items()
    }
    framing = Framing.of(tokenizer)
    written = {code: [list(_written(framing, one)) for one in some] for code, some in records.items()}
    tokens = token_languages(written, tokenizer, vocabulary=len(tokenizer))
    chance = torch.from_numpy(tokens.group).bincount(minlength=len(languages) + 2) / len(tokens.group)
    chance = chance.to(torch.float64)
    pivot = settings.pivot if settings.pivot in languages else None
    notes = []
    if pivot is None and settings.pivot is not None:
        notes.append(
            f"the corpus has no texts in {settings.pivot!r}, so no tokens are known as its own: no pivot is shown"
        )

    def read(label: str, bound: Any) -> Lens:
        many = sum(len(text.tokens) for reading in readings.values() for text in reading.texts)
        progress = start(label, many)
        group, groups = torch.from_numpy(tokens.group), (*languages, AMBIGUOUS, NO_LANGUAGE)
        sums, positions = [], []
        for code, reading in readings.items():
            with bound(code):
                found = engine.lens(reading.texts, reading.places, group, groups=len(groups), progress=progress)
            row = torch.tensor(reading.record).unique(return_inverse=True)[1]
            whole = torch.zeros(int(row.max()) + 1, *found[0].shape, dtype=torch.float64)
            counted = torch.tensor([len(places) for places in reading.places], dtype=torch.float64)
            sums.append(whole.index_add_(0, row, torch.stack(found)))
            positions.append(torch.zeros(len(whole), dtype=torch.float64).index_add_(0, row, counted))
        return Lens(tuple(languages), groups, tuple(sums), tuple(positions), chance, pivot)

    def under(code: str) -> AbstractContextManager[None]:
        return intervene(engine, steps.bind(each=code), source)

    lens = read("undisturbed", lambda code: nullcontext())
    changed = read(" and then ".join(steps.texts), under) if steps.steps else None
    return LensResult(lens, changed, tokens, settings, notes=tuple(notes))


def _written(framing: Framing, record: Record) -> Iterator[Tokens]:
    """Everything that a record has, as tokens: its instruction with each answer, or alone."""
    for answer in record.answers or ("",):
        yield framing.encode(record, answer)


def _made_from(
    session: Session, languages: Sequence[str], source: NeuronSource, steps: Steps, settings: LensSettings
) -> Json:
    """Return what decides what is read."""
    return {
        "model": session.layout.model,
        "dataset": session.layout.dataset,
        **session.hashes_of_all,
        **session.source().provenance,
        "corpus": {code: records_hash(session.corpus.of_language(code)) for code in languages},
        "do": source.describe(steps) if steps.steps else None,
        **{name: getattr(settings, name) for name in ("text", "read", "records", "pivot", "overlong", "seed")},
        "version": __version__,
    }


def _plain(done: LensResult) -> Json:
    """Return the results as plain values; the CSV file `layers` has every layer."""
    lens = done.lens
    return {
        "languages": list(lens.languages),
        "layers": lens.layers,
        "records": [len(one) for one in lens.positions],
        "positions": [int(one.sum()) for one in lens.positions],
        "token_accuracy": done.tokens.accuracy,
        "token_coverage": done.tokens.coverage,
        "stages": list(done.cuts),
        "notes": list(done.notes),
        "tables": {name: table for name, table in done.tables().items() if name != "layers"},
    }


def _tensors(done: LensResult) -> Json:
    """Return the sums of each record: float64 [record, layer, measure], language by language."""
    lens = done.lens
    named = {"languages": list(lens.languages), "measures": list(lens.measures), "positions": list(lens.positions)}
    changed = {} if done.changed is None else {"changed": list(done.changed.sums)}
    return {**named, "sums": list(lens.sums), **changed}

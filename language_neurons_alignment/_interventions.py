"""The one vocabulary of interventions, `--do "zero zh" --do "scale:2 fr"`: steps in a stated order, one affine map."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from ._session import Session
from ._steps import PLACEHOLDERS, Operation, Step, Term, parse_step
from .config import MASK_CLASSES, Selection, in_order
from .core.interventions import Intervention
from .engines import Engine, ModelInfo
from .errors import IncompatibleError, SettingsError
from .store.checkpoint import read_checkpoint
from .store.counts import AnswerMoments, answer_moments
from .store.layout import Layout
from .store.masks import StoredMask, load_neurons, open_mask, read_mask

# ── Sets of neurons by name, and their mean activations: a language's, of a file, unions and differences of such.


@dataclass(frozen=True)
class NeuronSource:
    """Where the sets and the means that steps name come from.

    Attributes:
        layout: where the model's moments lie.
        mask: the languages' neurons; None where steps name neurons by files alone.
        classes: of a language that is named without classes.
    """

    layout: Layout
    mask: StoredMask | None
    classes: tuple[str, ...] = MASK_CLASSES
    _moments: dict[str, AnswerMoments] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, layout: Layout, mask: StoredMask | None, classes: Sequence[str] = MASK_CLASSES) -> NeuronSource:
        """Sets of a mask's languages, and of files.

        Raises:
            SettingsError: a class that there is not, or none.
        """
        return cls(layout, mask, in_order(classes))

    @property
    def languages(self) -> tuple[str, ...]:
        """Those of the mask.

        Raises:
            SettingsError: there is no mask.
        """
        return self._mask().languages

    def check(self, term: Term) -> None:
        """Raise what `neurons` would, as far as it can be told without the model."""
        if _is_list(term):
            _listed(term)
        else:
            self._named(term)

    def neurons(self, terms: Sequence[tuple[bool, Term]], model: ModelInfo) -> Bool[Tensor, "layer neuron"]:
        """The union of terms, less those that are taken away, from left to right.

        Raises:
            SettingsError: a language that the mask or file does not have.
            MissingArtifactError, ArtifactError: a file that is not there, or not what it should be.
            IncompatibleError: neurons that the model does not have, or another model's mask.
        """
        chosen = torch.zeros(model.layers, model.d_mlp, dtype=torch.bool)
        for minus, term in terms:
            one = self._term(term, model)
            chosen = chosen & ~one if minus else chosen | one
        return chosen

    def digest(self, term: Term) -> str:
        """A digest of what a term's neurons are read from."""
        self.check(term)
        if term.file is not None:
            return hashlib.blake2b(_path(term).read_bytes(), digest_size=16).hexdigest()
        mask, _, classes = self._named(term)
        return mask.digest_of(classes)

    def moments(self, language: str) -> AnswerMoments:
        """The stored moments of a language's answers, read once."""
        if language not in self._moments:
            self._moments[language] = answer_moments(self.layout, language)
        return self._moments[language]

    def mean(self, language: str, model: ModelInfo) -> Float64[Tensor, "layer neuron"]:
        """μ: the mean activation over the tokens of a language's answers.

        Raises:
            MissingArtifactError: it was not collected.
            IncompatibleError: it was collected on another model.
        """
        moments = self.moments(language)
        checkpoint = read_checkpoint(model.path)
        for name in ("config_hash", "weights_hash"):
            seen, given = getattr(moments, name), getattr(checkpoint, name)
            if seen and given and seen != given:
                raise IncompatibleError(
                    f"the mean activations of {language!r} were collected on a model with other {name.split('_')[0]} "
                    f"than {model.path}: collect them again with `lna activation --moments --force`"
                )
        if tuple(moments.mean.shape) != (model.layers, model.d_mlp):
            raise IncompatibleError(
                f"the mean activations of {language!r} are of {tuple(moments.mean.shape)} (layers, d_mlp), "
                f"{model.path} has {(model.layers, model.d_mlp)}: give the model that they were collected on"
            )
        return moments.mean

    def _term(self, term: Term, model: ModelInfo) -> Bool[Tensor, "layer neuron"]:
        if _is_list(term):
            return _placed(term, model)
        mask, language, classes = self._named(term)
        if term.file is not None:
            mask.check_model(read_checkpoint(model.path))
        return mask.neurons_of(language, classes, model)

    def _named(self, term: Term) -> tuple[StoredMask, str, tuple[str, ...]]:
        """A mask, whose neurons in it, and of which classes: the mask at hand, or a file's, of which all."""
        mask = self._mask() if term.file is None else read_mask(self.layout, _path(term))
        if term.language is None and len(mask.languages) > 1:
            raise SettingsError(
                f"{mask.path} has the neurons of {len(mask.languages)} languages: name one, {term}#{mask.languages[0]}"
            )
        language = term.language or next(iter(mask.languages))
        if language not in (*mask.languages, *PLACEHOLDERS):
            raise SettingsError(f"{mask.path} has no neurons of {language}: choose from {', '.join(mask.languages)}")
        return mask, language, MASK_CLASSES if term.file is not None else term.classes or self.classes

    def _mask(self) -> StoredMask:
        if self.mask is None:
            raise SettingsError("a step names a language, whose neurons only a mask tells: give its λ (-l)")
        return self.mask


def neuron_source(
    session: Session,
    *,
    top_rate: float = Selection.top_rate,
    lam: float | None = None,
    classes: Sequence[str] = MASK_CLASSES,
) -> NeuronSource:
    """Sets and means of a session's model: its languages by the mask of these rates; where λ is missing, files alone.

    Raises:
        MissingArtifactError, ArtifactError, IncompatibleError: as `masks.open_mask`.
    """
    mask = None
    if lam is not None or not session.layout.selection.has_lambda:
        mask = open_mask(session.layout, top_rate=top_rate, lam=lam, checkpoint=session.checkpoint)
    return NeuronSource.open(session.layout, mask, classes)


def _is_list(term: Term) -> bool:
    return term.file is not None and Path(term.file).suffix in (".json", ".csv")


def _path(term: Term) -> Path:
    assert term.file is not None
    return Path(term.file).expanduser()


def _listed(term: Term) -> Int64[Tensor, "place 2"]:
    if term.language is not None:
        raise SettingsError(f"@{term.file} lists neurons of no language: leave #{term.language} out")
    return load_neurons(_path(term))


def _placed(term: Term, model: ModelInfo) -> Bool[Tensor, "layer neuron"]:
    """The listed neurons over a model's."""
    places = _listed(term)
    outside = places[(places >= torch.tensor([model.layers, model.d_mlp])).any(dim=1)]
    if len(outside):
        layer, neuron = outside[0].tolist()
        raise IncompatibleError(
            f"@{term.file} names neuron {neuron} of layer {layer}, {model.path} has layers 0..{model.layers - 1} "
            f"and neurons 0..{model.d_mlp - 1}: give the model that it was made for"
        )
    chosen = torch.zeros(model.layers, model.d_mlp, dtype=torch.bool)
    chosen[places[:, 0], places[:, 1]] = True
    return chosen


# ── What an operation does to the activation a of each neuron of its set, as an affine map.
#
# With μ_k the neuron's mean activation over the answers in language k:
#
#     zero            a ← 0                             set:v         a ← v
#     scale:s         a ← s · a                         mean:k        a ← μ_k        (replace:k is the same)
#     add:k:α         a ← a + α μ_k                     diffmean:k    a ← a + μ_k − mean over j ≠ k of μ_j
#
# j runs over the mask's languages. Source: SPEC 6 (zero); the others are those of Language Arithmetics (FIELD).


def mean_languages(operation: Operation, source: NeuronSource) -> tuple[str, ...]:
    """The languages whose mean an operation needs; a word that is not bound may stand for any of the mask."""
    language = operation.language
    if language is None:
        return ()
    if operation.name != "diffmean" and language not in PLACEHOLDERS:
        return (language,)
    if language not in (*source.languages, *PLACEHOLDERS):
        raise SettingsError(f"{operation} names no language of the mask: choose from {', '.join(source.languages)}")
    return source.languages


def affine_of(
    operation: Operation, source: NeuronSource, model: ModelInfo
) -> tuple[float, float | Float64[Tensor, "layer neuron"]]:
    """The scale and the shift of an operation."""
    means = {language: source.mean(language, model) for language in mean_languages(operation, source)}
    amount = operation.amount or 0.0
    if operation.name == "scale":
        return amount, 0.0
    if operation.language is None:  # set; and zero, which is set:0
        return 0.0, amount
    own = means.pop(operation.language)
    if operation.name == "mean":
        return 0.0, own
    if operation.name == "add":
        return 1.0, amount * own
    if not means:
        raise SettingsError(f"{operation}: the mask has no other language to differ from; choose another (-r, -l)")
    return 1.0, own - torch.stack(list(means.values())).mean(dim=0)


Swap = Callable[[Bool[Tensor, "layer neuron"]], Bool[Tensor, "layer neuron"]]
"""Gives the neurons that a step is done to in place of its own: what a control is."""

_LONGEST = 40


@dataclass(frozen=True)
class Steps:
    """Steps, one after the other.

    Attributes:
        steps: in the order in which they are done; none changes nothing.
    """

    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, texts: str | Sequence[str]) -> Steps:
        """Read steps as they are written after `--do`; a single text is a single step.

        Raises:
            SettingsError: an operation, a set or a number that cannot be.
        """
        return cls(tuple(parse_step(text) for text in ([texts] if isinstance(texts, str) else texts)))

    @property
    def texts(self) -> tuple[str, ...]:
        """The steps, each written in one way."""
        return tuple(map(str, self.steps))

    @property
    def words(self) -> frozenset[str]:
        """The words in it that stand for a language: any of each, source, target."""
        return frozenset().union(*(step.words for step in self.steps))

    @property
    def means(self) -> tuple[str, ...]:
        """The languages (or words for them) whose mean it names; `diffmean` needs the others of the mask as well."""
        return tuple(dict.fromkeys(step.operation.language for step in self.steps if step.operation.language))

    @property
    def needs_mask(self) -> bool:
        """Whether it names neurons by language, or needs to know all languages."""
        by_language = any(term.file is None for step in self.steps for _, term in step.terms)
        return by_language or any(step.operation.name == "diffmean" for step in self.steps)

    def variant(self, usual: Sequence[str]) -> str:
        """What file names tell of these steps, ".word", another one for other steps; "" for the usual ones."""
        if self.texts == Steps.parse(usual).texts:
            return ""
        word = re.sub(r"[^a-z0-9.]+", "-", "-".join(self.texts).lower()).strip("-.")[:_LONGEST].rstrip("-.")
        return f".{word}-{hashlib.blake2b(repr(self.texts).encode(), digest_size=4).hexdigest()}"

    def bind(self, *, each: str | None = None, source: str | None = None, target: str | None = None) -> Steps:
        """The same with languages in the place of the words; a word that is given none stays."""
        given = {"each": each, "source": source, "target": target}
        languages = {word: language for word, language in given.items() if language is not None}
        return Steps(tuple(step.bind(languages) for step in self.steps))

    def check_bound(self) -> None:
        """Raise SettingsError where a word stands for no language yet."""
        if self.words:
            raise SettingsError(f"{', '.join(sorted(self.words))} stands for no language here: name one")

    def check(self, source: NeuronSource) -> None:
        """Raise whatever `intervention` would, as far as it can be told before the model is loaded.

        A word that is not bound may stand for any language of the mask.

        Raises:
            LNAError: a language that the mask does not have, a file or moments that are not there.
        """
        for step in self.steps:
            for _, term in step.terms:
                source.check(term)
            for language in mean_languages(step.operation, source):
                source.moments(language)

    def intervention(
        self, source: NeuronSource, model: ModelInfo, *, swap: Swap | None = None, allow_empty: bool = False
    ) -> Intervention:
        """What it does to a model: the steps' maps, composed in their order.

        Args:
            source: where sets and means come from.
            model: what it is done to.
            swap: other neurons in place of each step's.
            allow_empty: a step on no neurons changes nothing, as when there is a row for every language; without it
                that is an error, for whoever asks for a change and gets none should know.

        Raises:
            SettingsError: a word that stands for no language yet, an unknown language, an empty set, or numbers that
                the model's precision cannot hold.
            MissingArtifactError, ArtifactError: a file, or moments, that are not there or damaged.
            IncompatibleError: sets or means of another model.
        """
        self.check_bound()
        whole = Intervention.identity(model.layers, model.d_mlp)
        for step in self.steps:
            neurons = source.neurons(step.terms, model)
            if not (allow_empty or neurons.any()):
                raise SettingsError(f"the step '{step}' would change nothing, for {_empty(step, source)}")
            scale, shift = affine_of(step.operation, source, model)
            whole = whole.then(Intervention.on(swap(neurons) if swap else neurons, scale=scale, shift=shift))
        _check_finite(whole, model, self.texts)
        return whole

    def describe(self, source: NeuronSource) -> dict[str, Any]:
        """Plain values for provenance: the steps, and digests of the neurons and means that they mean here."""
        terms = [term for step in self.steps for _, term in step.terms]
        rates = source.mask.description if source.mask and self.needs_mask else None
        means = [language for step in self.steps for language in mean_languages(step.operation, source)]
        return {
            "do": list(self.texts),
            "classes": list(source.classes),
            "top_rate": None if rates is None else rates.top_rate,
            "lambda": None if rates is None else rates.lam,
            "neurons": {str(term): source.digest(term) for term in terms},
            "means": {language: source.moments(language).digest for language in means},
        }


NOTHING = Steps(())
"""Changes nothing."""


def intervene(
    engine: Engine, do: Steps | str | Sequence[str], source: NeuronSource, *, allow_empty: bool = False
) -> AbstractContextManager[None]:
    """While the context is open, the model runs with these steps done; after it, also by exception, as before.

        with lna.intervene(engine, ["zero zh", "scale:2 fr"], source):
            engine.log_likelihood(texts, progress=print)

    Contexts nest: the inner one acts on what the outer one left.

    Raises:
        LNAError: as `Steps.parse`, `Steps.intervention` and `Engine.intervene`.
    """
    doing = do if isinstance(do, Steps) else Steps.parse(do)
    return engine.intervene(doing.intervention(source, engine.model, allow_empty=allow_empty))


def _empty(step: Step, source: NeuronSource) -> str:
    """Why a set is empty, and what to do."""
    if len(step.terms) > 1:
        return "no neurons are left in its set: take less away"
    _, term = next(iter(step.terms))
    if term.file is not None or source.mask is None:
        return f"{term} has no neurons in it: give another file"
    classes = ", ".join(term.classes or source.classes)
    return (
        f"{source.mask.path} has no {classes} neurons of {term.language}: choose other --classes, or another mask "
        "(-r, -l)"
    )


def _check_finite(whole: Intervention, model: ModelInfo, texts: Sequence[str]) -> None:
    largest = torch.finfo(getattr(torch, model.dtype)).max
    if not bool(((whole.scale.abs() < torch.inf) & (whole.shift.abs() <= largest)).all()):
        raise SettingsError(
            f"{' and then '.join(map(repr, texts))} comes to numbers above {largest:g}, the largest in {model.dtype}: "
            "give smaller ones, or --dtype float32"
        )

"""What the steps of `--do` do to a model: they are read once, then composed into one affine map of activations.

With μ_k the neuron's mean activation over the answers in language k, an operation changes the activation a of each
neuron of its set:

    zero            a ← 0                             set:v         a ← v
    scale:s         a ← s · a                         mean:k        a ← μ_k        (replace:k is the same)
    add:k:α         a ← a + α μ_k                     diffmean:k    a ← a + μ_k − mean over j ≠ k of μ_j

In a mixture of experts, two operations change the logit z of each expert of their set before the router chooses:

    ban             z ← −∞                            boost:x       z ← z + x

j runs over the mask's languages. Source: the paper (zero) and Language Arithmetics (the others).

`NeuronSource.open` reads everything that steps name and checks that it belongs to the model; what the source computes
afterwards comes from tensors alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from ._operations import MASK_CLASSES, NOTHING, OPERATIONS, PLACEHOLDERS, Operation, Step, Steps, Term, in_order
from ._session import Session
from .config import Selection
from .core.interventions import Intervention
from .core.model import ModelInfo
from .engines import Engine
from .errors import IncompatibleError, MissingArtifactError, SettingsError
from .store.checkpoint import UNKNOWN, Checkpoint
from .store.counts import AnswerCounts, AnswerMoments, answer_moments
from .store.files import Json, digest_of_bytes
from .store.layout import Layout
from .store.masks import Mask, changed_counts, general_neurons, load_neurons, open_mask

Swap = Callable[[Bool[Tensor, "layer neuron"]], Bool[Tensor, "layer neuron"]]
"""Takes the neurons of a step and returns the ones to change instead: this is what a control is."""


NeuronFile = tuple["Mask | Int64[Tensor, 'place 2']", str]
"""A file that a step names: a mask, or the (layer, neuron) places of a list; and its digest."""


@dataclass(frozen=True)
class NeuronSource:
    """The sets of neurons and the mean activations that steps name."""

    layout: Layout | None  # None: everything is in memory
    mask: Mask | None = None
    classes: tuple[str, ...] = MASK_CLASSES
    checkpoint: Checkpoint = UNKNOWN
    general: Bool[Tensor, "layer neuron"] | None = None
    files: Mapping[str, NeuronFile] = field(default_factory=dict)  # by path, as the steps write it
    moments: Mapping[str, AnswerMoments] = field(default_factory=dict)  # by language

    @classmethod
    def open(
        cls,
        layout: Layout | None,
        steps: Steps | Iterable[Steps] = NOTHING,
        *,
        mask: Mask | None = None,
        classes: Sequence[str] = MASK_CLASSES,
        checkpoint: Checkpoint = UNKNOWN,
        counts: AnswerCounts | None = None,
    ) -> NeuronSource:
        """Read everything that steps name."""
        return cls(layout, mask, in_order(classes), checkpoint).opened(steps, counts=counts)

    def opened(self, steps: Steps | Iterable[Steps], *, counts: AnswerCounts | None = None) -> NeuronSource:
        """Return this source with everything that further steps name; only what is missing is read."""
        every = [steps] if isinstance(steps, Steps) else list(steps)
        terms = list(dict.fromkeys(term for one in every for term in one.terms))
        operations = dict.fromkeys(step.operation for one in every for step in one.steps)
        named = {term.file: term for term in terms if term.file is not None and term.file not in self.files}
        files = {path: self._read_file(Path(os.path.expanduser(path)), term) for path, term in named.items()}
        source = replace(self, files={**self.files, **files})
        general = [source._includes_general(term) for term in terms]  # each term is checked
        if any(general) and self.general is None:
            source = replace(source, general=general_neurons(source._mask(), self.layout, counts))
        languages = dict.fromkeys(language for one in operations for language in source._mean_languages(one))
        read = {one: self._read_moments(one, counts) for one in languages if one not in self.moments}
        return replace(source, moments={**self.moments, **read})

    def _read_file(self, path: Path, term: Term) -> NeuronFile:
        """Read a file that a step names, and check that a mask comes from this model."""
        neurons = load_neurons(path) if term.is_list else Mask.load(path)
        if isinstance(neurons, Mask):
            neurons.check_model(self.checkpoint)
        return neurons, digest_of_bytes(path.read_bytes())

    def _read_moments(self, language: str, counts: AnswerCounts | None) -> AnswerMoments:
        """Read a language's moments, and check that they come from this model."""
        in_memory = {} if self.mask is None or self.mask.counts is None else self.mask.counts.moments
        if language in in_memory:
            moments = in_memory[language]
        elif self.layout is not None:
            moments = answer_moments(self.layout, language, counts=counts)
        else:
            raise MissingArtifactError(
                f"the mean activations of {language!r} are not in memory: count with moments=True, and take the "
                "neurons that counts.find_neurons() gives"
            )
        self.checkpoint.check_same(
            moments,
            what=f"the mean activations of {language!r} were collected on a model",
            remedy="collect them again with `lna activation --moments --force`",
        )
        return moments

    def _includes_general(self, term: Term) -> bool:
        """Whether a term includes general neurons; raises where it names a language that there is not."""
        if term.of_shape:
            return False
        if term.is_list and term.language is not None:
            raise SettingsError(f"@{term.file} lists neurons of no language: leave #{term.language} out")
        return not term.is_list and "general" in self._named(term)[2]

    def _named(self, term: Term) -> tuple[Mask, str, tuple[str, ...]]:
        """The mask that a term means, the language in it, and the classes: for a mask file, all that it holds."""
        mask = self._mask() if term.file is None else self._file(term)[0]
        assert isinstance(mask, Mask)
        if term.language is None and len(mask.languages) > 1:
            raise SettingsError(
                f"{mask.name} has the neurons of {len(mask.languages)} languages: name one, {term}#{mask.languages[0]}"
            )
        language = term.language or next(iter(mask.languages))
        if language not in (*mask.languages, *PLACEHOLDERS):
            raise SettingsError(f"{mask.name} has no neurons of {language}: choose from {', '.join(mask.languages)}")
        return mask, language, MASK_CLASSES if term.file is not None else term.classes or self.classes

    def _mask(self) -> Mask:
        if self.mask is None:
            raise SettingsError("a step names a language, and only a mask has a language's neurons: pass its λ with -l")
        return self.mask

    def _file(self, term: Term) -> NeuronFile:
        if term.file is None or term.file not in self.files:
            raise SettingsError(f"@{term.file} has not been read: open the source with this step (`opened`)")
        return self.files[term.file]

    def _mean_languages(self, operation: Operation) -> tuple[str, ...]:
        """The languages whose mean an operation needs; a placeholder may stand for any language of the mask."""
        language = operation.language
        if language is None or (not OPERATIONS[operation.name].others and language not in PLACEHOLDERS):
            return () if language is None else (language,)
        known = self._mask().languages
        if language not in (*known, *PLACEHOLDERS):
            raise SettingsError(f"{operation} names no language of the mask: choose from {', '.join(known)}")
        return known

    def neurons(self, terms: Sequence[tuple[bool, Term]], model: ModelInfo) -> Bool[Tensor, "layer neuron"]:
        """Return the union of terms, less those that are taken away, from left to right."""
        chosen = torch.zeros(model.layers, model.d_mlp, dtype=torch.bool)
        for minus, term in terms:
            if term.expert is not None:
                layer, neurons = _expert(term, model)
                one = torch.zeros_like(chosen)
                one[layer, neurons] = True
            elif term.layers is not None:
                one = _in_layers(term, model)
            elif term.is_list:
                one = self._places(term, model)
            else:
                mask, language, classes = self._named(term)
                one = mask.over(model).neurons_of(language, classes, self.general)
            chosen = chosen & ~one if minus else chosen | one
        return chosen

    def _places(self, term: Term, model: ModelInfo) -> Bool[Tensor, "layer neuron"]:
        """The neurons of a list over a model's."""
        places = self._file(term)[0]
        assert isinstance(places, Tensor)
        widths = torch.tensor(model.layer_widths)
        outside = (places[:, 0] >= model.layers) | (places[:, 1] >= widths[places[:, 0].clamp(max=model.layers - 1)])
        if bool(outside.any()):
            layer, neuron = places[outside][0].tolist()
            here = model.layer_widths[min(layer, model.layers - 1)]
            raise IncompatibleError(
                f"@{term.file} names neuron {neuron} of layer {layer}, {model.path} has layers 0..{model.layers - 1} "
                f"and neurons 0..{here - 1}: give the model that it was made for"
            )
        chosen = torch.zeros(model.layers, model.d_mlp, dtype=torch.bool)
        chosen[places[:, 0], places[:, 1]] = True
        return chosen

    def mean(self, language: str, model: ModelInfo) -> Float64[Tensor, "layer neuron"]:
        """Return μ, the mean activation over the tokens of a language's answers."""
        if language not in self.moments:
            raise SettingsError(f"the mean of {language} has not been read: open the source with this step (`opened`)")
        mean = self.moments[language].mean
        if tuple(mean.shape) != (model.layers, model.d_mlp):
            raise IncompatibleError(
                f"the mean activations of {language!r} are of {tuple(mean.shape)} (layers, d_mlp), {model.path} has "
                f"{(model.layers, model.d_mlp)}: give the model that they were collected on"
            )
        return mean

    def affine(self, operation: Operation, model: ModelInfo) -> tuple[float, float | Float64[Tensor, "layer neuron"]]:
        """Return the scale and the shift of an operation (`OPERATIONS`)."""
        kind = OPERATIONS[operation.name]
        means = {language: self.mean(language, model) for language in self._mean_languages(operation)}
        own = means.pop(operation.language) if operation.language else None
        if kind.others and not means:
            raise SettingsError(f"{operation}: the mask has no other language to differ from; choose another (-r, -l)")
        others = torch.stack(list(means.values())).mean(dim=0) if kind.others else None
        return kind.affine(operation.amount or 0.0, own, others)

    def intervention(
        self, steps: Steps, model: ModelInfo, *, swap: Swap | None = None, allow_empty: bool = False
    ) -> Intervention:
        """Return what steps do to a model: their affine maps, composed in their order, and what they add in routers."""
        steps.check_bound()
        whole = Intervention.identity(model.layers, model.d_mlp)
        for step in steps.steps:
            if OPERATIONS[step.operation.name].router:
                if swap is not None:
                    raise SettingsError(
                        f"the step '{step}' acts on routers, and controls are of neurons: leave them out (--controls 0)"
                    )
                whole = whole.then(self._steered(step, model))
                continue
            neurons = self.neurons(step.terms, model)
            if not (allow_empty or neurons.any()):
                raise SettingsError(f"the step '{step}' would change nothing, for {self._empty(step)}")
            scale, shift = self.affine(step.operation, model)
            whole = whole.then(Intervention.on(swap(neurons) if swap else neurons, scale=scale, shift=shift))
        largest = torch.finfo(getattr(torch, model.dtype)).max
        if not bool(((whole.scale.abs() < torch.inf) & (whole.shift.abs() <= largest)).all()):
            raise SettingsError(
                f"{' and then '.join(map(repr, steps.texts))} comes to numbers above {largest:g}, the largest in "
                f"{model.dtype}: give smaller ones, or --dtype float32"
            )
        return whole

    def _steered(self, step: Step, model: ModelInfo) -> Intervention:
        """What a step adds to the logits of routers."""
        experts = [(minus, _expert_of(term, model)) for minus, term in step.terms]
        assert model.experts is not None  # `_expert_of` refuses a model without
        router = torch.zeros(model.layers, model.experts.number)
        for minus, (layer, number) in experts:
            router[layer, number] = 0.0 if minus else self.affine(step.operation, model)[1]
        if not router.any():
            raise SettingsError(f"the step '{step}' would change nothing: name an expert that is not taken away")
        return replace(Intervention.identity(model.layers, model.d_mlp), router=router)

    def notes(self, steps: Steps) -> list[str]:
        """Say which steps change nothing, because no neurons are in their sets, and whether the mask is out of date.

        No model is needed.
        """
        outdated = self._outdated if steps.needs_mask else []
        return outdated + [
            f"the step '{step}' changes nothing, for {self._empty(step)}"
            for step in steps.steps
            if not self._places_of(step.terms)
        ]

    @cached_property
    def _outdated(self) -> list[str]:
        """Say whether the counts beside the mask are others than those that it was made from."""
        if self.mask is None or self.layout is None:
            return []
        changed = changed_counts(self.mask, self.layout)
        if not changed:
            return []
        return [
            f"the counts beside {self.mask.name} have changed since it was made: {', '.join(changed)}; "
            "`lna identify --force` makes it of those that are there now"
        ]

    def _places_of(self, terms: Sequence[tuple[bool, Term]]) -> set[tuple[int, ...]]:
        """The (layer, neuron) places of terms, as files list them."""
        chosen: set[tuple[int, ...]] = set()
        for minus, term in terms:
            if term.layers is not None:  # how many neurons a layer or an expert has, only a model tells
                first, last = term.layers
                inside = {place for place in chosen if first <= place[0] <= last}
                chosen = chosen - inside if minus else chosen | {(layer,) for layer in range(first, last + 1)}
                continue
            if term.expert is not None:
                chosen |= set() if minus else {term.expert}
                continue
            if term.is_list:
                places = self._file(term)[0]
                assert isinstance(places, Tensor)
            else:
                mask, language, classes = self._named(term)
                general = self.general if "general" in classes else None
                places = mask.neurons_of(language, classes, general).nonzero()
            found = set(map(tuple, places.tolist()))
            chosen = chosen - found if minus else chosen | found
        return chosen

    def _empty(self, step: Step) -> str:
        """Why a set is empty, and what to do."""
        if len(step.terms) > 1:
            return "no neurons are left in its set: take less away"
        _, term = next(iter(step.terms))
        if term.of_shape or term.file is not None or self.mask is None:
            return f"{term} has no neurons in it: give another file"
        missing = f"{', '.join(term.classes or self.classes)} neurons of {term.language}"
        return f"{self.mask.name} has no {missing}: choose other --classes, or another mask (-r, -l)"

    def describe(self, steps: Steps) -> Json:
        """Return the provenance of steps: their text, and digests of the neurons and means that they stand for."""
        rates = self.mask.description if self.mask and steps.needs_mask else None
        means = [language for step in steps.steps for language in self._mean_languages(step.operation)]
        return {
            "do": list(steps.texts),
            "classes": list(self.classes),
            "top_rate": None if rates is None else rates.top_rate,
            "lambda": None if rates is None else rates.lam,
            "neurons": {str(term): self._digest(term) for term in steps.terms if not term.of_shape},
            "means": {language: self.moments[language].digest for language in means},
        }

    def _digest(self, term: Term) -> str:
        return self._file(term)[1] if term.file is not None else self._mask().digest_of(self._named(term)[2])


def _expert_of(term: Term, model: ModelInfo) -> tuple[int, int]:
    """The layer and the number of an expert that the model has."""
    assert term.expert is not None
    experts, (layer, number) = model.experts, term.expert
    if experts is None:
        raise SettingsError(f"{term} names an expert, and {model.path} is no mixture of experts: name neurons")
    if layer not in experts.layers or number >= experts.number:
        layers = experts.layers
        raise SettingsError(
            f"{model.path} has no {term}: its experts are 0..{experts.number - 1}, in {len(layers)} layers from "
            f"{layers[0]} to {layers[-1]}"
        )
    return layer, number


def _in_layers(term: Term, model: ModelInfo) -> Bool[Tensor, "layer neuron"]:
    """All neurons of a range of layers that the model has."""
    assert term.layers is not None
    first, last = term.layers
    if last >= model.layers:
        raise SettingsError(f"{term}: {model.path} has layers 0..{model.layers - 1}: name layers that it has")
    layers = torch.arange(model.layers)
    widths = torch.tensor(model.layer_widths)
    inside = (first <= layers) & (layers <= last)
    return inside[:, None] & (torch.arange(model.d_mlp) < widths[:, None])


def _expert(term: Term, model: ModelInfo) -> tuple[int, slice]:
    """The layer and the flat indices of an expert's neurons."""
    layer, number = _expert_of(term, model)
    assert model.experts is not None
    return layer, model.experts.neurons(number)


def neuron_source(
    session: Session,
    steps: Steps | None = None,
    *,
    top_rate: float = Selection.top_rate,
    lam: float | None = None,
    classes: Sequence[str] = MASK_CLASSES,
) -> NeuronSource:
    """Open the sets and means of a session's model: its languages by the mask of these rates; without λ, files alone.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "corpus.json", "toy") as session:
    ...     counted = [lna.collect_activations(session, code) for code in ("en", "es", "fr")]
    ...     found = lna.identify.identify(session.layout, ("en", "es", "fr"), lna.config.Selection(0.1, 0.0, 0.8))
    ...     source = neuron_source(session, top_rate=0.1, lam=0.0)
    >>> source.mask.languages
    ('en', 'es', 'fr')

    Args:
        session: model and place.
        steps: the steps to come; if they name neurons by files alone, no mask is read. None: any, and `intervene` reads
            what they need.
        top_rate: of the mask.
        lam: λ of the mask.
        classes: classes of a language that is named without any.

    Raises:
        LNAError: a mask, a file or means that are not there, or that come from another model.
    """
    layout, checkpoint, mask = session.layout, session.checkpoint, None
    if (steps is None or steps.needs_mask) and (lam is not None or not layout.selection.has_lambda):
        mask = open_mask(layout, top_rate=top_rate, lam=lam, checkpoint=checkpoint)
    return NeuronSource.open(layout, steps or NOTHING, mask=mask, classes=classes, checkpoint=checkpoint)


def intervene(
    engine: Engine, do: Steps | str | Sequence[str], source: NeuronSource, *, allow_empty: bool = False
) -> AbstractContextManager[None]:
    """Apply steps to a model while the context is open; afterwards, also after an exception, it is as before.

    Contexts nest: the inner one acts on the outer one's result.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "corpus.json", "toy") as session:
    ...     counted = [lna.collect_activations(session, code) for code in ("en", "es", "fr")]
    ...     found = lna.identify.identify(session.layout, ("en", "es", "fr"), lna.config.Selection(0.1, 0.0, 0.8))
    ...     source, engine = neuron_source(session, top_rate=0.1, lam=0.0), session.source()
    ...     settings = {"text": "instruction", "max_length": engine.model.max_length, "overlong": "error"}
    ...     texts = lna.corpus.encode.encode_texts(session.corpus.of_language("fr"), engine.tokenizer, **settings)
    ...     with intervene(engine, ["zero en", "scale:2 fr"], source):
    ...         scored = engine.log_likelihood(texts, progress=lna.core.model.SILENT)
    >>> len(scored) == len(texts)
    True

    Raises:
        LNAError: steps that cannot be read or would change nothing, or files and means that do not fit the model.
    """
    steps = do if isinstance(do, Steps) else Steps.parse(do)
    return engine.intervene(source.opened(steps).intervention(steps, engine.model, allow_empty=allow_empty))

"""The one vocabulary of interventions, `--do "zero zh" --do "scale:2 fr"`: steps in a stated order, one affine map."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from ..core.interventions import Intervention
from ..engines import Engine, ModelInfo
from ..errors import SettingsError
from .neuron_sets import NeuronSource
from .operations import affine_of, mean_languages
from .steps import Step, parse_step

Swap = Callable[[Bool[Tensor, "layer neuron"]], Bool[Tensor, "layer neuron"]]
"""Gives the neurons that a step is done to in place of its own: what a control is."""

_LONGEST = 40


@dataclass(frozen=True)
class Doing:
    """Steps, one after the other.

    Attributes:
        steps: in the order in which they are done; none changes nothing.
    """

    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, texts: str | Sequence[str]) -> Doing:
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
        if self.texts == Doing.parse(usual).texts:
            return ""
        word = re.sub(r"[^a-z0-9.]+", "-", "-".join(self.texts).lower()).strip("-.")[:_LONGEST].rstrip("-.")
        return f".{word}-{hashlib.blake2b(repr(self.texts).encode(), digest_size=4).hexdigest()}"

    def bind(self, *, each: str | None = None, source: str | None = None, target: str | None = None) -> Doing:
        """The same with languages in the place of the words; a word that is given none stays."""
        given = {"each": each, "source": source, "target": target}
        languages = {word: language for word, language in given.items() if language is not None}
        return Doing(tuple(step.bind(languages) for step in self.steps))

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


NOTHING = Doing(())
"""Changes nothing."""


def intervene(
    engine: Engine, do: Doing | str | Sequence[str], source: NeuronSource, *, allow_empty: bool = False
) -> AbstractContextManager[None]:
    """While the context is open, the model runs with these steps done; after it, also by exception, as before.

        with lna.intervene(engine, ["zero zh", "scale:2 fr"], source):
            engine.log_likelihood(texts, progress=print)

    Contexts nest: the inner one acts on what the outer one left.

    Raises:
        LNAError: as `Doing.parse`, `Doing.intervention` and `Engine.intervene`.
    """
    doing = do if isinstance(do, Doing) else Doing.parse(do)
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

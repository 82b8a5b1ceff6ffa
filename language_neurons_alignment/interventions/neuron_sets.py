"""Sets of neurons by name, and their mean activations: a language's, of a file, unions and differences of such."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from ..config import DEFAULT_TOP_RATE, MASK_CLASSES, in_order
from ..engines import ModelInfo
from ..errors import IncompatibleError, SettingsError
from ..masks import StoredMask, open_mask, read_mask
from ..means import AnswerMoments, answer_moments
from ..session import Session
from ..store.checkpoint import read_checkpoint
from ..store.layout import Layout
from ..store.neuron_file import load_neurons
from .steps import PLACEHOLDERS, Term


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
    top_rate: float = DEFAULT_TOP_RATE,
    lam: float | None = None,
    classes: Sequence[str] = MASK_CLASSES,
) -> NeuronSource:
    """Sets and means of a session's model: its languages by the mask of these rates; where λ is missing, files alone.

    Raises:
        MissingArtifactError, ArtifactError, IncompatibleError: as `masks.open_mask`.
    """
    mask = None
    if lam is not None or not session.layout.method.has_lambda:
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

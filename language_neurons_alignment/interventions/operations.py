"""What an operation does to the activation a of each neuron of its set, as an affine map.

With μ_k the neuron's mean activation over the answers in language k:

    zero            a ← 0                             set:v         a ← v
    scale:s         a ← s · a                         mean:k        a ← μ_k        (replace:k is the same)
    add:k:α         a ← a + α μ_k                     diffmean:k    a ← a + μ_k − mean over j ≠ k of μ_j

j runs over the mask's languages. Source: SPEC 6 (zero); the others are those of Language Arithmetics (FIELD).
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from ..engines import ModelInfo
from ..errors import SettingsError
from .neuron_sets import NeuronSource
from .steps import PLACEHOLDERS, Operation


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

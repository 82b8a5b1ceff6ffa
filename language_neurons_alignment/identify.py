"""Step 3: identify the language neurons in counts and store their mask.

`identify` reads the counts and writes the mask. `find_neurons` is the computation between: it takes counts in memory
and writes nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor

from .config import ENTROPY_LAMBDA, MEAN_DIFFERENCE, RANDOM, Selection
from .core.find import Found, find, notes_on, notes_on_masks
from .core.methods import effect_size
from .core.selection import appear
from .core.sweep import fine_from, largest_fine_lambda
from .store.counts import AnswerCounts, answer_moments, load_answer_counts
from .store.layout import Layout
from .store.masks import Mask, MaskDescription, mask_hash
from .version import __version__

FEW_TOKENS = 10
"""With fewer answer tokens than this, probabilities come in steps of more than 0.1."""


@dataclass(frozen=True)
class Identification(Found):
    """Language neurons of a model, and the place of their mask.

    Attributes:
        path: the mask file, whether it is written or not.
        notes: sentences about counts and masks that a reader must know.
    """

    description: MaskDescription
    path: Path
    notes: tuple[str, ...] = ()


def identify(
    layout: Layout,
    languages: Sequence[str],
    selection: Selection,
    *,
    overwrite: bool = False,
    counts: AnswerCounts | None = None,
) -> Identification:
    """Find the language neurons and store their mask.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "corpus.json", "toy") as session:
    ...     counted = [lna.collect_activations(session, code) for code in ("en", "es", "fr")]
    >>> found = identify(session.layout, ("en", "es", "fr"), Selection(0.1, 0.0, 0.8))
    >>> print(found.path.as_posix())
    activation_masks/toy/0.1-0.0/mask.Llama-model

    Args:
        layout: where the counts lie, and the mask will.
        languages: codes, in the order of the mask file.
        selection: the method and its rates.
        overwrite: replace a mask that was made from something else.
        counts: the counts, if they have been read already.

    Raises:
        CorpusError: a language has no answer token, and the selection does not skip it.
        ConflictError: a mask made from other counts, or with another bar, is there, and not `overwrite`.
        SettingsError: rates that name no neuron.
        MissingArtifactError, ArtifactError, IncompatibleError: counts or moments that are not there, are damaged, or
            come from different models.
    """
    counts = counts or load_answer_counts(layout, languages, skip_empty=selection.skip_empty)
    found = find_neurons(layout, counts, selection)
    Mask(counts.languages, found.mask, found.description).save(found.path, overwrite=overwrite)
    return found


def find_neurons(layout: Layout, counts: AnswerCounts, selection: Selection) -> Identification:
    """Find the language neurons in counts in memory; nothing is written.

    Entropy-λ selects the neurons of lowest score s(λ) = e − λ · r, and a selected neuron belongs to the languages in
    which it is above τ; that number, N, decides its class. The other methods do not all ask for τ (random for
    nothing), so for them N is the number of languages whose mask the neuron is in; for LAPE that is the same.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "corpus.json", "toy") as session:
    ...     counted = [lna.collect_activations(session, code) for code in ("en", "es", "fr")]
    >>> counts = load_answer_counts(session.layout, ("en", "es", "fr"))
    >>> found = find_neurons(session.layout, counts, Selection(0.1, 0.0, 0.8))
    >>> found.description.languages, found.path.exists()
    (['en', 'es', 'fr'], False)

    Args:
        layout: where the moments lie, which mean-difference reads.
        counts: of all languages.
        selection: the method and its rates.

    Raises:
        SettingsError: no λ, rates that name no neuron, or more random neurons than the model has.
        MissingArtifactError, IncompatibleError: mean-difference without moments, or with those of other counts.
    """
    selection.check_lambda()
    effect, digests = _effects(layout, counts) if selection.method == MEAN_DIFFERENCE else (None, {})
    probability = counts.probability
    found = find(probability, selection, effect=effect, widths=counts.widths)
    layers, d_mlp = found.selected.shape
    parameters = {} if found.neurons is None else {"neurons": found.neurons}
    neurons = dict(zip(counts.languages, found.mask.sum(dim=(0, 1)).tolist(), strict=True))
    description = MaskDescription(
        languages=list(counts.languages),
        top_rate=float(selection.top_rate)
        if selection.has_rate
        else int(found.selected.sum()) / found.statistics.neurons,
        lam=None if found.lam is None else float(found.lam),
        bar=float(selection.known_bar),
        threshold=found.threshold,
        appear=appear(found.above, found.selected, languages=len(counts.languages)).tolist(),
        classes=found.classes.sizes(),
        neurons=neurons,
        layers=layers,
        d_mlp=d_mlp,
        counts=counts.hashes,
        config_hash=counts.config_hash,
        weights_hash=counts.weights_hash,
        tokenizer_hash=counts.tokenizer_hash,
        version=__version__,
        method=selection.method,
        parameters={**parameters, "seed": selection.seed} if selection.method == RANDOM else parameters,
        moments=digests,
        left_out=list(counts.left_out),
        mask_hash=mask_hash(found.mask),
        widths=counts.widths,
        largest_lam=_largest_lambda(found, selection),
        searched_to=found.lam if found.lam == selection.search.hi else None,
    )
    endless = description.largest_lam is not None and math.isinf(description.largest_lam)
    notes = (
        *counts.notes,
        *_notes_on_tokens(counts),
        *notes_on(found.statistics, probability, counts.languages),
        *description.lambda_notes(fine_from(found.statistics, top_rate=selection.top_rate) if endless else None),
        *notes_on_masks(neurons),
    )
    path = layout.by(selection).mask(selection.top_rate, found.lam)
    return Identification(**vars(found), description=description, path=path, notes=notes)


def _largest_lambda(found: Found, selection: Selection) -> float | None:
    """The largest λ with appear[K] = 0, ∞ if there is no largest; None if no λ has it, or λ selects nothing."""
    if selection.method != ENTROPY_LAMBDA:
        return None
    largest = largest_fine_lambda(found.statistics, top_rate=selection.top_rate)
    return None if math.isnan(largest) else largest


def _notes_on_tokens(counts: AnswerCounts) -> list[str]:
    """Say which languages have few answer tokens, and which have the same counts as another."""
    tokens = dict(zip(counts.languages, counts.tokens.tolist(), strict=True))
    notes, alike = [], defaultdict(list)
    if few := [f"{language} ({count})" for language, count in tokens.items() if count < FEW_TOKENS]:
        notes.append(f"few answer tokens, so probabilities in coarse steps, in {', '.join(few)}")
    for language, digest in counts.hashes.items():
        alike[digest].append(language)
    notes += [
        f"{', '.join(same)} have the same counts, so they cannot be told apart: was one text counted several times?"
        for same in alike.values()
        if len(same) > 1
    ]
    return notes


def _effects(layout: Layout, counts: AnswerCounts) -> tuple[Float64[Tensor, "layer neuron lang"], dict[str, str]]:
    """The effect sizes that mean-difference ranks neurons by, and the digest of each language's moments."""
    moments = {language: answer_moments(layout, language, counts=counts) for language in counts.languages}
    mean, variance = (
        torch.stack([getattr(one, name) for one in moments.values()], dim=-1) for name in ("mean", "variance")
    )
    return effect_size(mean, variance), {language: one.digest for language, one in moments.items()}

"""Step 3: identify the language neurons in counts and store their mask.

`identify` reads the counts and writes the mask. `find_neurons` is the computation between: it takes the counts and
writes nothing. Counts of a model in memory find theirs by themselves (`AnswerCounts.find_neurons`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float64
from torch import Tensor

from .config import MEAN_DIFFERENCE, Selection
from .core.find import Found, find
from .store.counts import AnswerCounts, answer_moments, effects_of, load_answer_counts
from .store.layout import Layout
from .store.masks import Mask, MaskDescription, describe, notes_on_found


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
    found = find(counts.probability, selection, effect=effect, widths=counts.widths)
    description = describe(found, counts, selection, moments=digests)
    path = layout.by(selection).mask(selection.top_rate, found.lam)
    return Identification(
        **vars(found), description=description, path=path, notes=notes_on_found(found, counts, description)
    )


def _effects(layout: Layout, counts: AnswerCounts) -> tuple[Float64[Tensor, "layer neuron lang"], dict[str, str]]:
    return effects_of({language: answer_moments(layout, language, counts=counts) for language in counts.languages})

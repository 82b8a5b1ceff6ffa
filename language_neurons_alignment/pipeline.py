"""All four steps in a row, on one loaded model; a second run does only what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ._generate import Generated, ensure_answers
from ._session import Session
from .activation import Collected, collect_activations, without_answer_tokens
from .autosweep import AutoSweep, autosweep
from .config import PipelineSettings
from .core.counts import check_answer_tokens
from .core.model import StartProgress, silent
from .core.sweep import Observer, unobserved
from .corpus.records import has_answers
from .identify import Identification, identify
from .ppl import MapResult, perplexity_map
from .store.counts import left_out_note, load_answer_counts


@dataclass(frozen=True)
class PipelineResult:
    """What a whole run made.

    Attributes:
        generated: the answers that the model wrote first; None where the corpus had some.
        sweep: AutoSweep's result; None where λ was given.
    """

    generated: Generated | None
    collected: list[Collected]
    sweep: AutoSweep | None
    identification: Identification
    map: MapResult

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about counts, masks and map that a reader must know."""
        return self.identification.notes + self.map.notes


def run_pipeline(
    session: Session,
    languages: Sequence[str],
    settings: PipelineSettings,
    *,
    start: StartProgress = silent,
    observe: Observer = unobserved,
) -> PipelineResult:
    """Count every language, find λ, identify the neurons, map the perplexities.

    Where the corpus has questions alone, the model answers them first.

    >>> import language_neurons_alignment as lna
    >>> selection, shown = lna.config.Selection(0.1, 0.0, 0.8), lna.config.MapSettings(controls=0)
    >>> with lna.open_session("model", "corpus.json", "toy") as session:
    ...     done = run_pipeline(session, ("en", "es", "fr"), PipelineSettings(selection=selection, map=shown))
    >>> tuple(done.map.map.change().shape)  # [neurons off, language of the text]
    (3, 3)

    Args:
        session: model, corpus and place.
        languages: codes, in the order of the mask file.
        settings: the choices.
        start: told of each stretch of work, for progress bars.
        observe: called at each λ that AutoSweep evaluates.

    Raises:
        LNAError: a step fails; what earlier steps stored stays.
    """
    selection, sweep = settings.selection, None
    always = {"overwrite": settings.overwrite, "start": start}
    unanswered = _unanswered(session, languages) if selection.skip_empty else []
    languages = [one for one in languages if one not in unanswered]
    asked = {"answers": settings.answers, "sampling": settings.sampling, "overlong": settings.overlong}
    session, generated = ensure_answers(session, languages, **asked, **always)
    empty = without_answer_tokens(session, languages, overlong=settings.overlong, overwrite=settings.overwrite)
    if not selection.skip_empty or len(empty) == len(languages):
        check_answer_tokens(empty)
    languages = [one for one in languages if one not in empty]
    counted = {"overlong": settings.overlong, "blocks": settings.blocks, "moments": settings.moments}
    collected = [collect_activations(session, language, **counted, **always) for language in languages]
    counts = load_answer_counts(session.layout, languages)
    if left_out := (*unanswered, *empty):
        counts = replace(counts, left_out=left_out, notes=(*counts.notes, left_out_note(left_out)))
    if selection.lam is None:
        rates = {"top_rate": selection.top_rate, "bar": selection.known_bar, "search": selection.search}
        sweep = autosweep(session.layout, languages, **rates, observe=observe, counts=counts)
        selection = replace(selection, lam=sweep.lam)
    identification = identify(session.layout, languages, selection, overwrite=settings.overwrite, counts=counts)
    rates = {"top_rate": selection.top_rate, "lam": selection.lam}
    drawn = perplexity_map(session, languages, **rates, settings=settings.map, **always)
    return PipelineResult(generated, collected, sweep, identification, drawn)


def _unanswered(session: Session, languages: Sequence[str]) -> list[str]:
    """The languages without answers, where others have some; where none has any, the model is to write them."""
    without = [one for one in languages if not has_answers(session.corpus.of_language(one))]
    return [] if len(without) == len(languages) else without

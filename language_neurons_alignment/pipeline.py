"""All four steps in a row, on one loaded model; a second run does only what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ._generate import Generated, ensure_answers
from ._session import Session
from .activation import Collected, collect_activations
from .autosweep import AutoSweep, autosweep
from .config import PipelineSettings
from .core.model import StartProgress, silent
from .core.sweep import Observer, unobserved
from .identify import Identification, identify
from .languages import parse_languages
from .ppl import MapResult, perplexity_map


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
    selection, sweep, languages = settings.selection, None, parse_languages(languages)
    always = {"overwrite": settings.overwrite, "start": start}
    asked = {"answers": settings.answers, "sampling": settings.sampling, "overlong": settings.overlong}
    session, generated = ensure_answers(session, languages, **asked, **always)
    counted = {"overlong": settings.overlong, "blocks": settings.blocks, "moments": settings.moments}
    collected = [collect_activations(session, language, **counted, **always) for language in languages]
    if selection.lam is None:
        rates = {"top_rate": selection.top_rate, "bar": selection.known_bar, "search": selection.search}
        sweep = autosweep(session.layout, languages, **rates, observe=observe)
        selection = replace(selection, lam=sweep.lam)
    identification = identify(session.layout, languages, selection, overwrite=settings.overwrite)
    rates = {"top_rate": selection.top_rate, "lam": selection.lam}
    drawn = perplexity_map(session, languages, **rates, settings=settings.map, **always)
    return PipelineResult(generated, collected, sweep, identification, drawn)

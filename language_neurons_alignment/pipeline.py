"""All four steps in a row, on one loaded model; a second run does only what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ._generate import Generated, ensure_answers
from ._session import Session, with_counted_texts
from .activation import Collected, collect_activations, counts_size, without_answer_tokens
from .autosweep import AutoSweep, autosweep
from .config import TEXT, PipelineSettings
from .core.counts import check_answer_tokens
from .core.model import StartProgress, silent
from .core.sweep import Observer, unobserved
from .corpus.records import has_answers, records_hash
from .identify import Identification, identify
from .languages import parse_languages
from .ppl import MapResult, map_path, perplexity_map
from .store.counts import left_out_note, load_answer_counts
from .store.files import check_writable
from .store.grid import cells_path
from .store.replacing import Replacing


@dataclass(frozen=True)
class PipelineResult:
    """What a whole run made.

    Attributes:
        generated: the answers that the model wrote first; None where the corpus had some.
        sweep: AutoSweep's result; None where λ was given.
        others: where AutoSweep found λ, the other λ at which masks of this top rate were there before.
    """

    generated: Generated | None
    collected: list[Collected]
    sweep: AutoSweep | None
    identification: Identification
    map: MapResult
    others: tuple[float, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about counts, masks and map that a reader must know."""
        found = self.identification.notes + self.map.notes
        if not self.others:
            return found
        lams = ", ".join(map(repr, self.others))
        return (*found, f"masks are there at λ {lams} too, found with other choices, and are kept: -l goes on with one")


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
    selection, sweep, layout, languages = settings.selection, None, session.layout, parse_languages(languages)
    texts = session if settings.count == TEXT else None  # which the map scores as they are
    session = with_counted_texts(session, settings.count)
    unanswered = _unanswered(session, languages) if selection.skip_empty else []
    languages = [one for one in languages if one not in unanswered]
    replacing = _replacing(session, languages, settings)
    _check_room(session, languages, settings, replacing)
    asked = {"answers": settings.answers, "sampling": settings.sampling, "overlong": settings.overlong}
    anew = replacing.again(layout.answers())
    session, generated = ensure_answers(session, languages, **asked, overwrite=anew, start=start)
    again = {one: replacing.again(layout.activation(one)) for one in languages}
    empty = without_answer_tokens(session, languages, overlong=settings.overlong, again=again)
    if not selection.skip_empty or len(empty) == len(languages):
        check_answer_tokens(empty, others=len(empty) < len(languages))
    languages = [one for one in languages if one not in empty]
    counted = {"overlong": settings.overlong, "blocks": settings.blocks, "moments": settings.moments, "start": start}
    collected = [collect_activations(session, one, **counted, overwrite=again[one]) for one in languages]
    counts = load_answer_counts(layout, languages)
    if left_out := (*unanswered, *empty):
        counts = replace(counts, left_out=left_out, notes=(*counts.notes, left_out_note(left_out)))
    others: tuple[float, ...] = ()
    if selection.lam is None:
        rates = {"top_rate": selection.top_rate, "bar": selection.known_bar, "search": selection.search}
        sweep = autosweep(layout, languages, **rates, observe=observe, counts=counts)
        selection = replace(selection, lam=sweep.lam)
        others = tuple(lam for lam in layout.lambdas(selection.top_rate) if lam != sweep.lam)
    identification = identify(layout, languages, selection, overwrite=replacing.active, counts=counts)
    rates = {"top_rate": selection.top_rate, "lam": selection.lam}
    anew = replacing.again(cells_path(map_path(layout, selection.top_rate, selection.lam, settings.map)))
    drawn = perplexity_map(texts or session, languages, **rates, settings=settings.map, overwrite=anew, start=start)
    replacing.end()
    return PipelineResult(generated, collected, sweep, identification, drawn, others)


def _unanswered(session: Session, languages: Sequence[str]) -> list[str]:
    """The languages without answers, where others have some; where none has any, the model is to write them."""
    without = [one for one in languages if not has_answers(session.corpus.of_language(one))]
    return [] if len(without) == len(languages) else without


def _replacing(session: Session, languages: Sequence[str], settings: PipelineSettings) -> Replacing:
    """Return which results this run replaces: with `overwrite`, or after a run with it that was killed."""
    run = {
        "languages": list(languages),
        "settings": repr(replace(settings, overwrite=False)),
        "corpus": records_hash(session.corpus.records),
        **session.hashes,
        **session.source.explicit,
    }
    return Replacing(session.layout.replacing(), run, overwrite=settings.overwrite)


def _check_room(session: Session, languages: Sequence[str], settings: PipelineSettings, replacing: Replacing) -> None:
    """Raise ArtifactError where what comes of hours of counting cannot be stored."""
    layout = session.layout
    files = [layout.activation(one) for one in languages]
    todo = [path for path in files if replacing.again(path) or not path.exists()]
    if todo:
        of_one = counts_size(session, blocks=settings.blocks, moments=settings.moments)
        check_writable(files[0], needed=len(todo) * of_one)
        for rated in (
            layout.mask(settings.selection.top_rate, 0.0),
            layout.perplexity(settings.selection.top_rate, 0.0),
        ):
            check_writable(rated.parents[1] / rated.name)  # λ, which names their folders, is known after counting

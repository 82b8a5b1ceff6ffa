"""`lna autosweep`: find λ."""

from __future__ import annotations

from ..config import DEFAULT_BAR, DEFAULT_TOP_RATE
from . import options
from .output import result
from .progress import show_evaluation
from .setup import existing_layout, languages_or_default


def autosweep(
    model: options.Model,
    results: options.Results,
    search: options.Search,
    top_rate: options.TopRate = DEFAULT_TOP_RATE,
    bar: options.Bar = DEFAULT_BAR,
    langs: options.Languages = None,
) -> None:
    """Find the largest λ for which no selected neuron belongs to every language. Needs counts, no model."""
    languages = languages_or_default(langs)
    from ..autosweep import autosweep as sweep

    layout = existing_layout(model, results)
    found = sweep(layout, languages, top_rate=top_rate, bar=bar, search=search.range(), observe=show_evaluation)
    shown = {"lambda": found.lam, "appear": found.appear, "evaluations": found.evaluations, "languages": languages}
    result(f"best λ = {found.shown}", shown, as_json=results.as_json)

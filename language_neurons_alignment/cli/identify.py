"""`lna identify`: find language neurons and write their masks."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from ..config import DEFAULT_BAR, DEFAULT_TOP_RATE, Selection, language_name
from . import options
from .output import result, table
from .setup import existing_layout, languages_or_default

if TYPE_CHECKING:
    from ..identify import MaskDescription


def identify(
    model: options.Model,
    lam: options.Lam,
    results: options.Results,
    top_rate: options.TopRate = DEFAULT_TOP_RATE,
    bar: options.Bar = DEFAULT_BAR,
    langs: options.Languages = None,
    force: options.Force = False,
) -> None:
    """Select the language neurons at λ and write each language's mask. Needs counts, no model."""
    languages, selection = languages_or_default(langs), Selection(top_rate, lam, bar)
    from ..identify import identify as find_neurons

    layout = existing_layout(model, results)
    found = find_neurons(layout, languages, selection, force=force)
    shown = {"mask": found.path, **asdict(found.description)}
    result(
        [*histogram_table(found.description), "", *language_table(found.description), "", str(found.path)],
        shown,
        as_json=results.as_json,
    )


def histogram_table(description: MaskDescription) -> list[str]:
    """How many selected neurons belong to how many languages, and the classes."""
    last = len(description.languages)
    meaning = {0: "selected, above τ nowhere", 1: "language-specific", last: "all languages: none, by the choice of λ"}
    rows = [[j, count, meaning.get(j, "language-related")] for j, count in enumerate(description.appear)]
    general = description.classes["general"]
    return [
        f"λ = {description.lam!r}, top rate {description.top_rate!r}, bar {description.bar!r}, "
        f"τ = {description.threshold:.6f}",
        "",
        *table(["languages", "selected neurons", "class"], rows),
        f"general neurons, of all {description.layers} × {description.d_mlp}: {general}",
    ]


def language_table(description: MaskDescription) -> list[str]:
    """How many neurons each language has."""
    return table(["language", "neurons"], [[language_name(code), count] for code, count in description.neurons.items()])

"""`lna identify`: find language neurons and write their masks."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from ..config import DEFAULT_BAR, DEFAULT_TOP_RATE, Selection, language_name
from . import options
from .method_options import By, Lam
from .output import result, table
from .setup import existing_layout, languages_or_default

if TYPE_CHECKING:
    from ..identify import MaskDescription


def identify(
    model: options.Model,
    results: options.Results,
    by: By,
    lam: Lam = None,
    top_rate: options.TopRate = DEFAULT_TOP_RATE,
    bar: options.Bar = DEFAULT_BAR,
    langs: options.Languages = None,
    force: options.Force = False,
) -> None:
    """Find each language's neurons and write the mask. Needs counts (mean-difference moments too), no model."""
    languages, selection = languages_or_default(langs), Selection(top_rate, lam, bar, by.chosen())
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
    """What found the neurons, how many selected ones belong to how many languages, and the classes."""
    last = len(description.languages)
    meaning = {0: "selected, above τ nowhere", 1: "language-specific", last: "all languages"}
    if description.lam is not None:
        meaning[last] += ": none, by the choice of λ"
    rows = [[j, count, meaning.get(j, "language-related")] for j, count in enumerate(description.appear)]
    general = description.classes["general"]
    return [
        made_by(description),
        "",
        *table(["languages", "selected neurons", "class"], rows),
        f"general neurons, of all {description.layers} × {description.d_mlp}: {general}",
    ]


def made_by(description: MaskDescription) -> str:
    """The method of a mask and its parameters, in one line."""
    known = {
        "λ =": description.lam,
        "top rate": None if "neurons" in description.parameters else description.top_rate,
        "neurons per language": description.parameters.get("neurons"),
        "seed": description.parameters.get("seed"),
        "bar": description.bar,
    }
    shown = [f"{name} {value!r}" for name, value in known.items() if value is not None]
    if description.threshold is not None:
        shown.append(f"τ = {description.threshold:.6f}")
    return f"{description.method}: {', '.join(shown)}"


def language_table(description: MaskDescription) -> list[str]:
    """How many neurons each language has."""
    return table(["language", "neurons"], [[language_name(code), count] for code, count in description.neurons.items()])

"""`lna analyze`: what a model's language neurons tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..config import language_name
from . import options
from .output import result, table
from .progress import note
from .setup import chosen_neurons, existing_layout

if TYPE_CHECKING:
    from ..findings.analyze import Analysis

PAPER_STAGES = 4
MOST_SETS = 10


def analyze(model: options.Model, results: options.Results, neurons: options.Neurons, search: options.Search) -> None:
    """Count classes per layer and language, shared neurons, stages of layers, and follow λ. Needs counts, no model."""
    choice = chosen_neurons(neurons, search)
    from ..findings.analyze import analyze as analyse

    layout = existing_layout(model, results)
    found, files = analyse(layout, choice, search=search.range(), mask_only=neurons.mask_only)
    if found.neurons.lam_from == "autosweep":
        note(f"no mask of top rate {choice.top_rate!r}: λ from AutoSweep")
    sections = [
        heading(found),
        class_lines(found),
        language_lines(found),
        layer_lines(found),
        stage_lines(found),
        set_lines(found),
        pair_lines(found),
        path_lines(found),
        [str(path) for path in files],
    ]
    lines = [line for section in sections if section for line in (*section, "")]
    result(lines[:-1], {**found.plain(), "files": files}, as_json=results.as_json)


def heading(found: Analysis) -> list[str]:
    """What was analysed."""
    made_from = found.neurons.description
    rates = f"λ = {made_from.lam!r} ({found.neurons.lam_from}), top rate {made_from.top_rate!r}"
    known = f", bar {made_from.bar!r}, τ = {made_from.threshold:.6f}" if made_from.threshold is not None else ""
    return [f"{found.neurons.layout.model} on {found.neurons.layout.dataset}", rates + known]


def class_lines(found: Analysis) -> list[str]:
    """How many neurons each class has; of all neurons by N, where counts tell."""
    totals, neurons = found.classes.totals(), found.classes.d_mlp * len(found.classes.counts)
    rows: list[list[object]] = [[name, count, f"{100 * count / neurons:.3f} %"] for name, count in totals.items()]
    lines = table(["class", "neurons", "of all"], rows)
    if found.above is not None:
        above, selected = found.above.all.sum(dim=0).tolist(), found.above.selected.sum(dim=0).tolist()
        numbers: list[list[object]] = [[n, *pair] for n, pair in enumerate(zip(above, selected, strict=True))]
        lines += ["", *table(["languages above τ", "all neurons", "selected"], numbers)]
    return lines


def language_lines(found: Analysis) -> list[str]:
    """Each language's neurons, and English beside the mean of the others."""
    counts = found.languages.per_language.tolist()
    rows: list[list[object]] = [
        [language_name(code), *row, sum(row)] for code, row in zip(found.languages.languages, counts, strict=True)
    ]
    means = [
        f"{name}: {', '.join(f'{value:.1f} {cls}' for value, cls in zip(row, found.means.classes, strict=True))}"
        for name, row in zip(found.means.groups, found.means.means.tolist(), strict=True)
    ]
    return [*table(["language", *found.languages.classes, "mask"], rows), "", f"mean per language: {'; '.join(means)}"]


def layer_lines(found: Analysis) -> list[str]:
    """The classes layer by layer, beside the four stages of the paper."""
    count = min(PAPER_STAGES, len(found.stages.cuts))
    stage = [
        number for number, (start, end) in enumerate(found.stages.stages(count), start=1) for _ in range(start, end)
    ]
    rows = [[layer, stage[layer], *row] for layer, row in enumerate(found.classes.counts.tolist())]
    return table(["layer", "stage", *found.classes.classes], rows)


def stage_lines(found: Analysis) -> list[str]:
    """How good 1 to 6 stages are, and what that says of four."""
    stages, columns = found.stages, found.stages.columns()
    rows: list[list[object]] = [
        [
            m,
            " ".join(f"{start}-{end - 1}" for start, end in stages.stages(m)),
            f"{columns['explained'][m - 1]:.3f}",
            "" if m == 1 else f"{columns['gain'][m - 1]:.3f}",
            f"{columns['bic'][m - 1]:.1f}",
            "" if m == 1 else f"{columns['p'][m - 1]:.3f}",
        ]
        for m in columns["stages"]
    ]
    return [
        *table(["stages", "layers", "explained", "gain", "BIC", "p"], rows),
        f"lowest BIC at {stages.best}; better than shuffled residuals (p ≤ 0.05) up to {stages.supported()}; "
        "a smooth profile gains by every cut",
    ]


def set_lines(found: Analysis) -> list[str]:
    """The most common sets of languages that share a neuron."""
    shared = [row for row, size in enumerate(found.sharing.sets.sum(dim=1).tolist()) if size > 1][:MOST_SETS]
    rows: list[list[object]] = [["+".join(found.sharing.named(row)), int(found.sharing.counts[row])] for row in shared]
    return table(["shared by exactly", "neurons"], rows) if rows else ["no neuron is shared by languages"]


def pair_lines(found: Analysis) -> list[str]:
    """The languages that have the most in common."""
    jaccard, counts, codes = found.overlap.jaccard, found.overlap.counts, found.overlap.languages
    pairs = [(a, b) for b in range(len(codes)) for a in range(b) if counts[a, b]]
    pairs.sort(key=lambda pair: -float(jaccard[pair]))
    rows: list[list[object]] = [
        [f"{codes[a]} {codes[b]}", int(counts[a, b]), f"{float(jaccard[a, b]):.3f}"] for a, b in pairs[:MOST_SETS]
    ]
    return table(["closest masks", "neurons", "Jaccard"], rows) if rows else []


def path_lines(found: Analysis) -> list[str]:
    """What the λ path says of general neurons."""
    if found.path is None:
        return []
    edges, fine = found.path.edges.tolist(), (found.path.appear[:, -1] == 0).nonzero().flatten().tolist()
    none = (
        f"no general neuron is selected up to λ = {edges[fine[-1] + 1]:.6f}" if fine else "general neurons at every λ"
    )
    return [f"λ from {edges[0]:g} to {edges[-1]:g}: the histogram changes {len(edges) - 2} times; {none}"]

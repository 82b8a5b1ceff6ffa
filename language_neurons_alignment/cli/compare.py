"""`lna compare`: what training does to language neurons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import language_name, parse_languages
from ..errors import SettingsError
from . import options
from .output import result, table
from .progress import note
from .setup import chosen_neurons, existing_layout

if TYPE_CHECKING:
    from ..findings.compare import Comparison
    from ..findings.model_neurons import Choice, ModelNeurons
    from ..findings.pair import PairComparison


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            help="The base model, then the others in the order of training: model folders or hub ids with results "
            "under --root, or mask files (…/activation_masks/<dataset>/<rates>/mask.<Name>-<tag>) under any root.",
            show_default=False,
        ),
    ],
    results: options.Results,
    neurons: options.Neurons,
    search: options.Search,
    dataset: Annotated[
        str | None,
        typer.Option("-s", "--dataset", help="Dataset name; mask files tell theirs.", show_default=False),
    ] = None,
    model_name: Annotated[
        str | None,
        typer.Option("--model-name", help="Name in file names.", show_default="the family in each model's config"),
    ] = None,
    trained: Annotated[
        str | None,
        typer.Option("--trained", help="Languages trained on: their mean change against the others'."),
    ] = None,
) -> None:
    """Compare a base model's language neurons with those of its trained versions: gained, lost, kept, changed in class.

    Each model has its own λ: that of its one mask at this top rate, or AutoSweep's; -l sets one for all.
    """
    choice, aligned = chosen_neurons(neurons, search), parse_languages(trained) if trained else ()
    from ..findings.compare import compare as compare_models

    opened = [
        _open(one, dataset, choice=choice, model_name=model_name, results=results, mask_only=neurons.mask_only)
        for one in models
    ]
    found, files = compare_models(opened, trained=aligned)
    for remark in found.notes:
        note(f"note: {remark}")
    lines = [*path_lines(found), ""]
    for pair in found.pairs:
        lines += [*pair_lines(pair), ""]
    result([*lines, *map(str, files)], {**found.plain(), "files": files}, as_json=results.as_json)


def _open(
    name: str, dataset: str | None, *, choice: Choice, model_name: str | None, results: options.Results, mask_only: bool
) -> ModelNeurons:
    """The neurons of a model that was named by its path or by a mask file."""
    from ..findings.model_neurons import neurons_of_file, open_neurons

    if Path(name).is_file():
        return neurons_of_file(Path(name), mask_only=mask_only)
    if dataset is None:
        raise SettingsError(f"{name} is a model, so -s must name the dataset: for example -s mgsm")
    layout = existing_layout(options.Model(name, dataset, model_name), results)
    return open_neurons(layout, choice, mask_only=mask_only)


def path_lines(found: Comparison) -> list[str]:
    """The classes of every model."""
    rows: list[list[object]] = [
        [name, f"{one.description.lam:.6f} ({one.lam_from})", *totals]
        for name, one, totals in zip(found.names, found.models, found.path.totals.tolist(), strict=True)
    ]
    return table(["model", "λ", *found.path.classes], rows)


def pair_lines(pair: PairComparison) -> list[str]:
    """From the base to one of the others: flow, languages, groups."""
    states = pair.classes.states
    flow: list[list[object]] = [[state, *row] for state, row in zip(states, pair.classes.total.tolist(), strict=True)]
    return [
        f"{pair.before} → {pair.after}",
        "",
        *table(["was, is", *states], flow),
        "",
        *language_lines(pair),
        "",
        *group_lines(pair),
    ]


def language_lines(pair: PairComparison) -> list[str]:
    """Kept, gained and lost neurons of each language, by class, and what the masks have in common."""
    flow = pair.languages
    parts = {name: getattr(flow, name).sum(dim=0).tolist() for name in ("kept", "gained", "lost")}
    rows: list[list[object]] = [
        [
            language_name(code),
            *(_moved(*(parts[name][k][s] for name in parts)) for s in range(len(flow.sets))),
            f"{float(flow.jaccard[k, -1]):.3f}",
        ]
        for k, code in enumerate(flow.languages)
    ]
    return table(["kept +gained −lost", *flow.sets, "Jaccard"], rows)


def _moved(kept: int, gained: int, lost: int) -> str:
    return f"{kept} +{gained} −{lost}"


def group_lines(pair: PairComparison) -> list[str]:
    """Mean change per language of trained and other languages."""
    rows: list[list[object]] = [
        [name, ",".join(members), *(f"{value:+.1f}" for value in row)]
        for (name, members), row in zip(pair.groups.groups.items(), pair.groups.means.tolist(), strict=True)
    ]
    return table(["mean change per language", "languages", *pair.groups.classes], rows)

"""`lna identify`: find language neurons and write their masks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import DEFAULT_BAR, DEFAULT_TOP_RATE, OVERLONG, Selection, check_block_number, check_choice, parse_shard
from ..languages import language_code, language_name, parse_languages
from . import options
from .options import By, Lam
from .output import Bars, note, result, show_evaluation, table
from .setup import answered, existing_layout, languages_or_default, session_of

if TYPE_CHECKING:
    from ..activation import Collected
    from ..store.masks import MaskDescription


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
    found = find_neurons(layout, languages, selection, overwrite=force)
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


# ── `lna activation`: count one language.


def activation(
    model: options.Model,
    lang: Annotated[str, typer.Option("-l", "--lang", help="Language to count, by code or name.", show_default=False)],
    data: options.Data,
    results: options.Results,
    engine: options.Engine,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="K/N", help="Count only the K-th of N parts; `lna merge` adds them."),
    ] = None,
    overlong: options.Overlong = "error",
    blocks: options.Blocks = None,
    moments: options.Moments = False,
    force: options.Force = False,
) -> None:
    """Count, for every neuron, the tokens on which it fires: over whole texts and over the questions alone."""
    language, part = language_code(lang), None if shard is None else parse_shard(shard)
    check_choice(overlong, OVERLONG, "--overlong")
    if blocks is not None:
        check_block_number(blocks)
    from ..activation import collect_activations, shard_session

    work = answered(session_of(model, data, results, engine))
    if part is not None:
        work = shard_session(work, *part)
    with work, Bars() as bars:
        collected = collect_activations(
            work, language, overlong=overlong, blocks=blocks, moments=moments, overwrite=force, start=bars.start
        )
    report_reuse([collected])
    full, prefix, *summed = collected.paths
    shown = {
        "language": language,
        "full": full,
        "prefix": prefix,
        **dict(zip(("moments", "prefix_moments"), summed, strict=False)),
        "reused": collected.reused,
        "meta": collected.meta,
    }
    result([str(path) for path in collected.paths], shown, as_json=results.as_json)


def report_reuse(collected: list[Collected]) -> None:
    """Say which languages were there already, in whole or in part: neither is ever silent."""
    there = [language_name(one.language) for one in collected if one.reused]
    if there:
        note(f"already counted from the same model and corpus: {', '.join(there)} (--force counts again)")
    again = [language_name(one.language) for one in collected if one.recounted]
    if again:
        note(f"counted before, but without moments: {', '.join(again)}; counted again, and the counts are the same")


# ── `lna autosweep`: find λ.


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


# ── `lna import-mask`: bring a public mask to where the other commands find it.


def import_mask(
    file: Annotated[Path, typer.Argument(help="Mask file, such as a public *.neuron.pth.", show_default=False)],
    model: options.Model,
    results: options.Results,
    langs: Annotated[
        str, typer.Option("--langs", help="The file's languages, in its order: en,zh,fr.", show_default=False)
    ],
    top_rate: options.TopRate = DEFAULT_TOP_RATE,
    lam: Annotated[float, typer.Option("-l", "--lam", help="λ to file it under; 0 for methods without.")] = 0.0,
    force: options.Force = False,
) -> None:
    """Store a public mask as this model's, checked against its shape, for `ppl` and `analyze --mask-only`."""
    languages = parse_languages(langs)
    from .._import_mask import import_mask as import_file

    layout, rates = existing_layout(model, results), {"top_rate": top_rate, "lam": lam}
    description, path = import_file(file, layout, languages, model_path=model.model_path, **rates, overwrite=force)
    shown = {"mask": path, **asdict(description)}
    classes = ", ".join(f"{count} {name}" for name, count in description.classes.items())
    result([*language_table(description), "", classes, "", str(path)], shown, as_json=results.as_json)


# ── `lna merge`: add up the counts of shards.


def merge(
    model: options.Model,
    results: options.Results,
    shards: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of counts to add up; by default the dataset's shards under --root.", show_default=False
        ),
    ] = None,
    force: options.Force = False,
) -> None:
    """Add up the counts of disjoint shards of a corpus, counted anywhere, to those of the whole."""
    from ..activation import find_shards, merge_counts, shards_at

    layout = existing_layout(model, results)
    parts = shards_at(layout, shards) if shards else find_shards(layout)
    merged = merge_counts(layout, parts, overwrite=force)
    rows = [[language_name(one.language), one.shards, one.tokens] for one in merged]
    shown = {one.language: {"shards": one.shards, "tokens": one.tokens, "paths": one.paths} for one in merged}
    result(
        [*table(["language", "shards", "tokens"], rows), "", *(str(one.paths[0]) for one in merged)],
        shown,
        as_json=results.as_json,
    )

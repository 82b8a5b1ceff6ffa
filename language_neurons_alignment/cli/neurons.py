"""Commands that count activations and find language neurons: activation, merge, autosweep, identify, import-mask."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import DEFAULT_BAR, Counting, Selection, parse_shard
from ..languages import DEFAULT_LANGUAGES, language_code, language_name, parse_languages
from .options import SEARCH, TEN, Data, Engine, Model, Overwrite, Results, answered, layout_of, only, open_session_of
from .output import Bars, note, result, show_evaluation, table

if TYPE_CHECKING:
    from ..activation import Collected
    from ..store.masks import MaskDescription


def activation(
    model: Model,
    lang: Annotated[str, typer.Option("-l", "--lang", help="Language to count, by code or name.", show_default=False)],
    data: Data,
    results: Results,
    engine: Engine,
    counting: Counting,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="K/N", help="Count only the K-th of N parts; `lna merge` adds them up."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Count, for every neuron, the tokens on which it fires: over whole texts and over the questions alone.

    One language a call; `lna run` counts all of them. Counts that are there from the same model and corpus are kept.

    Example: lna activation --model-path ./Mistral-7B-v0.1 -l en -d datasets/mgsm.json -s mgsm
    """
    language, part = language_code(lang), None if shard is None else parse_shard(shard)
    from ..activation import collect_activations, shard_session

    work = answered(open_session_of(model, data, results, engine))
    if part is not None:
        work = shard_session(work, *part)
    with work, Bars() as bars:
        collected = collect_activations(
            work,
            language,
            overlong=counting.overlong,
            blocks=counting.blocks,
            moments=counting.moments,
            overwrite=overwrite,
            start=bars.start,
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
    """Say which languages had been counted before, in whole or in part."""
    there = [language_name(one.language) for one in collected if one.reused]
    if there:
        note(f"already counted from the same model and corpus: {', '.join(there)} (--force counts again)")
    again = [language_name(one.language) for one in collected if one.recounted]
    if again:
        note(f"counted before, but without moments: {', '.join(again)}; counted again, and the counts are the same")


def merge(
    model: Model,
    results: Results,
    shards: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of counts to add up; by default the dataset's shards under --root.", show_default=False
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Add up the counts of disjoint shards of a corpus, counted anywhere, to those of the whole.

    Example: lna merge --model-path ./Mistral-7B-v0.1 -s mgsm
    """
    from ..activation import find_shards, merge_counts, shards_at

    layout = layout_of(model, results)
    parts = shards_at(layout, shards) if shards else find_shards(layout)
    merged = merge_counts(layout, parts, overwrite=overwrite)
    rows = [[language_name(one.language), one.shards, one.tokens] for one in merged]
    shown = {one.language: {"shards": one.shards, "tokens": one.tokens, "paths": one.paths} for one in merged}
    result(
        [*table(["language", "shards", "tokens"], rows), "", *(str(one.paths[0]) for one in merged)],
        shown,
        as_json=results.as_json,
    )


def autosweep(
    model: Model,
    results: Results,
    selection: Annotated[Selection, only("top_rate", *SEARCH, bar=str(DEFAULT_BAR), languages=TEN)],
) -> None:
    """Find the largest λ for which no selected neuron belongs to every language.

    Needs counts, no model.

    Example: lna autosweep --model-path ./Mistral-7B-v0.1 -s mgsm -r 0.01 --hi 0.2
    """
    from ..autosweep import autosweep as sweep

    found = sweep(
        layout_of(model, results),
        selection.languages or DEFAULT_LANGUAGES,
        top_rate=selection.top_rate,
        bar=selection.known_bar,
        search=selection.search,
        observe=show_evaluation,
    )
    shown = {
        "lambda": found.lam,
        "appear": found.appear,
        "evaluations": found.evaluations,
        "languages": selection.languages or DEFAULT_LANGUAGES,
    }
    result(f"best λ = {found.shown}", shown, as_json=results.as_json)


def identify(
    model: Model,
    results: Results,
    selection: Annotated[
        Selection,
        only(
            "top_rate", "method", "neurons", "seed",
            lam="none: entropy-lambda needs it", bar=str(DEFAULT_BAR), languages=TEN,
        ),
    ],
    overwrite: Overwrite = False,
) -> None:  # fmt: skip
    """Find each language's neurons and write the mask.

    Needs counts (mean-difference moments too), no model.

    Example: lna identify --model-path ./Mistral-7B-v0.1 -s mgsm -r 0.01 -l 0.109375
    """
    selection.check_lambda()
    from ..identify import identify as find_neurons

    languages = selection.languages or DEFAULT_LANGUAGES
    found = find_neurons(layout_of(model, results), languages, selection, overwrite=overwrite)
    shown = {"mask": found.path, **asdict(found.description)}
    result(
        [*histogram_table(found.description), "", *language_table(found.description), "", str(found.path)],
        shown,
        as_json=results.as_json,
    )


def histogram_table(description: MaskDescription) -> list[str]:
    """The method, the selected neurons by the number of their languages, and the general neurons."""
    last = len(description.languages)
    none = description.lam is not None and description.appear[last] == 0
    every = "all languages: none, by the choice of λ" if none else "all languages"
    meaning = {0: "selected, above τ nowhere", 1: "language-specific", last: every}
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


def import_mask(
    file: Annotated[Path, typer.Argument(help="Mask file, such as a public *.neuron.pth.", show_default=False)],
    model: Model,
    results: Results,
    langs: Annotated[
        str, typer.Option("--langs", help="The file's languages, in its order: en,zh,fr.", show_default=False)
    ],
    selection: Annotated[Selection, only("top_rate", lam="0")],
    overwrite: Overwrite = False,
) -> None:
    """Store a public mask as this model's, checked against its shape, for `ppl` and `analyze --mask-only`.

    The mask is filed under the top rate and λ given; λ is 0 for methods that have none.

    Example: lna import-mask llama.neuron.pth --model-path ./Llama-2-7b -s public --langs en,zh,fr,es,vi,id,ja
    """
    languages = parse_languages(langs)
    from .._import_mask import import_mask as import_file

    layout, rates = layout_of(model, results), {"top_rate": selection.top_rate, "lam": selection.lam or 0.0}
    description, path = import_file(file, layout, languages, model_path=model.model_path, **rates, overwrite=overwrite)
    shown = {"mask": path, **asdict(description)}
    classes = ", ".join(f"{count} {name}" for name, count in description.classes.items())
    result([*language_table(description), "", classes, "", str(path)], shown, as_json=results.as_json)

"""Commands that count activations and find language neurons: activation, merge, autosweep, identify, import-mask."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._importing import importing
from ..config import DEFAULT_BAR, Counting, Selection, parse_shard
from ..errors import LNAError
from ..languages import language_code, language_name, parse_languages
from .options import COUNTED, SEARCH, Model, Overwrite, Results, Setup, answered, languages_of, layout_of, only
from .output import Bars, note, notes, result, show_evaluation, table

if TYPE_CHECKING:
    from ..activation import Collected
    from ..store.masks import MaskDescription


def activation(
    setup: Setup,
    lang: Annotated[
        str,
        typer.Option("-l", "--lang", help="Language to count, by code or name; or several: en,fr.", show_default=False),
    ],
    counting: Counting,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="K/N", help="Count only the K-th of N parts; `lna merge` adds them up."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Count, for every neuron, the tokens on which it fires: over whole texts and over the questions alone.

    `lna run` counts all languages. Counts that are there from the same model and corpus are kept.

    Example: lna activation --model-path ./Mistral-7B-v0.1 -l en -d datasets/mgsm.json -s mgsm
    """
    languages = parse_languages(lang) if "," in lang else (language_code(lang),)
    part = None if shard is None else parse_shard(shard)
    from .._session import with_counted_texts
    from ..activation import collect_activations, shard_session

    work = answered(with_counted_texts(setup.open(), counting.count))
    if part is not None:
        work = shard_session(work, *part)
    with work, Bars() as bars:
        collected = [
            collect_activations(
                work,
                language,
                overlong=counting.overlong,
                blocks=counting.blocks,
                moments=counting.moments,
                overwrite=overwrite,
                shard=part is not None,
                start=bars.start,
            )
            for language in languages
        ]
    report_reuse(collected)
    shown = {one.language: _shown(one) for one in collected}
    paths = [path for one in collected for path in one.paths]
    result(setup.results.as_json, shown[languages[0]] if len(languages) == 1 else {"languages": shown}, paths)


def _shown(collected: Collected) -> dict[str, Any]:
    """One language's count files, as JSON has them."""
    full, prefix, *summed = collected.paths
    return {
        "language": collected.language,
        "full": full,
        "prefix": prefix,
        **dict(zip(("moments", "prefix_moments"), summed, strict=False)),
        "reused": collected.reused,
        "meta": collected.meta,
    }


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

    Languages merged from the same shards before are kept.

    Example: lna merge --model-path ./Mistral-7B-v0.1 -s mgsm
    """
    from ..activation import find_shards, merge_counts, shards_at

    layout = layout_of(model, results)
    parts = shards_at(layout, shards) if shards else find_shards(layout)
    merged = merge_counts(layout, parts, overwrite=overwrite)
    if there := [language_name(one.language) for one in merged if one.reused]:
        note(f"already merged from the same shards: {', '.join(there)} (--force merges again)")
    rounded = sorted({one.dtype for one in merged if not one.batch_invariant} & {"bfloat16", "float16"})
    if rounded and len(parts) > 1:
        note(
            f"counted in {', '.join(rounded)} without --batch-invariant: counting the whole at once would give a few "
            "more or fewer firings for some neurons, because other batches round differently"
        )
    rows = [[language_name(one.language), one.shards, one.tokens] for one in merged]
    shown = {
        one.language: {"shards": one.shards, "tokens": one.tokens, "paths": one.paths, "reused": one.reused}
        for one in merged
    }
    lines = table(["language", "shards", "tokens"], rows)
    result(results.as_json, shown, lines, [one.paths[0] for one in merged])


def autosweep(
    model: Model,
    results: Results,
    selection: Annotated[Selection, only("top_rate", "skip_empty", *SEARCH, bar=str(DEFAULT_BAR), languages=COUNTED)],
) -> None:
    """Find the largest λ for which no selected neuron belongs to every language.

    Needs counts, no model. If --hi cuts λ off, a note says what the largest λ is. λ is stored beside the counts, and
    later commands take it from there.

    Example: lna autosweep --model-path ./Mistral-7B-v0.1 -s mgsm -r 0.01
    """
    with importing():
        from ..autosweep import autosweep as sweep
        from ..store.lambdas import store_lambda

    layout = layout_of(model, results)
    languages = languages_of(selection, layout)
    found = sweep(
        layout,
        languages,
        top_rate=selection.top_rate,
        bar=selection.known_bar,
        search=selection.search,
        observe=show_evaluation,
        skip_empty=selection.skip_empty,
    )
    notes(found.notes)
    try:
        store_lambda(layout, found.lam, selection, languages)
    except LNAError as error:  # λ is found all the same, and printed
        note(f"note: {error}; give λ to later commands with -l")
    shown = {"lambda": found.lam, "appear": found.appear, "evaluations": found.evaluations}
    shown |= {"lo": selection.search.lo, "hi": found.hi, "at_end": found.at_end}
    shown |= {"largest_lambda": "inf" if found.largest == math.inf else found.largest}  # JSON has no infinity
    shown |= {"languages": found.languages, "notes": found.notes}
    result(results.as_json, shown, f"best λ = {found.shown}")


def identify(
    model: Model,
    results: Results,
    selection: Annotated[
        Selection,
        only(
            "top_rate", "method", "neurons", "seed", "skip_empty",
            lam="AutoSweep's, if there is only one", bar=str(DEFAULT_BAR), languages=COUNTED,
        ),
    ],
    overwrite: Overwrite = False,
) -> None:  # fmt: skip
    """Find each language's neurons and write the mask.

    Needs counts (mean-difference moments too), no model.

    Example: lna identify --model-path ./Mistral-7B-v0.1 -s mgsm -r 0.01
    """
    with importing():
        from ..identify import identify as find_neurons
        from ..store.lambdas import with_found_lambda

    layout = layout_of(model, results)
    languages = languages_of(selection, layout)
    if selection.has_lambda:
        given, selection = selection.lam, with_found_lambda(layout, selection, languages)
        if given is None and selection.lam is not None:
            note(f"λ = {selection.lam!r}, as `lna autosweep` found it")
        selection.check_lambda()
    found = find_neurons(layout, languages, selection, overwrite=overwrite)
    notes(found.notes)
    shown = {"mask": found.path, **found.description.plain(), "notes": found.notes}
    result(results.as_json, shown, *mask_tables(found.description), str(found.path))


def mask_tables(description: MaskDescription) -> list[list[str]]:
    """How the mask was found, the selected neurons by the number of their languages, and those of each language."""
    parameters, last = description.parameters, len(description.languages)
    known = {
        "λ =": description.lam,
        "top rate": None if "neurons" in parameters else description.top_rate,
        "neurons per language": parameters.get("neurons"),
        "seed": parameters.get("seed"),
        "bar": description.bar,
    }
    made_by = [f"{name} {value!r}" for name, value in known.items() if value is not None]
    if description.threshold is not None:
        made_by.append(f"τ = {description.threshold:.6f}")
    none = description.lam is not None and description.appear[last] == 0
    every = "all languages: none, by the choice of λ" if none else "all languages"
    meaning = {0: "selected, above τ nowhere", 1: "language-specific", last: every}
    rows = [[j, count, meaning.get(j, "language-related")] for j, count in enumerate(description.appear)]
    general = f"general neurons, of all {description.size}: {description.classes['general']}"
    return [
        [f"{description.method}: {', '.join(made_by)}"],
        [*table(["languages", "selected neurons", "class"], rows), general],
        language_table(description),
    ]


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
    description, path = import_file(
        file, layout, languages, model_path=model.model_path, adapter=model.adapter, **rates, overwrite=overwrite
    )
    shown = {"mask": path, **description.plain()}
    classes = ", ".join(f"{count} {name}" for name, count in description.classes.items())
    result(results.as_json, shown, language_table(description), classes, str(path))

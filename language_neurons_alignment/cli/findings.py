"""Commands that look at a model and at results: model, analyze, compare, stability, report, check."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._importing import importing
from ..config import Selection, StabilitySettings
from ..errors import ArtifactError, SettingsError, UnknownArchitectureError
from ..languages import language_name, parse_languages
from .options import (
    EngineFlags,
    MaskOnly,
    Model,
    Neurons,
    Overwrite,
    Printing,
    Results,
    Trained,
    languages_of,
    layout_of,
    only,
    only_one,
)
from .output import Bars, note, notes, result, table

if TYPE_CHECKING:
    from .._compare import Comparison, PairComparison
    from .._model import ModelDescription
    from .._stability import Stability
    from ..analysis import Analysis, ModelNeurons

PAPER_STAGES = 4
MOST_SETS = 10
FEW_BLOCKS = 10
"""With fewer blocks intervals are wide and their spread poorly known."""
TableColumns = dict[str, list[Any]]


def model(
    engine: Annotated[EngineFlags, only("dtype", "device")],
    printing: Printing,
    path: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Model folder or hub id.", show_default=False)
    ] = None,
    model_path: Annotated[str | None, typer.Option("--model-path", hidden=True)] = None,
    config_only: Annotated[
        bool, typer.Option("--config-only", help="Read the config alone: no weights, and no proof.")
    ] = False,
) -> None:
    """Show what a model is: its family, where its neurons are, the memory that it needs, and which engines serve it.

    Loads the weights where they fit into memory, and proves on a few tokens where the neurons are. Exits with 1 if
    that cannot be proved.

    Example: lna model ./Mistral-7B-v0.1
    """
    path = only_one("the model", path=path, model_path=model_path)
    if path is None:
        raise SettingsError("no model is given: for example `lna model ./Mistral-7B-v0.1`")
    from .._model import REFUSED, describe_model

    found = describe_model(path, dtype=engine.dtype, device=engine.device or "auto", load=not config_only)
    result(
        printing.as_json,
        asdict(found),
        model_lines(found),
        place_lines(found),
        memory_lines(found),
        [f"transformers  {_served(found)}", f"vllm          {found.vllm}"],
    )
    if found.proof == REFUSED:
        raise UnknownArchitectureError(found.said)


def model_lines(found: ModelDescription) -> list[str]:
    """What a model is."""
    rows = [["class", found.architecture], ["family (model_type)", found.family]]
    if found.layers:
        rows += [["layers", f"{found.layers:,}"], ["neurons", f"{found.neurons:,}"]]
    if found.experts:
        routed = (
            f"{found.experts.number} of {found.experts.width:,} neurons in each layer, {found.experts.top_k} a token"
        )
        rows += [["routed experts", routed]]
    if found.parameters:
        rows += [["parameters", f"{found.parameters:,}"]]
    if found.quantization:
        rows += [["quantized", found.quantization]]
    rows += [["vocabulary", f"{found.vocabulary:,}"], ["longest sequence", f"{found.longest:,}"]]
    return table(["model", found.path], rows)


def place_lines(found: ModelDescription) -> list[str]:
    """Where its neurons are."""
    rows = [
        [
            str(one.first) if one.first == one.last else f"{one.first} to {one.last}",
            one.neurons,
            *([one.experts or "–"] if found.experts else []),
            one.activation,
            one.up or "–",
            one.down,
        ]
        for one in found.places
    ]
    experts = ["experts"] if found.experts else []
    header = ["layers", "neurons in each", *experts, "activation", "multiplied by", "read by"]
    return table(header, rows) if rows else []


def memory_lines(found: ModelDescription) -> list[str]:
    """The memory that it needs in each precision."""
    from .._model import in_gib

    counting = f"counting, {found.batch_tokens:,} tokens a batch" if found.layers else ""
    rows = [
        [name, in_gib(one.weights), *([in_gib(one.counting)] if counting else [])] for name, one in found.memory.items()
    ]
    return table(["memory", "weights", *([counting] if counting else [])], rows) if rows else []


def _served(found: ModelDescription) -> str:
    from .._model import PROVED

    if found.proof == PROVED:
        return "serves it: the places of its neurons are proved"
    return f"{found.proof}: {found.said}"


def analyze(model: Model, results: Results, selection: Neurons, mask_only: MaskOnly = False) -> None:
    """Count the neurons of each class by layer and language, compare languages, and follow the path of λ.

    Also cuts the layers into stages. Needs counts, or with --mask-only a mask; no model.

    Example: lna analyze --model-path ./Mistral-7B-v0.1 -s mgsm -r 0.01
    """
    with importing():
        from ..analysis import analyze as analyse

    layout = layout_of(model, results, lambda_of=selection)
    found = analyse(layout, selection, mask_only=mask_only)
    if found.neurons.lam_from == "autosweep":
        note(f"no mask of top rate {selection.top_rate!r}: λ from AutoSweep")
    notes(found.neurons.notes)
    result(
        results.as_json,
        {**found.plain(), "files": found.files},
        heading(found),
        class_lines(found),
        language_lines(found),
        layer_lines(found),
        stage_lines(found),
        set_lines(found),
        pair_lines(found),
        path_lines(found),
        expert_lines(found),
        found.files,
    )


def heading(found: Analysis) -> list[str]:
    """What was analysed."""
    made_from = found.neurons.description
    rates = f"λ = {made_from.lam!r} ({found.neurons.lam_from}), top rate {made_from.top_rate!r}"
    known = f", bar {made_from.bar!r}, τ = {made_from.threshold:.6f}" if made_from.threshold is not None else ""
    return [f"{found.neurons.layout.model} on {found.neurons.layout.dataset}", rates + known]


def class_lines(found: Analysis) -> list[str]:
    """How many neurons each class has; of all neurons by N, where counts tell."""
    totals, neurons = found.classes.totals(), found.classes.neurons
    rows = [[name, count, f"{100 * count / neurons:.3f} %"] for name, count in totals.items()]
    lines = table(["class", "neurons", "of all"], rows)
    if found.above is not None:
        above, selected = found.above.all.sum(dim=0).tolist(), found.above.selected.sum(dim=0).tolist()
        numbers = [[n, *pair] for n, pair in enumerate(zip(above, selected, strict=True))]
        lines += ["", *table(["languages above τ", "all neurons", "selected"], numbers)]
    return lines


def language_lines(found: Analysis) -> list[str]:
    """Each language's neurons, and English beside the mean of the others."""
    counts = found.languages.per_language.tolist()
    rows = [[language_name(code), *row, sum(row)] for code, row in zip(found.languages.languages, counts, strict=True)]
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
    rows = [
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
    rows = [["+".join(found.sharing.named(row)), int(found.sharing.counts[row])] for row in shared]
    return table(["shared by exactly", "neurons"], rows) if rows else ["no neuron is shared by languages"]


def pair_lines(found: Analysis) -> list[str]:
    """The languages that have the most in common."""
    jaccard, counts, codes = found.overlap.jaccard, found.overlap.counts, found.overlap.languages
    pairs = [(a, b) for b in range(len(codes)) for a in range(b) if counts[a, b]]
    pairs.sort(key=lambda pair: -float(jaccard[pair]))
    rows = [[f"{codes[a]} {codes[b]}", int(counts[a, b]), f"{float(jaccard[a, b]):.3f}"] for a, b in pairs[:MOST_SETS]]
    return table(["closest masks", "neurons", "Jaccard"], rows) if rows else []


def expert_lines(found: Analysis) -> list[str]:
    """How far the routers of a mixture send each language from the reference, layer by layer, and its first expert."""
    if found.experts is None or found.routing is None:
        return []
    languages, most = found.routing.languages, found.experts.share.max(dim=1)
    rows = []
    for row, layer in enumerate(found.routing.layers):
        cells = [
            f"{apart:.3f} ({expert}: {share:.0%})"
            for apart, expert, share in zip(
                found.routing.divergence[row].tolist(),
                most.indices[row].tolist(),
                most.values[row].tolist(),
                strict=True,
            )
        ]
        rows.append([layer, *cells])
    return [
        f"experts: Jensen–Shannon divergence from {found.routing.reference}, in bits, and the most used expert",
        *table(["layer", *languages], rows),
    ]


def path_lines(found: Analysis) -> list[str]:
    """What the λ path says of general neurons."""
    if found.path is None:
        return []
    edges, fine = found.path.edges.tolist(), (found.path.appear[:, -1] == 0).nonzero().flatten().tolist()
    none = (
        f"no general neuron is selected up to λ = {edges[fine[-1] + 1]:.6f}" if fine else "general neurons at every λ"
    )
    return [f"λ from {edges[0]:g} to {edges[-1]:g}: the histogram changes {len(edges) - 2} times; {none}"]


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            help="The base model, then the others in the order of training: folders or hub ids of models and of "
            "adapters with results "
            "under --root, or mask files (…/activation_masks/<dataset>/<rates>/mask.<Name>-<tag>) under any root.",
            show_default=False,
        ),
    ],
    results: Results,
    selection: Neurons,
    dataset: Annotated[
        str | None,
        typer.Option("-s", "--dataset", help="Dataset name; mask files name theirs.", show_default=False),
    ] = None,
    model_name: Annotated[
        str | None,
        typer.Option("--model-name", help="Name in file names.", show_default="the family in each model's config"),
    ] = None,
    trained: Trained = None,
    mask_only: MaskOnly = False,
) -> None:
    """Compare a base model's language neurons with those of its trained versions: gained, lost, kept, changed in class.

    Each model has its own λ: that of its one mask at this top rate, or AutoSweep's; -l sets one for all.

    Example: lna compare ./Mistral-7B-v0.1 ./Mistral-7B-MAPO -s mgsm --trained zh,de
    """
    aligned = parse_languages(trained) if trained else ()
    from .._compare import compare as compare_models

    named = [(name, None if dataset is None else Model(name, dataset, model_name)) for name in models]
    opened = [_open(*one, results, selection, mask_only=mask_only) for one in named]
    found = compare_models(opened, trained=aligned)
    notes(found.notes)
    sections = [compared_path_lines(found), *(part for pair in found.pairs for part in compared_pair_lines(pair))]
    result(results.as_json, {**found.plain(), "files": found.files}, *sections, found.files)


def _open(name: str, model: Model | None, results: Results, selection: Selection, *, mask_only: bool) -> ModelNeurons:
    """The neurons of a model that was named by its path or by a mask file."""
    from ..analysis import open_neurons

    if Path(name).is_file():
        return open_neurons(name, mask_only=mask_only)
    if model is None:
        raise SettingsError(f"{name} is a model, so -s must name the dataset: for example -s mgsm")
    layout = layout_of(model, results, lambda_of=selection)
    return open_neurons(layout, selection, mask_only=mask_only)


def compared_path_lines(found: Comparison) -> list[str]:
    """The classes of every model."""
    rows = [
        [name, f"{one.description.lam:.6f} ({one.lam_from})", *totals]
        for name, one, totals in zip(found.names, found.models, found.path.totals.tolist(), strict=True)
    ]
    return table(["model", "λ", *found.path.classes], rows)


def compared_pair_lines(pair: PairComparison) -> list[list[str]]:
    """From the base to one of the others: flow, languages, groups."""
    states = pair.classes.states
    flow = [[state, *row] for state, row in zip(states, pair.classes.total.tolist(), strict=True)]
    return [
        [f"{pair.before} → {pair.after}"],
        table(["was, is", *states], flow),
        compared_language_lines(pair),
        group_lines(pair),
    ]


def compared_language_lines(pair: PairComparison) -> list[str]:
    """Kept, gained and lost neurons of each language, by class, and what the masks have in common."""
    flow = pair.languages
    parts = [part.sum(dim=0).tolist() for part in (flow.kept, flow.gained, flow.lost)]
    rows = [
        [
            language_name(code),
            *("{} +{} −{}".format(*(part[k][s] for part in parts)) for s in range(len(flow.sets))),
            f"{float(flow.jaccard[k, -1]):.3f}",
        ]
        for k, code in enumerate(flow.languages)
    ]
    return table(["kept +gained −lost", *flow.sets, "Jaccard"], rows)


def group_lines(pair: PairComparison) -> list[str]:
    """Mean change per language of trained and other languages."""
    rows = [
        [name, ",".join(members), *(f"{value:+.1f}" for value in row)]
        for (name, members), row in zip(pair.groups.groups.items(), pair.groups.means.tolist(), strict=True)
    ]
    return table(["mean change per language", "languages", *pair.groups.classes], rows)


def stability(
    model: Model,
    results: Results,
    settings: StabilitySettings,
    other: Annotated[
        str | None,
        typer.Option(
            "--with", metavar="DATASET", help="Another dataset counted on this model: do both find the same neurons?"
        ),
    ] = None,
) -> None:
    """Estimate how much the neurons would change on another corpus.

    Needs counts in blocks, which `lna activation --blocks 20` or `lna run --blocks 20` keeps; no model.

    Example: lna stability --model-path ./Mistral-7B-v0.1 -s mgsm -r 0.01 --draws 400
    """
    from .._stability import stability as examine

    layout = layout_of(model, results)
    second = None if other is None else layout_of(replace(model, dataset=other), results)
    languages = languages_of(settings.selection, layout)
    with Bars("it") as bars:
        found = examine(layout, languages, settings, other=second, start=bars.start)
    notes((*found.notes, *remarks(found)))
    tables = found.tables()
    made = f"{found.blocks} blocks, {settings.draws} draws, {settings.splits} splits"
    result(
        results.as_json,
        {**found.plain(), "files": found.files},
        [f"{layout.model} on {layout.dataset}: {made}"],
        number_lines(tables["numbers"]),
        stability_language_lines(tables["inclusion"], tables["halves"], tables["probabilities"]),
        overlap_lines(found),
        found.files,
    )


def remarks(found: Stability) -> list[str]:
    """What a reader must know to read the numbers."""
    notes, hi = [], found.settings.selection.search.hi
    if found.blocks < FEW_BLOCKS:
        notes.append(f"{found.blocks} blocks say little about how the corpus varies: count with --blocks 20")
    if found.halves.blocks[1] == 0:
        notes.append("fewer than 4 blocks have no quarters, so λ*, classes and masks have no intervals")
    if hi is not None and float(found.value[0]) >= hi:
        notes.append(f"every λ up to {hi!r} is fine, so λ* is the range's end and has no interval: --hi")
    if found.without_lambda:
        notes.append(f"in {found.without_lambda} of {found.settings.draws} draws no λ is valid; they are left out")
    return notes


def number_lines(numbers: TableColumns) -> list[str]:
    """λ*, τ and sizes: on this corpus, and estimated for an infinite corpus, with a 95 % interval."""
    rows = []
    for name, value, endless, low, high in zip(*numbers.values(), strict=True):
        digits = 6 if name in ("lambda", "threshold") else 0
        rows.append([name, f"{value:.{digits}f}", f"{endless:.{digits}f}", f"[{low:.{digits}f}, {high:.{digits}f}]"])
    return table(["number", "here", "infinite corpus", "95 % interval"], rows)


def stability_language_lines(inclusion: TableColumns, halves: TableColumns, probabilities: TableColumns) -> list[str]:
    """Each language's mask: how sure its neurons are, and what halves agree on."""
    whole = {code: index for index, code in enumerate(inclusion["language"])}
    rows = []
    for row, code in enumerate(halves["language"]):
        agreed = f"{halves['jaccard'][row]:.3f} [{halves['low'][row]:.3f}, {halves['high'][row]:.3f}]"
        if code not in whole:
            rows.append([code, "", "", "", "", agreed, ""])
            continue
        own = [str(inclusion[name][whole[code]]) for name in ("neurons", "sure", "likely", "likely_outside")]
        width = f"{probabilities['half_width'][whole[code]]:.4f}"
        rows.append([language_name(code), *own, agreed, width])
    return table(["language", "mask", "sure", "likely", "likely outside", "Jaccard of halves", "p ±"], rows)


def overlap_lines(found: Stability) -> list[str]:
    """What the masks of two corpora have in common."""
    if found.overlap is None:
        return []
    rows = [
        [code, kind, *(f"{value:.1f}" if code == "mean" else f"{value:.0f}" for value in sizes), *map(_share, shares)]
        for code, kind, *numbers in zip(*found.overlap.values(), strict=True)
        for sizes, shares in [(numbers[:3], numbers[3:])]
    ]
    named = [found.layout.dataset, found.other or ""]
    return table(["language", "set", *named, "shared", "of first", "of smaller", "Jaccard"], rows, keys=2)


def _share(value: float) -> str:
    return "–" if value != value else f"{value:.3f}"


def report(
    model: Model,
    results: Results,
    selection: Neurons,
    others: Annotated[
        list[str] | None,
        typer.Argument(help="Models or adapters to compare it with, in the order of training.", show_default=False),
    ] = None,
    trained: Trained = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The page to write.", show_default="reports/… under --root"),
    ] = None,
    mask_only: MaskOnly = False,
    title: Annotated[
        str | None, typer.Option("--title", help="Heading of the page.", show_default="the models' names")
    ] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Write each figure as PDF too, for papers.")] = False,
) -> None:
    """Write one HTML page of all results that a model has, with every figure as PNG, SVG and CSV beside it.

    With other models after it, the page shows how they differ from it. Needs counts or a mask, no model.

    Example: lna report --model-path ./Mistral-7B-v0.1 -s mgsm ./Mistral-7B-MAPO --trained zh,de
    """
    aligned = parse_languages(trained) if trained else ()
    with importing():
        from .._report import write_report

    named = [model.adapter or model.model_path, *(others or [])]
    models = [model, *(Model(name, model.dataset, model.model_name) for name in others or [])]
    layouts = [layout_of(one, results, lambda_of=selection) for one in models]
    written = write_report(
        layouts, selection, mask_only=mask_only, called=named, trained=aligned, out=out, title=title, pdf=pdf
    )
    for title, remedy in written.report.missing.items():
        note(f"not drawn: {title}. {remedy}")
    notes(written.notes)
    report = {
        "notes": written.notes,
        "page": written.page,
        "pictures": written.pictures,
        "missing": written.report.missing,
    }
    shown = f"{len(written.pictures)} pictures and tables in {written.pictures[0].parent}"
    result(results.as_json, report, shown, str(written.page))


def check(
    results: Results,
    folder: Annotated[
        Path | None, typer.Argument(metavar="ROOT", help="The same as --root.", show_default=False)
    ] = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove temporary files that interrupted runs left behind.")
    ] = False,
) -> None:
    """Verify every result under a folder: what is damaged, what is out of date, and what interrupted runs left.

    Reads all files, compares digests, pairs of files and tallies, and needs no model. Exits with 1 if anything is
    damaged, stale or orphaned.

    Example: lna check ./out --clean
    """
    root = only_one("the folder of results", root=None if results.root == Results.root else results.root, folder=folder)
    root = Results.root if root is None else root
    from .._check import DAMAGED, KINDS, ORPHANED, STALE, check_root

    with Bars(unit="folder") as bars:
        found = check_root(root, clean=clean, start=bars.start)
    listed = [{"kind": one.kind, "path": str(one.path), "what": one.what} for one in found.findings]
    sizes = Counter(one.kind for one in found.findings)
    result(
        results.as_json,
        {"root": str(root), "checked": found.checked, "findings": listed, "removed": list(map(str, found.removed))},
        table(["results", "read"], [[name.replace("_", " "), number] for name, number in found.checked.items()])
        if found.checked
        else "",
        [f"{one['kind']}  {one['path']}: {one['what']}" for one in listed],
        [f"{sizes[kind]} {kind}: {what}" for kind, what in KINDS.items() if sizes[kind]],
        [f"removed {len(found.removed)} leftovers"] if found.removed else [],
        "everything is in order" if found.checked and not listed else "",
    )
    if not found.checked:
        raise ArtifactError(f"no results under {root}: give the root folder of some results")
    if not found.sound:
        wrong = ", ".join(f"{sizes[kind]} {kind}" for kind in (DAMAGED, STALE, ORPHANED) if sizes[kind])
        raise ArtifactError(f"{root}: {wrong}; make what is listed again, or delete it")


def push(
    repo: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME of a data set.", show_default=False)],
    model: Model,
    results: Results,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    answers: Annotated[bool, typer.Option("--with-answers", help="Also send the model's answers: texts.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Name the files, and send nothing.")] = False,
) -> None:
    """Send a model's counts, masks and maps to the Hugging Face hub, with a card; private by default, and no texts.

    The files are checked, and named on stderr, before anything is sent. The licence is yours to add.

    Example: lna push me/neurons --model-path ./Mistral-7B-v0.1 -s mgsm
    """
    from .._share import push as send

    def announce(files: tuple[str, ...]) -> None:
        note(f"{'would send' if dry_run else 'sending'} {len(files)} files to {repo}:")
        for one in files:
            note(f"  {one}")

    layout = layout_of(model, results)
    done = send(layout, repo, private=not public, answers=answers, dry_run=dry_run, announce=announce)
    result(results.as_json, vars(done), done.url or f"{len(done.files)} files, not sent")


def pull(
    repo: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME of a data set.", show_default=False)],
    results: Results,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch, tag or commit.", show_default="the newest")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Fetch results that `lna push` sent to the Hugging Face hub.

    Each file must have its listed digest, and all are verified as `lna check` does, before any comes under --root.

    Example: lna pull me/neurons --root ./theirs
    """
    from .._share import pull as fetch

    done = fetch(repo, results.root, revision=revision, overwrite=overwrite)
    if done.there:
        note(f"{done.there} files were there already, with the same content")
    shown = {**vars(done), "root": results.root}
    result(results.as_json, shown, f"{len(done.files)} files of {done.model} on {done.dataset}", str(results.root))

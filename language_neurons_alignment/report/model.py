"""The sections about one model, one function each, in the order of the page.

Counted text, the λ path and the histogram at λ, the classes over the layers and their stages, the languages, neurons
shared between languages, the perplexity map, and the provenance of the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from ..config import SweepRange
from ..core.lambda_path import LambdaPath
from ..core.perplexity import PerplexityMap
from ..core.profiles import ClassProfile, GroupMeans, LanguageProfile, LanguagesAbove, Overlap, Sharing
from ..core.routing import ExpertShares, RoutingProfile
from ..core.segmentation import Segmentation
from ..core.selection import CLASSES
from ..languages import language_name
from ..plots.charts import (
    Axis,
    BarChart,
    Heatmap,
    LineChart,
    Mark,
    Panel,
    Series,
    language_axis,
    layer_axis,
    plain_axis,
    short,
)
from ..plots.figures import ppl_chart
from .sections import FigureSection, MissingSection, TableSection, View, exact

NAN = float("nan")

TITLES = {
    "corpus": "What was counted",
    "lambda-path": "The λ path",
    "appear": "How many languages the selected neurons belong to",
    "shared": "How many languages share a neuron",
    "sets": "The most common sets of languages",
    "perplexity": "What breaks when a language's neurons are off",
}
"""Titles of the figures that can be missing, by the names of their files."""

_SELECTED = {"unassigned": "above τ nowhere", "specific": "specific", "related": "related", "general": "all languages"}
"""Classes of the selected neurons, as the figures about λ name them."""

STAGES = 4
"""The number of stages that the paper sees in its figure 3."""

SCALES = {"percent": "percent", "log1p": "ln(1 + PPL)"}

MOST_LOOKED = 3
"""Neurons of each language, and tokens of each, in the table of neurons to look at."""
_MOST_SETS = 20
_LONGEST_SET = 48
_MOST_PIECES = 1500
"""A λ path with more pieces is sampled, still more finely than a screen shows."""
_SAMPLES = 33


def corpus_section(
    languages: Sequence[str], *, questions: Sequence[int], answers: Sequence[int], sequences: Sequence[int | None]
) -> FigureSection:
    """Show the counted tokens of each language, and its sequences if the count files state them."""
    tokens = [Series("answer tokens", answers, "specific"), Series("question tokens", questions, "kept")]
    panels = [Panel("tokens", tokens)]
    if any(one is not None for one in sequences):
        counted = [NAN if one is None else one for one in sequences]
        panels.append(Panel("sequences", [Series("sequences", counted, "only")]))
    chart = BarChart(language_axis(languages), panels, stacked=True)
    least = min(range(len(answers)), key=lambda k: answers[k])
    return FigureSection(
        "corpus",
        TITLES["corpus"],
        "A neuron's activation probability is the share of a language's answer tokens on which it fires, so "
        "everything below is based on the answer tokens. Question tokens are counted and subtracted. Languages need "
        "not have equally many tokens, but few tokens give noisy probabilities: if tokens were independent, n of them "
        "would give a standard error of at most 0.5/√n. Tokens of one answer are alike, so the true error is larger. "
        "If a tokenizer splits a language into bytes, the same text has many tokens.",
        [View(chart)],
        f"The least text: {chart.x.names[least]}, {answers[least]:,} answer tokens (a standard error "
        f"of at most {0.5 / max(answers[least], 1) ** 0.5:.4f}).",
    )


def path_section(
    path: LambdaPath, *, lam: float, largest: float | None = None, remarks: Sequence[str] = ()
) -> FigureSection:
    """Show appear[j] for each λ in the range: by class, exact for few pieces and else sampled, and for every j.

    `largest` is the largest fine λ, which has a mark of its own where λ is more than `SweepRange.eps` away from it;
    `remarks` are sentences about λ.
    """
    if len(path.appear) <= _MOST_PIECES:
        x, appear = path.edges.tolist(), [*path.appear.tolist(), path.appear[-1].tolist()]
    else:
        x, appear = (one.tolist() for one in path.sampled(_MOST_PIECES))
    values = {
        "unassigned": [row[0] for row in appear],
        "specific": [row[1] for row in appear],
        "related": [sum(row[2:-1]) for row in appear],
        "general": [row[-1] for row in appear],
    }
    series = [Series(_SELECTED[ink], numbers, ink) for ink, numbers in values.items()]
    marks = [Mark(lam, f"λ = {lam:.6g}")]
    if largest is not None and math.isfinite(largest) and abs(largest - lam) > SweepRange.eps:
        marks.append(Mark(largest, f"largest {largest:.6g}"))
    classes = LineChart(x, "λ", "selected neurons", series, steps=True, marks=marks)
    sampled, histograms = path.sampled(_SAMPLES)
    rows, lams = plain_axis(range(histograms.shape[1]), "languages above τ"), sampled.tolist()
    columns = plain_axis([round(one, 6) for one in lams], "λ", [f"{one:.3g}" for one in lams])
    every = Heatmap(rows, columns, histograms.T.tolist(), "selected neurons", linear_up_to=10.0)
    return FigureSection(
        "lambda-path",
        TITLES["lambda-path"],
        "λ is the method's one free parameter. A larger λ gives a high activation probability more weight against an "
        "even spread over languages. On the left, the selection contains rare neurons of one language; towards the "
        "right, neurons that fire often, and finally those that fire in all languages. The dashed line is the λ of "
        "this report; a second one, where there is one, the largest λ at which no neuron of all languages is selected. "
        "Where the curves around it are flat, the classes do not depend on its exact value; where they "
        "are steep, they do.",
        [View(classes, "classes", "classes"), View(every, "every-n", "every number of languages")],
        " ".join(
            [
                f"In this range the histogram changes at {max(len(path.edges) - 2, 0):,} values of λ.",
                *(one if one.endswith(".") else f"{one}." for one in remarks),
            ]
        ),
    )


def sensitivity(
    languages: Sequence[str],
    masks: tuple[Bool[Tensor, "layer neuron lang"], Bool[Tensor, "layer neuron lang"]],
    lams: tuple[float, float],
    maps: tuple[PerplexityMap, PerplexityMap] | None = None,
) -> str:
    """Say in a line what a smaller λ, the first, would change: the masks, and where maps are there their effects."""
    (smaller, lam), (there, here) = lams, masks
    sizes, common = here.sum(dim=(0, 1)), (here & there).sum(dim=(0, 1))
    kept = sorted((int(common[k]) / int(sizes[k]), language_name(one)) for k, one in enumerate(languages) if sizes[k])
    said = (
        f"At λ = {smaller:.6g}, {'half' if 2 * smaller == lam else f'{smaller / lam:.2g}'} of this λ, the masks have "
        f"{int(there.sum()):,} neurons instead of {int(here.sum()):,}"
    )
    if kept:
        (least, least_of), (most, most_of) = kept[0], kept[-1]
        said += f", and {100 * least:.0f} % ({least_of}) to {100 * most:.0f} % ({most_of}) of a language's are the same"
    if maps is None:
        return f"{said}."
    before, after = (one.change().diagonal().tolist() for one in maps)
    usual = [short(sorted(one)[len(one) // 2], signed=True) for one in (before, after)]
    gaps = [abs(b - a) if math.isfinite(b - a) else -1.0 for a, b in zip(before, after, strict=True)]
    k = gaps.index(max(gaps))
    return (
        f"{said}; with them off, a language's own perplexity changes by {usual[0]} % instead of {usual[1]} % (the "
        f"median language; the most different is {language_name(maps[0].languages[k])}, "
        f"{short(before[k], signed=True)} % instead of {short(after[k], signed=True)} %)."
    )


def routing_section(shares: ExpertShares, profile: RoutingProfile) -> FigureSection:
    """Show how far the routers send each language from English, and which experts it uses."""
    layers = Axis("layer", shares.layers, tuple(map(str, shares.layers)), "layer")
    apart = Heatmap(
        language_axis(profile.languages), layers, profile.divergence.T.tolist(), "divergence [bits]", digits=3
    )
    even = Heatmap(language_axis(profile.languages), layers, profile.entropy.T.tolist(), "entropy / ln E", digits=2)
    places = [(layer, expert) for layer in shares.layers for expert in range(shares.share.shape[1])]
    columns = plain_axis([f"{layer}.{expert}" for layer, expert in places], "layer.expert")
    share = (100 * shares.share).flatten(0, 1).T.tolist()
    used = Heatmap(language_axis(profile.languages), columns, share, "share of the tokens [%]", digits=1)
    others = [k for k, language in enumerate(profile.languages) if language != profile.reference]
    mean = profile.divergence[:, others].mean(dim=1).tolist() if others else []
    said = (
        f"Mean over the other languages: {mean[0]:.3f} bits in the first layer with experts, {min(mean):.3f} in layer "
        f"{profile.layers[mean.index(min(mean))]}, {mean[-1]:.3f} in the last."
        if mean
        else ""
    )
    return FigureSection(
        "experts",
        "Experts by language",
        "The model is a mixture of experts: in each layer, a router sends each token to a few of them. The first chart "
        f"compares, layer by layer, a language's shares of its answer tokens with those of {profile.reference}: 0 bits "
        "if alike, 1 bit if the two languages have no expert in common (Jensen–Shannon divergence). Low "
        "values in the middle layers and high ones at both ends say that languages are processed apart only near input "
        "and output. The second chart shows how evenly the tokens are spread: 1 if all experts get as many. The third "
        "shows each expert's share.",
        [View(apart, "divergence", "divergence"), View(even, "entropy", "entropy"), View(used, "shares", "shares")],
        said,
    )


def appear_section(appear: Sequence[int], *, lam: float) -> FigureSection:
    """Show the histogram that AutoSweep evaluates, at the λ of the mask."""
    last = len(appear) - 1
    ink_of = ["unassigned", "specific", *["related"] * (last - 2), "general"]
    series = [
        Series(name, [n if ink_of[j] == ink else NAN for j, n in enumerate(appear)], ink)
        for ink, name in _SELECTED.items()
    ]
    axis = plain_axis(range(last + 1), "languages in which a selected neuron is above τ")
    chart = BarChart(axis, [Panel("selected neurons", series)], stacked=True, numbers=True)
    return FigureSection(
        "appear",
        TITLES["appear"],
        "The neurons of lowest score, by the number N of languages in which they fire on more than τ of the answer "
        "tokens. A neuron is language-specific if N = 1 and language-related if 1 < N < K. Neurons with N = 0 are "
        "selected for their low entropy but fire too rarely to belong to a language, so they are in no mask. AutoSweep "
        "takes the largest valid λ in the search range: a λ is valid if the last bar, neurons of all K languages, is "
        "empty.",
        [View(chart)],
        f"At λ = {lam!r}, {appear[last]:,} of {sum(appear):,} selected neurons belong to all {last} languages.",
    )


def layers_section(profile: ClassProfile, stages: Segmentation) -> FigureSection:
    """Show each class over the layers, divided into the best four stages (paper figures 3 and 14)."""
    shown = [name for name in CLASSES if name in profile.classes]
    panels = [Panel(name, [Series(name, profile.of(name).tolist(), name)]) for name in shown]
    cut = min(STAGES, len(stages.cuts))
    marks = [Mark(first - 0.5, f"stage {number}") for number, (first, _) in enumerate(stages.stages(cut), start=1)]
    maxima = [
        f"{name} {int(counts.max()):,} in layer {int(counts.argmax())} (of {int(counts.sum()):,})"
        for name, counts in ((name, profile.of(name)) for name in shown)
    ]
    return FigureSection(
        "layers",
        "The classes over the layers",
        "Each panel counts one class, layer by layer, on its own scale. The dashed lines divide the layers into the "
        f"{cut} contiguous stages with the smallest variance within stages (least squares, by dynamic programming). "
        "The paper sees four stages in this figure: understanding (an early peak of specific and related neurons), "
        "shared reasoning (in the middle, almost only general neurons), return to a language (a late peak), and "
        "output (general neurons reach their maximum in the last layer). The next figure tests whether this model has "
        "four.",
        [View(BarChart(layer_axis(len(profile.counts)), panels, marks=marks))],
        f"Maxima: {', '.join(maxima)}.",
    )


def stages_section(stages: Segmentation) -> FigureSection:
    """Show how much of the profile each number of stages explains."""
    explained = [100.0 * share for share in stages.explained.tolist()]
    gain = [100.0 * share for share in stages.gain.tolist()]
    panels = [
        Panel("variance explained [%]", [Series("explained", explained, "only")]),
        Panel("BIC (lower is better)", [Series("BIC", stages.bic.tolist(), "kept")]),
        Panel("p of the last stage", [Series("p", stages.p.tolist(), "after")]),
    ]
    best, supported = stages.best, stages.supported()
    note = f"By BIC: {best}. " + (
        f"Each stage up to {supported} gains more than noise would (p ≤ 0.05)."
        if supported > 1
        else "No second stage gains more than noise would (p > 0.05)."
    )
    if len(gain) >= STAGES:
        note += f" The fourth stage adds {gain[STAGES - 1]:.1f} points to {explained[STAGES - 2]:.1f} %."
    return FigureSection(
        "stages",
        "Are there four stages?",
        "The share of the profile's variance that 1 to 6 contiguous stages explain. Each further stage increases it, "
        "so look for the point where the increase becomes small: a bend in the first panel, the lowest bar in the "
        "second (the Bayesian information criterion, which penalises every stage), or the last p below 0.05 in the "
        "third (how often shuffled residuals gain as much). A profile that changes smoothly over the layers gains "
        "from every cut, so both criteria tend to suggest too many stages, not too few.",
        [View(BarChart(plain_axis(range(1, len(explained) + 1), "stages"), panels))],
        note,
    )


def languages_section(profile: LanguageProfile, means: GroupMeans) -> FigureSection:
    """Show specific and related neurons of each language (paper table 3)."""
    numbers = zip(profile.classes, profile.per_language.T.tolist(), strict=True)
    series = [Series(name, counts, name) for name, counts in numbers]
    chart = BarChart(language_axis(profile.languages), [Panel("neurons", series)], stacked=True)
    sizes = profile.per_language.sum(dim=1)
    fewest, most = int(sizes.argmin()), int(sizes.argmax())
    groups = [
        f"{group}: " + ", ".join(f"{mean:,.0f} {name}" for name, mean in zip(means.classes, row, strict=True))
        for group, row in zip(means.groups, means.means.tolist(), strict=True)
    ]
    return FigureSection(
        "languages",
        "The neurons of each language",
        "Each bar is a language's mask: its specific neurons, and the related neurons that it shares with some other "
        "languages. A related neuron counts in the bar of each of its languages. English usually has few, because the "
        "neurons that a model uses for English are general ones, used for every language, and these are in no mask. "
        "Many specific neurons can mean that the model processes a language separately, or that it has a script of its "
        "own.",
        [View(chart)],
        f"From {int(sizes.min()):,} ({chart.x.names[fewest]}) to {int(sizes.max()):,} ({chart.x.names[most]}) neurons. "
        f"Mean of {'; '.join(groups)}.",
    )


def language_layers_section(profile: LanguageProfile) -> FigureSection:
    """Show each language's neurons layer by layer."""
    rows, columns = language_axis(profile.languages), layer_axis(len(profile.counts))
    both = Heatmap(rows, columns, profile.counts.sum(dim=-1).T.tolist(), "specific + related neurons")
    views = [View(both, "mask", "specific + related")]
    for k, name in enumerate(profile.classes):
        views.append(View(Heatmap(rows, columns, profile.counts[..., k].T.tolist(), f"{name} neurons"), name, name))
    return FigureSection(
        "language-layers",
        "Where each language's neurons lie",
        "One row per language, one column per layer. The paper describes two bands, early and late, with few neurons "
        "between them: the first layers recognise a language, the last ones produce it, and the middle layers serve "
        "all languages. Compare the rows: a language with bands in other layers, or with only one band, is processed "
        "differently.",
        views,
    )


def shared_section(above: LanguagesAbove) -> FigureSection:
    """Show how many of all neurons are above τ in N = 1..K languages (paper figures 5 and 15)."""
    counts = above.all.sum(dim=0).tolist()
    last = len(counts) - 1
    axis = plain_axis(range(1, last + 1), "languages in which a neuron is above τ")
    chart = BarChart(axis, [Panel("neurons", [Series("all neurons", counts[1:], "only")])], numbers=True)
    return FigureSection(
        "shared",
        TITLES["shared"],
        "All neurons of the model, selected or not, by the number of languages in which they fire on more than τ of "
        "the answer tokens. In the paper the numbers fall from left to right and rise again at K: there are more "
        "general neurons, which serve all languages, than neurons of most languages. Alignment lowers the first "
        "number there and raises the last.",
        [View(chart)],
        f"Not drawn: {counts[0]:,} of {sum(counts):,} neurons are above τ in no language. General: {counts[last]:,}.",
    )


def overlap_section(overlap: Overlap) -> FigureSection:
    """Show how similar the masks of each pair of languages are."""
    axis, other = language_axis(overlap.languages), language_axis(overlap.languages, "other language")
    without_self = overlap.jaccard.clone().fill_diagonal_(NAN)  # its 1 would make all other colours pale
    jaccard = Heatmap(axis, other, without_self.tolist(), "Jaccard", digits=2)
    common = Heatmap(axis, other, overlap.counts.tolist(), "common neurons", diagonal=True)
    names, similar = axis.names, overlap.jaccard.nan_to_num()
    pairs = [(float(similar[i, j]), i, j) for i in range(len(names)) for j in range(i)]
    value, i, j = max(pairs, default=(0.0, 0, 0))
    return FigureSection(
        "overlap",
        "What languages have in common",
        "The Jaccard index is the share of common neurons among those that either language has: 0 without common "
        "neurons, 1 for equal masks. Related languages can stand out (Spanish and French), and so can languages that "
        "the tokenizer splits in a similar way. The second view counts the common neurons, with the size of each mask "
        "on the diagonal. A large mask has more neurons in common with every other; the Jaccard index corrects for "
        "this.",
        [View(jaccard, "jaccard", "Jaccard"), View(common, "counts", "common neurons")],
        "" if value == 0 else f"Closest: {names[j]} and {names[i]}, with {value:.2f}.",
    )


def sets_section(sharing: Sharing) -> FigureSection | MissingSection:
    """Show the most common sets of languages that related neurons belong to."""
    related = [row for row, size in enumerate(sharing.sets.sum(dim=1).tolist()) if size > 1]
    if not related:
        return MissingSection("sets", TITLES["sets"], "No neuron is related to several languages.")
    rows = related[:_MOST_SETS]
    names = [", ".join(map(language_name, sharing.named(row))) for row in rows]
    shortened = [name if len(name) <= _LONGEST_SET else f"{name[: _LONGEST_SET - 1]}…" for name in names]
    counts = sharing.counts.tolist()
    axis = plain_axis(["+".join(sharing.named(row)) for row in rows], "languages", shortened)
    numbers = Series("related neurons", [counts[row] for row in rows], "related")
    chart = BarChart(axis, [Panel("related neurons", [numbers])], horizontal=True, numbers=True)
    total = sum(counts[row] for row in related)
    shown = sum(counts[row] for row in rows)
    return FigureSection(
        "sets",
        TITLES["sets"],
        "Each bar counts the related neurons that belong to exactly this set of languages. If a model has learnt a "
        "language family or a script, its languages form one of the first sets. A long tail of rare sets is normal: "
        "if a probability is near τ, noise decides on which side it falls.",
        [View(chart)],
        f"There are {len(related):,} sets; the {len(rows)} shown have {exact(shown)} of {exact(total)} related "
        "neurons.",
    )


def perplexity_section(maps: Mapping[str, PerplexityMap]) -> FigureSection:
    """Show the perplexity maps, by the ending of their file names ("" for the default classes and text)."""
    views = [
        View(
            ppl_chart(one, scale=scale),
            f"{variant.strip('.').replace('.', '-')}-{scale}".strip("-"),
            f"{variant.strip('.').replace('.', ', ') or 'mask'}, {label}" if len(maps) > 1 else label,
        )
        for variant, one in maps.items()
        for scale, label in SCALES.items()
    ]
    first = next(iter(maps.values()))
    largest = first.change().nan_to_num().argmax(dim=1).tolist()
    others = [language_name(code) for k, code in enumerate(first.languages) if largest[k] != k]
    own = len(first.languages) - len(others)
    note = f"In {own} of {len(first.languages)} rows the language itself loses most"
    controlled = (
        " Some numbers lie in the control range: random neurons outside the masks, as many in every layer and equally "
        "active, can change perplexity as much. Tables and pictures mark these numbers; on the page, hover over a cell."
    )
    return FigureSection(
        "perplexity",
        TITLES["perplexity"],
        "Row: the language whose neurons are switched off, in every layer, for every token. Column: the language of "
        "the text that the model predicts. A number is the change of perplexity against the unmodified model. If a "
        "row's neurons belong to its language, the framed cell on the diagonal stands out, related languages may "
        "change with it, and the others do not. A row with large changes everywhere switches off neurons that every "
        "language needs; a column with large changes everywhere is a language that is easy to disturb. Colours are "
        "logarithmic beyond the first tick, so small effects stay visible beside large ones."
        + (controlled if any(one.controls for one in maps.values()) else ""),
        views,
        f"{note}; not in those of {', '.join(others)}." if others and own else f"{note}.",
    )


def neurons_section(looked: Sequence[Mapping[str, Any]], languages: Sequence[str], page: str) -> TableSection:
    """List the neurons of each language with the largest margins, each with a link to the page of neurons.

    Args:
        looked: the neurons of that page, as its JSON has them.
        languages: of the report.
        page: the page, as a link.
    """
    rows, links = [], []
    for code in languages:
        own = sorted((one for one in looked if code in one["own"]), key=lambda one: -one["margin"])
        for one in own[:MOST_LOOKED]:
            here = next((seen for seen in one["languages"] if seen["language"] == code), None)
            factor = one["positive"]
            writes = one["suppresses" if factor is not None and factor < 0.5 else "promotes"]
            effect = here and here["effect"]
            rows.append(
                (
                    f"{one['layer']}.{one['index']}",
                    language_name(code),
                    one["class"],
                    one["margin"],
                    "" if here is None else f"{here['probability']:.1%}",
                    "" if not effect else f"{effect['change']:+.3f} %",
                    " ".join(token["token"].strip() or "␣" for token in writes[:MOST_LOOKED]),
                )
            )
            links.append(f"{page}#{one['layer']}.{one['index']}")
    return TableSection(
        "neurons",
        "Neurons to look at",
        "The neurons of each language that stand out most: their margin is the least activation probability in their "
        "own languages less the most in any other. The link opens the neuron on the page of `lna neurons`, with the "
        "texts that it fires on and the tokens that it raises, the first of which stand here. Off: the change of the "
        "language's perplexity without this neuron alone, where that was measured (--effects).",
        ("neuron", "language", "class", "margin", "fires on", "off", "writes"),
        rows,
        links,
    )


def provenance_section(models: Mapping[str, Mapping[str, str]], notes: Sequence[str] = ()) -> TableSection:
    """Show what each model's results were made from, side by side; unknown values stay empty."""
    what = dict.fromkeys(name for facts in models.values() for name in facts)
    rows = [(name, *(facts.get(name, "") for facts in models.values())) for name in what]
    reading = (
        "Everything that determines the numbers on this page. Digests identify the counts, the model's configuration "
        "and weights, and the mask: two reports with the same digests show the same model."
    )
    return TableSection(
        "provenance",
        "Provenance",
        " ".join([reading, *(f"Note: {note}." for note in notes)]),
        ("", *models),
        rows,
    )

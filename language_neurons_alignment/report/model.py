"""One model's sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..core.lambda_path import LambdaPath
from ..core.perplexity import PerplexityMap
from ..core.profiles import ClassProfile, GroupMeans, LanguageProfile, LanguagesAbove, Overlap, Sharing
from ..core.segmentation import Segmentation
from ..languages import language_name
from ..plots.charts import Bars, Heatmap, Lines, Mark, Panel, Series, language_axis, layer_axis, plain_axis
from ..plots.figures import ppl_chart
from .sections import FigureSection, MissingSection, Section, TableSection, View, exact, single

# ── What was counted: how much text each language has.


@dataclass(frozen=True)
class CountedText:
    """How much text of a language was counted.

    Attributes:
        language: code.
        question_tokens: tokens of the prefixes, as often as they were counted.
        answer_tokens: tokens of the answers, on which probabilities rest.
        sequences: questions with an answer; None where the count files do not tell.
    """

    language: str
    question_tokens: int
    answer_tokens: int
    sequences: int | None = None


def corpus_section(texts: Sequence[CountedText]) -> FigureSection:
    """Tokens of each language, questions and answers apart."""
    nan = float("nan")
    panels = [
        Panel("tokens", (
            Series("answer tokens", tuple(float(one.answer_tokens) for one in texts), "specific"),
            Series("question tokens", tuple(float(one.question_tokens) for one in texts), "kept"),
        )),
    ]  # fmt: skip
    if any(one.sequences is not None for one in texts):
        counted = tuple(nan if one.sequences is None else float(one.sequences) for one in texts)
        panels.append(Panel("sequences", (Series("sequences", counted, "only"),)))
    chart = Bars(language_axis([one.language for one in texts]), tuple(panels), stacked=True)
    least = min(texts, key=lambda one: one.answer_tokens)
    return FigureSection(
        "corpus",
        "What was counted",
        "A neuron's activation probability is the share of a language's answer tokens on which it fires, so the "
        "answer tokens are what everything below rests on; question tokens are counted too and taken away. Languages "
        "need not have equally many tokens, but one with few has noisy probabilities: with n tokens, the standard "
        "error of a probability would be at most 0.5/√n if tokens were independent, and is more as they are not. A "
        "language that a tokenizer cuts into bytes has many tokens for the same text.",
        single(chart),
        f"The least text: {chart.x.names[texts.index(least)]}, {least.answer_tokens:,} answer tokens (a standard error "
        f"of at most {0.5 / max(least.answer_tokens, 1) ** 0.5:.4f}).",
    )


# ── What each language has: neurons in all, and where in the model they lie (paper table 3).


def languages_section(profile: LanguageProfile, means: GroupMeans) -> FigureSection:
    """Specific and related neurons of each language."""
    per_language = profile.per_language.T.tolist()
    series = [
        Series(name, tuple(map(float, counts)), name)
        for name, counts in zip(profile.classes, per_language, strict=True)
    ]
    chart = Bars(language_axis(profile.languages), (Panel("neurons", tuple(series)),), stacked=True)
    sizes = profile.per_language.sum(dim=1)
    fewest, most = int(sizes.argmin()), int(sizes.argmax())
    return FigureSection(
        "languages",
        "The neurons of each language",
        "A bar is a language's mask: its specific neurons, and the related ones that it shares with some other "
        "languages; a related neuron stands in the bar of every language that it serves. English usually has few: "
        "what a model does in English is done by neurons that it uses for every language, and these are in no mask. "
        "Many specific neurons may mean a language that the model treats apart, or a script of its own.",
        single(chart),
        f"From {int(sizes.min()):,} ({chart.x.names[fewest]}) to {int(sizes.max()):,} ({chart.x.names[most]}) neurons. "
        f"On average {_means(means)}.",
    )


def language_layers_section(profile: LanguageProfile) -> FigureSection:
    """Each language's neurons, layer by layer."""
    return FigureSection(
        "language-layers",
        "Where each language's neurons lie",
        "One row a language, one column a layer. Two bands of colour, early and late, with little between them are "
        "the shape that the paper describes: a language is recognised at the bottom and spoken at the top, and the "
        "middle layers work for all of them. Compare rows: languages whose bands stand elsewhere, or who have only "
        "one, are treated otherwise.",
        (
            View("mask", "specific + related", _heatmap(profile, profile.classes)),
            *(View(name, name, _heatmap(profile, (name,))) for name in profile.classes),
        ),
    )


def _means(means: GroupMeans) -> str:
    """The mean numbers of each group of languages."""
    rows = zip(means.groups, means.means.tolist(), strict=True)
    return "; ".join(
        f"{group}: " + ", ".join(f"{mean:,.0f} {name}" for name, mean in zip(means.classes, row, strict=True))
        for group, row in rows
    )


def _heatmap(profile: LanguageProfile, classes: tuple[str, ...]) -> Heatmap:
    chosen = [profile.classes.index(name) for name in classes]
    counts = profile.counts[..., chosen].sum(dim=-1)
    return Heatmap(
        rows=language_axis(profile.languages),
        columns=layer_axis(len(counts)),
        values=tuple(tuple(map(float, row)) for row in counts.T.tolist()),
        label=f"{' + '.join(classes)} neurons",
    )


# ── Where in the model the classes lie, and how many stages that shows (paper figures 3 and 14).

STAGES = 4
"""As many as the paper reads off its figure 3."""


def layers_section(profile: ClassProfile, stages: Segmentation) -> FigureSection:
    """Each class over the layers, cut into the best four stages."""
    shown = [name for name in ("specific", "related", "general") if name in profile.classes]
    panels = [Panel(name, (Series(name, tuple(map(float, profile.of(name).tolist())), name),)) for name in shown]
    cut = min(STAGES, len(stages.cuts))
    marks = [Mark(first - 0.5, f"stage {number}") for number, (first, _) in enumerate(stages.stages(cut), start=1)]
    return FigureSection(
        "layers",
        "The classes over the layers",
        "Each panel counts one class, layer by layer; mind that the panels have scales of their own. The dashed lines "
        "cut "
        f"the layers into the {cut} contiguous stages within which the profile of the classes is as even as it can be "
        "(least squares, found by dynamic programming). The paper reads four stages off this picture: understanding "
        "(an early peak of specific and related neurons), shared reasoning (a middle of almost only general ones), "
        "turning back to a language (a late peak), and output (general neurons at their most in the last layer). "
        "Whether this model shows four is the next figure's question.",
        single(Bars(layer_axis(len(profile.counts)), tuple(panels), marks=tuple(marks))),
        _extremes(profile, shown),
    )


def stages_section(stages: Segmentation) -> FigureSection:
    """How much of the profile each number of stages explains."""
    explained = [100.0 * share for share in stages.explained.tolist()]
    gain = [100.0 * share for share in stages.gain.tolist()]
    chart = Bars(
        plain_axis(range(1, len(explained) + 1), "stages"),
        (
            Panel("variance explained [%]", (Series("explained", tuple(explained), "only"),)),
            Panel("BIC (lower is better)", (Series("BIC", tuple(stages.bic.tolist()), "kept"),)),
            Panel("p of the last stage", (Series("p", tuple(stages.p.tolist()), "after"),)),
        ),
    )
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
        "The share of the profile's variance that 1 to 6 contiguous stages explain. It can only grow, so what matters "
        "is where a further stage stops to pay: a bend in the first panel, the lowest bar of the second (Bayes's "
        "information criterion, which charges for every stage), or the last p below 0.05 in the third (how often "
        "permuted residuals gain as much). A profile that changes smoothly over the layers gains by every further "
        "cut, so both criteria tend to name too many stages rather than too few.",
        single(chart),
        note,
    )


def _extremes(profile: ClassProfile, shown: list[str]) -> str:
    """Where each class is at its most."""
    told = []
    for name in shown:
        counts = profile.of(name)
        told.append(f"{name} {int(counts.max()):,} in layer {int(counts.argmax())} (of {int(counts.sum()):,})")
    return f"At their most: {', '.join(told)}."


# ── What switching neurons off does to perplexity: the map, in every variant that there is.

SCALES = {"percent": "percent", "log1p": "ln(1 + PPL)"}

_CONTROLLED = (
    " Numbers within their control's range are those that as many random neurons of no language, matched by layer and "
    "by activity, may bring about as well: the tables and pictures mark them, the page tells it when pointed at."
)


def perplexity_section(maps: Mapping[str, PerplexityMap]) -> FigureSection:
    """The maps by what tells them apart ("" for the default classes and text)."""
    views = [
        View(
            f"{variant.strip('.').replace('.', '-')}-{scale}".strip("-"),
            f"{_said(variant)}, {label}" if len(maps) > 1 else label,
            ppl_chart(one, scale=scale),
        )
        for variant, one in maps.items()
        for scale, label in SCALES.items()
    ]
    return FigureSection(
        "perplexity",
        "What breaks when a language's neurons are off",
        "Row: the language whose neurons are switched off, in every layer, for every token. Column: the language of "
        "the text that the model then has to predict. A number is the change of perplexity against the undisturbed "
        "model. Read along a row: the framed cell on the diagonal should stand out, its relatives may suffer with it, "
        "and the rest should not. A row that is strong everywhere is a set of neurons that everything needs; a column "
        "that is strong everywhere is a language that is easily disturbed. Colours are logarithmic beyond the first "
        "tick, so that small effects stay visible beside large ones."
        + (_CONTROLLED if any(one.controls for one in maps.values()) else ""),
        tuple(views),
        _diagonal(next(iter(maps.values()))),
    )


def _said(variant: str) -> str:
    """A variant of a file's name in words."""
    return variant.strip(".").replace(".", ", ") or "mask"


def _diagonal(result: PerplexityMap) -> str:
    """In how many rows the language itself suffers most."""
    change = result.change()
    own = [code for k, code in enumerate(result.languages) if int(change[k].nan_to_num().argmax()) == k]
    others = [language_name(code) for code in result.languages if code not in own]
    note = f"In {exact(len(own))} of {len(result.languages)} rows the language itself suffers most"
    return f"{note}; not so: {', '.join(others)}." if others and own else f"{note}."


# ── What languages have in common: how many share a neuron, which pairs, and which sets (paper figures 5 and 15).

_SETS = 20
_SETS_TITLE = "The most common sets of languages"


def shared_section(above: LanguagesAbove) -> FigureSection:
    """How many of all neurons are above τ in N = 1..K languages."""
    counts = above.all.sum(dim=0).tolist()
    last = len(counts) - 1
    chart = Bars(
        plain_axis(range(1, last + 1), "languages in which a neuron is above τ"),
        (Panel("neurons", (Series("all neurons", tuple(map(float, counts[1:])), "only"),)),),
        numbers=True,
    )
    return FigureSection(
        "shared",
        "How many languages share a neuron",
        "All neurons of the model, selected or not, by the number of languages in which they fire on more than τ of "
        "the answer tokens. The curve falls from left to right, and rises again at K: neurons of all languages, the "
        "general ones, are more than those of most. In the paper, alignment makes the first fewer and the last more.",
        single(chart),
        f"Not drawn: {counts[0]:,} of {sum(counts):,} neurons are above τ in no language. General: {counts[last]:,}.",
    )


def overlap_section(overlap: Overlap) -> FigureSection:
    """How alike the masks of two languages are."""
    axis, other = language_axis(overlap.languages), language_axis(overlap.languages, "other language")
    jaccard = tuple(map(tuple, overlap.jaccard.tolist()))
    counts = tuple(tuple(map(float, row)) for row in overlap.counts.tolist())
    return FigureSection(
        "overlap",
        "What languages have in common",
        "Jaccard: of the neurons that either language has, the share that both have; 1 on the diagonal by definition, "
        "0 where two languages share nothing. Relatives may stand out (Spanish and French), and so may languages "
        "whose text the tokenizer cuts up alike. The second view counts the common neurons, with a language's whole "
        "mask on the diagonal: a large mask has more in common with everything, which Jaccard corrects for.",
        (
            View("jaccard", "Jaccard", Heatmap(axis, other, _no_diagonal(jaccard), "Jaccard", digits=2)),
            View("counts", "common neurons", Heatmap(axis, other, counts, "common neurons", diagonal=True)),
        ),
        _closest(overlap),
    )


def sets_section(sharing: Sharing) -> FigureSection | MissingSection:
    """The most common sets of languages that related neurons serve."""
    related = [row for row, size in enumerate(sharing.sets.sum(dim=1).tolist()) if size > 1]
    if not related:
        return MissingSection("sets", _SETS_TITLE, "No neuron is related to several languages.")
    rows = related[:_SETS]
    names = [", ".join(map(language_name, sharing.named(row))) for row in rows]
    counts = sharing.counts.tolist()
    chart = Bars(
        plain_axis(["+".join(sharing.named(row)) for row in rows], "languages", [_cut(name) for name in names]),
        (Panel("related neurons", (Series("related neurons", tuple(float(counts[row]) for row in rows), "related"),)),),
        horizontal=True,
        numbers=True,
    )
    total = sum(counts[row] for row in related)
    shown = sum(counts[row] for row in rows)
    return FigureSection(
        "sets",
        _SETS_TITLE,
        "Each bar is a set of languages that some related neurons serve, exactly this set and no other. Families and "
        "scripts come first where a model has learnt them as such. A long tail of rare sets is usual: where a "
        "probability is near τ, chance decides on which side it falls.",
        single(chart),
        f"{len(related):,} sets occur; the {len(rows)} shown hold {exact(shown)} of {exact(total)} related neurons.",
    )


def _no_diagonal(rows: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    """A language with itself says nothing, and its 1 would dim all else."""
    return tuple(tuple(float("nan") if i == j else value for j, value in enumerate(row)) for i, row in enumerate(rows))


def _closest(overlap: Overlap) -> str:
    """The pair of largest Jaccard."""
    jaccard, names = overlap.jaccard.nan_to_num(), list(map(language_name, overlap.languages))
    pairs = [(float(jaccard[i, j]), i, j) for i in range(len(names)) for j in range(i)]
    value, i, j = max(pairs, default=(0.0, 0, 0))
    return "" if value == 0 else f"Closest: {names[j]} and {names[i]}, with {value:.2f}."


def _cut(name: str, most: int = 48) -> str:
    """A long list of languages, cut."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


# ── λ: how the selected neurons change with it, and what they are at the λ chosen.

_MOST_PIECES = 1500
_COLUMNS = 33


def appear_section(appear: Sequence[int], *, lam: float) -> FigureSection:
    """The histogram that AutoSweep watches, at the λ of the mask."""
    last = len(appear) - 1
    names = {"unassigned": "above τ nowhere", "specific": "specific", "related": "related", "general": "all languages"}
    series = [
        Series(name, tuple(float(n) if _class_of(j, last) == ink else float("nan") for j, n in enumerate(appear)), ink)
        for ink, name in names.items()
    ]
    chart = Bars(
        plain_axis(range(last + 1), "languages in which a selected neuron is above τ"),
        (Panel("selected neurons", tuple(series)),),
        stacked=True,
        numbers=True,
    )
    return FigureSection(
        "appear",
        "How many languages the selected neurons belong to",
        "The neurons of lowest score, sorted by the number N of languages in which they fire on more than τ of the "
        "answer tokens. N = 1 makes a neuron language-specific, 1 < N < K language-related. N = 0 are selected for "
        "their low entropy, but fire too rarely to belong anywhere: they are in no mask. AutoSweep takes the largest "
        "λ at which the last bar, neurons of all K languages, is empty.",
        single(chart),
        f"At λ = {lam!r}, {appear[last]:,} of {sum(appear):,} selected neurons belong to all {last} languages.",
    )


def path_section(path: LambdaPath, *, lam: float) -> FigureSection:
    """appear[j] as λ runs over the range: by class, and for every j."""
    return FigureSection(
        "lambda-path",
        "The λ path",
        "λ is the method's one free parameter: the larger it is, the more a high activation probability counts "
        "against an even spread over languages. To the left, rare neurons of one language fill the selection; to the "
        "right, neurons that fire often, and at last those that fire in all languages. The λ of this report is the "
        "dashed line. If the curves are flat around it the classes do not hang on its exact value; where they are "
        "steep, they do.",
        (View("classes", "classes", _by_class(path, lam)), View("every-n", "every number of languages", _every(path))),
        f"Over this range the histogram changes at {max(len(path.edges) - 2, 0):,} values of λ.",
    )


def _by_class(path: LambdaPath, lam: float) -> Lines:
    """Exact where there are few pieces; else sampled more finely than a screen shows."""
    if len(path.appear) <= _MOST_PIECES:
        x, rows = path.edges.tolist(), [*path.appear.tolist(), path.appear[-1].tolist()]
    else:
        lams, appear = path.sampled(_MOST_PIECES)
        x, rows = lams.tolist(), appear.tolist()
    parts = {
        "unassigned": ("above τ nowhere", [row[0] for row in rows]),
        "specific": ("specific", [row[1] for row in rows]),
        "related": ("related", [sum(row[2:-1]) for row in rows]),
        "general": ("all languages", [row[-1] for row in rows]),
    }
    series = tuple(Series(name, tuple(map(float, values)), ink) for ink, (name, values) in parts.items())
    return Lines(tuple(x), "λ", "selected neurons", series, steps=True, marks=(Mark(lam, f"λ = {lam:.6g}"),))


def _every(path: LambdaPath) -> Heatmap:
    lams, appear = path.sampled(_COLUMNS)
    numbers = appear.T.tolist()
    return Heatmap(
        rows=plain_axis(range(len(numbers)), "languages above τ"),
        columns=plain_axis([round(lam, 6) for lam in lams.tolist()], "λ", [f"{lam:.3g}" for lam in lams.tolist()]),
        values=tuple(tuple(map(float, row)) for row in numbers),
        label="selected neurons",
        linear_up_to=10.0,
    )


def _class_of(number: int, last: int) -> str:
    """The class of a selected neuron that is above τ in `number` of `last` languages (SPEC 5)."""
    if number == 0:
        return "unassigned"
    return "specific" if number == 1 else "general" if number == last else "related"


@dataclass(frozen=True)
class Gap:
    """Why something is not there, and the command that makes it."""

    reason: str
    command: str


@dataclass(frozen=True)
class ModelResults:
    """What there is of one model.

    Attributes:
        lam: λ of its neurons.
        texts: what was counted; empty of a mask alone.
        appear: the histogram at λ; empty of an imported mask.
        classes: per layer.
        stages: the layers cut into stages.
        languages: per language and layer.
        means: English and the others.
        above: neurons by the number of languages above τ; None of a mask alone.
        overlap: of every two languages.
        sharing: the sets of languages that neurons serve.
        path: the histogram over λ; None of a mask alone.
        maps: perplexity maps, by the variant of classes and text.
        no_counts: what stands in for the figures that need counts.
        no_maps: what stands in for the perplexity map.
    """

    lam: float
    texts: tuple[CountedText, ...]
    appear: tuple[int, ...]
    classes: ClassProfile
    stages: Segmentation
    languages: LanguageProfile
    means: GroupMeans
    above: LanguagesAbove | None
    overlap: Overlap
    sharing: Sharing
    path: LambdaPath | None
    maps: Mapping[str, PerplexityMap]
    no_counts: Gap
    no_maps: Gap


def model_sections(results: ModelResults) -> tuple[Section, ...]:
    """Every figure of one model, in the order of reading; what cannot be drawn says which command makes it."""
    counts, maps = results.no_counts, results.no_maps
    return (
        corpus_section(results.texts) if results.texts else _missing("corpus", "What was counted", counts),
        path_section(results.path, lam=results.lam)
        if results.path is not None
        else _missing("lambda-path", "The λ path", counts),
        appear_section(results.appear, lam=results.lam)
        if results.appear
        else _missing("appear", "How many languages the selected neurons belong to", counts),
        layers_section(results.classes, results.stages),
        stages_section(results.stages),
        languages_section(results.languages, results.means),
        language_layers_section(results.languages),
        shared_section(results.above)
        if results.above is not None
        else _missing("shared", "How many languages share a neuron", counts),
        overlap_section(results.overlap),
        sets_section(results.sharing),
        perplexity_section(results.maps)
        if results.maps
        else _missing("perplexity", "What breaks when a language's neurons are off", maps),
    )


def _missing(name: str, title: str, gap: Gap) -> MissingSection:
    return MissingSection(name, title, gap.reason, gap.command)


# ── Where the numbers come from.


def provenance_section(models: Mapping[str, Mapping[str, str]], notes: Sequence[str] = ()) -> TableSection:
    """What each model's results were made from, side by side; what is not known is left blank."""
    what = dict.fromkeys(name for facts in models.values() for name in facts)
    rows = [(name, *(facts.get(name, "") for facts in models.values())) for name in what]
    reading = (
        "Everything that decides a number on this page. Digests are of the counts themselves, of the model's "
        "configuration and weights, and of the mask: two reports with the same digests show the same model."
    )
    return TableSection(
        "provenance",
        "Provenance",
        " ".join([reading, *(f"Note: {note}." for note in notes)]),
        ("", *models),
        tuple(rows),
    )

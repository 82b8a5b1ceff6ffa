"""What each language has: neurons in all, and where in the model they lie (paper table 3)."""

from __future__ import annotations

from ...core.class_profile import LanguageProfile
from ...core.groups import GroupMeans
from ...plots.axes import language_axis, layer_axis
from ...plots.charts import Bars, Heatmap, Panel, Series
from ..sections import FigureSection, View, single


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

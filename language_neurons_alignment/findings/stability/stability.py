"""How much of a model's language neurons is chance: from counts kept in blocks of the corpus."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ...core.blocks import AnswerBlocks
from ...core.halves import identifications, split_halves
from ...core.inclusion import inclusion, number_interval
from ...core.probability import activation_probability
from ...core.probability_interval import probability_interval
from ...core.procedure import Procedure
from ...errors import IncompatibleError, SweepError
from ...identify import AnswerCounts, load_answer_counts
from ...plots.draw import draw
from ...plots.stability import language_chart, layer_chart
from ...plots.write import write_png
from ...session import StartWork, silent
from ...store.blocks_file import load_blocks
from ...store.layout import Layout
from ...store.stability_file import save_stability
from .corpus_overlap import CorpusOverlap, corpus_overlap
from .result import Stability
from .settings import StabilitySettings


def stability(
    layout: Layout,
    languages: Sequence[str],
    settings: StabilitySettings,
    *,
    other: Layout | None = None,
    start: StartWork = silent,
) -> tuple[Stability, list[Path]]:
    """Find a model's language neurons again and again, and store what that tells.

    Args:
        layout: where the counts and their blocks lie.
        languages: codes.
        settings: how neurons are found, and how often.
        other: the same model's counts on another corpus, whose masks are compared; they need no blocks.
        start: told of the work, in identifications.

    Raises:
        MissingArtifactError: the counts were not kept in blocks.
        SweepError: no λ in the range is fine in the whole corpus.
        ArtifactError, IncompatibleError: counts or blocks that do not belong together.
    """
    counts = load_answer_counts(layout, languages)
    overlap = None if other is None else _overlap(counts, layout, other, settings.procedure)
    blocks = AnswerBlocks.of([load_blocks(layout, language) for language in languages])
    probability = blocks.probability()
    found = settings.procedure(probability)
    if found.profile.isnan().any():
        raise SweepError(
            f"no λ in [{settings.lo!r}, {settings.hi!r}] gives appear[K] = 0 on {layout.dataset}: lower the top rate "
            "(-r), raise the bar (-b), or give a λ (-l)"
        )
    step = start("identifications", settings.draws + identifications(len(blocks), splits=settings.splits))
    chosen = {"languages": languages, "seed": settings.seed, "step": step}
    drawn = inclusion(blocks, settings.procedure, draws=settings.draws, **chosen)
    halves = split_halves(blocks, settings.procedure, splits=settings.splits, **chosen)
    result = Stability(
        layout=layout,
        languages=tuple(languages),
        settings=settings,
        counts=counts.hashes,
        blocks=len(blocks),
        found=found,
        numbers=number_interval(found.numbers, drawn.numbers, halves.endless, blocks=len(blocks)),
        inclusion=drawn,
        halves=halves,
        probability=probability,
        interval=probability_interval(blocks),
        overlap=overlap,
    )
    return result, _save(result)


def _overlap(counts: AnswerCounts, layout: Layout, other: Layout, procedure: Procedure) -> CorpusOverlap:
    """The masks of both corpora, each found by the same procedure (with a λ of its own, where it is found)."""
    second = load_answer_counts(other, counts.languages)
    if (counts.config_hash, counts.weights_hash) != (second.config_hash, second.weights_hash):
        raise IncompatibleError(
            f"{layout.dataset} and {other.dataset} were counted on different models (config or weights differ): "
            "count both on one model"
        )
    one, two = (procedure(activation_probability(each.counts, tokens=each.tokens)) for each in (counts, second))
    datasets = (layout.dataset, other.dataset)
    return corpus_overlap(one.mask, two.mask, datasets=datasets, languages=counts.languages)


def _save(result: Stability) -> list[Path]:
    chosen = result.settings
    second = "" if result.overlap is None else result.overlap.datasets[1]
    path = result.layout.stability(chosen.top_rate, chosen.named, other=second)
    tables = result.tables()
    title = f"{result.layout.model} on {result.layout.dataset}: {result.blocks} blocks"
    figures = {
        "layers": draw(layer_chart(tables["layers"]), title=f"{title}, 95 % intervals"),
        "languages": draw(language_chart(tables["halves"], tables["inclusion"]), title=title),
    }
    pictures = {name: partial(write_png, figure) for name, figure in figures.items()}
    return save_stability(path, result.plain(), tables, result.tensors(), pictures)

"""How much of a model's language neurons is chance: from counts kept in blocks of the corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from ._session import StartWork, silent
from .config import StabilitySettings
from .core.counts import AnswerBlocks, activation_probability
from .core.find import STATES, Found, Procedure
from .core.frames import Columns
from .core.resampling import Interval
from .core.stability import (
    CorpusOverlap,
    Halves,
    Inclusion,
    corpus_overlap,
    identifications,
    inclusion,
    number_interval,
    probability_interval,
    split_halves,
)
from .errors import IncompatibleError, SweepError
from .plots.draw import draw, write_png
from .plots.figures import language_chart, layer_chart
from .store.counts import AnswerCounts, load_answer_counts, load_blocks
from .store.files import save_stability
from .store.layout import Layout
from .version import __version__

# ── What finding language neurons again and again has told, as numbers, tables and tensors.


@dataclass(frozen=True)
class Stability:
    """One model's language neurons on one corpus, and how well the corpus knows them.

    Attributes:
        layout: where the model's results lie.
        languages: codes.
        settings: how neurons are found.
        counts: digest of each language's counts.
        blocks: of the corpus.
        found: the neurons of the whole corpus.
        numbers: intervals of `Found.numbers` of an endless corpus.
        inclusion: each neuron's probability of being in each mask.
        halves: what halves of the corpus have in common, and where its size leads.
        probability: each neuron's activation probability.
        interval: its interval.
        overlap: what another corpus finds; None where none was named.
    """

    layout: Layout
    languages: tuple[str, ...]
    settings: StabilitySettings
    counts: dict[str, str]
    blocks: int
    found: Found
    numbers: Interval
    inclusion: Inclusion
    halves: Halves
    probability: Float32[Tensor, "layer neuron lang"]
    interval: Interval
    overlap: CorpusOverlap | None = None

    def tables(self) -> dict[str, Columns]:
        """The results by the names that their files have."""
        total = 2 + len(STATES) + len(self.languages)
        names = ["lambda", "threshold", *STATES, *(f"mask.{code}" for code in self.languages)]
        columns = {"value": self.found.numbers, "endless": self.halves.endless}
        columns |= {"low": self.numbers.low, "high": self.numbers.high}
        layers = len(self.found.profile)
        tables = {
            "numbers": {"number": names, **{name: one[:total].tolist() for name, one in columns.items()}},
            "layers": {
                "layer": [layer for layer in range(layers) for _ in STATES],
                "class": list(STATES) * layers,
                **{name: one[total:].tolist() for name, one in columns.items()},
            },
            "inclusion": self.inclusion.columns(),
            "halves": self.halves.columns(),
            "probabilities": self._probabilities(),
        }
        return tables if self.overlap is None else {**tables, "overlap": self.overlap.columns()}

    def plain(self) -> dict[str, Any]:
        """The results as plain values, over all layers; layer by layer they are in the CSV file."""
        chosen = self.settings
        return {
            "model": self.layout.model,
            "dataset": self.layout.dataset,
            "with": None if self.overlap is None else self.overlap.datasets[1],
            "languages": list(self.languages),
            "counts": self.counts,
            "blocks": self.blocks,
            "top_rate": chosen.selection.top_rate,
            "bar": chosen.selection.known_bar,
            "lo": chosen.selection.search.lo,
            "hi": chosen.selection.search.hi,
            **{name: getattr(chosen, name) for name in ("draws", "splits", "seed")},
            "lambda": "found" if chosen.selection.lam is None else chosen.selection.lam,
            "without_lambda": self.without_lambda,
            "tables": {name: table for name, table in self.tables().items() if name != "layers"},
            "version": __version__,
        }

    @property
    def without_lambda(self) -> int:
        """Resampled corpora in which no λ in the range is fine."""
        return int(self.inclusion.numbers[:, 0].isnan().sum())

    def tensors(self) -> dict[str, Any]:
        """Neuron by neuron: float32 [layer, neuron, lang]."""
        return {
            "languages": list(self.languages),
            "inclusion": self.inclusion.probability,
            "probability": self.probability.contiguous(),
            "low": self.interval.low.to(torch.float32).contiguous(),
            "high": self.interval.high.to(torch.float32).contiguous(),
        }

    def _probabilities(self) -> Columns:
        """Per language: how wide its mask's intervals of p are, and how many of them lie above τ."""
        rows = []
        for k in range(len(self.languages)):
            mask = self.found.mask[..., k]
            low, high = self.interval.low[..., k][mask], self.interval.high[..., k][mask]
            half = float(((high - low) / 2).median()) if len(low) else float("nan")
            rows.append((int(mask.sum()), half, int((low > self.found.threshold).sum())))
        neurons, halves, above = (list(column) for column in zip(*rows, strict=True))
        return {"language": list(self.languages), "neurons": neurons, "half_width": halves, "above": above}


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
    chosen = settings.selection
    procedure = Procedure(chosen.top_rate, chosen.known_bar, chosen.lam, chosen.search.lo, chosen.search.hi)
    counts = load_answer_counts(layout, languages)
    overlap = None if other is None else _overlap(counts, layout, other, procedure)
    blocks = AnswerBlocks.of([load_blocks(layout, language) for language in languages])
    probability = blocks.probability()
    found = procedure(probability)
    if found.profile.isnan().any():
        raise SweepError(
            f"no λ in [{chosen.search.lo!r}, {chosen.search.hi!r}] gives appear[K] = 0 on {layout.dataset}: lower the "
            "top rate (-r), raise the bar (-b), or give a λ (-l)"
        )
    step = start("identifications", settings.draws + identifications(len(blocks), splits=settings.splits))
    resampled = {"languages": languages, "seed": settings.seed, "step": step}
    drawn = inclusion(blocks, procedure, draws=settings.draws, **resampled)
    halves = split_halves(blocks, procedure, splits=settings.splits, **resampled)
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
    path = result.layout.stability(chosen.selection.top_rate, chosen.named, other=second)
    tables = result.tables()
    title = f"{result.layout.model} on {result.layout.dataset}: {result.blocks} blocks"
    figures = {
        "layers": draw(layer_chart(tables["layers"]), title=f"{title}, 95 % intervals"),
        "languages": draw(language_chart(tables["halves"], tables["inclusion"]), title=title),
    }
    pictures = {name: partial(write_png, figure) for name, figure in figures.items()}
    return save_stability(path, result.plain(), tables, result.tensors(), pictures)

"""How much a model's language neurons depend on the corpus: intervals, inclusion probabilities, split-half overlap.

The counts must be stored in blocks of the corpus (`lna activation --blocks`). The neurons are found again in bootstrap
samples of the blocks, which give the spread of every number, and in random halves and quarters, which extrapolate it to
an infinite corpus (`core.stability`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from .config import Selection, StabilitySettings
from .core.counts import AnswerBlocks, check_block_tokens
from .core.find import Found, find, notes_on, notes_on_masks
from .core.flow import corpus_overlap
from .core.frames import Columns
from .core.model import StartProgress, silent
from .core.resampling import Interval
from .core.selection import neuron_statistics
from .core.stability import (
    STATES,
    Halves,
    Inclusion,
    identifications,
    inclusion,
    number_interval,
    numbers,
    probability_interval,
    split_halves,
)
from .core.sweep import largest_fine_lambda, range_end
from .core.widths import Widths
from .errors import IncompatibleError, SweepError
from .plots.draw import draw, write_png
from .plots.figures import stability_by_language, stability_by_layer
from .store.checkpoint import Checkpoint
from .store.counts import load_answer_counts, load_blocks
from .store.files import Json, save_with_tensors
from .store.layout import Layout
from .version import __version__


@dataclass(frozen=True)
class Stability:
    """One model's language neurons on one corpus, and how much they would change on another one.

    Attributes:
        counts: digest of each language's counts.
        value: λ*, τ and the sizes of classes and masks (`core.stability.numbers`).
        numbers: their intervals, for an infinite corpus.
        inclusion: each neuron's probability of being in each mask.
        halves: overlap of the masks from two halves of the corpus, and the extrapolation to an infinite corpus.
        interval: its interval.
        other: name of another corpus with which the masks are compared; None if none is named.
        left_out: languages that were asked for and have no answer token.
        notes: sentences about the counts that a reader must know.
    """

    layout: Layout
    languages: tuple[str, ...]
    settings: StabilitySettings
    counts: dict[str, str]
    blocks: int
    found: Found
    value: Float64[Tensor, " number"]
    numbers: Interval
    inclusion: Inclusion
    halves: Halves
    probability: Float32[Tensor, "layer neuron lang"]
    interval: Interval
    other: str | None = None
    overlap: Columns | None = None
    files: tuple[Path, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def tables(self) -> dict[str, Columns]:
        """The tables, by the names of their files."""
        total = 2 + len(STATES) + len(self.languages)
        names = ["lambda", "threshold", *STATES, *(f"mask.{code}" for code in self.languages)]
        columns = {"value": self.value, "endless": self.halves.endless}
        columns |= {"low": self.numbers.low, "high": self.numbers.high}
        layers = len(self.found.mask)
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
        return tables if self.overlap is None else {**tables, "overlap": self.overlap}

    def plain(self) -> Json:
        """The results as plain values, summed over layers; the CSV file `layers` has every layer."""
        chosen, selection = self.settings, self.settings.selection
        return {
            "model": self.layout.model,
            "dataset": self.layout.dataset,
            "with": self.other,
            "languages": list(self.languages),
            "left_out": list(self.left_out),
            "notes": list(self.notes),
            "counts": self.counts,
            "blocks": self.blocks,
            "top_rate": selection.top_rate,
            "bar": selection.known_bar,
            **{name: getattr(selection.search, name) for name in ("lo", "hi")},
            **{name: getattr(chosen, name) for name in ("draws", "splits", "seed")},
            "lambda": "found" if selection.lam is None else selection.lam,
            "without_lambda": self.without_lambda,
            "tables": {name: table for name, table in self.tables().items() if name != "layers"},
            "version": __version__,
        }

    @property
    def without_lambda(self) -> int:
        """Bootstrap samples without a valid λ in the range."""
        return int(self.inclusion.numbers[:, 0].isnan().sum())

    def tensors(self) -> Json:
        """The results per neuron: float32 [layer, neuron, lang]."""
        return {
            "languages": list(self.languages),
            "inclusion": self.inclusion.probability,
            "probability": self.probability.contiguous(),
            **{name: getattr(self.interval, name).to(torch.float32).contiguous() for name in ("low", "high")},
        }

    def _probabilities(self) -> Columns:
        """Per language: the median half-width of p's intervals within the mask, and how many lie above τ."""
        rows = []
        for k in range(len(self.languages)):
            mask = self.found.mask[..., k]
            low, high = self.interval.low[..., k][mask], self.interval.high[..., k][mask]
            half = float(((high - low) / 2).median()) if len(low) else float("nan")
            rows.append((int(mask.sum()), half, int((low > self.found.threshold).sum())))
        neurons, halves, above = (list(column) for column in zip(*rows, strict=True))
        return {"language": list(self.languages), "neurons": neurons, "half_width": halves, "above": above}


_ROOM = 8
"""How far λ is followed in samples of a corpus, as a multiple of the range that holds the largest on all of it."""


def _with_end(
    selection: Selection, probability: Float32[Tensor, "layer neuron lang"], widths: Widths | None
) -> Selection:
    """The selection with an end of the range of λ, one for all samples."""
    search, top_rate = selection.search, selection.top_rate
    if search.hi is not None:
        return selection
    statistics = neuron_statistics(probability, bar=selection.known_bar, widths=widths)
    largest = largest_fine_lambda(statistics, top_rate=top_rate, lo=search.lo)
    end = range_end(statistics, top_rate=top_rate, lo=search.lo, largest=largest)
    return replace(selection, search=replace(search, hi=_ROOM * end if math.isfinite(largest) else end))


def stability(
    layout: Layout,
    languages: Sequence[str],
    settings: StabilitySettings,
    *,
    other: Layout | None = None,
    start: StartProgress = silent,
) -> Stability:
    """Estimate how much the neurons would change on another corpus, and write tables, tensors and figures.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "corpus.json", "toy") as session:
    ...     counted = [lna.collect_activations(session, code, blocks=3) for code in ("en", "es", "fr")]
    >>> settings = StabilitySettings(lna.config.Selection(0.1, 0.0, 0.8), draws=4, splits=2)
    >>> found = stability(session.layout, ("en", "es", "fr"), settings)
    >>> found.blocks, tuple(found.inclusion.probability.shape) == tuple(found.probability.shape)
    (3, True)

    Args:
        layout: where the counts and their blocks are.
        languages: codes.
        settings: how neurons are found, and in how many samples.
        other: the same model's counts on another corpus, to compare the masks; these counts need no blocks.
        start: starts a progress bar, measured in identifications.

    Raises:
        MissingArtifactError: the counts were stored without blocks.
        SweepError: the whole corpus has no valid λ in the range.
        CorpusError: a language has no answer token, and the selection does not skip it; or a block has none of one, so
            that a sample of the corpus may have none.
        ArtifactError, IncompatibleError: counts or blocks that do not belong together.
    """
    skip, counts_of_other = settings.selection.skip_empty, None
    counts = load_answer_counts(layout, languages, skip_empty=skip)
    left_out, notes = counts.left_out, counts.notes
    if other is not None:
        counts_of_other = load_answer_counts(other, counts.languages, skip_empty=skip)
        left_out += counts_of_other.left_out
        notes += tuple(f"{other.dataset}: {note}" for note in counts_of_other.notes)
        if counts_of_other.left_out:
            counts = load_answer_counts(layout, counts_of_other.languages)
    languages = counts.languages
    blocks = AnswerBlocks.of(
        [load_blocks(layout, one, counted=counts.hashes[one]) for one in languages], widths=counts.widths
    )
    check_block_tokens(dict(zip(languages, blocks.tokens.T.tolist(), strict=True)))
    probability = blocks.probability()
    settings = replace(settings, selection=_with_end(settings.selection, probability, counts.widths))
    selection, name_of_other, overlap = settings.selection, None if other is None else other.dataset, None
    if counts_of_other is not None:
        if differs := Checkpoint.of(counts).difference(counts_of_other, unknown_differs=True):
            raise IncompatibleError(
                f"{layout.dataset} and {name_of_other} were counted on different models (other {differs}): "
                "count both on one model"
            )
        masks = (find(one.probability, selection, widths=one.widths).mask for one in (counts, counts_of_other))
        overlap = corpus_overlap(*masks, languages=languages)
    found = find(probability, selection, widths=counts.widths)
    if found.lam is not None and math.isnan(found.lam):
        raise SweepError(
            f"no λ in [{selection.search.lo!r}, {selection.search.hi!r}] gives appear[K] = 0 on {layout.dataset}: "
            "lower the top rate (-r), raise the bar (-b), or give a λ (-l)"
        )
    notes += tuple(notes_on(found.statistics, probability, languages))
    notes += tuple(notes_on_masks(dict(zip(languages, found.mask.sum(dim=(0, 1)).tolist(), strict=True))))
    value = numbers(found, selection)
    progress = start("identifications", settings.draws + identifications(len(blocks), splits=settings.splits))
    chosen = {"languages": languages, "seed": settings.seed, "progress": progress}
    drawn = inclusion(blocks, selection, draws=settings.draws, **chosen)
    halves = split_halves(blocks, selection, splits=settings.splits, **chosen)
    result = Stability(
        layout=layout,
        languages=tuple(languages),
        settings=settings,
        counts=counts.hashes,
        blocks=len(blocks),
        found=found,
        value=value,
        numbers=number_interval(value, drawn.numbers, halves.endless, blocks=len(blocks)),
        inclusion=drawn,
        halves=halves,
        probability=probability,
        interval=probability_interval(blocks),
        other=name_of_other,
        overlap=overlap,
        left_out=left_out,
        notes=notes,
    )
    path = layout.stability(selection.top_rate, settings.named, other=name_of_other or "")
    tables, own = result.tables(), settings.title
    title = f"{layout.title} on {layout.dataset}: {result.blocks} blocks" if own is None else own
    figures = {
        "layers": draw(stability_by_layer(tables["layers"]), title=f"{title}, 95 % intervals" if own is None else own),
        "languages": draw(stability_by_language(tables["halves"], tables["inclusion"]), title=title),
    }
    pictures = {name: partial(write_png, figure) for name, figure in figures.items()}
    files = save_with_tensors(path, result.plain(), tables, result.tensors(), pictures)
    return replace(result, files=tuple(files))

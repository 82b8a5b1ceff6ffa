"""What finding language neurons again and again has told, as numbers, tables and tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from ...core.halves import Halves
from ...core.inclusion import Inclusion
from ...core.procedure import STATES, Found
from ...core.resampling import Interval
from ...frames import Columns
from ...store.layout import Layout
from ...version import __version__
from .corpus_overlap import CorpusOverlap
from .settings import StabilitySettings


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
            **{name: getattr(chosen, name) for name in ("top_rate", "bar", "lo", "hi", "draws", "splits", "seed")},
            "lambda": "found" if chosen.lam is None else chosen.lam,
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

"""The neurons that two corpora find in one model, and how many of them are the same (paper table 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from ...core.flow import LanguageFlow, language_flow
from ...core.overlap import jaccard
from ...frames import Columns, Framed

ALL, MEAN = "all", "mean"


@dataclass(frozen=True)
class CorpusOverlap(Framed):
    """What one model's masks on two corpora have in common.

    Attributes:
        datasets: the two corpora.
        languages: each language's specific neurons, related ones and mask in both.
        whole: the same without languages: neurons that are specific to any, related to some, in any mask.
    """

    datasets: tuple[str, str]
    languages: LanguageFlow
    whole: Int64[Tensor, "count set"]

    def columns(self) -> Columns:
        """One row a language and set; then the mean over languages and the whole model (`all`).

        first and second are the neurons in each corpus, shared those in both; of_first = shared / first, of_smaller =
        shared / min(first, second), jaccard = shared / (first + second − shared).
        """
        flow, sets = self.languages, self.languages.sets
        counts = torch.stack([getattr(flow, name).sum(dim=0) for name in ("before", "after", "kept")])
        counts = torch.cat([counts, self.whole.unsqueeze(1)], dim=1).flatten(1)
        first, second, shared = counts.to(torch.float64)
        numbers = torch.stack(
            [
                first,
                second,
                shared,
                shared / first,
                shared / torch.minimum(first, second),
                jaccard(counts[2], counts[0], counts[1]),
            ]
        ).unflatten(1, (-1, len(sets)))
        means = numbers[:, :-1].nanmean(dim=1, keepdim=True)
        rows = torch.cat([numbers[:, :-1], means, numbers[:, -1:]], dim=1).flatten(1).tolist()
        names = ("first", "second", "shared", "of_first", "of_smaller", "jaccard")
        return {
            "language": [code for code in (*flow.languages, MEAN, ALL) for _ in sets],
            "set": list(sets) * (len(flow.languages) + 2),
            **dict(zip(names, rows, strict=True)),
        }


def corpus_overlap(
    one: Bool[Tensor, "layer neuron lang"],
    other: Bool[Tensor, "layer neuron lang"],
    *,
    datasets: tuple[str, str],
    languages: Sequence[str],
) -> CorpusOverlap:
    """Compare the masks that two corpora give one model.

    A neuron is specific in a mask where it belongs to one language, related where to several.
    """
    sets = [[(n == 1), (n > 1), (n > 0)] for n in (mask.sum(dim=-1) for mask in (one, other))]
    both = [a & b for a, b in zip(*sets, strict=True)]
    whole = torch.tensor([[int(neurons.sum()) for neurons in kind] for kind in (*sets, both)])
    return CorpusOverlap(datasets, language_flow(one, other, languages=languages), whole)

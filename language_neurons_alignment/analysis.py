"""`Neuron_Prob` and `Neuron_Mask`, for those who know the paper's own code by these names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Bool, Float32
from torch import Tensor

from .config import DEFAULT_LANGUAGES, parse_languages
from .core.masks import from_mask_list
from .core.probability import activation_probability
from .core.selection import NeuronStatistics, neuron_statistics
from .identify import load_answer_counts
from .session import results_of
from .store.mask_file import load_mask_list


@dataclass(frozen=True)
class Neuron_Prob:
    """Activation probabilities of every neuron and language (SPEC 3).

    Attributes:
        languages: codes, in the order of the last axis.
        probability: p.
    """

    languages: tuple[str, ...]
    probability: Float32[Tensor, "layer neuron lang"]

    @classmethod
    def load(
        cls,
        model_name: str,
        model_path: str,
        dataset: str,
        *,
        langs: str | Iterable[str] = DEFAULT_LANGUAGES,
        root: str | Path = ".",
    ) -> Neuron_Prob:
        """Read the count files of a model on a dataset."""
        layout = results_of(model_path, dataset, model_name=model_name, root=root)
        counts = load_answer_counts(layout, parse_languages(langs))
        return cls(counts.languages, activation_probability(counts.counts, tokens=counts.tokens))

    def statistics(self, *, bar: float = 0.95) -> NeuronStatistics:
        """Entropy, peak and membership of every neuron."""
        return neuron_statistics(self.probability, bar=bar)


@dataclass(frozen=True)
class Neuron_Mask:
    """The neurons of each language, from a mask file, ours or a published one.

    Attributes:
        languages: codes, in the order of the last axis.
        mask: whether a neuron belongs to a language.
    """

    languages: tuple[str, ...]
    mask: Bool[Tensor, "layer neuron lang"]

    @classmethod
    def load(cls, path: str | Path, *, d_mlp: int, langs: str | Iterable[str] = DEFAULT_LANGUAGES) -> Neuron_Mask:
        """Read a mask file; `langs` names its languages in their order."""
        return cls(parse_languages(langs), from_mask_list(load_mask_list(Path(path)), d_mlp=d_mlp))

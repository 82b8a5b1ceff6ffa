"""Sets and means for the tests of interventions: a mask in memory, means without files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from language_neurons_alignment._interventions import NeuronSource
from language_neurons_alignment.core.model import ModelInfo
from language_neurons_alignment.store.layout import Layout
from language_neurons_alignment.store.masks import Mask

NOWHERE = Layout(Path("nowhere"), "small", "Llama-tiny")


def model_of(shape: tuple[int, int], *, dtype: str = "float32", path: str = "nowhere") -> ModelInfo:
    """A model of this many layers and neurons, which nobody loads."""
    return ModelInfo(path, "LlamaForCausalLM", *shape, max_length=64, dtype=dtype)


def mask_of(**languages: Tensor) -> Mask:
    """A mask without a file: language → its neurons, [layer, neuron]."""
    stacked = torch.stack([neurons.bool() for neurons in languages.values()], dim=-1)
    return Mask(tuple(languages), stacked, path=Path("nowhere/mask"))


def source_of(means: dict[str, Tensor] | None = None, **languages: Tensor) -> NeuronSource:
    """Sets of these languages, and these means as if they had been read."""
    known = {language: moments(mean) for language, mean in (means or {}).items()}
    return NeuronSource(NOWHERE, mask_of(**languages) if languages else None, moments=known)


def moments(mean: Tensor) -> Any:
    """What `answer_moments` gives, as far as interventions look at it."""
    return SimpleNamespace(tokens=9, mean=mean.double(), digest=str(float(mean.sum())))

"""Random neurons: what a method has to be better than."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int64
from torch import Tensor


def random_like(sizes: Int64[Tensor, "layer lang"], *, d_mlp: int, seed: int) -> Bool[Tensor, "layer neuron lang"]:
    """As many neurons of each layer and language as another mask has, each set of them as likely as any other.

    Languages are drawn one after the other and do not know of each other.

    Args:
        sizes: neurons per layer and language.
        d_mlp: neurons per layer.
        seed: the same seed gives the same neurons.
    """
    layers, languages = sizes.shape
    generator = torch.Generator().manual_seed(seed)
    place = torch.rand(languages, layers, d_mlp, generator=generator).argsort(dim=-1).argsort(dim=-1)
    return (place < sizes.T.unsqueeze(-1)).permute(1, 2, 0).contiguous()


def random_anywhere(
    layers: int, d_mlp: int, *, languages: int, neurons: int, seed: int
) -> Bool[Tensor, "layer neuron lang"]:
    """N neurons for each language, from anywhere in the model: layers are forgotten, and drawn from as one."""
    sizes = torch.full((1, languages), neurons)
    return random_like(sizes, d_mlp=layers * d_mlp, seed=seed).view(layers, d_mlp, languages)

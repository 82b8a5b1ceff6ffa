"""Layers of different width: which places of a table [layer, d_mlp] are neurons.

Tables keep one shape, with d_mlp the width of the widest layer. Layer l has widths[l] neurons; the places from there
on are no neurons, so they are never counted, selected or drawn, and stand in no class and no denominator. Widths are
None where all layers are alike, and every place is a neuron.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

Widths = tuple[int, ...]
"""Neurons in each layer."""


def is_neuron(widths: Sequence[int], d_mlp: int) -> Bool[Tensor, "layer neuron"]:
    """Which places are neurons: place i of layer l where i < widths[l].

    >>> is_neuron((2, 3), 3).tolist()
    [[True, True, False], [True, True, True]]
    """
    return torch.arange(d_mlp) < torch.tensor(widths).unsqueeze(1)


def widths_of(layers: Sequence[int]) -> Widths | None:
    """The widths of these layers; None where all are alike.

    >>> widths_of([4, 4]), widths_of([2, 4])
    (None, (2, 4))
    """
    return None if len(set(layers)) < 2 else tuple(layers)


def neurons_among(layers: int, d_mlp: int, widths: Sequence[int] | None) -> int:
    """N, the number of neurons: Σ widths, or layers · d_mlp where all layers are alike.

    >>> neurons_among(2, 3, None), neurons_among(2, 3, (2, 3))
    (6, 5)
    """
    return layers * d_mlp if widths is None else sum(widths)


def size_in_words(layers: int, d_mlp: int, widths: Sequence[int] | None) -> str:
    """The size of a model, to be read.

    >>> size_in_words(2, 3, None), size_in_words(3, 4, (2, 4, 4))
    ('2 × 3', '3 × 2 to 4 (10 in all)')
    """
    if widths is None:
        return f"{layers} × {d_mlp}"
    return f"{layers} × {min(widths)} to {d_mlp} ({sum(widths)} in all)"


def widths_fault(widths: Any, layers: int, d_mlp: int) -> str | None:
    """Say what is wrong with stored widths of a table [layers, d_mlp]; None where nothing is.

    >>> widths_fault([2, 3], 2, 3), widths_fault([2, 4], 2, 3)
    (None, 'its widths are [2, 4], expected those of 2 layers, not all alike, the widest with 3 neurons')
    """
    known = isinstance(widths, list | tuple) and all(type(one) is int and one >= 0 for one in widths)
    if known and len(widths) == layers and max(widths) == d_mlp > min(widths):
        return None
    shown = str(widths)
    return (
        f"its widths are {shown if len(shown) <= 80 else f'{shown[:80]}…'}, expected those of {layers} layers, not all "
        f"alike, the widest with {d_mlp} neurons"
    )


def beyond(table: Tensor, widths: Sequence[int], what: str = "a number") -> str | None:
    """Say where a table [..., layer, neuron] is not 0 beyond a layer's width; None where it is 0 there.

    >>> beyond(torch.tensor([[1, 1, 0], [0, 0, 5]]), (1, 3))
    'layer 0 has 1 neurons (0..0), but a number at place 1'
    """
    outside = (table != 0) & ~is_neuron(widths, table.shape[-1])
    if not bool(outside.any()):
        return None
    *_, layer, place = outside.nonzero()[0].tolist()
    return f"layer {layer} has {widths[layer]} neurons (0..{widths[layer] - 1}), but {what} at place {place}"

"""Equal-N LAPE: as many neurons for each language, so that languages compare."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from ..selection import NeuronStatistics, lowest


def equal_n(statistics: NeuronStatistics, *, neurons: int) -> Bool[Tensor, "layer neuron lang"]:
    """Of the neurons with p_k > τ, for each language k, the N of lowest entropy; ties by flat index, lower first.

    A language with fewer than N neurons above τ has them all. Where LAPE gives most neurons to languages whose
    tokens many neurons know, here all have N; a neuron may be among those of several languages.

    Args:
        statistics: of the probabilities; τ is in them.
        neurons: N.
    """
    count = min(neurons, statistics.entropy.numel())
    chosen = [
        lowest(torch.where(member, statistics.entropy, torch.inf), count=count) & member
        for member in statistics.member.unbind(dim=-1)
    ]
    return torch.stack(chosen, dim=-1)

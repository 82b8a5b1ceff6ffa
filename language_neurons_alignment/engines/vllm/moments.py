"""Adding up the activations themselves in the layers of one rank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ..moments import MomentSums, blocks
from .firing import act
from .sites import RankSite


class ActivationSums:
    """The moments so far of this rank's neurons."""

    def __init__(self, sites: Sequence[RankSite], neurons: int, device: torch.device) -> None:
        """Start from zero."""
        self._place = {site.layer: index for index, site in enumerate(sites)}
        self._sums = MomentSums(len(sites), neurons, device)
        self._weights = torch.zeros(2, 0, dtype=torch.int64, device=device)

    def weigh(self, weights: Int64[np.ndarray, "span row"]) -> None:
        """A step begins: how often each of its rows counts; rows beyond these are padding."""
        self._weights = torch.from_numpy(weights).to(self._weights.device, non_blocking=True)

    def add(self, site: RankSite, given: Tensor, *, changed: tuple[Tensor, Tensor] | None) -> None:
        """Add one layer's activations in one step.

        Args:
            site: the layer.
            given: [row, neuron]: the gate where the layer's module is merged, else what the module gave.
            changed: neurons whose activation was changed, and what it is now.
        """
        layer, rows = self._place[site.layer], self._weights.shape[1]
        for start, stop in blocks(given[:rows]):
            here = given[start:stop]
            if site.merged:  # else what the module gave is what it was changed to
                here = act(site, here)
                if changed is not None:
                    here[:, changed[0]] = changed[1][start:stop]
            self._sums.add(layer, here, self._weights[:, start:stop])

    def total(self) -> Float64[Tensor, "layer power span neuron"]:
        """Everything added up, on the CPU."""
        return self._sums.total()

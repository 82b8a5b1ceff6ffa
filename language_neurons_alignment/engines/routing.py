"""What the routers of a mixture of experts chose, added up on the device where the choices are.

    sums[what, layer, span, expert] = Σ_token times[span, token] · value[token, expert]

where `what` is 0 for the tokens sent to an expert (value 1) and 1 for the router's weights of it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from ..core.routing import Experts, LanguageRouting, SpanRouting


class RoutingSums:
    """How many tokens were sent to each expert so far, over the full and over the prefix sequences, and their weights.

    In float64, where counts and the router's weights are exact and only sums of weights are rounded.
    """

    def __init__(self, layers: int, experts: int, device: torch.device) -> None:
        where = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
        self._sums = torch.zeros(2, layers, 2, experts, dtype=torch.float64, device=where)

    def add(
        self,
        layer: int,
        index: Int[Tensor, "token k"],
        weights: Float[Tensor, "token k"],
        times: Int64[Tensor, "span token"],
    ) -> None:
        """Add what one layer's router chose, each token as often as it counts."""
        chosen, how_often = index.to(self._sums.device, torch.int64), times.to(self._sums)
        table = self._sums.new_zeros(len(index), self._sums.shape[-1])
        for sums, values in zip(self._sums, (torch.ones_like(weights), weights), strict=True):
            sums[layer] += how_often @ table.scatter(1, chosen, values.to(self._sums))

    def total(self) -> Float64[Tensor, "what layer span expert"]:
        """The sums, on the CPU."""
        return self._sums.cpu()


def language_routing(
    sums: Float64[Tensor, "what layer span expert"], experts: Experts, *, full_tokens: int, prefix_tokens: int
) -> LanguageRouting:
    """The sums of a whole model as a language's routing."""
    routed, weight = sums
    full, prefix = (
        SpanRouting(tokens, routed[:, span].to(torch.int64), weight[:, span].contiguous())
        for span, tokens in enumerate((full_tokens, prefix_tokens))
    )
    return LanguageRouting(experts, full, prefix)

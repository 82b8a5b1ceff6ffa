"""How vLLM is told to choose tokens, and whether the model computed numbers while it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...sampling import Sampling
from .rank import Rank
from .sites import RankSite

_AT_ONCE = 16
"""Tokens that vLLM hands over at a time, where no stop string has to be looked for after each."""


def sampling_parameters(sampling: Sampling, *, limit: int, seed: int, ends: Sequence[int]) -> Any:
    """`vllm.SamplingParams` that say everything themselves: nothing is left to the model's generation config.

    Args:
        sampling: how tokens are chosen.
        limit: the most tokens of this answer.
        seed: of this answer.
        ends: the model's end tokens, the same on both engines, in place of those that vLLM would look for.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=limit,
        seed=None if sampling.greedy else seed,
        stop_token_ids=list(ends),
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        stream_interval=1 if sampling.stop else _AT_ONCE,
    )


class FiniteWatch:
    """Looks for NaN and infinity in what the model computes while it answers; an `Observer` of a rank."""

    def __init__(self, rank: Rank) -> None:
        """Nothing seen yet."""
        self._rank = rank
        self._rows = 0
        self._infinite = torch.zeros((), dtype=torch.int64, device=rank.device)

    def step(self, scheduled: Any) -> None:
        """A step begins (None: it is over)."""
        self._rows = 0 if scheduled is None else scheduled.total_num_scheduled_tokens

    def before(self, inputs: Mapping[str, Any]) -> None:
        """Nothing to do."""

    def layer(self, site: RankSite, inputs: Tensor, changed: tuple[Tensor, Tensor] | None) -> None:
        """Nothing to do."""

    def after(self, output: object) -> None:
        """Look at the final hidden states, padding aside, where they are."""
        if self._rank.last and isinstance(output, Tensor):
            hidden = output.view(-1, output.shape[-1])[: self._rows]
            self._infinite += (~torch.isfinite(hidden)).any()

    @property
    def infinite(self) -> int:
        """In how many steps there was any."""
        return int(self._infinite)

"""How vLLM is told to choose tokens, and who looks on while it does."""

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


class Rewindable(torch.Generator):
    """Random numbers on a CPU that vLLM can take back.

    Where a prompt is read in several steps, vLLM draws a token after each and takes the draw back by moving CUDA's
    offset, which generators on CPUs do not have: there the engine would end. Here it goes back to where the step began.
    """

    def __init__(self, like: torch.Generator) -> None:
        """Go on from where another one is."""
        self.set_state(like.get_state())
        self._marked = self.get_state()

    def __new__(cls, like: torch.Generator) -> Rewindable:
        """On the same device."""
        return super().__new__(cls, device=like.device)  # pyright: ignore[reportCallIssue] - torch's stub has no __new__

    def mark(self) -> None:
        """A step begins here."""
        self._marked = self.get_state()

    def get_offset(self) -> int:
        """One draw."""
        return 4

    def set_offset(self, offset: int) -> torch.Generator:
        """Take the step's draw back."""
        return self.set_state(self._marked)


class AnswerWatch:
    """Looks on while the model answers, for NaN and infinity; an `Observer` of a rank."""

    def __init__(self, rank: Rank) -> None:
        """Nothing seen yet."""
        self._rank = rank
        self._rows = 0
        self._infinite = torch.zeros((), dtype=torch.int64, device=rank.device)

    def step(self, scheduled: Any) -> None:
        """A step begins (None: it is over)."""
        self._rows = 0 if scheduled is None else scheduled.total_num_scheduled_tokens

    def before(self, inputs: Mapping[str, Any]) -> None:
        """On a CPU, see to it that the step's draws can be taken back."""
        if self._rank.device.type != "cpu":
            return
        runner = self._rank.runner
        for row, generator in runner.input_batch.generators.items():
            if not isinstance(generator, Rewindable):
                generator = Rewindable(generator)
                runner.input_batch.generators[row] = generator
                runner.requests[runner.input_batch.req_ids[row]].generator = generator
            generator.mark()

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

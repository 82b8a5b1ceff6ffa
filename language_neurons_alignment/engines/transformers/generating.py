"""Answers by the transformers library's `generate`, with our own rules of drawing tokens and of ending an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from ...config import Sampling
from ...core.model import Progress
from ...corpus.encode import GeneratedAnswer, Prompt, Tokens
from ..base import not_finite
from ..checkpoint import quiet
from ..generation import PartialAnswer


def generate_batch(
    model: Any,
    prompts: Sequence[Prompt],
    partial: Sequence[PartialAnswer],
    *,
    sampling: Sampling,
    progress: Progress,
    cache: bool = True,
) -> list[GeneratedAnswer]:
    """Answer some prompts together, padded on the left.

    With no `cache` where a later token changes earlier states, or where the cache is wrong behind padding.
    """
    tokens, attended = _left_padded([prompt.tokens for prompt in prompts], model.device)
    finite = _Finite(model.device)
    with quiet():
        model.generate(
            input_ids=tokens,
            attention_mask=attended,
            generation_config=GenerationConfig(
                do_sample=False,  # `_Draw` draws, and makes its draw the largest score
                max_new_tokens=max(one.limit for one in partial),
                pad_token_id=0,
                use_cache=cache,
            ),
            logits_processor=LogitsProcessorList([finite, *_choice(sampling, prompts, model.device)]),
            stopping_criteria=StoppingCriteriaList([_Ending(partial, progress)]),
        )
    if not finite.always:
        raise not_finite("logits", model.device)
    return [one.answer() for one in partial]


class _Finite(LogitsProcessor):
    """Watches the logits for NaN and infinity, and changes nothing."""

    def __init__(self, device: torch.device) -> None:
        self.always = torch.ones((), dtype=torch.bool, device=device)

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride] - a FloatTensor is a Tensor of floats
        self, input_ids: Tensor, scores: Float[Tensor, "row vocabulary"]
    ) -> Float[Tensor, "row vocabulary"]:
        self.always &= torch.isfinite(scores).all()
        return scores


class _Draw(LogitsProcessor):
    """Draws a token for each row and makes it the largest score. Each row has its own random numbers.

        argmax_t p[t] / E[t],   E[t] ~ Exp(1)        is t with probability p[t]

    So a row's draw does not depend on the rest of its batch.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self._generators = [torch.Generator(device=device).manual_seed(seed) for seed in seeds]

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride] - a FloatTensor is a Tensor of floats
        self, input_ids: Tensor, scores: Float[Tensor, "row vocabulary"]
    ) -> Float[Tensor, "row vocabulary"]:
        chances = torch.softmax(scores, dim=-1, dtype=torch.float32)
        noise = torch.empty_like(chances)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        return chances.div_(noise)


class _Ending(StoppingCriteria):
    """Adds each row's new token to its partial answer, and ends the rows whose answer has ended."""

    def __init__(self, partial: Sequence[PartialAnswer], progress: Progress) -> None:
        self._partial = partial
        self._progress = progress

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride] - a BoolTensor is a Tensor of bools
        self, input_ids: Int64[Tensor, "row position"], scores: object, **_more: object
    ) -> Bool[Tensor, " row"]:
        before = sum(len(one.tokens) for one in self._partial)
        last = input_ids[:, -1].tolist()
        ended = [one.add(token) for one, token in zip(self._partial, last, strict=True)]
        self._progress(sum(len(one.tokens) for one in self._partial) - before)
        return torch.tensor(ended, device=input_ids.device)


def _choice(sampling: Sampling, prompts: Sequence[Prompt], device: torch.device) -> list[LogitsProcessor]:
    """Nothing for greedy answers, because the library takes the largest score; else temperature, top p and the draw."""
    if sampling.greedy:
        return []
    warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    return [*warpers, _Draw([sampling.seed_for(one.tokens, one.number) for one in prompts], device)]


def _left_padded(
    prompts: Sequence[Tokens], device: torch.device
) -> tuple[Int64[Tensor, "row position"], Int64[Tensor, "row position"]]:
    """Prompts padded on the left to one length, and 1 where a position is not padding."""
    longest = max(map(len, prompts))
    tokens = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    attended = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(tokens, device=device), torch.tensor(attended, device=device)

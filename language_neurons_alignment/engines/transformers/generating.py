"""Answers by the library's own `generate`: left padding, a KV cache, and our rules of choosing and ending."""

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
from ...corpus.encode import GeneratedAnswer, Prompt, Tokens
from ...errors import EngineError
from ..base import Progress
from ..checkpoint import quiet
from ..generation import Draft
from .guards import not_finite


def generate_batch(
    model: Any,
    prompts: Sequence[Prompt],
    drafts: Sequence[Draft],
    *,
    sampling: Sampling,
    progress: Progress,
    cache: bool = True,
) -> list[GeneratedAnswer]:
    """Answer a few prompts together.

    Args:
        model: a `PreTrainedModel` with a neutral generation config (`loading`).
        prompts: what is answered.
        drafts: where the answers grow.
        sampling: how tokens are chosen.
        progress: told of each token that is part of an answer.
        cache: keep what was computed for the tokens before; not where a later token changes that.

    Raises:
        EngineError: NaN or infinity.
    """
    tokens, attended = _left_padded([prompt.tokens for prompt in prompts], model.device)
    watch = Finite(model.device)
    with quiet():
        model.generate(
            input_ids=tokens,
            attention_mask=attended,
            generation_config=GenerationConfig(
                do_sample=False,  # the drawing is ours, and its result the largest score
                max_new_tokens=max(draft.limit for draft in drafts),
                pad_token_id=0,
                use_cache=cache,
            ),
            logits_processor=LogitsProcessorList([watch, *_choice(sampling, prompts, model.device)]),
            stopping_criteria=StoppingCriteriaList([Ending(drafts, progress)]),
        )
    if not watch.finite:
        raise EngineError(not_finite("logits", model.device))
    return [draft.answer() for draft in drafts]


class Finite(LogitsProcessor):
    """Looks for NaN and infinity among the logits, and changes nothing."""

    def __init__(self, device: torch.device) -> None:
        self._finite = torch.ones((), dtype=torch.bool, device=device)

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride] - a FloatTensor is a Tensor of floats
        self, input_ids: Tensor, scores: Float[Tensor, "row vocabulary"]
    ) -> Float[Tensor, "row vocabulary"]:
        """Look."""
        self._finite &= torch.isfinite(scores).all()
        return scores

    @property
    def finite(self) -> bool:
        """Whether there was none."""
        return bool(self._finite)


class Draw(LogitsProcessor):
    """Makes the largest score a draw from the distribution, each row by its own random numbers.

        argmax_t p[t] / E[t],   E[t] ~ Exp(1)        is t with probability p[t]

    So what a row draws does not depend on the batch that it stands in.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self._generators = [torch.Generator(device=device).manual_seed(seed) for seed in seeds]

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride] - a FloatTensor is a Tensor of floats
        self, input_ids: Tensor, scores: Float[Tensor, "row vocabulary"]
    ) -> Float[Tensor, "row vocabulary"]:
        """Draw a token for each row."""
        chances = torch.softmax(scores, dim=-1, dtype=torch.float32)
        noise = torch.empty_like(chances)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        return chances.div_(noise)


class Ending(StoppingCriteria):
    """Hands each row's new token to its draft, and ends the rows whose draft has ended."""

    def __init__(self, drafts: Sequence[Draft], progress: Progress) -> None:
        self._drafts = drafts
        self._progress = progress

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride] - a BoolTensor is a Tensor of bools
        self, input_ids: Int64[Tensor, "row position"], scores: object, **_more: object
    ) -> Bool[Tensor, " row"]:
        """Whether each row has ended."""
        before = sum(len(draft.tokens) for draft in self._drafts)
        last = input_ids[:, -1].tolist()
        ended = [draft.add(token) for draft, token in zip(self._drafts, last, strict=True)]
        self._progress(sum(len(draft.tokens) for draft in self._drafts) - before)
        return torch.tensor(ended, device=input_ids.device)


def _choice(sampling: Sampling, prompts: Sequence[Prompt], device: torch.device) -> list[LogitsProcessor]:
    """Greedy: nothing, for the library takes the largest score. Else temperature, top p, and the draw."""
    if sampling.greedy:
        return []
    warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    return [*warpers, Draw([sampling.seed_for(one.tokens, one.number) for one in prompts], device)]


def _left_padded(
    prompts: Sequence[Tokens], device: torch.device
) -> tuple[Int64[Tensor, "row position"], Int64[Tensor, "row position"]]:
    """Prompts that end together, and where they are not padding."""
    longest = max(map(len, prompts))
    tokens = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    attended = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(tokens, device=device), torch.tensor(attended, device=device)

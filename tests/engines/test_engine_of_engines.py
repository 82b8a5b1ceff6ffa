"""Nothing in the Engine protocol assumes one model in one process: an engine made of two keeps the contract's promises.

Both are real engines with a model each; the one made of them hands each half of the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import pytest
import torch

from language_neurons_alignment.config import Sampling
from language_neurons_alignment.core.counts import LanguageCounts
from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.core.model import SILENT, Progress
from language_neurons_alignment.core.perplexity import TextLikelihood
from language_neurons_alignment.corpus.encode import GeneratedAnswer, Prompt, PromptGroup, ScoredText
from language_neurons_alignment.engines.base import Engine
from language_neurons_alignment.engines.generation import Follow
from language_neurons_alignment.engines.transformers import TransformersEngine
from tests.engines.contract import SHORT, assert_close, assert_same_counts, groups_of, some_neurons
from tests.engines.moments_contract import assert_same_moments


class Several:
    """Engines of one model as one engine: each computes every n-th text."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = engines
        self.model, self.tokenizer = engines[0].model, engines[0].tokenizer
        self.provenance = {**engines[0].provenance, "engines": len(engines)}

    def _shared(self, some: Sequence[Any], do: Callable[[Engine, Sequence[Any]], list]) -> list:
        many = len(self.engines)
        given: list[Any] = [None] * len(some)
        for number, engine in enumerate(self.engines):
            given[number::many] = do(engine, some[number::many])
        return given

    def count(
        self, groups: Sequence[PromptGroup], *, progress: Progress = SILENT, moments: bool = False
    ) -> LanguageCounts:
        parts = [
            engine.count(groups[number :: len(self.engines)], progress=progress, moments=moments)
            for number, engine in enumerate(self.engines)
        ]
        return reduce(add, parts)

    def log_likelihood(self, texts: Sequence[ScoredText], *, progress: Progress = SILENT) -> list[TextLikelihood]:
        return self._shared(texts, lambda engine, some: engine.log_likelihood(some, progress=progress))

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        sampling: Sampling,
        progress: Progress = SILENT,
        follow: Follow | None = None,
    ) -> list[GeneratedAnswer]:
        def generated(engine: Engine, some: Sequence[Prompt]) -> list[GeneratedAnswer]:
            number, many = self.engines.index(engine), len(self.engines)
            one = follow and (lambda position, text: follow(number + many * position, text))
            return engine.generate(some, sampling=sampling, progress=progress, follow=one)

        return self._shared(prompts, generated)

    def answer_batches(self, prompts: Sequence[Prompt], *, sampling: Sampling) -> list[list[int]]:
        return self.engines[0].answer_batches(prompts, sampling=sampling)

    @contextmanager
    def intervene(self, intervention: Intervention) -> Iterator[None]:
        with ExitStack() as stack:
            for engine in self.engines:
                stack.enter_context(engine.intervene(intervention))
            yield

    @contextmanager
    def reuse(self, interventions: Sequence[Intervention], *, tokens: int) -> Iterator[None]:
        with ExitStack() as stack:
            for engine in self.engines:
                stack.enter_context(engine.reuse(interventions, tokens=tokens))
            yield

    def close(self) -> None:
        for engine in self.engines:
            engine.close()


@pytest.fixture(scope="module")
def engines(tiny_llama: Path) -> list[TransformersEngine]:
    return [TransformersEngine.load(tiny_llama, device="cpu", dtype="float32") for _ in range(2)]


def test_two_engines_as_one_give_what_one_gives(engines: list[TransformersEngine]) -> None:
    one, both = engines[0], Several(engines)
    groups = groups_of(one.tokenizer, dict(list(SHORT.items())[2:]))
    texts = [ScoredText(tokens) for group in groups for tokens in group.full]
    prompts, greedy = [Prompt(group.prefix) for group in groups], Sampling(max_new_tokens=4)
    off, done, plain = Intervention.zero(some_neurons(one)), [], one.log_likelihood(texts)

    def compare() -> None:
        counted, expected = both.count(groups, moments=True), one.count(groups, moments=True)
        assert_same_counts(counted, expected)
        assert_same_moments(counted, expected)
        assert_close(both.log_likelihood(texts), one.log_likelihood(texts))
        assert both.generate(prompts, sampling=greedy) == one.generate(prompts, sampling=greedy)

    with both.reuse([off], tokens=sum(len(text.tokens) for text in texts)):
        with both.intervene(off):
            compare()
        compare()
    assert one.log_likelihood(texts) == plain, "nothing of an intervention is left in a part"
    both.count(groups, progress=lambda tokens, **_more: done.append(tokens))
    assert sum(done) == sum(group.full_tokens for group in groups)


def test_an_intervention_on_one_engine_is_none_on_the_other(engines: list[TransformersEngine]) -> None:
    one, other = engines
    texts = [ScoredText(tokens) for group in groups_of(one.tokenizer, SHORT) for tokens in group.full]
    plain = other.log_likelihood(texts)
    everything = Intervention.zero(torch.ones(one.model.layers, one.model.d_mlp, dtype=torch.bool))
    with one.intervene(everything):
        assert other.log_likelihood(texts) == plain != one.log_likelihood(texts)

"""What every engine's activation moments must be; part of the engine contract."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from language_neurons_alignment.core.counts import LanguageCounts, SpanMoments, check_tally
from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.corpus.encode import PromptGroup
from language_neurons_alignment.engines.base import Engine
from tests.engines.contract import TEXTS, EngineContract, assert_same_counts, groups_of, some_neurons
from tests.engines.oracle import NaiveEngine


def spans(counts: LanguageCounts) -> list[tuple[int, SpanMoments]]:
    """The moments of full and prefix, each with the tokens that the counts are of."""
    assert counts.moments is not None
    return [
        (counts.full.total_tokens, counts.moments.full),
        (counts.prefix.total_tokens, counts.moments.prefix),
    ]


def assert_same_moments(one: LanguageCounts, other: LanguageCounts, *, rounding: float = 1e-5) -> None:
    """Check that moments cover the same tokens and differ by no more than what float32 rounds inside the model.

    Rounding is in proportion to a layer's activations, so per token a sum may be off by `rounding` · their root mean
    square, and a sum of squares by 10 times that of its square (the largest activations are some times the usual ones).
    """
    for (tokens, a), (other_tokens, b) in zip(spans(one), spans(other), strict=True):
        assert tokens == a.total_tokens == b.total_tokens == other_tokens
        assert a.sum.dtype == a.sum_of_squares.dtype == torch.float64
        usual = b.sum_of_squares.mean(dim=1, keepdim=True) / max(tokens, 1)
        assert bool(((a.sum - b.sum).abs() <= rounding * usual.sqrt() * tokens).all())
        assert bool(((a.sum_of_squares - b.sum_of_squares).abs() <= 10 * rounding * usual * tokens).all())


class MomentsContract(EngineContract):
    """The tests of moments, added to those of counts, likelihoods and interventions."""

    @pytest.mark.parametrize("ask", [None, *TEXTS])
    def test_moments_are_the_oracle_s(self, engine: Engine, oracle: NaiveEngine, ask: str | None) -> None:
        groups = groups_of(engine.tokenizer, TEXTS if ask is None else {ask: TEXTS[ask]})
        assert_same_moments(engine.count(groups, moments=True), oracle.count(groups, moments=True))

    def test_moments_of_batches_of_many_lengths(self, engine: Engine, oracle: NaiveEngine) -> None:
        groups = [
            PromptGroup((1, *range(10, 12 + 3 * n)), ((1, *range(10, 12 + 3 * n), *range(100, 101 + 5 * (n % 3))),))
            for n in range(8)
        ]
        groups += [PromptGroup((1, 9, 10, 11, 12), ((1, 9), (1, 9, 10, 11, 12), (1, 9, 30, 31, 32, 33)))]
        assert_same_moments(engine.count(groups, moments=True), oracle.count(groups, moments=True))

    def test_asking_for_moments_changes_no_count(self, engine: Engine) -> None:
        groups = groups_of(engine.tokenizer)
        plain, counts = engine.count(groups), engine.count(groups, moments=True)
        assert plain.moments is None
        assert_same_counts(plain, counts, exact=True)
        full, prefix = sum(g.full_tokens for g in groups), sum(g.prefix_tokens for g in groups)
        unshared = sum(g.unshared_prefix_tokens() for g in groups)
        check_tally(counts, full_tokens=full, prefix_tokens=prefix, unshared=unshared)

    def test_moments_are_the_same_bits_each_time(self, engine: Engine) -> None:
        groups = groups_of(engine.tokenizer)
        one, other = (engine.count(groups, moments=True) for _ in range(2))
        for (_, a), (_, b) in zip(spans(one), spans(other), strict=True):
            assert torch.equal(a.sum, b.sum)
            assert torch.equal(a.sum_of_squares, b.sum_of_squares)

    def test_moments_of_shards_add_up_to_the_whole(self, engine: Engine) -> None:
        groups = groups_of(engine.tokenizer)
        whole = engine.count(groups, moments=True)
        parts = [engine.count(some, moments=True) for some in (groups[:3], groups[3:])]
        assert_same_moments(parts[0] + parts[1], whole)

    def test_the_batch_budget_does_not_matter_to_moments(self, tiny_llama: Path, engine: Engine) -> None:
        small, groups = self.opened(tiny_llama, batch_tokens=64), groups_of(engine.tokenizer)
        assert_same_moments(small.count(groups, moments=True), engine.count(groups, moments=True))

    def test_moments_under_an_intervention_are_those_of_the_changed_activations(
        self, engine: Engine, oracle: NaiveEngine
    ) -> None:
        groups, off = groups_of(engine.tokenizer), some_neurons(engine)
        change = Intervention(torch.where(off, 0.0, 1.0), torch.where(off, 0.5, 0.0))
        with engine.intervene(change), oracle.intervene(change):
            counts = engine.count(groups, moments=True)
            assert_same_moments(counts, oracle.count(groups, moments=True))
        for tokens, moments in spans(counts):
            assert (moments.sum[off] == 0.5 * tokens).all()
            assert (moments.sum_of_squares[off] == 0.25 * tokens).all()

    def test_nothing_to_add_up(self, engine: Engine) -> None:
        for groups in ([], [PromptGroup((1, 2, 3), ())]):
            for tokens, moments in spans(engine.count(groups, moments=True)):
                assert tokens == 0
                assert moments.sum.shape == (engine.model.layers, engine.model.d_mlp)
                assert not moments.sum.any()
                assert not moments.sum_of_squares.any()

"""What every engine must do: the same tests for the oracle, for transformers and for vLLM.

A subclass says how its engine is loaded, in float32:

    class TestMine(EngineContract):
        load = staticmethod(load_mine)  # (folder, *, batch_tokens=None) → Engine
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from language_neurons_alignment.core.counts import LanguageCounts, check_tally
from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.core.perplexity import TextLikelihood, perplexity
from language_neurons_alignment.core.widths import is_neuron
from language_neurons_alignment.corpus.encode import PromptGroup, ScoredText, Tokenizer
from language_neurons_alignment.engines.base import Engine
from language_neurons_alignment.errors import IncompatibleError
from tests.engines.oracle import NaiveEngine
from tests.planted import PlantedModel, planted_groups

Load = Callable[..., Engine]

TEXTS = {
    "What is 2 + 3?\nx ab": ["c is five. 2 + 3 = 5", " so 5", "", "c", " é the 你好"],
    "A farmer has the 12 eggs": [" and eats 3, so the 9 are left."] * 3,
    "Short: ab": ["c"],
    "Ünïcode über the ab ": ["abc " * 30, "ab"],
    "No answers": [],
    "": ["An answer to nothing", "ab"],
}
"""Instructions and their answers: shared, repeated, empty, and with a merge ("ab" + "c") across the border."""


SHORT = {
    "What is 2 + 3?\nx ab": ["c is five. 2 + 3", " so 5", "", "c", " é the 你好"],
    "A farmer has the eggs": [" and 3 are left."] * 2,
    "Short: ab": ["c"],
    "Über the ab ": ["abc " * 8, "ab"],
}
"""Fewer of the same kinds."""


def groups_of(tokenizer: Tokenizer, texts: dict[str, list[str]] = TEXTS) -> list[PromptGroup]:
    """Prompt groups, encoded as docs/concepts/counting.md defines them."""
    return [
        PromptGroup(tuple(tokenizer.encode(ask)), tuple(tuple(tokenizer.encode(ask + answer)) for answer in answers))
        for ask, answers in texts.items()
    ]


def assert_tally(counts: LanguageCounts, groups: Sequence[PromptGroup]) -> None:
    """Check that the totals are the corpus's."""
    full, prefix = sum(g.full_tokens for g in groups), sum(g.prefix_tokens for g in groups)
    assert (counts.full.total_tokens, counts.prefix.total_tokens) == (full, prefix)
    unshared = sum(g.unshared_prefix_tokens() for g in groups)
    check_tally(counts, full_tokens=full, prefix_tokens=prefix, unshared=unshared)


SHARED = 6
"""The most sequences that share one position here; a firing rounded the other way there counts this often."""


def assert_same_counts(one: LanguageCounts, other: LanguageCounts, *, exact: bool = False) -> None:
    """Check that counts agree but for rounding at 0: 2 positions and a millionth of all may fall on the other side.

    A token too many or too few would be a difference of 1 in each neuron that it makes fire: about half of them.
    """
    for a, b in ((one.full, other.full), (one.prefix, other.prefix)):
        assert a.total_tokens == b.total_tokens
        apart = (a.over_zero - b.over_zero).abs()
        allowed = 0 if exact else SHARED * (2 + 1e-6 * apart.numel() * a.total_tokens)
        assert int(apart.sum()) <= min(allowed, apart.numel() / 8), f"Σ|Δ| = {int(apart.sum())}, rounding is {allowed}"
        assert int(apart.max()) <= 2 * SHARED
    assert (one.routing is None) == (other.routing is None)
    if one.routing is not None and other.routing is not None:
        assert one.routing.experts == other.routing.experts
        for a, b in ((one.routing.full, other.routing.full), (one.routing.prefix, other.routing.prefix)):
            assert a.total_tokens == b.total_tokens
            assert torch.equal(a.routed, b.routed)
            torch.testing.assert_close(a.weight, b.weight, rtol=1e-4, atol=1e-6)


def counting_error(engine: Engine, oracle: NaiveEngine) -> int:
    """Σ |counts − the oracle's counts| over all neurons, texts and prefixes; each text is counted by itself."""
    error = 0
    for ask, answers in SHORT.items():
        for group in groups_of(engine.tokenizer, {ask: answers[:1]}):
            one, other = engine.count([group]), oracle.count([group])
            for mine, theirs in ((one.full, other.full), (one.prefix, other.prefix)):
                assert mine.total_tokens == theirs.total_tokens
                error += int((mine.over_zero - theirs.over_zero).abs().sum())
    return error


def assert_close(one: Sequence[TextLikelihood], other: Sequence[TextLikelihood], *, rel: float = 1e-4) -> None:
    """Check that the same tokens were scored, with the same likelihood text by text."""
    assert [x.tokens for x in one] == [x.tokens for x in other]
    assert [x.nll for x in one] == pytest.approx([x.nll for x in other], rel=rel, abs=1e-6)


def some_neurons(engine: Engine, share: float = 0.3, seed: int = 0) -> Tensor:
    """A random set of neurons, in the first and the last layer only."""
    chosen = torch.rand(engine.model.layers, engine.model.d_mlp, generator=torch.Generator().manual_seed(seed)) < share
    chosen[1:-1] = False
    return chosen & is_neuron(engine.model.layer_widths, engine.model.d_mlp)


class EngineContract:
    """The tests. The fixtures `tiny_llama`, `tiny_llama_oracle` and `planted` are in conftest.py."""

    load: ClassVar[Load]
    _opened: ClassVar[dict[tuple[Path, int | None], Engine]]

    @classmethod
    def setup_class(cls) -> None:
        cls._opened = {}

    @classmethod
    def teardown_class(cls) -> None:
        while cls._opened:
            cls._opened.popitem()[1].close()

    @classmethod
    def opened(cls, folder: Path, *, batch_tokens: int | None = None) -> Engine:
        """The engine on this model, loaded once for all tests of the class."""
        key = (folder, batch_tokens)
        if key not in cls._opened:
            cls._opened[key] = cls.load(folder, batch_tokens=batch_tokens)
        return cls._opened[key]

    @pytest.fixture
    def engine(self, tiny_llama: Path) -> Engine:
        return self.opened(tiny_llama)

    @pytest.fixture
    def oracle(self, tiny_llama_oracle: NaiveEngine) -> NaiveEngine:
        return tiny_llama_oracle

    def test_it_knows_its_model(self, engine: Engine) -> None:
        info = engine.model
        assert (info.architecture, info.layers, info.d_mlp, info.max_length) == ("LlamaForCausalLM", 3, 96, 2048)

    def test_totals_are_the_corpus_s_and_counts_are_the_oracle_s(self, engine: Engine, oracle: NaiveEngine) -> None:
        groups = groups_of(engine.tokenizer)
        assert sum(g.boundary_cases for g in groups) >= 3, "the corpus must hold boundary cases"
        counts = engine.count(groups)
        assert_tally(counts, groups)
        assert_same_counts(counts, oracle.count(groups))
        assert int(counts.full.over_zero.sum()) > int(counts.prefix.over_zero.sum()) > 0

    @pytest.mark.parametrize("ask", TEXTS)
    def test_each_kind_of_group_by_itself(self, engine: Engine, oracle: NaiveEngine, ask: str) -> None:
        groups = groups_of(engine.tokenizer, {ask: TEXTS[ask]})
        counts = engine.count(groups)
        assert_tally(counts, groups)
        assert_same_counts(counts, oracle.count(groups))

    def test_prompts_of_one_length_are_not_mixed_up(self, engine: Engine, oracle: NaiveEngine) -> None:
        groups = [
            PromptGroup(
                (1, *range(10 + n, 25 + n)), tuple((1, *range(10 + n, 25 + n), 50 + n, 60 + m) for m in range(3))
            )
            for n in range(6)
        ]
        counts = engine.count(groups)
        assert_tally(counts, groups)
        assert_same_counts(counts, oracle.count(groups))

    def test_prompts_of_many_lengths_with_one_answer_each(self, engine: Engine, oracle: NaiveEngine) -> None:
        groups = [
            PromptGroup((1, *range(10, 12 + 3 * n)), ((1, *range(10, 12 + 3 * n), *range(100, 101 + 5 * (n % 3))),))
            for n in range(8)
        ]
        counts = engine.count(groups)
        assert_tally(counts, groups)
        assert_same_counts(counts, oracle.count(groups))

    def test_a_full_sequence_shorter_than_its_prefix(self, engine: Engine, oracle: NaiveEngine) -> None:
        groups = [PromptGroup((1, 9, 10, 11, 12), ((1, 9), (1, 9, 10, 11, 12), (1, 9, 30, 31, 32, 33)))]
        counts = engine.count(groups)
        assert_tally(counts, groups)
        assert_same_counts(counts, oracle.count(groups))

    def test_nothing_to_count(self, engine: Engine) -> None:
        for groups in ([], [PromptGroup((1, 2, 3), ())]):
            counts = engine.count(groups)
            assert_tally(counts, groups)
            assert counts.full.over_zero.shape == (engine.model.layers, engine.model.d_mlp)
            assert not counts.full.over_zero.any()

    def test_progress_adds_up_to_the_full_sequences(self, engine: Engine) -> None:
        groups, done = groups_of(engine.tokenizer), []
        engine.count(groups, progress=done.append)
        assert sum(done) == sum(g.full_tokens for g in groups)

    def test_the_order_of_the_corpus_does_not_matter(self, engine: Engine) -> None:
        groups = groups_of(engine.tokenizer)
        shuffled = [
            PromptGroup(g.prefix, tuple(reversed(g.full))) for g in random.Random(1).sample(groups, len(groups))
        ]
        assert_same_counts(engine.count(groups), engine.count(shuffled))

    def test_counts_of_shards_add_up_to_the_whole(self, engine: Engine) -> None:
        groups = groups_of(engine.tokenizer)
        parts = engine.count(groups[:3]) + engine.count(groups[3:])
        assert_same_counts(parts, engine.count(groups))

    def test_the_batch_budget_does_not_matter(self, tiny_llama: Path, engine: Engine) -> None:
        small = self.opened(tiny_llama, batch_tokens=64)
        groups = groups_of(small.tokenizer)
        texts = [ScoredText(full) for g in groups for full in g.full]
        assert_same_counts(small.count(groups), engine.count(groups))
        assert_close(small.log_likelihood(texts), engine.log_likelihood(texts))

    def test_likelihood_is_the_plain_model_s_cross_entropy(self, engine: Engine, oracle: NaiveEngine) -> None:
        texts = scored_texts(engine.tokenizer)
        assert {text.scored_tokens == 0 for text in texts} == {True, False}
        assert_close(engine.log_likelihood(texts), oracle.log_likelihood(texts))

    def test_a_likelihood_is_the_sum_of_its_parts(self, engine: Engine) -> None:
        tokens = tuple(engine.tokenizer.encode("The whole is the sum of its parts, ab"))
        whole, tail = engine.log_likelihood([ScoredText(tokens), ScoredText(tokens, start=8)])
        head = engine.log_likelihood([ScoredText(tokens[:8])])[0]
        assert whole.tokens == head.tokens + tail.tokens
        assert whole.nll == pytest.approx(head.nll + tail.nll, rel=1e-4)

    def test_deactivation_is_the_oracle_s(self, engine: Engine, oracle: NaiveEngine) -> None:
        intervention, texts = Intervention.zero(some_neurons(engine)), scored_texts(engine.tokenizer)
        groups = groups_of(engine.tokenizer)
        plain = engine.log_likelihood(texts)
        with engine.intervene(intervention), oracle.intervene(intervention):
            masked = engine.log_likelihood(texts)
            assert_close(masked, oracle.log_likelihood(texts))
            counts = engine.count(groups)
            assert_same_counts(counts, oracle.count(groups))
            assert not counts.full.over_zero[some_neurons(engine)].any()
        assert perplexity(masked).token != pytest.approx(perplexity(plain).token, rel=1e-3)

    def test_interventions_compose_in_their_order(self, engine: Engine, oracle: NaiveEngine) -> None:
        scale = torch.where(some_neurons(engine, seed=2), 2.0, 1.0)
        first = Intervention(scale, torch.zeros_like(scale))
        shift = torch.where(some_neurons(engine, seed=3), 1.0, 0.0)
        second = Intervention(torch.ones_like(shift), shift)
        texts = scored_texts(engine.tokenizer)
        with engine.intervene(first), engine.intervene(second):
            nested = engine.log_likelihood(texts)
        with oracle.intervene(first.then(second)):
            assert_close(nested, oracle.log_likelihood(texts))
        with engine.intervene(second), engine.intervene(first):
            swapped = engine.log_likelihood(texts)
        assert perplexity(swapped).nll != pytest.approx(perplexity(nested).nll, rel=1e-5)

    def test_it_is_restored_after_use_and_after_an_exception(self, engine: Engine) -> None:
        texts, groups = scored_texts(engine.tokenizer), groups_of(engine.tokenizer)
        likelihoods, counts = engine.log_likelihood(texts), engine.count(groups)

        def fail_inside() -> None:
            with engine.intervene(Intervention.zero(some_neurons(engine))):
                engine.log_likelihood(texts)
                raise KeyError("stop")

        with pytest.raises(KeyError, match="stop"):
            fail_inside()
        assert engine.log_likelihood(texts) == likelihoods
        assert_same_counts(engine.count(groups), counts, exact=True)

    def test_an_intervention_that_changes_nothing_changes_no_bit(self, engine: Engine) -> None:
        texts = scored_texts(engine.tokenizer)
        plain = engine.log_likelihood(texts)
        shape = (engine.model.layers, engine.model.d_mlp)
        for nothing in (Intervention.identity(*shape), Intervention.zero(torch.zeros(shape, dtype=torch.bool))):
            with engine.intervene(nothing):
                assert engine.log_likelihood(texts) == plain

    def test_an_intervention_for_another_model_is_refused(self, engine: Engine) -> None:
        with (
            pytest.raises(IncompatibleError, match=r"\(2, 96\).*\(3, 96\)"),
            engine.intervene(Intervention.identity(2, 96)),
        ):
            pass

    def test_planted_neurons_are_counted_where_they_fire(self, planted: PlantedModel) -> None:
        engine = self.opened(planted.folder)
        for language in planted.languages:
            groups = planted_groups(engine.tokenizer, language)
            counts = engine.count(groups)
            assert_tally(counts, groups)
            answers = counts.full.total_tokens - counts.prefix.total_tokens
            fired = counts.full.over_zero - counts.prefix.over_zero
            always, never = planted.fires_on(language), planted.silent_on(language)
            assert (fired[always] == answers).all()
            assert (fired[never] == 0).all()
            assert 0 < int(always.sum()) < int(never.sum())

    def test_a_language_without_its_planted_neurons_is_the_only_one_damaged(self, planted: PlantedModel) -> None:
        engine = self.opened(planted.folder)
        texts = {
            language: [ScoredText(full) for group in planted_groups(engine.tokenizer, language) for full in group.full]
            for language in planted.languages
        }
        plain = {k: perplexity(engine.log_likelihood(some)).token for k, some in texts.items()}
        for off in planted.languages[:3]:
            with engine.intervene(Intervention.zero(planted.speakers(off))):
                masked = {k: perplexity(engine.log_likelihood(some)).token for k, some in texts.items()}
            assert masked[off] > 3 * plain[off]
            assert all(masked[k] == pytest.approx(plain[k], rel=1e-3) for k in texts if k != off)


def scored_texts(tokenizer: Tokenizer, texts: dict[str, list[str]] = TEXTS) -> list[ScoredText]:
    """Texts of many lengths, from several starts, some with nothing to score."""
    groups = groups_of(tokenizer, texts)
    scored = [ScoredText(full, start) for g in groups for full in g.full for start in (0, len(g.prefix))]
    return [*scored, ScoredText((1,)), ScoredText((1, 40, 41), start=3), ScoredText((1, 40, 41), start=2)]

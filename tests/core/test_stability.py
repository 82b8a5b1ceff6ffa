"""Blocks of a corpus: weights against counting again, intervals against a known truth, brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from language_neurons_alignment.config import Selection, SweepRange
from language_neurons_alignment.core.counts import (
    AnswerBlocks,
    LanguageBlocks,
    LanguageCounts,
    SpanBlocks,
    SpanCounts,
    activation_probability,
)
from language_neurons_alignment.core.find import find
from language_neurons_alignment.core.resampling import resampling_weights
from language_neurons_alignment.core.selection import language_mask, neuron_statistics, select
from language_neurons_alignment.core.stability import (
    Halves,
    design_effects,
    identifications,
    inclusion,
    jackknife_variance,
    number_interval,
    numbers,
    probability_interval,
    split_halves,
    typical_effect,
)
from language_neurons_alignment.core.sweep import exact_lambda
from language_neurons_alignment.errors import IncompatibleError, SettingsError

LANGUAGES = ("en", "es", "sw")
FIND = Selection(top_rate=0.1, bar=0.8, lam=None, search=SweepRange(0.0, 3.0))


def beta_binomial(
    truth: np.ndarray, *, blocks: int = 20, tokens: int = 1500, alike: float = 0.002, seed: int = 0
) -> AnswerBlocks:
    """Blocks of a corpus whose questions differ: each neuron has a probability of its own in each block.

    Args:
        truth: [neuron, lang].
        blocks: how many.
        tokens: of a block, on average.
        alike: correlation of two tokens of a block, shared by all its questions.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    sizes = random.integers(tokens // 2, 3 * tokens // 2, (blocks, truth.shape[1]))
    spread = 1 / alike - 1
    own = random.beta(*(np.broadcast_to(side * spread, (blocks, *truth.shape)) for side in (truth, 1 - truth)))
    fired = random.binomial(sizes[:, None], own)
    counts = torch.tensor(fired, dtype=torch.float32).permute(0, 2, 1).unsqueeze(2).contiguous()
    return AnswerBlocks(counts, torch.tensor(sizes))


def some_blocks(blocks: int = 6, *, neurons: int = 60, seed: int = 0) -> AnswerBlocks:
    truth = np.random.default_rng(seed).beta(0.3, 0.6, (neurons, len(LANGUAGES))).clip(1e-4, 1 - 1e-4)
    return beta_binomial(truth, blocks=blocks, tokens=60, alike=0.02, seed=seed)


def test_weighted_blocks_are_what_counting_the_blocks_so_often_gives() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.tensor([9, 4, 7])
    full = torch.randint(0, 5, (3, 2, 5), generator=generator)
    prefix = torch.randint(0, 2, (3, 2, 5), generator=generator)
    language = LanguageBlocks(SpanBlocks(tokens, full.to(torch.uint8).short()), SpanBlocks(tokens // 3, prefix.short()))
    weights = torch.tensor([2.0, 0.0, 1.0])
    again = LanguageCounts.zero(2, 5)
    for block in (0, 0, 2):
        again += LanguageCounts(
            SpanCounts(int(tokens[block]), full[block]), SpanCounts(int(tokens[block]) // 3, prefix[block])
        )
    counts = (again.full.over_zero - again.prefix.over_zero).clamp(min=0).unsqueeze(-1)
    expected = activation_probability(
        counts, tokens=torch.tensor([again.full.total_tokens - again.prefix.total_tokens])
    )
    assert torch.equal(AnswerBlocks.of([language]).probability(weights), expected)


def test_sums_that_float32_cannot_hold_are_kept_in_float64() -> None:
    big = SpanBlocks(torch.tensor([2**25, 2**25]), torch.tensor([[[2**25 - 1]], [[1]]]))
    none = SpanBlocks(torch.tensor([0, 0]), torch.zeros(2, 1, 1, dtype=torch.int64))
    blocks = AnswerBlocks.of([LanguageBlocks(big, none)])
    assert blocks.counts.dtype == torch.float64
    assert float(blocks.probability()) == 0.5
    with pytest.raises(IncompatibleError, match="same --blocks"):
        AnswerBlocks.of(
            [LanguageBlocks(big, none), LanguageBlocks(SpanBlocks.of([none.total]), SpanBlocks.of([none.total]))]
        )


def test_intervals_of_p_cover_a_known_truth_in_93_to_97_of_100() -> None:
    """Of all neurons; band by band to 1 in 100 more or less, twice the standard error of the smallest band."""
    random = np.random.default_rng(1)
    truth = 1 / (1 + np.exp(-random.uniform(-7, 5, (20_000, 2))))
    for tokens, alike in ((1500, 0.002), (16_000, 0.002), (1500, 0.02)):
        found = probability_interval(beta_binomial(truth, tokens=tokens, alike=alike, seed=2))
        covered = found.holds(torch.tensor(truth).unsqueeze(0)).double()
        assert 0.93 <= float(covered.mean()) <= 0.97
        for low, high in ((0.0, 0.002), (0.002, 0.01), (0.01, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.0)):
            among = torch.tensor((truth >= low) & (truth < high)).unsqueeze(0)
            assert 0.92 <= float(covered[among].mean()) <= 0.98, (tokens, alike, low, high)


def test_intervals_of_numbers_cover_the_endless_corpus_in_93_to_97_of_100() -> None:
    """λ*, τ, the classes and the masks of 40 models, each simulated once.

    Their 10 numbers hang together, so the share is known to about ± 2 in 100. Intervals that are a fifth shorter hold
    90 of 100 here, a fifth longer 98; the number of the corpus ± t · the spread of the resamplings holds 90.
    """
    how, languages = Selection(top_rate=0.05, bar=0.9, lam=None, search=SweepRange(0.0, 3.0)), tuple("abcd")
    held = []
    for seed in range(3000, 3040):
        random = np.random.default_rng(seed)
        truth = 1 / (1 + np.exp(random.normal(2, 1.5, (600, 1)) + random.normal(0, 1.2, (600, 4))))
        blocks, again = beta_binomial(truth, seed=seed), {"languages": languages, "seed": seed}
        drawn = inclusion(blocks, how, draws=40, **again).numbers
        endless = split_halves(blocks, how, splits=8, **again).endless
        found = number_interval(numbers(find(blocks.probability(), how), how), drawn, endless, blocks=20)
        held.append(found.holds(numbers(find(torch.tensor(truth, dtype=torch.float32).unsqueeze(0), how), how))[:10])
    assert 0.93 <= float(torch.stack(held).double().mean()) <= 0.97


def test_parts_on_a_line_in_one_over_their_size_are_prolonged_to_the_endless_corpus() -> None:
    for half, quarter in ((10, 5), (3, 1)):
        means = torch.tensor([[40 + 12 / half, 0.5 - 0.1 / half], [40 + 12 / quarter, 0.5 - 0.1 / quarter]]).double()
        found = Halves(LANGUAGES, torch.zeros(1, 4).double(), (half, quarter), means)
        torch.testing.assert_close(found.endless, torch.tensor([40.0, 0.5]).double())
    few = split_halves(some_blocks(3), FIND, languages=LANGUAGES, splits=2)
    assert few.endless.isnan().all()


def test_the_typical_design_effect_is_found_and_how_far_neurons_differ_from_it() -> None:
    random = np.random.default_rng(5)
    for prior, alike in ((8.0, 3.0), (1e6, 20.0)):
        own = alike * prior / random.chisquare(prior, 50_000) * random.chisquare(19, 50_000) / 19
        typical, found = typical_effect(torch.tensor(own), freedom=19.0)
        assert typical == pytest.approx(alike, rel=0.02)
        assert found == pytest.approx(prior, rel=0.1) if prior < 100 else found > 300
    assert typical_effect(torch.tensor([4.0]).double(), freedom=19.0) == (1.0, 0.0)


def test_design_effects_only_grow_and_more_so_for_those_below_the_typical() -> None:
    truth = np.full((3000, 1), 0.02)
    blocks = beta_binomial(truth, alike=0.02, seed=6)
    p, variance = blocks.probability().double(), jackknife_variance(blocks)
    own = variance / (p * (1 - p) / blocks.tokens.sum())
    effects, freedom = design_effects(blocks)
    assert (effects >= own).all()
    low = own < own.median()
    assert float((effects / own)[low].mean()) > 1.1
    assert torch.equal(effects[~low].topk(300).values, own[~low].topk(300).values)
    assert float(freedom) > 19


def test_tokens_taken_for_independent_would_cover_far_less() -> None:
    truth = np.full((4000, 1), 0.3)
    blocks = beta_binomial(truth, seed=3)
    p, tokens = blocks.probability().double(), blocks.tokens.sum()
    naive = 1.96 * (p * (1 - p) / tokens).sqrt()
    assert float(((p - 0.3).abs() <= naive).double().mean()) < 0.75


def test_the_jackknife_leaves_out_one_block_after_the_other() -> None:
    blocks = some_blocks()
    left_out = torch.stack([blocks.probability(1.0 - torch.eye(6)[b]) for b in range(6)]).double()
    expected = 5 / 6 * (left_out - left_out.mean(dim=0)).square().sum(dim=0)
    torch.testing.assert_close(jackknife_variance(blocks), expected, rtol=1e-3, atol=1e-9)


def test_a_neuron_that_never_fired_has_an_interval_above_zero() -> None:
    found = probability_interval(AnswerBlocks(torch.zeros(20, 1, 1, 1), torch.full((20, 1), 100)))
    assert float(found.low) == 0.0
    assert 0.0005 < float(found.high) < 0.01


def test_inclusion_is_the_share_of_resampled_corpora_by_brute_force() -> None:
    blocks = some_blocks()
    found = inclusion(blocks, FIND, languages=LANGUAGES, draws=25, seed=4)
    often = torch.zeros_like(found.probability)
    for weights in resampling_weights(6, draws=25, seed=4).long().tolist():
        drawn = [block for block, times in enumerate(weights) for _ in range(times)]
        counts = sum(blocks.counts[block] for block in drawn).long().permute(1, 2, 0)
        tokens = sum(blocks.tokens[block] for block in drawn)
        statistics = neuron_statistics(activation_probability(counts, tokens=tokens), bar=0.8)
        lam = exact_lambda(statistics, top_rate=0.1, lo=0.0, hi=3.0).lam
        often += language_mask(statistics, select(statistics, top_rate=0.1, lam=lam))
    assert torch.equal(found.probability, often / 25)
    assert 0 < float(found.probability[found.mask].mean()) < 1
    again = inclusion(blocks, FIND, languages=LANGUAGES, draws=25, seed=5)
    assert not torch.equal(again.probability, found.probability)


def test_identical_blocks_have_no_uncertainty() -> None:
    one = some_blocks(1)
    same = AnswerBlocks(one.counts.expand(8, -1, -1, -1).contiguous(), one.tokens.expand(8, -1).contiguous())
    halves = split_halves(same, FIND, languages=LANGUAGES, splits=5)
    assert (halves.jaccard[~halves.jaccard.isnan()] == 1.0).all()
    found = inclusion(same, FIND, languages=LANGUAGES, draws=10)
    assert torch.equal(found.probability, found.mask.float())
    whole = numbers(find(same.probability(), FIND), FIND)
    sure = number_interval(whole, found.numbers, halves.endless, blocks=8)
    torch.testing.assert_close(sure.low, whole)
    torch.testing.assert_close(sure.high, whole)


def test_halves_and_quarters_share_no_block_and_are_equally_large() -> None:
    seen = []
    blocks = some_blocks(9)

    class Watched(AnswerBlocks):
        def probability(self, weights: torch.Tensor | None = None) -> torch.Tensor:
            seen.append(weights)
            return super().probability(weights)

    found = split_halves(Watched(blocks.counts, blocks.tokens), FIND, languages=LANGUAGES, splits=4)
    assert found.blocks == (4, 2)
    assert len(seen) == identifications(9, splits=4)
    each = [numbers(find(blocks.probability(weights), FIND), FIND) for weights in seen]
    torch.testing.assert_close(found.numbers[1], torch.stack(each).unflatten(0, (4, 6))[:, 2:].mean(dim=(0, 1)))
    for split in torch.stack(seen).unflatten(0, (4, 6)):
        for parts, size in ((split[:2], 4), (split[2:], 2)):
            assert float(parts.sum(dim=0).max()) == 1
            assert parts.sum(dim=1).tolist() == [size] * len(parts)


def test_too_few_draws_or_splits_are_refused() -> None:
    with pytest.raises(SettingsError, match="--draws"):
        inclusion(some_blocks(), FIND, languages=LANGUAGES, draws=1)
    with pytest.raises(SettingsError, match="--splits"):
        split_halves(some_blocks(), FIND, languages=LANGUAGES, splits=0)

"""Perplexities, and the map of their changes."""

import math

import pytest
import torch

from language_neurons_alignment.core.counts import LanguageCounts, SpanCounts, check_tally
from language_neurons_alignment.core.perplexity import (
    UNDISTURBED,
    Perplexity,
    PerplexityMap,
    TextLikelihood,
    perplexity,
)
from language_neurons_alignment.errors import CorpusError, IncompatibleError, SettingsError, TallyError


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary() -> None:
    texts = [TextLikelihood(n * math.log(50), n) for n in (1, 7, 30)]
    pooled = perplexity(texts)
    assert pooled.token == pytest.approx(50)
    assert pooled.text == pytest.approx(50)
    assert (pooled.tokens, pooled.texts) == (38, 3)


def test_tokens_weigh_alike_in_one_average_and_texts_in_the_other() -> None:
    pooled = perplexity([TextLikelihood(2.0, 1), TextLikelihood(4.0, 4)])
    assert pooled.token == pytest.approx(math.exp(6 / 5))
    assert pooled.text == pytest.approx(math.exp((2 + 1) / 2))


def test_texts_with_nothing_to_predict_do_not_count() -> None:
    assert perplexity([TextLikelihood(0.0, 0), TextLikelihood(3.0, 2)]) == perplexity([TextLikelihood(3.0, 2)])
    with pytest.raises(CorpusError, match="none of 1 texts"):
        perplexity([TextLikelihood(0.0, 0)])


def test_a_perplexity_that_no_float_holds_is_infinite() -> None:
    assert perplexity([TextLikelihood(1e6, 2)]).token == math.inf


def example() -> PerplexityMap:
    def cell(value: float) -> Perplexity:
        return Perplexity(value, value + 1, 1.0, 2, 3)

    values = {UNDISTURBED: (10.0, 20.0), "es": (15.0, 20.0), "fr": (10.0, 80.0)}
    cells = {(row, text): cell(v) for row, pair in values.items() for text, v in zip(("es", "fr"), pair, strict=True)}
    return PerplexityMap(("es", "fr"), cells)


def test_the_change_is_measured_against_the_undisturbed_row() -> None:
    torch.testing.assert_close(example().change(), torch.tensor([[50.0, 0.0], [0.0, 300.0]]).double())
    log1p = example().change(scale="log1p")
    assert float(log1p[0, 0]) == pytest.approx(math.log(16) - math.log(11))
    assert float(example().change(average="text")[0, 0]) == pytest.approx(100 * (16 / 11 - 1))


def test_unknown_scales_and_averages_and_missing_cells_are_refused() -> None:
    with pytest.raises(SettingsError, match="percent, log1p"):
        example().change(scale="octaves")
    with pytest.raises(SettingsError, match="token, text"):
        example().values(average="median")
    holey = PerplexityMap(("es", "fr"), {key: v for key, v in example().cells.items() if key != ("es", "fr")})
    with pytest.raises(IncompatibleError, match="misses 1 cells"):
        holey.values()


def counts(full: int, prefix: int) -> LanguageCounts:
    return LanguageCounts(SpanCounts(full, torch.full((1, 2), full)), SpanCounts(prefix, torch.full((1, 2), prefix)))


def test_counts_of_disjoint_texts_add_and_nothing_is_neutral() -> None:
    total = counts(5, 2) + counts(7, 3) + LanguageCounts.zero(1, 2)
    assert (total.full.total_tokens, total.prefix.total_tokens) == (12, 5)
    assert torch.equal(total.full.over_zero, torch.full((1, 2), 12))
    with pytest.raises(IncompatibleError, match="different models"):
        _ = counts(1, 1) + LanguageCounts.zero(2, 2)


def test_a_tally_that_differs_by_one_token_is_an_error() -> None:
    check_tally(counts(9, 4), full_tokens=9, prefix_tokens=4)
    with pytest.raises(TallyError, match="full tally is wrong: the engine counted 9 tokens, the corpus holds 10"):
        check_tally(counts(9, 4), full_tokens=10, prefix_tokens=4)
    with pytest.raises(TallyError, match="prefix tally"):
        check_tally(counts(9, 4), full_tokens=9, prefix_tokens=5)


def test_a_neuron_that_fires_more_often_than_there_are_tokens_is_an_error() -> None:
    wrong = LanguageCounts(SpanCounts(9, torch.full((1, 2), 10)), SpanCounts(4, torch.zeros(1, 2, dtype=torch.int64)))
    with pytest.raises(TallyError, match="fired on 10 of 9 tokens"):
        check_tally(wrong, full_tokens=9, prefix_tokens=4)

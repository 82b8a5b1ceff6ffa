"""A map's intervals against scipy's bootstrap, its controls' ranges and its selectivity by hand."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from scipy import stats

from language_neurons_alignment.core.perplexity import (
    UNDISTURBED,
    Perplexity,
    PerplexityMap,
    TextLikelihood,
    control_row,
    perplexity,
    perplexity_effects,
    perplexity_selectivity,
    resampled,
)
from language_neurons_alignment.errors import IncompatibleError

LENGTHS = [5 + 3 * (n % 7) for n in range(40)]


def cell(level: float, noise: float = 0.0, seed: int = 0) -> Perplexity:
    """Texts that are all more or less as hard as each other; the same seed, the same texts."""
    texts, own = random.Random(seed), random.Random(1000 * level)
    return perplexity([TextLikelihood(n * (level + texts.gauss(0, 0.3) + own.gauss(0, noise)), n) for n in LENGTHS])


def example(sets: int = 0) -> PerplexityMap:
    """Two languages: each loses by its own neurons alone, controls lose a little anywhere."""
    cells = {(UNDISTURBED, "es"): cell(2.0), (UNDISTURBED, "fr"): cell(2.2)}
    cells |= {("es", "es"): cell(3.0, 0.2), ("es", "fr"): cell(2.21, 0.01)}
    cells |= {("fr", "es"): cell(2.0, 0.01), ("fr", "fr"): cell(2.9, 0.2)}
    result = PerplexityMap(("es", "fr"), cells)
    controls = {
        (control_row(row, number), text): cell(base + 0.01 * number + 0.001 * len(row), 0.01)
        for row in ("es", "fr")
        for text, base in (("es", 2.0), ("fr", 2.2))
        for number in range(1, sets + 1)
    }
    return result.with_controls(controls, sets=sets) if sets else result


@pytest.mark.parametrize("average", ["token", "text"])
def test_intervals_are_those_of_scipys_paired_bootstrap(average: str) -> None:
    result = example()
    effects = perplexity_effects(result, average=average)
    base, changed = (np.array([one.nll for one in result.cells[row, "es"].likelihoods]) for row in (UNDISTURBED, "es"))
    lengths = np.array(LENGTHS, dtype=float)

    def change(before: np.ndarray, after: np.ndarray, tokens: np.ndarray, axis: int = -1) -> np.ndarray:
        if average == "text":
            return 100 * (np.exp((after / tokens).mean(axis) - (before / tokens).mean(axis)) - 1)
        return 100 * (np.exp((after.sum(axis) - before.sum(axis)) / tokens.sum(axis)) - 1)

    expected = stats.bootstrap(
        (base, changed, lengths), change, paired=True, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    low, high = float(effects.interval.low[0, 0]), float(effects.interval.high[0, 0])
    assert low == pytest.approx(expected.low, rel=0.03)
    assert high == pytest.approx(expected.high, rel=0.03)
    assert low < float(effects.change[0, 0]) < high


def test_a_draw_is_the_perplexity_of_the_texts_that_it_draws_the_same_for_every_row() -> None:
    from language_neurons_alignment.core.resampling import resampling_weights

    result = example()
    draws, counts = resampled(result, draws=5), resampling_weights(len(LENGTHS), draws=5)
    for draw in range(5):
        for i, row in enumerate(result.rows):
            for j, column in enumerate(result.languages):
                drawn = [
                    one
                    for one, times in zip(result.cells[row, column].likelihoods, counts[draw].tolist(), strict=True)
                    for _ in range(int(times))
                ]
                assert float(draws[draw, i, j]) == pytest.approx(perplexity(drawn).token, rel=1e-12)


def test_own_effects_lie_outside_the_controls_range_and_small_ones_inside() -> None:
    result = example(sets=5)
    effects = perplexity_effects(result)
    assert effects.control is not None
    assert effects.inside is not None
    assert effects.inside.tolist() == [[False, True], [True, False]]
    own = [float(one.change()[0, 0]) for one in result.controls]
    reach = stats.t.ppf(0.975, 4) * np.std(own, ddof=1) * math.sqrt(1 + 1 / 5)
    assert float(effects.control.low[0, 0]) == pytest.approx(np.mean(own) - reach)
    assert float(effects.control.high[0, 0]) == pytest.approx(np.mean(own) + reach)


def test_without_controls_nothing_is_inside_and_there_is_no_range() -> None:
    effects = perplexity_effects(example())
    assert effects.control is None
    assert effects.inside is None


def test_selectivity_is_that_of_the_likelihoods_lost_and_lies_in_its_interval() -> None:
    result = example(sets=3)
    found = perplexity_selectivity(result)
    assert found is not None
    values = result.values().numpy()
    lost = np.maximum(1 / values[0] - 1 / values[1:], 0)
    precision, recall = lost[0, 0] / lost[0].sum(), lost[0, 0] * values[0, 0]
    assert float(found.precision[0]) == pytest.approx(precision)
    assert float(found.recall[0]) == pytest.approx(recall)
    assert float(found.f1[0]) == pytest.approx(2 * precision * recall / (precision + recall))
    for name in ("precision", "recall", "f1"):
        value = getattr(found, name)
        assert (getattr(found.low, name) <= value).all(), name
        assert (value <= getattr(found.high, name)).all(), name
    assert found.controls is not None
    assert (found.controls.f1.mean(dim=0) < found.low.f1).all()


def test_cells_that_know_only_their_sums_have_no_interval_and_the_others_keep_theirs() -> None:
    result = example(sets=2)
    known = result.cells["es", "es"]
    bare = Perplexity(known.token, known.text, known.nll, known.tokens, known.texts)
    old = PerplexityMap(result.languages, {**result.cells, ("es", "es"): bare}, controls=result.controls)
    effects, whole = perplexity_effects(old), perplexity_effects(result)
    assert effects.interval.low.isnan().tolist() == [[True, False], [False, False]]
    assert torch.equal(effects.interval.low[1], whole.interval.low[1])
    assert torch.equal(effects.inside, whole.inside)
    found = perplexity_selectivity(old)
    assert found is not None
    assert found.low.f1.isnan().tolist() == [True, False]
    assert not found.f1.isnan().any()


def test_rows_over_other_texts_and_infinite_perplexities() -> None:
    result = example()
    shorter = perplexity(list(result.cells["es", "es"].likelihoods[:-1]))
    with pytest.raises(IncompatibleError, match="different texts in es"):
        perplexity_effects(PerplexityMap(result.languages, {**result.cells, ("es", "es"): shorter}))
    broken = perplexity([TextLikelihood(1e6 * n, n) for n in LENGTHS])
    effects = perplexity_effects(PerplexityMap(result.languages, {**result.cells, ("es", "es"): broken}))
    assert float(effects.change[0, 0]) == math.inf
    assert math.isnan(float(effects.interval.low[0, 0]))


def test_a_map_of_one_row_has_intervals_and_controls_and_no_selectivity() -> None:
    whole = example(sets=2)
    cells = {(row.replace("es", "do"), text): one for (row, text), one in whole.cells.items() if row != "fr"}
    result = PerplexityMap(whole.languages, cells, ("do",))
    assert result.rows == (UNDISTURBED, "do")
    assert perplexity_effects(result).change.shape == (1, 2)
    assert perplexity_selectivity(result) is None

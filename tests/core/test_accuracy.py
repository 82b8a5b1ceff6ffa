"""Accuracy maps against counting by hand, other people's bootstrap and tests, and simulated truth."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats

from language_neurons_alignment.core.accuracy import AccuracyMap, accuracy_effects, accuracy_selectivity
from language_neurons_alignment.errors import IncompatibleError, SettingsError


def outcomes(seed: int, *, rows: tuple[str, ...] = ("en", "fr"), sets: int = 0, items: int = 60) -> AccuracyMap:
    """Random answers: every language asks every item."""
    generator = torch.Generator().manual_seed(seed)
    controls = tuple(f"{row}~{number}" for number in range(1, sets + 1) for row in rows)
    shape = (1 + len(rows) + len(controls), 2, items)
    number, spoken, unclear = torch.rand(3, *shape, generator=generator) < torch.tensor([0.6, 0.8, 0.1]).view(
        3, 1, 1, 1
    )
    asked = torch.ones(2, items, dtype=torch.bool)
    return AccuracyMap(rows, ("en", "fr"), controls, asked, number, spoken & ~unclear, unclear & ~spoken)


def test_an_answer_counts_where_its_number_and_its_language_are_right() -> None:
    yes_no = torch.tensor(list(product([True, False], repeat=2)))
    number, spoken = yes_no.T.reshape(2, 1, 1, 4).expand(2, 2, 1, 4)
    asked = torch.ones(1, 4, dtype=torch.bool)
    one = AccuracyMap(("fr",), ("fr",), (), asked, number, spoken, torch.zeros_like(number))
    assert one.right("accuracy")[0, 0].tolist() == [True, False, False, False]
    assert {measure: one.shares(measure)[0, 0].item() for measure in ("accuracy", "number", "language")} == {
        "accuracy": 0.25, "number": 0.5, "language": 0.5,
    }  # fmt: skip
    with pytest.raises(SettingsError, match="'both'"):
        one.right("both")


def test_a_language_s_share_is_of_the_questions_that_it_asks() -> None:
    asked = torch.tensor([[True, True, False], [False, True, True]])
    number = asked.expand(2, 2, 3).clone()
    number[1, 0, 0] = False
    one = AccuracyMap(("en",), ("en", "fr"), (), asked, number, number, torch.zeros_like(number))
    assert one.shares().tolist() == [[1.0, 1.0], [0.5, 1.0]]
    # three questions that are asked in other languages each can only be drawn for one another's place: none can
    assert one.drawn_shares(draws=50).std(dim=0).max() == 0


def test_changes_and_tests_are_those_of_counting_question_by_question() -> None:
    one = outcomes(0)
    found = accuracy_effects(one, draws=10)
    right = one.right()
    for r, k in product(range(2), range(2)):
        before, after = right[0, k].numpy(), right[r + 1, k].numpy()
        assert found.change[r, k].item() == pytest.approx(100 * (after.mean() - before.mean()))
        lost, won = int((before & ~after).sum()), int((after & ~before).sum())
        assert found.p[r, k].item() == pytest.approx(stats.binomtest(lost, lost + won, 0.5).pvalue)
    assert (found.p_adjusted >= found.p).all()
    assert found.control is None
    assert found.inside is None


def test_intervals_are_those_of_scipy_s_bootstrap_over_paired_questions() -> None:
    one = outcomes(1, items=200)
    found, right = accuracy_effects(one, draws=20_000), one.right().double()
    for r, k in product(range(2), range(2)):
        theirs = stats.bootstrap(
            (right[0, k].numpy(), right[r + 1, k].numpy()),
            lambda before, after, axis: 100 * (after.mean(axis=axis) - before.mean(axis=axis)),
            paired=True, vectorized=True, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
        assert found.interval.low[r, k].item() == pytest.approx(theirs.low, abs=0.6)
        assert found.interval.high[r, k].item() == pytest.approx(theirs.high, abs=0.6)


def test_intervals_hold_a_known_truth_as_often_as_they_say() -> None:
    """True change −20 points in one language, −5 in the other; questions differ in how hard they are."""
    generator, held, runs = torch.Generator().manual_seed(0), torch.zeros(2), 400
    for run in range(runs):
        hard = torch.rand(2, 250, generator=generator) * 0.4
        chance = torch.stack([0.4 + hard, 0.4 + hard - torch.tensor([[0.2], [0.05]])])
        number = torch.rand(2, 2, 250, generator=generator) < chance
        yes = torch.ones_like(number)
        one = AccuracyMap(("fr",), ("en", "fr"), (), yes[0], number, yes, ~yes)
        found = accuracy_effects(one, draws=400, seed=run).interval
        held += found.holds(torch.tensor([[-20.0, -5.0]], dtype=torch.float64))[0]
    assert ((held / runs - 0.95).abs() < 0.02).all(), held / runs


def test_rows_are_drawn_together_so_equal_rows_differ_by_nothing() -> None:
    one = outcomes(2)
    one.number[1], one.spoken[1] = one.number[0], one.spoken[0]
    found = accuracy_effects(one)
    assert found.change[0].tolist() == found.interval.low[0].tolist() == found.interval.high[0].tolist() == [0, 0]
    assert found.p[0].tolist() == [1, 1]


def test_questions_that_are_the_same_in_all_languages_are_drawn_together() -> None:
    one = outcomes(3)
    one.number[:, 1], one.spoken[:, 1] = one.number[:, 0], one.spoken[:, 0]
    drawn = one.drawn_shares(draws=100)
    assert torch.equal(drawn[..., 0], drawn[..., 1])
    apart = torch.block_diag(torch.ones(1, 60), torch.ones(1, 60)).bool()
    number = torch.cat([one.number, one.number], dim=-1) & apart
    other = AccuracyMap(one.changed, one.languages, (), apart, number, number, ~number & apart)
    assert torch.equal(other.shares("number"), one.shares("number"))
    drawn = other.drawn_shares("number", draws=2000)[:, 0]
    assert abs(torch.corrcoef(drawn.T)[0, 1]) < 0.1
    assert torch.allclose(drawn.std(dim=0), one.drawn_shares("number", draws=2000)[:, 0].std(dim=0), rtol=0.1)


def test_the_controls_of_a_change_are_its_own() -> None:
    """Five controls of fr that change fr by 0, 10, … points, and controls of en that change nothing."""
    controls = tuple(f"{row}~{number}" for number in range(1, 6) for row in ("en", "fr"))
    number = torch.ones(13, 2, 10, dtype=torch.bool)
    for number_of_set in range(5):
        number[3 + 2 * number_of_set + 1, 1, :number_of_set] = False
    number[2, 1, :9] = False
    yes = torch.ones_like(number)
    one = AccuracyMap(("en", "fr"), ("en", "fr"), controls, yes[0], number, yes, ~yes)
    found = accuracy_effects(one, draws=10)
    assert found.control is not None
    assert found.inside is not None
    lost = np.array([0, -10, -20, -30, -40])
    reach = stats.t.ppf(0.975, 4) * lost.std(ddof=1) * (1 + 1 / 5) ** 0.5
    assert found.control.low[1, 1].item() == pytest.approx(-20 - reach)
    assert found.control.high[1, 1].item() == pytest.approx(-20 + reach)
    assert found.control.low[0].tolist() == pytest.approx([-10, -10]), "one question either way"
    assert found.control.high[0].tolist() == pytest.approx([10, 10])
    assert found.inside.tolist() == [[True, True], [True, False]]
    score = accuracy_selectivity(one, draws=10)
    assert score.precision.tolist() == [0, 1]
    assert score.recall.tolist() == pytest.approx([0, 0.9])
    assert score.controls is not None
    assert score.controls.recall[:, 1].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert score.controls.f1[:, 0].tolist() == [0] * 5


def test_selectivity_is_of_languages_alone() -> None:
    with pytest.raises(IncompatibleError, match="a row and a column for each of 2 languages"):
        accuracy_selectivity(outcomes(0, rows=("do",)), draws=10)


def test_permuting_languages_permutes_results() -> None:
    one = outcomes(5, sets=2)
    order = torch.tensor([1, 0])
    rows = torch.tensor([0, 2, 1, 4, 3, 6, 5])
    other = AccuracyMap(
        ("fr", "en"), ("fr", "en"), one.controls, one.asked[order],
        one.number[rows][:, order], one.spoken[rows][:, order], one.unclear[rows][:, order],
    )  # fmt: skip
    ours, theirs = accuracy_effects(one, draws=100), accuracy_effects(other, draws=100)
    for name in ("change", "p", "p_adjusted"):
        assert torch.equal(getattr(ours, name)[order][:, order], getattr(theirs, name))
    assert torch.allclose(ours.interval.low[order][:, order], theirs.interval.low)
    assert torch.allclose(accuracy_selectivity(one, draws=50).f1[order], accuracy_selectivity(other, draws=50).f1)

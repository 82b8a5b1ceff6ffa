"""AutoSweep: bisection and the exact solution, against a search that looks at every interval."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch

from language_neurons_alignment.config import SweepRange
from language_neurons_alignment.core.selection import NeuronStatistics, appear, neuron_statistics, select
from language_neurons_alignment.core.sweep import (
    bisect_lambda,
    exact_lambda,
    find_lambda,
    fine_from,
    largest_fine_lambda,
    notes_on_lambda,
)
from language_neurons_alignment.errors import SettingsError, SweepError


def universal_selected(statistics: NeuronStatistics, top_rate: float, lam: float) -> int:
    chosen = select(statistics, top_rate=top_rate, lam=lam)
    return int(appear(statistics.languages_above, chosen, languages=statistics.member.shape[-1])[-1])


def brute_force_supremum(statistics: NeuronStatistics, top_rate: float, lo: float, hi: float) -> float | None:
    """Between two neighbouring crossings of score lines nothing changes: try the middle of every such interval."""
    entropy, peak = statistics.entropy.flatten().tolist(), statistics.peak.flatten().tolist()
    crossings = {lo, hi}
    for (e1, r1), (e2, r2) in itertools.combinations(zip(entropy, peak, strict=True), 2):
        if r1 != r2:
            crossings.add(min(max((e1 - e2) / (r1 - r2), lo), hi))
    ends = sorted(crossings)
    for left, right in zip(ends[-2::-1], ends[:0:-1], strict=True):
        if right - left > 1e-12 and universal_selected(statistics, top_rate, (left + right) / 2) == 0:
            return right
    return None


def random_statistics(seed: int, *, languages: int = 3) -> NeuronStatistics:
    """Few neurons, many of them above the bar everywhere, so that crossings matter."""
    generator = torch.Generator().manual_seed(seed)
    probability = torch.rand(2, 14, languages, generator=generator) ** 2
    probability[:, ::3] = 0.55 + 0.4 * torch.rand(2, 5, languages, generator=generator)
    return neuron_statistics(probability, bar=0.6)


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("top_rate", [0.1, 0.3])
def test_the_exact_lambda_is_the_supremum_that_brute_force_finds(seed: int, top_rate: float) -> None:
    statistics = random_statistics(seed, languages=2 + seed % 3)
    expected = brute_force_supremum(statistics, top_rate, 0.0, 2.0)
    if expected is None:
        with pytest.raises(SweepError):
            exact_lambda(statistics, top_rate=top_rate, lo=0.0, hi=2.0)
        return
    found = exact_lambda(statistics, top_rate=top_rate, lo=0.0, hi=2.0)
    assert found.lam == pytest.approx(expected, abs=1e-9)
    assert found.appear[-1] == 0
    assert universal_selected(statistics, top_rate, found.lam) == 0
    if found.lam < 2.0:
        assert universal_selected(statistics, top_rate, found.lam + 1e-9) > 0


def planted(lines: list[tuple[float, float]], general: list[bool]) -> NeuronStatistics:
    """Statistics with score lines e − λ r given outright."""
    member = torch.tensor([[[flag, flag] for flag in general]])
    entropy = torch.tensor([[line[0] for line in lines]], dtype=torch.float64)
    peak = torch.tensor([[line[1] for line in lines]], dtype=torch.float64)
    return NeuronStatistics(entropy, peak, member, 0.5)


def test_the_exact_lambda_is_found_where_the_fine_ones_are_not_one_interval() -> None:
    statistics = planted([(0.5, 0.0), (0.6, 0.5), (0.95, 2.0), (2.0, 0.0)], [False, True, False, False])
    fine = [universal_selected(statistics, 0.25, lam) == 0 for lam in (0.1, 0.21, 0.3)]
    assert fine == [True, False, True]
    assert exact_lambda(statistics, top_rate=0.25, lo=0.0, hi=0.22).lam == pytest.approx(0.2, abs=1e-12)
    assert exact_lambda(statistics, top_rate=0.25, lo=0.0, hi=5.0).lam == 5.0


def test_the_exact_lambda_is_found_in_a_fine_stretch_that_does_not_touch_the_ends() -> None:
    # lowest: the first universal line up to 0.1, the plain one from there to 1, then the second universal one
    statistics = planted([(0.1, 0.0), (0.2, 1.0), (1.2, 2.0), (9.0, 0.0)], [True, False, True, False])
    fine = [universal_selected(statistics, 0.25, lam) == 0 for lam in (0.05, 0.5, 1.5)]
    assert fine == [False, True, False]
    assert exact_lambda(statistics, top_rate=0.25, lo=0.0, hi=2.0).lam == pytest.approx(1.0, abs=1e-12)
    with pytest.raises(SweepError):
        bisect_lambda(statistics, top_rate=0.25, lo=0.0, hi=2.0, eps=1e-3)


def test_a_line_equal_to_a_universal_one_is_decided_by_its_index() -> None:
    before = planted([(0.5, 1.0), (0.5, 1.0), (3.0, 0.0), (3.0, 0.0)], [False, True, False, False])
    assert exact_lambda(before, top_rate=0.25, lo=0.0, hi=1.0).lam == 1.0
    after = planted([(0.5, 1.0), (0.5, 1.0), (3.0, 0.0), (3.0, 0.0)], [True, False, False, False])
    with pytest.raises(SweepError):
        exact_lambda(after, top_rate=0.25, lo=0.0, hi=1.0)


def test_bisection_gives_a_fine_lambda_within_eps_of_the_exact_one_and_short_decimals() -> None:
    statistics = random_statistics(7)
    exact = exact_lambda(statistics, top_rate=0.1, lo=0.0, hi=0.2)
    found = bisect_lambda(statistics, top_rate=0.1, lo=0.0, hi=0.2, eps=1e-4)
    assert universal_selected(statistics, 0.1, found.lam) == 0
    assert exact.lam - found.lam <= 1e-4 or exact.lam == found.lam


def test_where_hi_is_fine_it_is_the_answer_at_once() -> None:
    statistics = planted([(0.1, 0.0), (0.9, 0.1)], [False, True])
    found = bisect_lambda(statistics, top_rate=0.5, lo=0.0, hi=0.2, eps=1e-3)
    assert (found.lam, found.evaluations) == (0.2, 2)
    assert exact_lambda(statistics, top_rate=0.5, lo=0.0, hi=0.2).evaluations == 1


def test_every_evaluation_is_told_of() -> None:
    seen: list[float] = []
    statistics = random_statistics(1)
    found = bisect_lambda(
        statistics, top_rate=0.1, lo=0.0, hi=2.0, eps=0.1, observe=lambda lam, histogram: seen.append(lam)
    )
    assert seen[:2] == [0.0, 2.0]
    assert len(seen) == found.evaluations


def test_no_fine_lambda_is_an_error_with_the_numbers_at_both_ends() -> None:
    statistics = planted([(0.1, 0.5), (0.9, 0.1)], [True, False])
    for sweep in (
        lambda: bisect_lambda(statistics, top_rate=0.5, lo=0.0, hi=0.2, eps=1e-3),
        lambda: exact_lambda(statistics, top_rate=0.5, lo=0.0, hi=0.2),
    ):
        with pytest.raises(SweepError, match="appear\\[K\\] is 1 at lo and 1 at hi"):
            sweep()


@pytest.mark.parametrize(("lo", "hi"), [(0.3, 0.2), (-0.1, 0.2), (0.0, math.nan), (0.0, math.inf)])
def test_a_range_that_cannot_be_searched_is_refused(lo: float, hi: float) -> None:
    with pytest.raises(SettingsError, match="0 <= lo <= hi"):
        bisect_lambda(random_statistics(0), top_rate=0.1, lo=lo, hi=hi, eps=1e-3)
    with pytest.raises(SettingsError, match="0 <= lo <= hi"):
        exact_lambda(random_statistics(0), top_rate=0.1, lo=lo, hi=hi)


@pytest.mark.parametrize("eps", [0.0, -1.0, math.nan, math.inf])
def test_an_eps_that_never_ends_the_search_is_refused(eps: float) -> None:
    with pytest.raises(SettingsError, match="eps"):
        bisect_lambda(random_statistics(0), top_rate=0.1, lo=0.0, hi=0.2, eps=eps)


def fine_pieces(statistics: NeuronStatistics, top_rate: float) -> list[tuple[float, float]]:
    """Every stretch between neighbouring crossings of score lines, from 0 to ∞, on whose middle λ is fine."""
    lines = set(zip(statistics.entropy.flatten().tolist(), statistics.peak.flatten().tolist(), strict=True))
    pairs = itertools.combinations(lines, 2)
    crossings = {(e1 - e2) / (r1 - r2) for (e1, r1), (e2, r2) in pairs if r1 != r2}
    ends = [0.0, *sorted(one for one in crossings if one > 1e-12)]
    ends = [one for one, after in itertools.pairwise([*ends, math.inf]) if after - one > 1e-12]
    pieces = [(one, after, (one + after) / 2) for one, after in itertools.pairwise(ends)]
    return [
        (a, b)
        for a, b, at in [*pieces, (ends[-1], math.inf, ends[-1] + 1)]
        if not universal_selected(statistics, top_rate, at)
    ]


def coarse_statistics(seed: int) -> NeuronStatistics:
    """Probabilities in steps of 1/6, as few tokens give them: neurons share lines, and many lines meet in one point."""
    generator = torch.Generator().manual_seed(seed)
    probability = torch.randint(0, 7, (2, 9, 2 + seed % 2), generator=generator) / 6
    return neuron_statistics(probability, bar=(0.5, 0.7)[seed % 2])


@pytest.mark.parametrize(("make", "seeds"), [(random_statistics, 2), (coarse_statistics, 10)])
def test_without_an_end_the_range_holds_the_largest_of_all_fine_lambdas(
    make: Callable[[int], NeuronStatistics], seeds: int
) -> None:
    seen = set()
    for seed, top_rate in itertools.product(range(seeds), (0.06, 0.3)):
        statistics = make(seed)
        pieces = fine_pieces(statistics, top_rate)
        largest = largest_fine_lambda(statistics, top_rate=top_rate)
        if not pieces:
            assert math.isnan(largest)
            for exact in (True, False):
                with pytest.raises(SweepError, match="no λ outside this range does"):
                    find_lambda(statistics, top_rate=top_rate, search=SweepRange(exact=exact))
            seen.add("none")
            continue
        exact, halved = (
            find_lambda(statistics, top_rate=top_rate, search=SweepRange(exact=exact)) for exact in (True, False)
        )
        assert exact.appear[-1] == halved.appear[-1] == 0
        assert universal_selected(statistics, top_rate, exact.lam) == 0
        assert universal_selected(statistics, top_rate, halved.lam) == 0
        if math.isinf(pieces[-1][1]):
            start = fine_from(statistics, top_rate=top_rate)
            gaps = [after[0] for before, after in itertools.pairwise(pieces) if after[0] - before[1] > 1e-9]
            assert start == pytest.approx(gaps[-1] if gaps else pieces[0][0], abs=1e-9)
            assert exact.largest == math.inf
            assert exact.lam == exact.hi == halved.lam >= start
            seen.add("endless")
        else:
            assert exact.lam == exact.largest == largest == pytest.approx(pieces[-1][1], abs=1e-9)
            assert 0 <= exact.lam - halved.lam <= 1e-3
            seen.add("beyond" if largest > 0.2 else "within")
    assert "beyond" in seen


def test_an_end_that_cuts_lambda_off_gives_what_it_gave_and_tells_the_largest() -> None:
    statistics = planted([(0.5, 0.0), (0.9, 0.5), (2.0, 0.0), (2.0, 0.0)], [False, True, False, False])  # meet at 0.8
    for exact in (True, False):
        found = find_lambda(statistics, top_rate=0.25, search=SweepRange(hi=0.2, exact=exact))
        assert (found.lam, found.hi, found.largest) == (0.2, 0.2, pytest.approx(0.8))
        (said,) = notes_on_lambda(found.lam, largest=found.largest, end=found.hi)
        assert said.startswith(
            "λ = 0.2 is the end of the range that was searched; the largest λ with appear[K] = 0 is 0.8"
        )
    wide = find_lambda(statistics, top_rate=0.25, search=SweepRange(hi=0.9))
    assert notes_on_lambda(wide.lam, largest=wide.largest, end=0.9) == []
    with pytest.raises(SweepError, match=r"the largest λ with appear\[K\] = 0 is 0\.8"):
        find_lambda(statistics, top_rate=0.25, search=SweepRange(lo=0.85, hi=0.9))
    with pytest.raises(SweepError, match=r"the largest λ with appear\[K\] = 0 is 0\.8"):
        find_lambda(statistics, top_rate=0.25, search=SweepRange(lo=0.85))


def test_where_every_lambda_is_fine_the_range_ends_where_the_paper_s_does_and_that_is_said() -> None:
    statistics = planted([(0.1, 0.5), (0.9, 0.1)], [False, False])
    found = find_lambda(statistics, top_rate=0.5, search=SweepRange())
    assert (found.lam, found.largest) == (0.2, math.inf)
    start = fine_from(statistics, top_rate=0.5)
    (said,) = notes_on_lambda(found.lam, largest=found.largest, endless_from=start)
    assert said.endswith("; appear[K] = 0 at every λ, so none is the largest")
    late = planted([(0.1, 0.0), (0.9, 0.8)], [True, False])  # from λ = 1 on the second line is lower
    found = find_lambda(late, top_rate=0.5, search=SweepRange())
    assert (found.lam, fine_from(late, top_rate=0.5)) == (1.6, 1.0)
    (said,) = notes_on_lambda(found.lam, largest=found.largest, endless_from=1.0)
    assert said == "λ = 1.6 is an end of the range; appear[K] = 0 at every λ from 1 on, so none is the largest"


def test_what_bisection_misses_is_solved_for() -> None:
    # fine from 0.1 to 1 only, as above: neither 0 nor the range's end is fine
    statistics = planted([(0.1, 0.0), (0.2, 1.0), (1.2, 2.0), (9.0, 0.0)], [True, False, True, False])
    found = find_lambda(statistics, top_rate=0.25, search=SweepRange())
    assert found.lam == pytest.approx(1.0, abs=1e-12)
    assert found.appear[-1] == 0

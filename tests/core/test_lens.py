"""The logit lens's numbers: readouts against sums by hand, means, intervals and the pivot against what was planted."""

from __future__ import annotations

import math

import pytest
import torch

from language_neurons_alignment.core.lens import AMBIGUOUS, NO_LANGUAGE, Lens, read_out

GROUPS = ("en", "fr", AMBIGUOUS, NO_LANGUAGE)


def test_a_readout_is_what_sums_over_the_vocabulary_give() -> None:
    logits = 3 * torch.randn(5, 40, generator=torch.Generator().manual_seed(1))
    group = torch.arange(40) % 4
    targets = torch.tensor([0, 7, 39, 12, 12])
    found = read_out(logits, targets, torch.nn.functional.one_hot(group, 4).float())
    for row, target, seen in zip(logits.double().tolist(), targets.tolist(), found.tolist(), strict=True):
        p = [math.exp(value) for value in row]
        p = [value / math.fsum(p) for value in p]
        shares = [math.fsum(p[v] for v in range(40) if v % 4 == k) for k in range(4)]
        entropy = -math.fsum(value * math.log(value) for value in p)
        rank = 1 + sum(value > row[target] for value in row)
        assert seen == pytest.approx([*shares, entropy, math.log(rank), -math.log(p[target])], abs=1e-5)


def test_equal_logits_share_a_rank_and_minus_infinity_is_no_probability() -> None:
    logits = torch.tensor([[1.0, 1.0, -math.inf, 0.0]])
    shares = read_out(logits, torch.tensor([1]), torch.eye(4))[0]
    assert shares[2] == 0
    assert shares.isfinite().all()
    assert shares[5] == 0, "the logarithm of rank 1"


def lens_of(shares: dict[str, list[list[list[float]]]], pivot: str | None = "en") -> Lens:
    """Text's language → record → layer → its share of en, fr, ambiguous, none; of one position a record."""
    sums = tuple(
        torch.tensor([[[*at, 1.0, 0.0, 2.0] for at in one] for one in some]).double() for some in shares.values()
    )
    ones = tuple(torch.ones(len(some), dtype=torch.float64) for some in shares.values())
    return Lens(tuple(shares), GROUPS, sums, ones, torch.tensor([0.3, 0.1, 0.5, 0.1]).double(), pivot)


EN = [[1.0, 0.0, 0.0, 0.0]] * 4
FR = [[0.2, 0.1, 0.7, 0.0], [0.6, 0.1, 0.3, 0.0], [0.5, 0.2, 0.3, 0.0], [0.1, 0.8, 0.1, 0.0]]


def test_the_pivot_begins_and_ends_where_it_was_planted() -> None:
    lens = lens_of({"en": [EN] * 4, "fr": [FR] * 4})
    found = lens.pivot_columns()
    assert (found["language"], found["begin"], found["end"]) == (["fr"], [1], [2]), "in layer 0 it is below chance"
    assert (found["peak"], found["share"], found["own"]) == ([1], [pytest.approx(0.6)], [pytest.approx(0.1)])
    torch.testing.assert_close(lens.own[1], torch.tensor([0.1, 0.1, 0.2, 0.8]).double())
    values, ends = lens.roles()
    torch.testing.assert_close(values.sum(dim=1), torch.ones(4).double())
    assert ends.holds(values).all()
    assert lens_of({"fr": [FR] * 4}, pivot=None).pivot_columns()["language"] == []


def test_a_share_that_other_records_could_reverse_is_no_pivot() -> None:
    other = [[0.0, 0.9, 0.1, 0.0]] * 4
    found = lens_of({"en": [EN] * 4, "fr": [FR, FR, other, other]}).pivot_columns()
    assert (found["begin"], found["end"]) == ([None], [None])


def test_records_weigh_by_their_positions_and_one_record_has_no_interval() -> None:
    lens = lens_of({"en": [EN], "fr": [FR, EN]})
    heavy = Lens(
        lens.languages, GROUPS, (lens.sums[0], lens.sums[1] * torch.tensor([3.0, 1.0])[:, None, None]),
        (lens.positions[0], torch.tensor([3.0, 1.0]).double()), lens.chance, "en",
    )  # fmt: skip
    torch.testing.assert_close(heavy.share("fr")[1, 3], torch.tensor(3 * 0.8 / 4).double())
    assert lens.interval.low[0].isnan().all()
    assert lens.interval.holds(lens.values)[1].all()


def test_a_change_is_paired_record_by_record() -> None:
    before = lens_of({"fr": [FR, EN]})
    after = lens_of({"fr": [[[a + 0.1, b, c, d] for a, b, c, d in one] for one in (FR, EN)]})
    change = after - before
    at = change.interval
    torch.testing.assert_close(at.low[0, :, 0], torch.full((4,), 0.1).double())
    torch.testing.assert_close(at.high[0, :, 0], torch.full((4,), 0.1).double())
    rows = change.columns()
    assert {one for one, name in zip(rows["value"], rows["measure"], strict=True) if name == "rank"} == {1.0}
    with pytest.raises(ValueError, match="same positions"):
        _ = after - lens_of({"fr": [FR]})

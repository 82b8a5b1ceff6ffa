"""From one model to another: moves made by hand, and sums that must come out whatever moved."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from language_neurons_alignment.core.flow import class_flow, language_flow, training_path
from language_neurons_alignment.core.profiles import (
    class_members,
    class_profile,
    english_groups,
    group_means,
    language_profile,
    mask_members,
    trained_groups,
)
from language_neurons_alignment.core.selection import classify
from language_neurons_alignment.errors import IncompatibleError, SettingsError

CODES = ("en", "es", "sw")


def members_of(above: list[list[int]], selected: list[list[int]], *, languages: int = 3) -> dict[str, torch.Tensor]:
    return dict(class_members(classify(torch.tensor(above), torch.tensor(selected).bool(), languages=languages)))


def test_every_move_between_classes_is_counted_where_it_happened() -> None:
    before = members_of([[1, 1, 2, 3, 0]], [[1, 1, 1, 0, 1]])
    after = members_of([[1, 2, 3, 3, 0]], [[1, 1, 0, 0, 0]])
    flow = class_flow(before, after)
    assert flow.states == ("specific", "related", "general", "unassigned", "none")
    moves = {
        (row, column): int(flow.total[i, j])
        for i, row in enumerate(flow.states)
        for j, column in enumerate(flow.states)
        if flow.total[i, j]
    }
    assert moves == {
        ("specific", "specific"): 1,
        ("specific", "related"): 1,
        ("related", "general"): 1,
        ("general", "general"): 1,
        ("unassigned", "none"): 1,
    }
    assert flow.change.tolist() == [[-1, 0, 1, -1, 1]]
    frame = flow.to_frame()
    assert len(frame) == 25
    assert int(frame.neurons.sum()) == 5


def random_mask(seed: int) -> torch.Tensor:
    return torch.rand(2, 25, 3, generator=torch.Generator().manual_seed(seed)) > 0.7


@given(st.integers(0, 10_000))
def test_flows_add_up_to_both_models_and_their_reverse_is_transposed(seed: int) -> None:
    one, other = mask_members(random_mask(seed)), mask_members(random_mask(seed + 1))
    flow, back = class_flow(one, other), class_flow(other, one)
    assert torch.equal(flow.counts, back.counts.transpose(1, 2))
    assert torch.equal(flow.before[:, :-1], class_profile(one).counts)
    assert torch.equal(flow.after[:, :-1], class_profile(other).counts)
    assert int(flow.total.sum()) == 50


@given(st.integers(0, 10_000))
def test_gained_lost_and_kept_are_the_sets_that_they_name(seed: int) -> None:
    one, other = random_mask(seed), random_mask(seed + 1)
    flow = language_flow(one, other, languages=CODES)
    assert flow.sets == ("specific", "related", "mask")
    for k in range(3):
        for position, pick in enumerate((lambda n: n == 1, lambda n: n > 1, lambda n: n > 0)):
            a, b = (mask[..., k] & pick(mask.sum(-1)) for mask in (one, other))
            assert torch.equal(flow.gained[:, k, position], (b & ~a).sum(1))
            assert torch.equal(flow.lost[:, k, position], (a & ~b).sum(1))
            assert torch.equal(flow.kept[:, k, position], (a & b).sum(1))
            if bool((a | b).any()):
                assert flow.jaccard[k, position] == int((a & b).sum()) / int((a | b).sum())


def test_a_model_against_itself_keeps_everything() -> None:
    mask = random_mask(0)
    flow = language_flow(mask, mask, languages=CODES)
    assert not flow.gained.any()
    assert not flow.lost.any()
    assert flow.jaccard.tolist() == [[1.0] * 3] * 3
    assert flow.retained.tolist() == [[1.0] * 3] * 3
    total = class_flow(mask_members(mask), mask_members(mask)).total
    assert torch.equal(total, total.diagonal().diag())


def test_a_neuron_that_goes_from_specific_to_related_stays_in_the_mask() -> None:
    before = torch.tensor([[[True, False]]])
    after = torch.tensor([[[True, True]]])
    flow = language_flow(before, after, languages=("en", "es"))
    assert flow.columns() == {
        "layer": [0] * 6,
        "language": ["en"] * 3 + ["es"] * 3,
        "set": ["specific", "related", "mask"] * 2,
        "before": [1, 0, 1, 0, 0, 0],
        "after": [0, 1, 1, 0, 1, 1],
        "kept": [0, 0, 1, 0, 0, 0],
        "gained": [0, 1, 0, 0, 1, 1],
        "lost": [1, 0, 0, 0, 0, 0],
    }


def test_classes_from_counts_are_not_compared_with_those_of_a_mask_alone() -> None:
    with pytest.raises(IncompatibleError, match="a mask alone"):
        class_flow(members_of([[1]], [[1]]), mask_members(torch.ones(1, 1, 3, dtype=torch.bool)))


def test_means_over_trained_and_other_languages() -> None:
    counts = torch.tensor([[1, 10], [2, 20], [6, 60]])
    means = group_means(counts, languages=CODES, classes=("specific", "related"), groups=trained_groups(CODES, ["sw"]))
    assert means.columns() == {
        "group": ["trained", "untrained"],
        "languages": ["sw", "en+es"],
        "specific": [6.0, 1.5],
        "related": [60.0, 15.0],
    }
    english = group_means(counts, languages=CODES, classes=("specific", "related"), groups=english_groups(CODES))
    assert english.means.tolist() == [[1.0, 10.0], [4.0, 40.0]]
    everything = trained_groups(CODES, CODES)
    assert list(group_means(counts, languages=CODES, classes=("a", "b"), groups=everything).groups) == ["trained"]


def test_a_trained_language_that_is_not_compared_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"--trained names bn.*en, es, sw"):
        trained_groups(CODES, ["en", "bn"])


def test_a_path_over_checkpoints_is_their_profiles_side_by_side() -> None:
    masks = [random_mask(seed) for seed in range(3)]
    members = [mask_members(mask) for mask in masks]
    profiles = [class_profile(one) for one in members]
    languages = [language_profile(mask, members=one, languages=CODES) for mask, one in zip(masks, members, strict=True)]
    path = training_path(("base", "200", "400"), profiles, languages)
    assert path.totals.tolist() == [list(profile.totals().values()) for profile in profiles]
    assert path.columns()["model"] == ["base"] * 2 + ["200"] * 2 + ["400"] * 2
    assert torch.equal(path.per_language[1], languages[1].per_language)

"""Classes, overlap and sharing: counted by hand, and properties that any mask has."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from language_neurons_alignment.core.profiles import (
    class_members,
    class_profile,
    count_languages_above,
    language_overlap,
    language_profile,
    language_sets,
    mask_members,
)
from language_neurons_alignment.core.selection import appear, classify

CODES = ("en", "es", "sw")

# two layers of four neurons; selected: all but (0, 3) and (1, 0)
MEMBER = torch.tensor(
    [
        [[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 1]],
        [[1, 1, 1], [0, 0, 1], [1, 1, 0], [0, 1, 1]],
    ],
    dtype=torch.bool,
)
SELECTED = torch.tensor([[True, True, True, False], [False, True, True, True]])
MASK = MEMBER & SELECTED.unsqueeze(-1)


def a_mask(seed: int, *, languages: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(3, 30, languages, generator=generator) > 0.8


def test_classes_per_layer_counted_by_hand() -> None:
    members = class_members(classify(MEMBER.sum(-1), SELECTED, languages=3))
    profile = class_profile(members)
    assert profile.columns() == {
        "layer": [0, 1],
        "specific": [1, 1],
        "related": [1, 2],
        "general": [1, 1],
        "unassigned": [1, 0],
    }
    assert profile.totals() == {"specific": 2, "related": 3, "general": 2, "unassigned": 1}
    assert profile.d_mlp == 4
    assert profile.to_frame().related.tolist() == [1, 2]


def test_classes_per_language_and_layer_counted_by_hand() -> None:
    members = class_members(classify(MEMBER.sum(-1), SELECTED, languages=3))
    profile = language_profile(MASK, members=members, languages=CODES)
    assert profile.columns() == {
        "layer": [0, 0, 0, 1, 1, 1],
        "language": ["en", "es", "sw", "en", "es", "sw"],
        "specific": [1, 0, 0, 0, 0, 1],
        "related": [1, 1, 0, 1, 2, 1],
    }
    assert profile.per_language.tolist() == [[1, 2], [0, 3], [1, 1]]


def test_of_a_mask_alone_the_classes_are_those_that_its_own_neurons_tell() -> None:
    members = mask_members(MASK)
    assert class_profile(members).totals() == {"specific": 2, "related": 3}
    assert torch.equal(
        language_profile(MASK, members=members, languages=CODES).per_language.sum(dim=1), MASK.sum(dim=(0, 1))
    )


def test_languages_above_add_up_to_all_neurons_and_to_appear() -> None:
    found = count_languages_above(MEMBER.sum(-1), SELECTED, languages=3)
    assert found.all.tolist() == [[1, 1, 1, 1], [0, 1, 2, 1]]
    assert found.selected.tolist() == [[1, 1, 1, 0], [0, 1, 2, 0]]
    assert found.selected.sum(0).tolist() == appear(MEMBER.sum(-1), SELECTED, languages=3).tolist()
    assert found.columns()["languages"] == [0, 1, 2, 3, 0, 1, 2, 3]


def test_overlap_counted_by_hand() -> None:
    found = language_overlap(MASK, languages=CODES)
    assert found.counts.tolist() == [[3, 2, 0], [2, 3, 1], [0, 1, 2]]
    assert found.jaccard.tolist() == [[1.0, 0.5, 0.0], [0.5, 1.0, 0.25], [0.0, 0.25, 1.0]]


def test_two_empty_masks_have_no_jaccard() -> None:
    found = language_overlap(torch.zeros(1, 2, 2, dtype=torch.bool), languages=("en", "es"))
    assert found.counts.tolist() == [[0, 0], [0, 0]]
    assert bool(found.jaccard.isnan().all())


@given(st.integers(0, 10_000))
def test_overlap_is_symmetric_and_within_its_masks(seed: int) -> None:
    mask = a_mask(seed)
    found = language_overlap(mask, languages=("a", "b", "c", "d"))
    sizes = mask.sum(dim=(0, 1))
    assert torch.equal(found.counts, found.counts.T)
    assert torch.equal(found.counts.diagonal(), sizes)
    for a, b in combinations(range(4), 2):
        union = int((mask[..., a] | mask[..., b]).sum())
        assert found.jaccard[a, b] == int((mask[..., a] & mask[..., b]).sum()) / union


def test_sets_of_languages_counted_by_hand_the_most_common_first() -> None:
    found = language_sets(MASK, languages=CODES)
    assert found.columns() == {
        "languages": ["en+es", "en", "sw", "es+sw"],
        "size": [2, 1, 1, 2],
        "neurons": [2, 1, 1, 1],
    }
    assert found.histogram.tolist() == [0, 2, 3, 0]


@given(st.integers(0, 10_000))
def test_every_neuron_of_a_mask_serves_exactly_one_set(seed: int) -> None:
    mask = a_mask(seed)
    found = language_sets(mask, languages=("a", "b", "c", "d"))
    assert int(found.counts.sum()) == int(mask.any(-1).sum())
    assert found.counts.tolist() == sorted(found.counts.tolist(), reverse=True)
    assert torch.equal(found.sets.T.long() @ found.counts, mask.sum(dim=(0, 1)))
    members = mask_members(mask)
    assert int(found.histogram[1]) == int(members["specific"].sum())
    assert int(found.histogram[2:].sum()) == int(members["related"].sum())


@pytest.mark.parametrize("languages", [2, 21])
def test_an_empty_mask_has_no_sets(languages: int) -> None:
    found = language_sets(torch.zeros(2, 3, languages, dtype=torch.bool), languages=[str(k) for k in range(languages)])
    assert found.columns() == {"languages": [], "size": [], "neurons": []}
    assert found.histogram.tolist() == [0] * (languages + 1)

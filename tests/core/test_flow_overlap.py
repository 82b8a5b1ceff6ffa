"""Two corpora's masks, against counting by hand."""

from __future__ import annotations

import torch

from language_neurons_alignment.core.flow import corpus_overlap


def mask(*rows: str) -> torch.Tensor:
    return torch.tensor([[letter == "x" for letter in row] for row in rows]).unsqueeze(0)


def test_the_overlap_is_what_one_counts_by_hand() -> None:
    one = mask("x.", "x.", "xx", ".x", "..")
    other = mask("x.", "xx", "xx", "..", ".x")
    found = corpus_overlap(one, other, languages=("en", "sw"))
    rows = {(code, kind): numbers for code, kind, *numbers in zip(*found.values(), strict=True)}
    assert rows["en", "specific"] == [2, 1, 1, 1 / 2, 1.0, 1 / 2]
    assert rows["en", "related"] == [1, 2, 1, 1.0, 1.0, 1 / 2]
    assert rows["en", "mask"] == [3, 3, 3, 1.0, 1.0, 1.0]
    assert rows["sw", "specific"] == [1, 1, 0, 0.0, 0.0, 0.0]
    assert rows["mean", "specific"] == [1.5, 1.0, 0.5, 0.25, 0.5, 0.25]
    assert rows["all", "specific"] == [3, 2, 1, 1 / 3, 1 / 2, 1 / 4]
    assert rows["all", "related"] == [1, 2, 1, 1.0, 1.0, 1 / 2]
    assert rows["all", "mask"] == [4, 4, 3, 3 / 4, 3 / 4, 3 / 5]

"""Precision, recall and F1 of the damage, by hand."""

import pytest
import torch

from language_neurons_alignment.core.effects import selectivity
from language_neurons_alignment.errors import IncompatibleError

BASE = torch.tensor([0.8, 0.5, 0.0], dtype=torch.float64)
AFTER = torch.tensor([[0.2, 0.3, 0.0], [0.9, 0.5, 0.0], [0.8, 0.5, 0.0]], dtype=torch.float64)


def test_by_hand() -> None:
    """The first loses 0.6 of 0.8 and takes 0.2 along; the second loses nothing; the third had nothing."""
    found = selectivity(BASE, AFTER)
    assert found.precision.tolist() == pytest.approx([0.75, 0.0, 0.0])
    assert found.recall.tolist() == pytest.approx([0.75, 0.0, 0.0])
    assert found.f1.tolist() == pytest.approx([0.75, 0.0, 0.0])


def test_draws_are_taken_one_by_one() -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.rand(7, 4, dtype=torch.float64, generator=generator)
    after = torch.rand(7, 4, 4, dtype=torch.float64, generator=generator)
    together = selectivity(base, after)
    for draw in range(7):
        assert torch.equal(together.f1[draw], selectivity(base[draw], after[draw]).f1)


def test_rows_must_be_the_languages() -> None:
    with pytest.raises(IncompatibleError, match="3 languages"):
        selectivity(BASE, AFTER[:2])

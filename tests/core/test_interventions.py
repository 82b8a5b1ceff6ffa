"""Affine interventions: identity, composition, zero."""

import pytest
import torch

from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.errors import IncompatibleError


def apply(intervention: Intervention, activation: torch.Tensor) -> torch.Tensor:
    """[token, layer, neuron] → the same, each layer changed."""
    changed = activation.clone()
    for layer in intervention.layers:
        changed[:, layer] = intervention.layer(layer).apply_(changed[:, layer].clone())
    return changed


def random_intervention(seed: int) -> Intervention:
    generator = torch.Generator().manual_seed(seed)
    touched = torch.rand(3, 8, generator=generator) < 0.5
    scale = torch.where(touched, torch.randint(0, 4, (3, 8), generator=generator).float(), 1.0)
    shift = torch.where(touched, torch.randint(-2, 3, (3, 8), generator=generator).float(), 0.0)
    return Intervention(scale, shift)


def test_the_identity_touches_nothing() -> None:
    identity = Intervention.identity(3, 8)
    assert identity.layers == []
    assert not identity.touched.any()


def test_zero_sets_exactly_the_chosen_neurons_to_0_and_leaves_the_others_bit_for_bit() -> None:
    chosen = torch.rand(3, 8) < 0.4
    activation = torch.randn(5, 3, 8)
    changed = apply(Intervention.zero(chosen), activation)
    assert torch.equal(changed, activation.masked_fill(chosen, 0.0))


def test_zero_holds_for_activations_that_are_not_finite() -> None:
    chosen = torch.ones(1, 3, dtype=torch.bool)
    activation = torch.tensor([[[float("inf"), float("-inf"), float("nan")]]])
    assert torch.equal(apply(Intervention.zero(chosen), activation), torch.zeros(1, 1, 3))


@pytest.mark.parametrize("seed", range(5))
def test_one_after_the_other_is_the_composition(seed: int) -> None:
    first, second = random_intervention(seed), random_intervention(seed + 100)
    activation = torch.randint(-4, 5, (6, 3, 8)).float()  # small integers: exact in any order
    assert torch.equal(apply(first.then(second), activation), apply(second, apply(first, activation)))


def test_zero_is_positive_zero_whatever_was_there() -> None:
    activation = torch.tensor([[[-0.0, 0.0, -3.0]]])
    for scale in (0.0, -0.0):
        changed = apply(Intervention.on(torch.ones(1, 3, dtype=torch.bool), scale=scale), activation)
        assert not changed.signbit().any()
        assert not changed.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_map_is_computed_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    activation = torch.randn(50, 1, 4, generator=torch.Generator().manual_seed(3)).to(dtype)
    chosen = torch.tensor([[True, True, True, False]])
    shift = torch.tensor([[0.0, 0.1, 0.003, 5.0]])
    for scale in (1.003, 0.1, 0.0, 1.0):
        changed = apply(Intervention.on(chosen, scale=scale, shift=shift), activation)
        exact = activation.double() * torch.tensor(scale).double() + shift.double()
        assert changed.dtype == dtype
        assert torch.equal(changed, torch.where(chosen, exact.float().to(dtype), activation))
    assert not torch.equal(apply(Intervention.on(chosen, scale=1.003), activation), activation)


def test_zero_after_anything_is_zero() -> None:
    chosen = torch.ones(3, 8, dtype=torch.bool)
    both = random_intervention(1).then(Intervention.zero(chosen))
    assert torch.equal(apply(both, torch.randn(4, 3, 8)), torch.zeros(4, 3, 8))


def test_interventions_on_models_of_different_shapes_do_not_combine() -> None:
    with pytest.raises(IncompatibleError, match=r"\(3, 8\) and \(2, 8\)"):
        Intervention.identity(3, 8).then(Intervention.identity(2, 8))

"""Matched controls: as many per layer, as active, none of them what they are a control for."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from language_neurons_alignment.core.interventions import NEAREST, matched_controls
from language_neurons_alignment.core.routing import Experts
from language_neurons_alignment.errors import SettingsError


@given(seed=st.integers(0, 10_000), share=st.floats(0.01, 0.3), by_activity=st.booleans())
def test_as_many_in_each_layer_and_all_eligible(seed: int, share: float, by_activity: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    neurons = torch.rand(3, 90, generator=generator) < share
    eligible = torch.rand(3, 90, generator=generator) < 0.9
    activity = torch.rand(3, 90, generator=generator) if by_activity else None
    if (((eligible & ~neurons).sum(dim=1) < neurons.sum(dim=1)) & neurons.any(dim=1)).any():
        return
    drawn = matched_controls(neurons, activity=activity, eligible=eligible, seed=seed)
    assert torch.equal(drawn.sum(dim=1), neurons.sum(dim=1))
    assert not (drawn & neurons).any()
    assert not (drawn & ~eligible).any()
    assert torch.equal(drawn, matched_controls(neurons, activity=activity, eligible=eligible, seed=seed))


def test_controls_are_as_active_and_differ_by_seed() -> None:
    generator = torch.Generator().manual_seed(1)
    activity = torch.rand(2, 5000, generator=generator)
    neurons = torch.zeros(2, 5000, dtype=torch.bool)
    neurons[0, activity[0].argsort()[4000:4040]] = True  # more active than most
    eligible = torch.ones(2, 5000, dtype=torch.bool)
    one, other = (matched_controls(neurons, activity=activity, eligible=eligible, seed=seed) for seed in (0, 1))
    assert not torch.equal(one, other)
    own, drawn = activity[neurons].sort().values, activity[one].sort().values
    # the 40 taken are among the nearest 2 · NEAREST + 40 of 5,000 on either side
    assert float((own - drawn).abs().max()) < (2 * NEAREST + 80) / 5000
    assert not matched_controls(neurons, activity=None, eligible=eligible, seed=0)[1].any()


def test_every_eligible_neuron_of_the_layer_can_be_drawn_where_activity_does_not_tell() -> None:
    neurons = torch.zeros(1, 40, dtype=torch.bool)
    neurons[0, :2] = True
    eligible, level = torch.ones(1, 40, dtype=torch.bool), torch.zeros(1, 40)
    seen = sum(matched_controls(neurons, activity=level, eligible=eligible, seed=s).long() for s in range(400))
    assert int(seen[0, :2].sum()) == 0
    assert int(seen[0, 2:].min()) > 0


def test_a_layer_with_too_few_neurons_is_refused() -> None:
    neurons = torch.zeros(2, 10, dtype=torch.bool)
    neurons[1, :6] = True
    with pytest.raises(SettingsError, match="layer 1 has 4 neurons of no language, a control of 6"):
        matched_controls(neurons, activity=None, eligible=torch.ones(2, 10, dtype=torch.bool), seed=0)


def test_controls_of_an_expert_s_neurons_are_the_same_expert_s_where_it_has_enough() -> None:
    experts = Experts(layers=(0,), number=3, width=10, top_k=1)
    neurons = torch.zeros(2, 34, dtype=torch.bool)
    neurons[0, [0, 1, 12, *range(20, 26), 31]] = True  # 2, 1 and 6 of each expert, and 1 of the 4 shared ones
    neurons[1, 3] = True
    activity = torch.rand(2, 34, generator=torch.Generator().manual_seed(3))
    for level, seed in ((activity, 0), (activity, 1), (None, 2)):
        eligible = torch.ones(2, 34, dtype=torch.bool)
        drawn = matched_controls(neurons, activity=level, eligible=eligible, seed=seed, experts=experts)
        assert not (drawn & neurons).any()
        owners = experts.expert_of(drawn[0].nonzero().flatten()).bincount(minlength=4).tolist()
        assert sum(owners) == 10
        assert owners[0] >= 2
        assert owners[1] >= 1
        assert owners[3] >= 1
        assert owners[2] <= 4, "the third expert has 4 neurons to give, so its six come from the layer"
        assert int(drawn[1].sum()) == 1

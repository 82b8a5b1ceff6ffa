"""Interventions on neurons while a model runs, and the random neurons that serve as controls of an intervention."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from ..errors import IncompatibleError, SettingsError
from .routing import Experts


@dataclass(frozen=True)
class Intervention:
    """Replace each activation a[l, i] by scale[l, i] · a[l, i] + shift[l, i], in every layer, for every token.

    `scale = 1, shift = 0` leaves a neuron unchanged; `scale = 0` sets it to `shift`, even if it was not finite. Affine
    maps compose, so several interventions in a given order are one. The map is computed in float32 and rounded once to
    the precision of the activations. In a mixture of experts, the activations are those of the tokens that were sent to
    the neuron's expert, and `router` is added to the routers' logits before they choose: −∞ bans an expert.

    >>> neurons = torch.tensor([[True, False, False]])
    >>> both = Intervention.zero(neurons).then(Intervention.on(neurons, shift=0.5))
    >>> both.layer(0).apply_(torch.tensor([[2.0, 3.0, -1.0]])).tolist()
    [[0.5, 3.0, -1.0]]
    """

    scale: Float32[Tensor, "layer neuron"]
    shift: Float32[Tensor, "layer neuron"]
    router: Float32[Tensor, "layer expert"] | None = None

    @classmethod
    def identity(cls, layers: int, d_mlp: int) -> Intervention:
        """Changes nothing."""
        return cls(torch.ones(layers, d_mlp), torch.zeros(layers, d_mlp))

    @classmethod
    def on(
        cls,
        neurons: Bool[Tensor, "layer neuron"],
        *,
        scale: float = 1.0,
        shift: float | Float[Tensor, "layer neuron"] = 0.0,
    ) -> Intervention:
        """a ← scale · a + shift on `neurons`; `shift` is one number or a value for each neuron."""
        factor, summand = (torch.as_tensor(one, dtype=torch.float32) for one in (scale, shift))
        return cls(torch.where(neurons, factor, 1.0), torch.where(neurons, summand, 0.0))

    @classmethod
    def zero(cls, neurons: Bool[Tensor, "layer neuron"]) -> Intervention:
        """Deactivate: set the activations of `neurons` to 0."""
        return cls.on(neurons, scale=0.0)

    def then(self, after: Intervention) -> Intervention:
        """This intervention, followed by `after`.

            after(self(a)) = (s₂ s₁) a + (s₂ b₁ + b₂)

        What both add to the routers adds up. IncompatibleError if the interventions are for models of different shapes.
        """
        if self.scale.shape != after.scale.shape:
            raise IncompatibleError(
                f"interventions on models of different shapes cannot be combined: "
                f"{tuple(self.scale.shape)} and {tuple(after.scale.shape)} (layers, d_mlp)"
            )
        routers = [one.router for one in (self, after) if one.router is not None]
        router = sum(routers[1:], routers[0]) if routers else None
        return Intervention(after.scale * self.scale, after.scale * self.shift + after.shift, router)

    @cached_property
    def touched(self) -> Bool[Tensor, "layer neuron"]:
        """The neurons that this intervention changes."""
        return (self.scale != 1) | (self.shift != 0)

    @property
    def layers(self) -> list[int]:
        """The layers in which it changes a neuron."""
        return self.touched.any(dim=1).nonzero().flatten().tolist()

    def layer(self, layer: int) -> LayerIntervention:
        """Its part in one layer."""
        neurons = self.touched[layer].nonzero().flatten()
        return LayerIntervention(neurons, self.scale[layer, neurons], self.shift[layer, neurons])


@dataclass(frozen=True)
class LayerIntervention:
    """An intervention in one layer, on the neurons that it changes."""

    neurons: Int64[Tensor, " touched"]
    scale: Float[Tensor, " touched"]
    shift: Float[Tensor, " touched"]

    def within(self, start: int, stop: int) -> LayerIntervention:
        """Its part on the neurons from `start` to `stop`, counted from `start`."""
        inside = (self.neurons >= start) & (self.neurons < stop)
        return LayerIntervention(self.neurons[inside] - start, self.scale[inside], self.shift[inside])

    def to(self, device: torch.device) -> LayerIntervention:
        """The same on another device."""
        return LayerIntervention(self.neurons.to(device), self.scale.to(device), self.shift.to(device))

    def apply_(self, activation: Tensor) -> Tensor:
        """Change an activation tensor [..., neuron] in place, and return it."""
        before = activation[..., self.neurons]
        after = torch.where(self.scale == 0, self.shift, before * self.scale + self.shift)
        activation[..., self.neurons] = after.to(activation.dtype)
        return activation


NEAREST = 20  # a control neuron is drawn from this many eligible neurons of nearest activity


def matched_controls(
    neurons: Bool[Tensor, "layer neuron"],
    *,
    activity: Float[Tensor, "layer neuron"] | None,
    eligible: Bool[Tensor, "layer neuron"],
    seed: int,
    experts: Experts | None = None,
) -> Bool[Tensor, "layer neuron"]:
    """Random neurons to compare `neurons` with: as many in each layer, and about as active.

    In random order, each of `neurons` gets one of the `NEAREST` free eligible neurons of its layer whose activity, such
    as the mean activation probability, is nearest to its own. Without activity, only the layer is matched. `neurons`
    themselves are never drawn; SettingsError if a layer has fewer eligible neurons than needed. In a mixture of
    `experts`, those of an expert get neurons of the same expert, or of the layer where the expert has too few.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.zeros_like(neurons)
    for layer in neurons.any(dim=1).nonzero().flatten().tolist():
        wanted = neurons[layer].nonzero().flatten()
        pool = (eligible[layer] & ~neurons[layer]).nonzero().flatten()
        if len(pool) < len(wanted):
            raise SettingsError(
                f"layer {layer} has {len(pool)} neurons of no language, a control of {len(wanted)} needs as many: "
                "choose fewer neurons (-r, --classes), or leave controls out (--controls 0)"
            )
        known = None if activity is None else activity[layer].double()
        of_layer = experts if experts is not None and layer in experts.layers else None
        for some in _by_expert(wanted, pool, of_layer):
            left = pool[~drawn[layer, pool]]
            inside = left if of_layer is None else left[of_layer.expert_of(left) == of_layer.expert_of(some[:1])]
            drawn[layer, _draw(some, inside if len(inside) >= len(some) else left, known, generator)] = True
    return drawn


def _by_expert(
    wanted: Int64[Tensor, " wanted"], pool: Int64[Tensor, " pool"], experts: Experts | None
) -> list[Int64[Tensor, " some"]]:
    """The wanted neurons of each expert, those last whose expert has too few of the pool."""
    if experts is None:
        return [wanted]
    owner, free = experts.expert_of(wanted), torch.bincount(experts.expert_of(pool), minlength=experts.number + 1)
    groups = [wanted[owner == expert] for expert in owner.unique().tolist()]
    return sorted(groups, key=lambda some: len(some) > int(free[int(experts.expert_of(some[:1]))]))


def _draw(wanted: Tensor, pool: Tensor, activity: Tensor | None, generator: torch.Generator) -> Tensor:
    """As many of `pool` as wanted, each near in activity to one of the wanted."""
    if activity is None:
        return pool[torch.randperm(len(pool), generator=generator)[: len(wanted)]]
    order = torch.randperm(len(pool), generator=generator)  # breaks ties at random instead of by index
    pool = pool[order[activity[pool[order]].argsort(stable=True)]]
    levels, free, taken = activity[pool], torch.ones(len(pool), dtype=torch.bool), []
    for neuron in wanted[torch.randperm(len(wanted), generator=generator)].tolist():
        at = int(torch.searchsorted(levels, activity[neuron]))
        places = free.nonzero().flatten()
        middle = int(torch.searchsorted(places, at))
        near = places[max(0, middle - NEAREST) : middle + NEAREST]
        distance = (levels[near] - activity[neuron]).abs()
        near = near[distance.argsort(stable=True)[:NEAREST]]
        chosen = int(near[torch.randint(len(near), (1,), generator=generator)])
        free[chosen] = False
        taken.append(chosen)
    return pool[torch.tensor(taken)]

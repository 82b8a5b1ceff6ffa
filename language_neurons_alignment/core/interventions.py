"""What can be done to neurons while a model runs: one kind of intervention, an affine map of activations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from ..errors import IncompatibleError


@dataclass(frozen=True)
class Intervention:
    """Replace each activation a[l, i] by scale[l, i] · a[l, i] + shift[l, i], in every layer, for every token.

    `scale = 1, shift = 0` leaves a neuron alone; `scale = 0` sets it to `shift` whatever it was (also where it was
    not finite). Affine maps compose to affine maps, so several interventions in a stated order are one. The map is
    computed in float32 and rounded once, to the precision of the activations: under bfloat16 a value that neurons are
    set to is the nearest bfloat16, and a factor is not rounded at all.

    Attributes:
        scale: factor per neuron.
        shift: what is added per neuron.
    """

    scale: Float32[Tensor, "layer neuron"]
    shift: Float32[Tensor, "layer neuron"]

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
        """a ← scale · a + shift on `neurons`, of a number or of each neuron's own; the others are left alone."""
        factor, summand = (torch.as_tensor(one, dtype=torch.float32) for one in (scale, shift))
        return cls(torch.where(neurons, factor, 1.0), torch.where(neurons, summand, 0.0))

    @classmethod
    def zero(cls, neurons: Bool[Tensor, "layer neuron"]) -> Intervention:
        """Deactivate: set the activations of `neurons` to 0 (SPEC 6)."""
        return cls.on(neurons, scale=0.0)

    def then(self, after: Intervention) -> Intervention:
        """This intervention, and `after` on its result.

        after(self(a)) = (s₂ s₁) a + (s₂ b₁ + b₂)
        """
        if self.scale.shape != after.scale.shape:
            raise IncompatibleError(
                f"interventions on models of different shapes cannot be combined: "
                f"{tuple(self.scale.shape)} and {tuple(after.scale.shape)} (layers, d_mlp)"
            )
        return Intervention(after.scale * self.scale, after.scale * self.shift + after.shift)

    @cached_property
    def touched(self) -> Bool[Tensor, "layer neuron"]:
        """The neurons that this intervention changes."""
        return (self.scale != 1) | (self.shift != 0)

    @property
    def layers(self) -> list[int]:
        """The layers in which it changes something."""
        return self.touched.any(dim=1).nonzero().flatten().tolist()

    def layer(self, layer: int) -> LayerIntervention:
        """The part that acts in one layer."""
        neurons = self.touched[layer].nonzero().flatten()
        return LayerIntervention(neurons, self.scale[layer, neurons], self.shift[layer, neurons])


@dataclass(frozen=True)
class LayerIntervention:
    """An intervention in one layer, on the neurons that it touches."""

    neurons: Int64[Tensor, " touched"]
    scale: Float[Tensor, " touched"]
    shift: Float[Tensor, " touched"]

    def to(self, device: torch.device) -> LayerIntervention:
        """The same, where the activations are."""
        return LayerIntervention(self.neurons.to(device), self.scale.to(device), self.shift.to(device))

    def apply_(self, activation: Tensor) -> Tensor:
        """Change an activation tensor of shape [..., neuron] in place, and return it."""
        before = activation[..., self.neurons]
        after = torch.where(self.scale == 0, self.shift, before * self.scale + self.shift)
        activation[..., self.neurons] = after.to(activation.dtype)
        return activation

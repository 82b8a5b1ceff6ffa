"""A worker for the tests: it masks neurons in another way than ours, and can be made one whose MLPs are fused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from language_neurons_alignment.engines.vllm.worker import NeuronWorker


class WorkerByHand(NeuronWorker):
    """Ours, and two methods more."""

    _masked: Sequence[Any] = ()

    def mask_by_hand(self, places: Mapping[int, Sequence[int]]) -> None:
        """From now on the down projections read 0 in the place of these neurons, by layer; of no others."""
        for handle in self._masked:
            handle.remove()
        self._masked = [
            self._mlp(layer).down_proj.register_forward_pre_hook(_filled(neurons)) for layer, neurons in places.items()
        ]

    def fuse(self, fused: bool) -> None:
        """From now on the MLPs never call their activation module, as a fused kernel would not; or they do again."""
        for layer in range(len(self.lna_rank.sites)):
            mlp = self._mlp(layer)
            mlp.__dict__.pop("forward", None)
            if fused:
                mlp.forward = lambda x, mlp=mlp: mlp.down_proj(mlp.act_fn.forward(mlp.gate_up_proj(x)[0]))[0]

    def _mlp(self, layer: int) -> Any:
        return self.model_runner.get_model().model.layers[layer].mlp


def _filled(neurons: Sequence[int]) -> Any:
    def fill(_module: object, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        off = torch.zeros(inputs[0].shape[-1], dtype=torch.bool)
        off[list(neurons)] = True
        return (inputs[0].masked_fill(off, 0.0), *inputs[1:])

    return fill

"""A worker as a fused kernel would make it: the MLPs never call their activation module."""

from __future__ import annotations

from language_neurons_alignment.engines.vllm.wire import Message
from language_neurons_alignment.engines.vllm.worker import NeuronWorker


class BypassingWorker(NeuronWorker):
    def lna_attach(self, model_type: str, d_mlp: int) -> Message:
        report = super().lna_attach(model_type, d_mlp)
        for site in self.lna_rank.sites:
            mlp = site.block.mlp
            mlp.forward = lambda x, mlp=mlp: mlp.down_proj(mlp.act_fn.forward(mlp.gate_up_proj(x)[0]))[0]
        return report

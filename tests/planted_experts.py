"""A tiny Mixtral that sends language k to expert k, whose chosen neurons fire on every token that it gets.

It speaks the words of `tests.planted`, by the same embeddings and the same lm_head. In every layer, the router's row k
reads the direction of language k, and its last row reads what all words have in common, so that the last expert gets
the tokens of no language, and those of a language whose expert is banned. Each expert of a language has three neurons
that fire on every token and write the direction in which the lm_head reads the language; all others never fire.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import MixtralConfig, MixtralForCausalLM

from tests import planted
from tests.planted import LANGUAGES, LAYERS, planted_tokenizer
from tests.tiny_models import save_quietly

WIDTH, CHOSEN, EXPERTS = 16, 3, len(LANGUAGES) + 1


@dataclass(frozen=True)
class PlantedExperts:
    """The model on disk; (layer, expert) → the neurons within the expert that fire."""

    folder: Path
    chosen: dict[tuple[int, int], list[int]]

    @classmethod
    def save(cls, folder: Path, *, seed: int = 0) -> PlantedExperts:
        """Make the model in `folder`."""
        draw = random.Random(seed)
        places = [(layer, expert) for layer in range(LAYERS) for expert in range(len(LANGUAGES))]
        truth = cls(folder, {place: sorted(draw.sample(range(WIDTH), CHOSEN)) for place in places})
        save_quietly(_network(truth), folder)
        planted_tokenizer().save_pretrained(folder)
        return truth

    def belonging(self, language: str) -> Bool[Tensor, "layer neuron"]:
        """The neurons of a language, by the flat index expert · width + index."""
        mask, expert = torch.zeros(LAYERS, EXPERTS * WIDTH, dtype=torch.bool), LANGUAGES.index(language)
        for layer in range(LAYERS):
            for index in self.chosen[layer, expert]:
                mask[layer, expert * WIDTH + index] = True
        return mask


def _network(truth: PlantedExperts) -> MixtralForCausalLM:
    config = MixtralConfig(**planted.SIZES, intermediate_size=WIDTH, num_local_experts=EXPERTS, num_experts_per_tok=1)
    network = MixtralForCausalLM(config).float()
    with torch.no_grad():
        network.model.embed_tokens.weight.copy_(planted._embedding())
        network.lm_head.weight.copy_(planted._head())
        for index, layer in enumerate(network.model.layers):
            layer.self_attn.o_proj.weight.zero_()
            router, experts = layer.mlp.gate.weight.zero_(), layer.mlp.experts
            router[-1, planted._COMMON] = 1.0
            gate, up = experts.gate_up_proj.zero_()[:, :WIDTH], experts.gate_up_proj[:, WIDTH:]
            gate[..., planted._COMMON] = -2.0
            up[..., planted._COMMON] = 1 / 8
            down = experts.down_proj.zero_()
            for expert, language in enumerate(LANGUAGES):
                router[expert, planted._LANGUAGE[language]] = 2.0
                some = truth.chosen[index, expert]
                gate[expert, some, planted._COMMON] = 2.0
                down[expert, planted._SPEAK[language], some] = 2 / (LAYERS * CHOSEN * 16)
    return network

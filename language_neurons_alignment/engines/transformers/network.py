"""A loaded model, taken apart into what counting and scoring need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from ...errors import EngineError
from ..describe import rope_switch
from ..sites import NeuronSite, architecture_of, find_sites
from .hooks import Interventions


class Passing(DynamicLayer):
    """One layer of a KV cache that keeps nothing.

    Given no cache, the library looks in each forward whether several texts were packed into one row, and the host
    waits for the device to know. Given one it does not look; and one that keeps nothing costs nothing.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_more: object
    ) -> tuple[Tensor, Tensor]:
        """The keys and values of this forward alone."""
        return key_states, value_states


@dataclass(frozen=True)
class Head:
    """What turns a decoder's output into logits.

    Attributes:
        projection: the model's lm_head.
        softcap: c in c · tanh(logits / c), where the model has one (Gemma 2).
    """

    projection: nn.Module
    softcap: float | None = None

    @property
    def vocabulary(self) -> int:
        """How many logits a token has."""
        weight = self.projection.weight
        return int(weight.shape[0]) if isinstance(weight, Tensor) else 1

    def __call__(self, hidden: Tensor) -> Float32[Tensor, "token vocabulary"]:
        """Logits in float32, of hidden states [token, hidden]."""
        logits = self.projection(hidden).float()
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


@dataclass(frozen=True)
class Network:
    """A model's parts.

    Attributes:
        model: all of it, which generates.
        decoder: the model without its lm_head.
        sites: where its neurons are, layer by layer.
        head: its lm_head.
        device: where it is.
        switch: sequences of more tokens than this are computed differently from their first token on (`rope_switch`).
        interventions: what is done to its neurons.
    """

    model: PreTrainedModel
    decoder: nn.Module
    sites: tuple[NeuronSite, ...]
    head: Head
    device: torch.device
    switch: int | None
    interventions: Interventions

    @classmethod
    def of(cls, model: PreTrainedModel) -> Network:
        """Take a model apart.

        Raises:
            UnknownArchitectureError: it is not built as its architecture's name promises.
            EngineError: it has no lm_head.
        """
        decoder, lm_head = model.get_decoder(), model.get_output_embeddings()
        if lm_head is None:
            raise EngineError(f"{type(model).__name__} has no lm_head: it is no causal language model")
        sites = find_sites(decoder, architecture_of(model.config))
        return cls(
            model,
            decoder,
            sites,
            Head(lm_head, getattr(model.config, "final_logit_softcapping", None)),
            model.device,
            rope_switch(model.config.get_text_config()),
            Interventions(decoder, sites),
        )

    @property
    def vocabulary(self) -> int:
        """How many tokens it can read."""
        return int(self.decoder.get_input_embeddings().weight.shape[0])  # pyright: ignore[reportCallIssue]

    @property
    def shape(self) -> tuple[int, int]:
        """Layers, and neurons in each."""
        return len(self.sites), self.sites[0].d_mlp

    def run(self, tokens: Int64[Tensor, "row position"], *, cache: Any = None, keep_cache: bool = False) -> Any:
        """One forward of the decoder alone; neither a mask nor positions are passed.

        Every row stands at the same place, after the same number of cached tokens, and only its right end may be
        padding. No token attends to what stands on its right, so padding changes nothing in front of it.

        The cache is always ours, for the library's own choices wait for the device: none at all in each forward
        (`Passing`), and that of a sliding window in each layer. A cache of whole texts gives the same attention, for
        the masks know the window.
        """
        if cache is None:
            cache = Cache(layer_class_to_replicate=DynamicLayer if keep_cache else Passing)
        else:
            keep_cache = True
        return self.decoder(input_ids=tokens, past_key_values=cache, use_cache=keep_cache)

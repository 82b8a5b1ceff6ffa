"""A model that its caller made: it computes for us, and is left bit for bit as it was.

While the model works for us it is in evaluation mode, draws from no generator but ours, keeps no gradients, and its
experts compute by the forward that shows their activations (`experts`). Afterwards, also after an exception, all of
this is as before, and hooks of others were never touched. Gradients are off by `no_grad`: what a model keeps from a
forward in `inference_mode`, such as rescaled rotary frequencies, could not meet its caller's gradients later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import GenerationConfig, PreTrainedModel

from ...core.interventions import Intervention
from ...core.model import IN_MEMORY
from ...errors import EngineError, SettingsError
from .. import checkpoint
from .experts import left_as_they_were
from .network import Network

_SAMPLES = 64
"""Values of each tensor in the digest of a model's weights."""


def checked(model: Any, tokenizer: Any) -> tuple[PreTrainedModel, Any]:
    """A caller's model, out of peft's wrapper, and its tokenizer, loaded where only its place is given."""
    if hasattr(model, "get_base_model") and hasattr(model, "active_peft_config"):
        if model.active_peft_config.is_prompt_learning:
            raise SettingsError(
                f"{type(model).__name__} puts learned prompts in front of every text, which is not supported: give a "
                "LoRA, or the base model"
            )
        model = model.get_base_model()
    if not isinstance(model, PreTrainedModel):
        original = hasattr(model, "_orig_mod")
        raise SettingsError(
            f"lna.load takes the path or hub id of a model, or a model of the transformers library; got "
            f"{'a compiled one' if original else type(model).__name__}"
            f"{': give the model itself, compiled._orig_mod' if original else ''}"
        )
    if model.get_output_embeddings() is None or not hasattr(model, "generation_config"):
        raise SettingsError(
            f"{type(model).__name__} has no lm_head, so it is not a causal language model: give one that "
            "AutoModelForCausalLM loads"
        )
    if any(one.device.type == "meta" for one in model.parameters()):
        raise EngineError(
            f"some weights of {name_of(model)} are on no device (meta): load it without offloading to disk"
        )
    if tokenizer is None:
        raise SettingsError(
            "a model in memory brings no tokenizer: give tokenizer=AutoTokenizer.from_pretrained"
            f"({model.name_or_path or '…'!r}), or tokenizer= the path where it lies"
        )
    if isinstance(tokenizer, str | Path):
        tokenizer = checkpoint.load_tokenizer(checkpoint.expand(tokenizer), None)
    if not callable(getattr(tokenizer, "encode", None)) or not callable(getattr(tokenizer, "decode", None)):
        raise SettingsError(
            f"tokenizer= must be a tokenizer of the transformers library or where one lies; got "
            f"{type(tokenizer).__name__}, which cannot encode and decode"
        )
    return model, tokenizer


def name_of(model: PreTrainedModel) -> str:
    """What messages call a model: where it came from, or else its class."""
    return model.name_or_path or type(model).__name__


@contextmanager
def left_alone(model: PreTrainedModel) -> Iterator[None]:
    """The model in evaluation mode, without gradients; afterwards every module is in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    generation = model.generation_config
    try:
        with left_as_they_were(model), torch.no_grad():
            for module in training:
                module.training = False
            model.generation_config = GenerationConfig()  # its own would decide whatever we leave open
            yield
    finally:
        model.generation_config = generation
        for module in training:
            module.training = True


@contextmanager
def at_work(network: Network) -> Iterator[None]:
    """`left_alone`, with the experts open."""
    with left_alone(network.model):
        _open(network)
        yield


@contextmanager
def changed(network: Network, intervention: Intervention) -> Iterator[None]:
    """The model runs under an intervention, also where its caller runs it, in whatever mode it is in."""
    with left_as_they_were(network.model):
        _open(network)
        with network.interventions.on_top(intervention):
            yield


def _open(network: Network) -> None:
    for site in network.sites:
        if site.experts is not None:
            site.experts.open()


def weights_hash(model: PreTrainedModel) -> str:
    """A digest of a sample of every weight, as rounded to bfloat16, so that precision and device do not matter.

    For packed weights (GPTQ, AWQ, torchao), it covers the tensors of which they are made.
    """
    digest = hashlib.blake2b(digest_size=16)
    packed = (one for one in model.named_buffers() if one[0].endswith(("qweight", "qzeros", "scales")))
    for name, weight in (*model.named_parameters(), *packed):
        for part in _parts(weight.detach()):
            flat = part.flatten()
            some = flat[:: max(1, flat.numel() // _SAMPLES)]
            shown = some.to(torch.bfloat16).view(torch.int16) if some.is_floating_point() else some
            digest.update(f"{name}{tuple(part.shape)}".encode() + shown.cpu().numpy().tobytes())
    return IN_MEMORY + digest.hexdigest()


def _parts(weight: Any) -> list[Tensor]:
    """A tensor, or the plain ones that a wrapped one is made of."""
    if not is_traceable_wrapper_subclass(weight):
        return [weight]
    names, _ = weight.__tensor_flatten__()
    return [part for name in names for part in _parts(getattr(weight, name))]

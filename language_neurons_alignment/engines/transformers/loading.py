"""Loading a model's weights onto a device, with one-line errors and nothing printed."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel

from ...core.model import ModelInfo
from ...errors import EngineError, SettingsError
from ..checkpoint import explained, longest_sequence, rope_switch
from ..families import class_name
from .network import Network


def pick_device(name: str) -> torch.device:
    """The device of this name; "auto" is CUDA if there is one, else MPS, else the CPU."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"--device {name!r} is not a device: use auto, cpu, cuda, cuda:1 or mps") from error
    here = {"cpu": True, "cuda": cuda and (device.index or 0) < torch.cuda.device_count(), "mps": mps}
    if not here.get(device.type, False):
        raise SettingsError(
            f"--device {name}: there is no such device here (torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices, MPS: {'yes' if mps else 'no'}); use --device auto or cpu"
        )
    return device


def load_weights(
    path: str, *, config: PreTrainedConfig, dtype: torch.dtype | str, revision: str | None
) -> PreTrainedModel:
    """A model with its weights, every one of them from its files."""
    with explained("the weights", path):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            revision=revision,
            # Gemma 2 caps its attention scores. Only eager does it; the library's default (sdpa) silently does not.
            attn_implementation="eager" if getattr(config.get_text_config(), "attn_logit_softcapping", None) else None,
            trust_remote_code=False,
            output_loading_info=True,
        )
    model, info = loaded
    wrong = sorted(map(str, [*info["missing_keys"], *info.get("mismatched_keys", [])]))
    if wrong:
        raise EngineError(
            f"the weights at {path} are incomplete: {len(wrong)} are missing or have another shape ({wrong[0]}, …) and "
            "would have been random; download the model again"
        )
    model.generation_config = GenerationConfig()  # its own would decide whatever a caller leaves open
    return model.eval()


def describe(network: Network, *, path: str, tokenizer: Any, ends: tuple[int, ...] = ()) -> ModelInfo:
    """What is known of a loaded model."""
    model, (layers, d_mlp) = network.model, network.shape
    return ModelInfo(
        path=path,
        architecture=class_name(model.config) or type(model).__name__,
        layers=layers,
        d_mlp=d_mlp,
        max_length=longest_sequence(model.config.get_text_config(), tokenizer),
        dtype=str(model.dtype).removeprefix("torch."),
        end_tokens=ends,
        switch=rope_switch(model.config.get_text_config()),
        experts=network.experts,
    )


def move(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """A model on its device."""
    try:
        return model.to(device)  # pyright: ignore[reportArgumentType] - transformers wraps torch's signature
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        raise EngineError(
            f"the model does not fit into the memory of {device}: "
            "try --dtype bfloat16, another --device, or a smaller model"
        ) from error

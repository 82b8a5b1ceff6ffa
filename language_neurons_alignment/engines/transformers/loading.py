"""Loading a model's weights onto a device, with one-line errors and nothing printed."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Sequence
from typing import Any

import psutil
import torch
import transformers
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    GenerationConfig,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)

from ..._gguf import is_gguf
from ...core.model import ModelInfo
from ...core.widths import widths_of
from ...errors import EngineError, LNAWarning, SettingsError, UnknownArchitectureError
from .. import gguf
from ..checkpoint import explained, longest_sequence, rope_switch
from ..families import class_name
from ..quantization import check_all_read, loading_config, method_of, no_talk, whole_blocks, without_outliers
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


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; of main memory, what the system calls available."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by PyTorch, and in no tensor
    return torch.cuda.mem_get_info(device)[0] + held


ROOM = 0.8
"""The share of a GPU's free memory that one batch may take."""

FEWEST = 256
"""Tokens of the smallest batch that is chosen for a GPU: with less room than that, memory runs out."""


def batch_bytes(d_mlp: int, hidden: int, *, itemsize: int) -> int:
    """About how many bytes a token of a batch takes at most while it passes a layer.

    4 · d_mlp + 8 · hidden numbers: gate, up, their product and what counting makes of them; the residual stream, its
    norm, queries, keys, values and attention's output.

    >>> batch_bytes(14336, 4096, itemsize=2)  # Mistral-7B in bfloat16
    180224
    """
    return (4 * d_mlp + 8 * hidden) * itemsize


def cache_bytes(config: Any, layers: int, *, itemsize: int) -> int:
    """How many bytes the keys and values of one token take in these layers.

        2 · layers · key and value heads · head_dim · bytes of a number

    >>> from types import SimpleNamespace
    >>> cache_bytes(  # Mistral-7B in bfloat16
    ...     SimpleNamespace(num_attention_heads=32, num_key_value_heads=8, hidden_size=4096), 32, itemsize=2
    ... )
    131072
    """
    heads = int(config.num_attention_heads)
    head = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return 2 * layers * int(getattr(config, "num_key_value_heads", None) or heads) * head * itemsize


def halved_to_fit(most: int, *, room: int, token: int) -> int:
    """The largest of `most`, `most` / 2, `most` / 4, … tokens of `token` bytes each that fit the room; at least FEWEST.

    Only halves are tried, so that cards with about as much free memory use batches of one size, and round alike.

    >>> halved_to_fit(16384, room=10 * 2**20, token=2**10)
    8192
    """
    while most > max(room // token, FEWEST):
        most //= 2
    return most


def batch_that_fits(network: Network, most: int) -> int:
    """The largest of `most`, `most` / 2, `most` / 4, … tokens that fit a GPU's free memory; elsewhere `most`.

    A token takes `batch_bytes`, and twice its keys and values in all layers: those of a shared prompt, and their copy.
    Experts that read w x of every token (Llama 4) take x for each expert, times w, and what each gives.
    """
    if network.device.type != "cuda":
        return most
    text, experts = network.model.config.get_text_config(), network.experts
    d_mlp = network.shape[1] if experts is None else experts.top_k * experts.width
    itemsize = network.model.dtype.itemsize
    hidden = int(text.hidden_size)
    token = batch_bytes(d_mlp, hidden, itemsize=itemsize)
    if experts is not None and any(site.experts is not None and site.experts.weighted for site in network.sites):
        token += 3 * experts.number * hidden * itemsize
    token += 2 * cache_bytes(text, len(network.widths), itemsize=itemsize)
    return halved_to_fit(most, room=int(ROOM * free_memory(network.device)), token=token)


def auto_class(config: PreTrainedConfig) -> Any:
    """The class that loads such a model: a causal language model, of text alone or with images or sounds.

    The text part of a larger model, saved alone, is in no table of the library. It is loaded by the class that its
    config names, if the library has that class.

    UnknownArchitectureError for anything else, such as an encoder with a decoder (mT5).
    """
    for mapping, loader in (
        (MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM),
        (MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoModelForImageTextToText),
        (MODEL_FOR_MULTIMODAL_LM_MAPPING, AutoModelForMultimodalLM),
    ):
        if type(config) in mapping and not config.is_encoder_decoder:
            return loader
    named: Any = getattr(transformers, class_name(config) or "", None)
    writes = isinstance(named, type) and issubclass(named, PreTrainedModel) and issubclass(named, GenerationMixin)
    if writes and named.config_class is type(config) and not config.is_encoder_decoder:
        return named
    encodes = ": it has an encoder besides its decoder" if config.is_encoder_decoder else ""
    raise UnknownArchitectureError(
        f"{class_name(config) or type(config).__name__} (model_type {config.model_type!r}) is not a causal language "
        f"model, neither of text alone nor of text with images or sounds{encodes}; give a model that is one"
    )


def load_weights(
    path: str,
    *,
    config: PreTrainedConfig,
    dtype: torch.dtype | str,
    revision: str | None,
    device: torch.device | None = None,
    quantization: str | None = None,
) -> PreTrainedModel:
    """A model with its weights, every one of them from its files; quantised ones are on their device already."""
    method = method_of(config)
    quantized = quantization is not None or method is not None
    more: dict[str, Any] = {"device_map": {"": device}} if quantized and device is not None else {}
    if (told := loading_config(config, quantization)) is not None:
        more["quantization_config"] = told
    if "bitsandbytes" in (quantization or method or ""):
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it repeats itself in every matrix and forward
    kind, in_a_file = auto_class(config), is_gguf(path)
    reading = gguf.quick_reader() if in_a_file else whole_blocks(method)
    remedy = _REMEDY if quantized else None
    with explained("the weights", path, remedy=remedy), reading, no_talk(method), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You passed `quantization_config`")  # of a checkpoint that has its own
        loaded: Any = kind.from_pretrained(
            **(gguf.arguments(path) if in_a_file else {"pretrained_model_name_or_path": path}),
            config=without_outliers(config),
            dtype=torch.float32 if in_a_file and dtype == "auto" else dtype,  # what dequantising gives
            revision=revision,
            # Gemma 2 caps its attention scores. Only eager does it; the library's default (sdpa) silently does not.
            attn_implementation="eager" if getattr(config.get_text_config(), "attn_logit_softcapping", None) else None,
            trust_remote_code=False,
            output_loading_info=True,
            **more,
        )
    model, info = loaded
    check_all_read(path, info.get("unexpected_keys") or (), method=quantization or method)
    wrong = sorted(map(str, [*info["missing_keys"], *info.get("mismatched_keys", [])]))
    if wrong:
        raise EngineError(
            f"the weights at {path} are incomplete: {len(wrong)} are missing or have another shape ({wrong[0]}, …) and "
            "would have been random; download the model again"
        )
    _note_untied(model, path)
    if method in ("mxfp4", "compressed-tensors"):
        _in_one_precision(model)
    model.generation_config = GenerationConfig()  # its own would decide whatever a caller leaves open
    return model.eval()


def with_a_place(path: str, names: Sequence[str], *, config: PreTrainedConfig, revision: str | None) -> list[str]:
    """Those of a checkpoint's weights that the library's class has a place of their own for; none is read."""
    with explained("the names of the weights", path):
        loaded: Any = auto_class(config).from_pretrained(
            path, config=config, revision=revision, device_map="meta", trust_remote_code=False, output_loading_info=True
        )
    model, info = loaded
    left = (*model._keys_to_ignore_on_load_unexpected, r"rotary_emb\.inv_freq", r"(^|\.)position_ids$")
    unexpected, tied = set(info["unexpected_keys"]), getattr(model, "all_tied_weights_keys", {})
    return [
        name
        for name in names
        if name not in unexpected and name not in tied and not any(re.search(pattern, name) for pattern in left)
    ]


def _note_untied(model: PreTrainedModel, path: str) -> None:
    """Say where config.json makes embeddings and lm_head one matrix, and the files hold two; the library uses both."""
    one, other = (getattr(of, "weight", None) for of in (model.get_input_embeddings(), model.get_output_embeddings()))
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False) and one is not other
    if not tied or not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return
    if one.shape == other.shape and (one.dtype != other.dtype or not torch.equal(one, other)):
        warnings.warn(
            f"{path} says in config.json that embeddings and lm_head are one matrix, and its weights hold two: both "
            "are used as they are, and other engines may use one of them for both",
            LNAWarning,
            stacklevel=3,
        )


_REMEDY = "the weights are quantized: give the model before it was quantized, or weights quantized by another method"


def _in_one_precision(model: PreTrainedModel) -> None:
    """Give matrices that were dequantized to bfloat16 (FP4) the model's precision; to float32 that is exact."""
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.dtype == torch.bfloat16 != model.dtype:
                parameter.data = parameter.data.to(model.dtype)


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
        widths=widths_of(network.widths),
    )


def move(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """A model on its device."""
    if method_of(model.config) is not None:  # quantised weights were put there when they were read
        return model
    try:
        return model.to(device)  # pyright: ignore[reportArgumentType] - transformers wraps torch's signature
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        raise EngineError(
            f"the model does not fit into the memory of {device}: "
            "try --dtype bfloat16, another --device, or a smaller model"
        ) from error

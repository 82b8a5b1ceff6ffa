"""Loading a model and its tokenizer, with one-line errors and nothing printed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from ...errors import EngineError, SettingsError
from ..base import ModelInfo
from ..describe import longest_sequence
from ..drafts import end_tokens
from ..sites import ARCHITECTURES, architecture_of, class_name, find_sites, unknown_architecture

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str) -> torch.device:
    """The device of this name; "auto" takes CUDA, else MPS, else the CPU.

    Raises:
        SettingsError: no such device here.
    """
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


def pick_dtype(name: str) -> torch.dtype | str:
    """The precision of this name; "auto" is the model's own.

    Raises:
        SettingsError: no such precision.
    """
    if name == "auto":
        return name
    if name not in DTYPES:
        raise SettingsError(f"--dtype {name!r} is not known: use auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def load_config(path: str, revision: str | None) -> PreTrainedConfig:
    """A model's config.

    Raises:
        EngineError: there is none.
        UnknownArchitectureError: one that transformers does not know.
    """
    if looks_local(path) and not Path(path).exists():
        raise EngineError(f"there is no model at {path}: the path does not exist; give a model folder or a hub id")
    with _explained("the config", path):
        raw, _ = PreTrainedConfig.get_config_dict(path, revision=revision)
    kind = raw.get("model_type")
    if kind is None:
        raise EngineError(f"cannot load the config of {path}: there is no config.json in it that names a model_type")
    if kind not in ARCHITECTURES:
        raise unknown_architecture((raw.get("architectures") or [kind])[0], kind)
    with _explained("the config", path):
        return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)


def load_tokenizer(path: str, revision: str | None) -> Any:
    """A model's own tokenizer.

    Raises:
        EngineError: it has none that can be read.
    """
    with _explained("the tokenizer", path):
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    warned = getattr(tokenizer, "deprecation_warnings", None)
    if isinstance(warned, dict):  # long sequences are looked for, and refused, by ourselves
        warned["sequence-length-is-longer-than-the-specified-maximum"] = True
    return tokenizer


def load_weights(
    path: str, *, config: PreTrainedConfig, dtype: torch.dtype | str, revision: str | None
) -> PreTrainedModel:
    """A model's weights, every one of them.

    Raises:
        EngineError: weights are missing, torn, or of other shapes than the config says.
    """
    with _explained("the weights", path):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            revision=revision,
            attn_implementation=_attention(config),
            trust_remote_code=False,
            output_loading_info=True,
        )
    model, info = loaded
    wrong = sorted(map(str, [*info["missing_keys"], *info.get("mismatched_keys", [])]))
    if wrong:
        raise EngineError(
            f"the weights at {path} are incomplete: {len(wrong)} are missing or have another shape ({wrong[0]}, …) and "
            "would have been random; fetch the model again"
        )
    model.generation_config = GenerationConfig()  # its own would fill in whatever a caller leaves open
    return model.eval()


def load_end_tokens(path: str, *, config: PreTrainedConfig, tokenizer: Any, revision: str | None) -> tuple[int, ...]:
    """The tokens by which a model ends an answer: of its generation config, that is all that is ever used."""
    try:
        with quiet():
            generation = GenerationConfig.from_pretrained(path, revision=revision or "main")
    except OSError:  # there is none
        generation = None
    return end_tokens(config.get_text_config(), generation, tokenizer)


def _attention(config: PreTrainedConfig) -> str | None:
    """The attention to run; None is the library's own choice.

    Gemma 2 caps its attention scores, which the library's default (sdpa) silently leaves out: only eager does it.
    """
    return "eager" if getattr(config.get_text_config(), "attn_logit_softcapping", None) else None


@contextmanager
def _explained(what: str, path: str) -> Iterator[None]:
    """Keep transformers quiet, and turn whatever it raises into one line."""
    try:
        with quiet():
            yield
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EngineError(
            f"cannot load {what} of {path}: {first[:300]}; "
            "a model folder needs config.json, tokenizer files and weights"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no warnings of transformers while the context is open."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def looks_local(path: str) -> bool:
    """Whether this can only be a folder, not a hub id ("owner/name")."""
    return path.startswith((os.sep, ".", "~")) or path.count("/") > 1


def describe(model: PreTrainedModel, *, path: str, tokenizer: Any, ends: tuple[int, ...] = ()) -> ModelInfo:
    """What is known of a loaded model."""
    sites = find_sites(model.get_decoder(), architecture_of(model.config))
    return ModelInfo(
        path=path,
        architecture=class_name(model.config) or type(model).__name__,
        layers=len(sites),
        d_mlp=sites[0].d_mlp,
        max_length=longest_sequence(model.config.get_text_config(), tokenizer),
        dtype=str(model.dtype).removeprefix("torch."),
        end_tokens=ends,
    )


def move(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """A model on its device.

    Raises:
        EngineError: it does not fit.
    """
    try:
        return model.to(device)  # pyright: ignore[reportArgumentType] - transformers wraps torch's signature
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        raise EngineError(
            f"the model does not fit into the memory of {device}: "
            "try --dtype bfloat16, another --device, or a smaller model"
        ) from error

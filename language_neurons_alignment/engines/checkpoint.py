"""TODO."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
)

from ..errors import EngineError
from .generation import end_tokens
from .sites import ARCHITECTURES, unknown_architecture


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


def load_end_tokens(path: str, *, config: PreTrainedConfig, tokenizer: Any, revision: str | None) -> tuple[int, ...]:
    """The tokens by which a model ends an answer: of its generation config, that is all that is ever used."""
    try:
        with quiet():
            generation = GenerationConfig.from_pretrained(path, revision=revision or "main")
    except OSError:  # there is none
        generation = None
    return end_tokens(config.get_text_config(), generation, tokenizer)


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

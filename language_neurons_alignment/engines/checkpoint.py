"""A model's folder before its weights are loaded: config, tokenizer, end tokens, and what these say of the model.

Both engines read it here, so both agree on the model's shape, its longest sequence and the tokens that end an answer.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedConfig
from transformers.utils import IMAGE_PROCESSOR_NAME, PROCESSOR_NAME, VIDEO_PROCESSOR_NAME
from transformers.utils.hub import cached_file

from .._gguf import is_gguf
from ..errors import EngineError, LNAError, LNAWarning, SettingsError
from . import gguf
from .families import neurons_of_layers, unknown_family
from .folder import check_model_path, check_token_numbers, remarks

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")
_UNLIMITED = 1_000_000_000
"""The longest sequence of a model that names none (ALiBi). Tokenizers without a limit say 10³⁰."""


def check_dtype(name: str) -> None:
    """Refuse a precision that no engine has; "auto" is the model's own."""
    if name != "auto" and name not in DTYPES:
        raise SettingsError(f"--dtype {name!r} is not known: use auto, {', '.join(DTYPES)}")


def expand(path: str | Path) -> str:
    """A folder's path with ~ expanded; a hub id as it is."""
    return str(Path(os.path.expanduser(path))) if looks_local(str(path)) else str(path)


def looks_local(path: str) -> bool:
    """Whether this can only be a folder, not a hub id ("owner/name")."""
    return path.startswith((os.sep, ".", "~")) or path.count("/") > 1


def check_there(path: str) -> None:
    """Refuse a path that does not exist."""
    if looks_local(path) and not Path(path).exists():
        raise EngineError(
            f"there is no model at {path}: the path does not exist; give a model folder, a GGUF file or a hub id"
        )


def load_config(path: str, revision: str | None) -> PreTrainedConfig:
    """A model's config."""
    check_there(path)
    if is_gguf(path):
        with explained("the config", path):
            return gguf.load_config(path)
    raw = check_model_path(path)
    if raw is None:
        with explained("the config", path):
            raw, _ = PreTrainedConfig.get_config_dict(path, revision=revision)
    model_type = raw.get("model_type")
    if model_type is None:
        raise EngineError(f"cannot load the config of {path}: there is no config.json in it that names a model_type")
    if model_type not in CONFIG_MAPPING:
        raise unknown_family((raw.get("architectures") or [model_type])[0], model_type)
    with explained("the config", path):
        return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)


def load_tokenizer(path: str, revision: str | None) -> Any:
    """A model's own tokenizer.

    Beside tokenizer.json, Mistral's tekken.json is not used: it would be where the package mistral_common is installed.
    """
    if is_gguf(path):
        with explained("the tokenizer", path):
            return gguf.load_tokenizer(path)
    check_token_numbers(Path(path))
    alone = (Path(path) / "tekken.json").is_file() and not (Path(path) / "tokenizer.json").is_file()
    choice = {} if alone else {"mistral_format": False}
    with explained("the tokenizer", path):
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False, **choice)
        tokenizer.decode(tokenizer.encode("a"))  # malformed settings show here, not in the middle of a corpus
    warned = getattr(tokenizer, "deprecation_warnings", None)
    if isinstance(warned, dict):  # the engines refuse long sequences themselves
        warned["sequence-length-is-longer-than-the-specified-maximum"] = True
    return tokenizer


def load_end_tokens(path: str, *, config: PreTrainedConfig, tokenizer: Any, revision: str | None) -> tuple[int, ...]:
    """The tokens that end an answer. Nothing else of a model's generation config is ever used."""
    generation = None
    if is_gguf(path):
        generation = GenerationConfig(eos_token_id=list(gguf.further_ends(path)))
    elif Path(path).is_dir():
        if (Path(path) / "generation_config.json").is_file():
            with explained("generation_config.json", path):
                generation = GenerationConfig.from_pretrained(path)
    else:
        with suppress(OSError), quiet():  # it has none
            generation = GenerationConfig.from_pretrained(path, revision=revision or "main")
    return end_tokens(config.get_text_config(), generation, tokenizer)


def warn_of_files_beside(path: str, *, config: PreTrainedConfig, tokenizer: Any) -> None:
    """Warn of files of a local folder that are not used, or would be elsewhere."""
    if is_gguf(path):
        warnings.warn(
            f"{path} holds its weights as {gguf.stored_as(path)}: they are dequantised, and the numbers are of the "
            "quantized weights",
            LNAWarning,
            stacklevel=3,
        )
    vocabulary = getattr(config.get_text_config(), "vocab_size", None)
    for line in remarks(path, tokenizer=tokenizer, vocabulary=vocabulary):
        warnings.warn(line, LNAWarning, stacklevel=3)


def processor_files(path: str, revision: str | None) -> list[Path]:
    """The files beside a model's weights that say how it reads images, sound and film."""
    names = {IMAGE_PROCESSOR_NAME, VIDEO_PROCESSOR_NAME, PROCESSOR_NAME}
    found = (cached_file(path, name, revision=revision, _raise_exceptions_for_missing_entries=False) for name in names)
    return sorted(Path(one) for one in found if one is not None)


def end_tokens(config: Any, generation: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokens that end an answer, by a model's config, its generation config and its tokenizer together."""
    named = [getattr(one, "eos_token_id", None) for one in (config, generation, tokenizer)]
    listed = [one if isinstance(one, (list, tuple)) else [one] for one in named if one is not None]
    tokens = [token for some in listed for token in some]
    wrong = [token for token in tokens if not isinstance(token, int) or isinstance(token, bool)]
    if wrong:
        raise EngineError(
            f"the model's configs name {wrong[0]!r} as eos_token_id; expected a token's number: correct config.json or "
            "generation_config.json"
        )
    vocabulary = getattr(config, "vocab_size", None) or max(tokens, default=0) + 1
    return tuple(sorted({token for token in tokens if token < vocabulary}))  # a default may lie beyond the vocabulary


def layer_widths(model_path: str) -> tuple[int, ...]:
    """The neurons of each layer of a model folder, GGUF file or hub id, by its config; reads no weights."""
    config = load_config(model_path, None)
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if not isinstance(layers, int) or layers < 1:
        raise EngineError(f"the config of {model_path} does not tell how many layers it has: it says {layers!r}")
    return neurons_of_layers(config, layers)


def longest_sequence(config: Any, tokenizer: Any) -> int:
    """The longest sequence, in tokens, that a model's config and its tokenizer both allow."""
    named = [getattr(config, name, None) for name in _LENGTHS]
    named.append(getattr(tokenizer, "model_max_length", None))
    limits = [limit for limit in named if isinstance(limit, int) and 0 < limit < _UNLIMITED]
    return min(limits, default=_UNLIMITED)


def rope_switch(config: Any) -> int | None:
    """The length above which a model rotates the positions of every token of a sequence differently, or None.

    With "longrope" (Phi-3) a longer sequence is computed differently from its first token on, so sequences on the two
    sides of this length can share nothing.
    """
    found = [
        rope["original_max_position_embeddings"]
        for rope in _mappings(getattr(config, "rope_parameters", None))
        if rope.get("rope_type") == "longrope" and rope.get("original_max_position_embeddings")
    ]
    return min(found, default=None)


def unpadded_above(config: Any) -> int | None:
    """The length above which tokens after padding are computed differently, or None.

    Llama 4's layers without rotary embeddings scale their queries up every `floor_scale` tokens, and the library counts
    padding as tokens.
    """
    return getattr(config, "floor_scale", None) if getattr(config, "attn_temperature_tuning", False) else None


def _mappings(value: object) -> Iterator[Mapping[str, Any]]:
    """A mapping, and every mapping inside it: some configs have one for each kind of layer."""
    if isinstance(value, Mapping):
        yield value
        for inner in value.values():
            yield from _mappings(inner)


@contextmanager
def explained(what: str, path: str, *, remedy: str | None = None) -> Iterator[None]:
    """Keep the transformers library quiet, and turn whatever it raises into one line that ends in the remedy."""
    try:
        with quiet():
            yield
    except LNAError:
        raise
    except BaseException as error:  # the tokenizers library panics, and its panics are no Exceptions
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        usual = "a model folder needs config.json, tokenizer files and weights"
        needs = remedy or ("download the file again" if is_gguf(path) else usual)
        raise EngineError(f"cannot load {what} of {path}: {said[:300].rstrip('.')}; {needs}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no warnings of the transformers library while the context is open."""
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

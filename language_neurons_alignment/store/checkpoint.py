"""What a model's folder or GGUF file tells without loading it: the family, and digests that tell models apart."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .._file_kinds import file_kind
from .._gguf import is_gguf, read_gguf
from ..errors import ArtifactError, IncompatibleError

DEFAULT_FAMILY = "Mistral"
_VOLATILE = ("transformers_version", "_name_or_path", "_commit_hash")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*.gguf")
_TOKENIZER = (
    *("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "merges.txt", "vocab.txt", "spiece.model"),
    *("sentencepiece.bpe.model", "*.tiktoken", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
"""The files that decide which tokens a text becomes."""
_SETTINGS = _TOKENIZER[-3:]
_OF_NO_TOKEN = (*_VOLATILE, "name_or_path", "tokenizer_file", "chat_template", "padding_side", "processor_class")
"""Settings of a tokenizer that change no token of a text."""
_LARGEST_CONFIG = 64 * 2**20
_WHOLE_BYTES = 64 * 2**20
_HUB_ID = re.compile(r"[\w.\-]+/[\w.\-]+")
_ADAPTER_CONFIG = "adapter_config.json"
_SAMPLES, _SAMPLE_BYTES = 256, 4096


class Hashes(Protocol):
    """Anything that records which model it was made from."""

    @property
    def config_hash(self) -> str:
        """Of the model's config; "" where it is unknown."""
        ...

    @property
    def weights_hash(self) -> str:
        """Of the model's weights; "" where it is unknown."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """A model as it lies on disk.

        >>> trained = Checkpoint(config_hash="c1", weights_hash="w2")
        >>> trained.difference(Checkpoint(config_hash="c1", weights_hash="w1"))
        'weights'
        >>> trained.difference({"config_hash": "c1"}) is None  # other weights, as far as anybody knows, they are not
        True

    Attributes:
        config_hash: digest of config.json without the entries that only name versions and paths, or of a GGUF file's
            metadata; "" without either.
        weights_hash: digest of every weight file (of a sample of large ones), which tells a base model from its
            aligned version, and two trainings into the same folder from each other; "" without weights. An adapter and
            a quantization change the weights in use, so they change it too.
        tokenizer_hash: digest of the tokenizer's files; "" where it is not known, as in results of earlier versions.
    """

    config_hash: str
    weights_hash: str
    tokenizer_hash: str = ""

    @classmethod
    def of(cls, made_from: Hashes) -> Checkpoint:
        """Return the model that something was made from."""
        return cls(made_from.config_hash, made_from.weights_hash, getattr(made_from, "tokenizer_hash", ""))

    def difference(self, other: Hashes | Mapping[str, Any], *, unknown_differs: bool = False) -> str | None:
        """Return what differs between two models, "config", "weights" or "tokenizer"; None where nothing does.

        A tokenizer that is not known never differs: earlier versions did not note it. Nor do weights in memory differ
        from those in files, because their digests are of other bytes.
        """
        from ..core.model import IN_MEMORY  # here, because it needs torch, which paths and corpora do without

        for what in ("config", "weights", "tokenizer"):
            name = f"{what}_hash"
            ours = getattr(self, name)
            theirs = (other.get(name) if isinstance(other, Mapping) else getattr(other, name, "")) or ""
            if ours and theirs and ours.startswith(IN_MEMORY) != theirs.startswith(IN_MEMORY):
                continue
            if ours != theirs and ((ours and theirs) or (unknown_differs and what != "tokenizer")):
                return what
        return None

    def check_same(self, other: Hashes | Mapping[str, Any], *, what: str, remedy: str) -> None:
        """Check that something was made from this model, as far as both sides tell.

            >>> counts = {"config_hash": "c1", "weights_hash": "w1"}
            >>> Checkpoint("c1", "w2").check_same(counts, what="x.pt comes from a model", remedy="count again")
            Traceback (most recent call last):
            language_neurons_alignment.errors.IncompatibleError: x.pt comes from a model with other weights than the \
one in use: count again
        """
        differs = self.difference(other)
        if differs:
            raise IncompatibleError(f"{what} with other {differs} than the one in use: {remedy}")


UNKNOWN = Checkpoint("", "")
"""A model that nothing is known of."""


def read_checkpoint(model_path: str, *, adapter: str | None = None, quantization: str | None = None) -> Checkpoint:
    """Describe a model folder, a GGUF file, or a hub id in the local cache; what is not there stays empty.

    It reads a sample of all weights, so each command calls it once and passes the result on.

    Args:
        model_path: folder or hub id.
        adapter: folder or hub id of a LoRA adapter of this model, whose weights count too.
        quantization: how the weights are quantized when they are loaded.
    """
    if is_gguf(model_path):
        file = Path(os.path.expanduser(model_path))
        metadata = json.dumps(read_gguf(file).metadata, sort_keys=True)
        weights = _changed(digest_of_parts(_sample(file)), adapter, quantization)
        return Checkpoint(digest_of_parts([metadata.encode()]), weights)
    folder = local_folder(model_path)
    config = read_config(folder)
    if folder is None or config is None:
        return UNKNOWN
    try:
        weights, tokenizer = _changed(_weights_hash(folder), adapter, quantization), folder
        own = adapter and local_folder(adapter, _ADAPTER_CONFIG)
        if own and (own / "tokenizer_config.json").is_file():  # an adapter saved with a tokenizer is used with that one
            tokenizer = own
        return Checkpoint(_config_hash(config), weights, _tokenizer_hash(tokenizer))
    except OSError as error:
        raise ArtifactError(
            f"cannot read the weights or the tokenizer in {folder} ({error}): copy the model folder again"
        ) from error


def _changed(weights: str, adapter: str | None, quantization: str | None) -> str:
    """The digest of weights that an adapter and a quantization change; "" where that of the weights is."""
    if weights and adapter is not None:
        weights = digest_of_parts([weights.encode(), _adapter_hash(adapter).encode()])
    if weights and quantization is not None:
        weights = digest_of_parts([weights.encode(), quantization.encode()])
    return weights


def model_family(model_path: str) -> str:
    """Return the family as in file names: "LlamaForCausalLM" → "Llama"; "Mistral" where there is no config to read.

    Of a GGUF file it is the architecture that its metadata name: "gemma3" → "Gemma3"; that of an adapter's folder is
    the family of the model that it was trained on.
    """
    if is_gguf(model_path):
        said = str(read_gguf(model_path).metadata.get("general.architecture", ""))
        return re.sub(r"\W", "", said[:1].upper() + said[1:]) or DEFAULT_FAMILY
    folder = local_folder(model_path)
    if folder is not None and is_adapter(folder):
        base = (read_config(folder, _ADAPTER_CONFIG) or {}).get("base_model_name_or_path")
        folder = local_folder(str(base)) if base else None
    named = (read_config(folder) or {}).get("architectures") or []
    architecture = named[0] if isinstance(named, list) and named else named or ""
    if not isinstance(architecture, str) or not re.fullmatch(r"\w*", architecture):
        raise ArtifactError(
            f'{folder}/config.json has "architectures": {json.dumps(named)[:60]}; expected a list of class names such '
            "as LlamaForCausalLM: copy the model folder again"
        )
    return re.sub(r"(For[A-Z]\w*|LMHeadModel|Model)$", "", architecture) or DEFAULT_FAMILY


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / _ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def local_folder(model_path: str, config: str = "config.json") -> Path | None:
    """Find a model on this machine: the folder itself, or the hub cache's snapshot; None where there is neither."""
    folder = Path(os.path.expanduser(model_path))
    if folder.is_dir():
        return folder
    if not _HUB_ID.fullmatch(model_path):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(model_path, config)
    except HFValidationError:  # ../x is no name of the hub, but a folder that is not there
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def fetch_config(model_path: str, config: str = "config.json") -> None:
    """Download a hub model's config into the local cache, because names and digests of results come from it.

    Without a network, or without such a model, nothing happens: loading the model will raise the error.
    """
    there = Path(model_path).exists() or local_folder(model_path, config) is not None
    if there or not _HUB_ID.fullmatch(model_path):
        return
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    with suppress(HfHubHTTPError, OSError, ValueError):
        hf_hub_download(model_path, config)


def read_config(folder: Path | None, name: str = "config.json") -> dict[str, Any] | None:
    """Read a model's config.json, or another one; None where there is none."""
    path = folder and folder / name
    if not path or not path.is_file():
        return None
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"a {type(config).__name__}, not an object")
    except (OSError, ValueError, RecursionError) as error:
        kind = file_kind(path)
        said = error if kind in (None, "JSON", "text") else f"it is {kind}"
        raise ArtifactError(f"{path} is not a model's config ({said}): copy the model folder again") from error
    return config


def _config_hash(config: dict[str, Any]) -> str:
    kept = {key: value for key, value in config.items() if key not in _VOLATILE}
    return digest_of_parts([json.dumps(kept, sort_keys=True).encode()])


def _weights_hash(folder: Path) -> str:
    if folder.parent.name == "snapshots":  # in the hub's cache: named by the commit, before the weights are here
        return folder.name
    files = sorted({path for pattern in _WEIGHTS for path in folder.glob(pattern)})
    return digest_of_parts(part for path in files for part in _sample(path)) if files else ""


def _adapter_hash(adapter: str) -> str:
    """Of an adapter's weights and of the settings that scale and place them."""
    folder = local_folder(adapter, _ADAPTER_CONFIG)
    if folder is None or not (folder / _ADAPTER_CONFIG).is_file():
        return ""
    if folder.parent.name == "snapshots":
        return folder.name
    config = read_config(folder, _ADAPTER_CONFIG) or {}
    kept = {key: value for key, value in config.items() if key not in ("base_model_name_or_path", "peft_version")}
    parts = [json.dumps(kept, sort_keys=True).encode()]
    return digest_of_parts(
        [*parts, *(part for path in sorted(folder.glob("adapter_model.*")) for part in _sample(path))]
    )


def _tokenizer_hash(folder: Path) -> str:
    if folder.parent.name == "snapshots":  # in the hub's cache, whose commit is the digest of the weights already
        return ""
    files = sorted({path for pattern in _TOKENIZER for path in folder.glob(pattern) if path.is_file()})
    parts = (part for path in files for part in (path.name.encode(), _token_settings(path)))
    return digest_of_parts(parts) if files else ""


def _token_settings(path: Path) -> bytes:
    """What a tokenizer's file says of tokens: of settings, those that matter, however they are laid out."""
    content = path.read_bytes()
    if path.name not in _SETTINGS:
        return content
    try:
        settings = json.loads(content)
    except (ValueError, RecursionError):  # loading the tokenizer will say what is wrong
        return content
    kept = {key: one for key, one in settings.items() if key not in _OF_NO_TOKEN} if isinstance(settings, dict) else {}
    return json.dumps(kept, sort_keys=True).encode()


def _sample(path: Path) -> list[bytes]:
    """Read a file, or of a large one the size and evenly spaced pieces: training changes nearly every piece."""
    size = path.stat().st_size
    if size <= _WHOLE_BYTES:
        return [path.read_bytes()]
    pieces = [str(size).encode()]
    with path.open("rb") as file:
        for k in range(_SAMPLES):
            file.seek(size * k // _SAMPLES)
            pieces.append(file.read(_SAMPLE_BYTES))
    return pieces


def digest_of_parts(parts: Iterable[bytes]) -> str:
    """Return a digest of bytes; how they are cut into parts makes no difference."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()

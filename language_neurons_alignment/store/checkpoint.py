"""What a model's folder says without loading the model: its family, and digests that tell checkpoints apart."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ArtifactError

DEFAULT_FAMILY = "Mistral"
_VOLATILE = ("transformers_version", "_name_or_path", "_commit_hash")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*.gguf")
_WHOLE_BYTES = 64 * 2**20
_HUB_ID = re.compile(r"[\w.\-]+/[\w.\-]+")
_SAMPLES, _SAMPLE_BYTES = 256, 4096


@dataclass(frozen=True)
class Checkpoint:
    """A model as it lies on disk.

    Attributes:
        family: as in file names ("Llama", "Mistral", …); "Mistral" where there is no config to read.
        config_hash: digest of config.json without what only names versions and paths; "" without one.
        weights_hash: digest of every weight file (of a sample of large ones), so that a base model and its aligned
            version, or two trainings into the same folder, are told apart; "" without weights.
    """

    family: str
    config_hash: str
    weights_hash: str


def read_checkpoint(model_path: str) -> Checkpoint:
    """Describe a model folder, or a hub id that is in the local cache; what is not there stays empty."""
    folder = local_folder(model_path)
    config = _read_config(folder)
    if folder is None or config is None:
        return Checkpoint(DEFAULT_FAMILY, "", "")
    try:
        return Checkpoint(_family(config), _config_hash(config), _weights_hash(folder))
    except OSError as error:
        raise ArtifactError(f"cannot read the weights in {folder} ({error}): copy the model folder again") from error


def model_family(model_path: str) -> str:
    """The family alone, which needs no weights to be read."""
    config = _read_config(local_folder(model_path))
    return DEFAULT_FAMILY if config is None else _family(config)


def local_folder(model_path: str) -> Path | None:
    """Where a model lies on this machine: the folder itself, or the hub cache's snapshot; None where it is nowhere."""
    folder = Path(model_path).expanduser()
    if folder.is_dir():
        return folder
    if not _HUB_ID.fullmatch(model_path):
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model_path, "config.json")
    return Path(cached).parent if isinstance(cached, str) else None


def fetch_config(model_path: str) -> None:
    """Bring a hub model's config into the local cache, so that its results are named and told apart from the start.

    Without a network, or without such a model, nothing happens: whoever loads the model says what is wrong.
    """
    if local_folder(model_path) is not None or not _HUB_ID.fullmatch(model_path):
        return
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    with suppress(HfHubHTTPError, OSError, ValueError):
        hf_hub_download(model_path, "config.json")


def _read_config(folder: Path | None) -> dict[str, Any] | None:
    path = folder and folder / "config.json"
    if not path or not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"a {type(config).__name__}, not an object")
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is not a model's config ({error}): copy the model folder again") from error
    return config


def _family(config: dict[str, Any]) -> str:
    """The class name without what it is for: "LlamaForCausalLM" → "Llama"."""
    architecture = next(iter(config.get("architectures") or []), "")
    return re.sub(r"(For[A-Z]\w*|LMHeadModel|Model)$", "", architecture) or DEFAULT_FAMILY


def _config_hash(config: dict[str, Any]) -> str:
    kept = {key: value for key, value in config.items() if key not in _VOLATILE}
    return _digest(json.dumps(kept, sort_keys=True).encode())


def _weights_hash(folder: Path) -> str:
    if (
        folder.parent.name == "snapshots"
    ):  # of the hub's cache: named by the commit, and known before the weights are here
        return folder.name
    files = sorted({path for pattern in _WEIGHTS for path in folder.glob(pattern)})
    return _digest(*(part for path in files for part in _sample(path))) if files else ""


def _sample(path: Path) -> list[bytes]:
    """A file, or of a large one its size and evenly spaced pieces: training changes nearly every piece."""
    size = path.stat().st_size
    if size <= _WHOLE_BYTES:
        return [path.read_bytes()]
    pieces = [str(size).encode()]
    with path.open("rb") as file:
        for k in range(_SAMPLES):
            file.seek(size * k // _SAMPLES)
            pieces.append(file.read(_SAMPLE_BYTES))
    return pieces


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()

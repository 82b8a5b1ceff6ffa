"""A LoRA adapter of the PEFT library beside its base model: checked, and put onto the loaded base.

    merged    W + s · B A, in place of each adapted weight matrix W; s = α / r, or α / √r with rsLoRA
    live      x ↦ W x + s · B (A x), each time a matrix is used

The two are the same model up to rounding. The input embeddings and the lm_head may be one matrix ("tied"), of which an
adapter changes one use alone; then each gets a matrix of its own first.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from .._file_kinds import SAFETENSORS, file_kind
from ..errors import EngineError, LNAError, LNAWarning, MissingEngineError
from .checkpoint import expand, looks_local, quiet
from .folder import read_json

_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter on disk.

    Attributes:
        path: as the caller gave it.
        weights: its weight file.
        config: its adapter_config.json.
        live: computed beside the base's weights each time; else merged into them once.
    """

    path: str
    weights: Path
    config: Mapping[str, Any]
    live: bool

    @property
    def folder(self) -> Path:
        """The folder of its files."""
        return self.weights.parent

    @property
    def rank(self) -> int:
        """The largest rank r of its matrices."""
        return max(self.config.get("r") or 0, *(self.config.get("rank_pattern") or {}).values(), 0)

    def touches(self, *names: str) -> bool:
        """Whether it has weights of a module whose name begins with one of these."""
        return any(part.startswith(names) for one in _tensor_names(self) for part in one.split("."))

    @property
    def provenance(self) -> dict[str, str]:
        """What results say of it."""
        return {
            "adapter": self.path,
            "adapter_sha256": hashlib.sha256(self.weights.read_bytes()).hexdigest(),
            "adapter_mode": "live" if self.live else "merged",
        }

    def tokenizer_folder(self, base: str) -> str:
        """Where the tokenizer is: an adapter that was saved with one is used with that one."""
        return str(self.folder) if (self.folder / "tokenizer_config.json").is_file() else base


def open_adapter(path: str | None, *, base: str, live: bool) -> Adapter | None:
    """Check an adapter before anything is loaded; None where there is none.

    Raises:
        EngineError: it is not a LoRA adapter of a causal language model, or its weights are not there.
        MissingEngineError: peft is not installed.
    """
    if path is None:
        if live:
            raise EngineError("--adapter-live does nothing without an adapter: give --adapter PATH, or leave it out")
        return None
    folder = _folder(expand(path))
    config_file = folder / "adapter_config.json"
    if not config_file.is_file():
        what = "a model of its own: give it as --model-path" if (folder / "config.json").is_file() else "no adapter"
        raise EngineError(f"{path} has no {config_file.name}, so it is {what}; expected a folder that peft saved")
    config = read_json(config_file)
    _check_kind(path, config)
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise EngineError(f"the adapter {path} has no weights: expected {' or '.join(_WEIGHTS)}; copy the folder again")
    kind = file_kind(weights)
    if weights.suffix == ".safetensors" and kind != SAFETENSORS:
        raise EngineError(f"{weights} holds no weights: it is {kind or 'of an unknown kind'}; copy the folder again")
    if find_spec("peft") is None:
        raise MissingEngineError(
            f"the adapter {path} needs the package peft, which is not installed: "
            "pip install 'language_neurons_alignment[adapters]'"
        )
    if live and (of_experts := [one for one in config.get("target_parameters") or () if "expert" in one]):
        raise EngineError(
            f"the adapter {path} changes experts ({json.dumps(of_experts)[:60]}), which is not computed live: leave "
            "--adapter-live out"
        )
    _note_unknown(path, config)
    named = str(config.get("base_model_name_or_path") or "")
    if (
        named
        and Path(named).name != Path(os.path.expanduser(base)).resolve().name
        and Path(named).name != Path(base).name
    ):
        warnings.warn(
            f"the adapter {path} was trained on {named!r} and is put onto {base}: is that the same model?",
            LNAWarning,
            stacklevel=3,
        )
    return Adapter(path, weights, config, live)


def _folder(path: str) -> Path:
    """An adapter's folder on this machine; that of a hub id is downloaded."""
    if Path(path).exists():
        return Path(path) if Path(path).is_dir() else Path(path).parent
    if looks_local(path):
        raise EngineError(f"there is no adapter at {path}: the path does not exist; give a folder that peft saved")
    from huggingface_hub import snapshot_download

    with _explained(f"cannot download the adapter {path}"):
        return Path(snapshot_download(path, allow_patterns=["adapter_*", "*token*", "*.jinja", "vocab*", "merges*"]))


def _check_kind(path: str, config: Mapping[str, Any]) -> None:
    """Refuse adapters that are not a plain change of weights."""
    kind, task = config.get("peft_type"), config.get("task_type")
    if kind != "LORA":
        raise EngineError(f"the adapter {path} is of peft_type {kind!r}; expected 'LORA': merge it into a model folder")
    if task not in (None, "CAUSAL_LM"):
        raise EngineError(f"the adapter {path} is for the task {task!r}; expected 'CAUSAL_LM', a language model")
    for option in ("layer_replication", "alora_invocation_tokens", "arrow_config", "monteclora_config"):
        if config.get(option):
            raise EngineError(
                f"the adapter {path} has {option} {json.dumps(config[option])[:60]}: such adapters are not supported; "
                "give a plain LoRA, or merge it into a model folder"
            )


def _note_unknown(path: str, config: Mapping[str, Any]) -> None:
    """Warn of settings that the installed peft does not know: it ignores them silently."""
    from peft import LoraConfig

    known = {one.name for one in fields(LoraConfig)}
    if unknown := sorted(name for name, value in config.items() if value and name not in known):
        warnings.warn(
            f"the adapter {path} has settings that the installed peft does not know and ignores "
            f"({', '.join(unknown[:4])}): if they matter, install the version that saved it",
            LNAWarning,
            stacklevel=4,
        )


def put_onto(model: PreTrainedModel, adapter: Adapter) -> PreTrainedModel:
    """A base model with an adapter on it.

    Raises:
        EngineError: the adapter does not fit the model, or some of its weights have no place in it.
    """
    import peft

    _untie(model, adapter)
    with _explained(f"the adapter {adapter.path} does not fit the model {model.name_or_path}{_trained_on(adapter)}"):
        config = peft.PeftConfig.from_pretrained(str(adapter.folder))
        config.inference_mode = True
        wrapped = peft.PeftModel(model, config)
        found = wrapped.load_adapter(str(adapter.folder), "default", is_trainable=False)
        for what, keys in (("has no place for", found.unexpected_keys), ("lacks", found.missing_keys)):
            if keys:
                who = "the model" if what == "has no place for" else "the file"
                raise EngineError(
                    f"the adapter {adapter.path} does not fit the model {model.name_or_path}{_trained_on(adapter)}: "
                    f"{who} {what} {len(keys)} of its weights ({keys[0]}, …); give the model that it was trained on"
                )
    if adapter.live:
        live: Any = wrapped.get_base_model()
        return live
    advice = "give --adapter-live, or the model that it was trained on"
    with _explained(f"the adapter {adapter.path} cannot be merged into the model {model.name_or_path}", advice):
        return wrapped.merge_and_unload(safe_merge=True)


def _trained_on(adapter: Adapter) -> str:
    named = adapter.config.get("base_model_name_or_path")
    return f" (it was trained on {named!r})" if named else ""


def _untie(model: PreTrainedModel, adapter: Adapter) -> None:
    """Where input embeddings and lm_head are one matrix and the adapter changes one of them: give each its own."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if embeddings is None or head is None or embeddings.weight is not head.weight:
        return
    names = {id(module): name.split(".")[-1] for name, module in model.named_modules()}
    both = names[id(embeddings)], names[id(head)]
    if not adapter.touches(*both) or _trains_rows_of_both(adapter, *both):
        return
    if adapter.config.get("ensure_weight_tying"):
        raise EngineError(
            f"the adapter {adapter.path} changes tied embeddings with ensure_weight_tying, which is not supported: "
            "merge it into a model folder (peft's merge_and_unload, then save_pretrained)"
        )
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)


def _trains_rows_of_both(adapter: Adapter, embeddings: str, head: str) -> bool:
    """Whether it trains rows of the shared matrix (trainable_token_indices): peft then trains both uses of it.

    Raises:
        EngineError: it changes the matrix in another way too.
    """
    changes = [one for one in _tensor_names(adapter) if {embeddings, head} & set(one.split("."))]
    rows = [one for one in changes if one.endswith(f"{embeddings}.token_adapter.trainable_tokens_delta")]
    if rows and len(rows) < len(changes):
        raise EngineError(
            f"the adapter {adapter.path} changes tied embeddings by trainable_token_indices and in another way, which "
            "is not supported: merge it into a model folder (peft's merge_and_unload, then save_pretrained)"
        )
    return bool(rows)


def _tensor_names(adapter: Adapter) -> list[str]:
    if adapter.weights.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(adapter.weights, framework="pt") as file:
            return list(file.keys())
    import torch

    return list(torch.load(adapter.weights, map_location="cpu", weights_only=True))


@contextmanager
def _explained(what: str, advice: str = "give the model that it was trained on") -> Iterator[None]:
    """Keep peft quiet, because what it warns of is checked here, and turn whatever it raises into one line."""
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except LNAError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        said = next((line for line in lines if line.startswith("size mismatch")), lines[0])
        raise EngineError(f"{what}: {said[:300]}; {advice}") from error

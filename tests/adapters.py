"""LoRA adapters of tiny models, made with peft and random weights."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.tiny_models import save_quietly


def save_adapter(base: Path, folder: Path, *, seed: int = 0, spread: float = 0.3, **changes: Any) -> Path:
    """A LoRA adapter of the model in `base`, whose every matrix is random, in `folder`.

    Args:
        base: the model's folder.
        folder: made if it is not there.
        seed: of the weights.
        spread: their standard deviation; a fresh adapter would change nothing, because its B is 0.
        changes: values of `peft.LoraConfig` in place of these.
    """
    settings: dict[str, Any] = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "gate_proj", "up_proj", "down_proj"],
        "task_type": "CAUSAL_LM",
        **changes,
    }
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        adapted = get_peft_model(load_plain(base), LoraConfig(**settings))
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.copy_(torch.randn_like(parameter) * spread)
        adapted.save_pretrained(str(folder))
    return folder


def load_plain(folder: Path) -> PreTrainedModel:
    """The model in a folder, as the transformers library loads it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def save_merged(base: Path, adapter: Path, folder: Path) -> Path:
    """What base and adapter are together, as an ordinary model folder: W + s · B A by hand, without peft's code.

    For adapters that change linear maps of the decoder layers alone.
    """
    model, saved = load_plain(base), load_file(adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    scale = config["lora_alpha"] / config["r"]
    with torch.no_grad():
        for name, first in saved.items():
            if name.endswith(".lora_A.weight"):
                path = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
                second = saved[name.replace("lora_A", "lora_B")]
                weight: Any = model.get_submodule(path).weight
                weight += scale * second @ first
    save_quietly(model, folder)
    for file in base.iterdir():
        if not (folder / file.name).exists():
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def save_difference(base: Path, aligned: Path, folder: Path, *, rank: int = 8) -> Path:
    """What `aligned` changed in the linear maps of the base's MLPs, as an adapter whose files are written without peft.

        ΔW = U diag(σ) Vᵀ,   B = U √σ,   A = √σ Vᵀ,   of the `rank` largest singular values, which must be all

    Args:
        base: a model folder.
        aligned: another one of the same shape.
        folder: made if it is not there.
        rank: of every matrix of the adapter.
    """
    before, after = load_file(base / "model.safetensors"), load_file(aligned / "model.safetensors")
    saved = {}
    for name, weight in before.items():
        change = after[name] - weight
        if ".mlp." in name and change.any():
            left, size, right = torch.linalg.svd(change.double(), full_matrices=False)
            if size[rank:].max() > 1e-9 * size[0]:
                raise ValueError(f"{name} changed by more than rank {rank}")
            root = size[:rank].sqrt()
            path = f"base_model.model.{name.removesuffix('.weight')}"
            saved[f"{path}.lora_A.weight"] = (root[:, None] * right[:rank]).float().contiguous()
            saved[f"{path}.lora_B.weight"] = (left[:, :rank] * root).float().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(saved, folder / "adapter_model.safetensors")
    names = sorted({name.removeprefix("base_model.model.").rsplit(".", 2)[0] for name in saved})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": rank,
        "lora_alpha": rank,
        "target_modules": names,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder

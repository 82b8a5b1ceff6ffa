"""Tiny quantised checkpoints, packed by hand, and the same models with the weights that these stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

GROUP = 32
"""Weights that share a scale, in four bits."""

METHODS = ("fp8", "int4")


def save_quantized(model: Path, folder: Path, method: str) -> tuple[Path, Path]:
    """A model's linear maps in compressed-tensors' format, and dequantised in an ordinary model folder.

        fp8     q = w / s in float8_e4m3fn,   s = max |w| / 448    of each row
        int4    q = round(w / s) + 8,         s = max |w| / 7      of each group of 32, eight to an int32, lowest first

    Args:
        model: a model folder.
        folder: made; the folder of the dequantised model lies beside it.
        method: one of `METHODS`.
    """
    stored: dict[str, Tensor] = {}
    plain: dict[str, Tensor] = {}
    for name, weight in load_file(model / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            stored[name] = plain[name] = weight
        elif method == "fp8":
            scale = weight.abs().amax(1, keepdim=True) / 448
            stored[name], stored[f"{name}_scale"] = (weight / scale).to(torch.float8_e4m3fn), scale
            plain[name] = stored[name].float() * scale
        else:
            groups = weight.reshape(len(weight), -1, GROUP)
            scale = groups.abs().amax(2, keepdim=True) / 7
            codes = (groups / scale).round()
            packed = ((codes.long() + 8).reshape(len(weight), -1, 8) << (4 * torch.arange(8))).sum(-1)
            stored[f"{name}_packed"] = torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32)
            stored[f"{name}_scale"], stored[f"{name}_shape"] = scale[..., 0].contiguous(), torch.tensor(weight.shape)
            plain[name] = (codes * scale).reshape(weight.shape)
    folders = folder, folder.with_name(f"{folder.name}-plain")
    for made, weights in zip(folders, (stored, plain), strict=True):
        made.mkdir(parents=True)
        for file in model.glob("*.json"):
            (made / file.name).write_bytes(file.read_bytes())
        save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
    say(folder, **_described(method))
    return folders


def say(folder: Path, **quantization: Any) -> None:
    """Write a quantization_config into a model's config."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "quantization_config": quantization}), encoding="utf-8")


def _described(method: str) -> dict[str, Any]:
    scheme: dict[str, Any] = {"symmetric": True, "dynamic": False}
    if method == "fp8":
        scheme |= {"num_bits": 8, "type": "float", "strategy": "channel"}
    else:
        scheme |= {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP}
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized" if method == "fp8" else "pack-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": scheme, "input_activations": None}},
    }

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

BLOCK = 128
"""Rows and columns of a matrix that share a scale, in FP8 with blocks."""

FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""The numbers that four bits stand for in MXFP4."""


def save_quantized(model: Path, folder: Path, method: str) -> tuple[Path, Path]:
    """A model's linear maps in another format, and dequantised in an ordinary model folder.

        fp8     q = w / s in float8_e4m3fn,   s = max |w| / 448    of each row, or of each block of 128 × 128
        int4    q = round(w / s) + 8,         s = max |w| / 7      of each group of 32, eight to an int32, lowest first

    Args:
        model: a model folder.
        folder: made; the folder of the dequantised model lies beside it.
        method: fp8, fp8-dynamic, fp8-blocks or int4, which are formats of compressed-tensors, or fp8-deepseek, which
            transformers reads by itself.
    """
    stored: dict[str, Tensor] = {}
    plain: dict[str, Tensor] = {}
    for name, weight in load_file(model / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            stored[name] = plain[name] = weight
        elif method in ("fp8-blocks", "fp8-deepseek"):
            scale = _of_blocks(weight)
            spread = scale.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[: len(weight), : weight.shape[1]]
            stored[name] = (weight / spread).to(torch.float8_e4m3fn)
            stored[f"{name}_scale{'_inv' if method == 'fp8-deepseek' else ''}"] = scale
            plain[name] = stored[name].float() * spread
        elif method != "int4":
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
    folders = _saved(model, folder, stored, plain)
    say(folder, **_described(method))
    return folders


def save_mxfp4(model: Path, folder: Path) -> tuple[Path, Path]:
    """The same of GPT-OSS's experts in MXFP4.

    q = the nearest number of `FP4` to w / s,   s = 2^⌈log₂(max |w| / 6)⌉   of each 32 inputs, two to a byte
    """
    stored: dict[str, Tensor] = {}
    plain: dict[str, Tensor] = {}
    numbers = torch.tensor(FP4)
    for name, weight in load_file(model / "model.safetensors").items():
        if not name.endswith("_proj"):
            stored[name] = plain[name] = weight
            continue
        rows = weight.transpose(1, 2)  # [expert, out, in]
        groups = rows.reshape(*rows.shape[:2], -1, GROUP)
        exponent = (groups.abs().amax(-1) / 6).log2().ceil()
        scale = exponent.exp2()[..., None]
        codes = ((groups / scale)[..., None] - numbers).abs().argmin(-1)
        stored[f"{name}_blocks"] = (codes[..., ::2] | (codes[..., 1::2] << 4)).to(torch.uint8)
        stored[f"{name}_scales"] = (exponent + 127).to(torch.uint8)
        plain[name] = (numbers[codes] * scale).reshape(rows.shape).transpose(1, 2).contiguous()
    folders = _saved(model, folder, stored, plain)
    say(folder, quant_method="mxfp4", modules_to_not_convert=["lm_head"])
    return folders


def _saved(model: Path, folder: Path, stored: dict[str, Tensor], plain: dict[str, Tensor]) -> tuple[Path, Path]:
    folders = folder, folder.with_name(f"{folder.name}-plain")
    for made, weights in zip(folders, (stored, plain), strict=True):
        made.mkdir(parents=True)
        for file in model.glob("*.json"):
            (made / file.name).write_bytes(file.read_bytes())
        save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
    return folders


def _of_blocks(weight: Tensor) -> Tensor:
    """The scale of each block, also of those that the matrix ends in the middle of."""
    rows, columns = (-(-size // BLOCK) for size in weight.shape)
    whole = torch.zeros(rows * BLOCK, columns * BLOCK)
    whole[: len(weight), : weight.shape[1]] = weight
    return whole.reshape(rows, BLOCK, columns, BLOCK).abs().amax((1, 3)) / 448


def say(folder: Path, **quantization: Any) -> None:
    """Write a quantization_config into a model's config."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "quantization_config": quantization}), encoding="utf-8")


def _described(method: str) -> dict[str, Any]:
    if method == "fp8-deepseek":
        return {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK]}
    float8 = {"num_bits": 8, "type": "float", "symmetric": True, "dynamic": False}
    scheme: dict[str, Any] = {
        "int4": {**float8, "num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP},
        "fp8-blocks": {**float8, "strategy": "block", "block_structure": [BLOCK, BLOCK]},
    }.get(method, {**float8, "strategy": "channel"})
    activations = {**float8, "strategy": "token", "dynamic": True} if method == "fp8-dynamic" else None
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized" if method == "int4" else "float-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": scheme, "input_activations": activations}},
    }

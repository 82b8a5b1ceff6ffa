"""Quantised weights: which method a checkpoint names, which packages read it, and what results say of it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from transformers import BitsAndBytesConfig

from ..errors import EngineError, MissingEngineError, SettingsError

QUANTIZATIONS = ("bitsandbytes-8bit", "bitsandbytes-4bit")
"""What `--quantization` takes: methods that need no calibration, so that any checkpoint can be loaded with them."""

_PACKAGES = {
    "bitsandbytes": ("accelerate", "bitsandbytes"),
    "gptq": ("accelerate", "gptqmodel", "optimum"),
    "awq": ("accelerate", "gptqmodel"),
    "compressed-tensors": ("accelerate", "compressed-tensors"),
    "fp8": ("accelerate",),
    "mxfp4": ("accelerate", "kernels"),
    "torchao": ("accelerate", "torchao"),
    "quanto": ("accelerate", "optimum-quanto"),
    "hqq": ("accelerate", "hqq"),
}
"""The packages that the transformers library reads weights with, by `quant_method`."""
_MODULES: dict[str, str] = {"compressed-tensors": "compressed_tensors", "optimum-quanto": "optimum.quanto"}


def method_of(config: Any) -> str | None:
    """The `quant_method` that a model's config names; None for plain weights."""
    named = _settings(config)
    return None if named is None else str(named.get("quant_method") or "of unknown method")


def describe_quantization(config: Any) -> dict[str, str]:
    """What results say of a loaded model's weights; nothing of plain ones.

    >>> from types import SimpleNamespace
    >>> describe_quantization(SimpleNamespace(quantization_config={"quant_method": "gptq", "bits": 4}))
    {'quantization': 'gptq-4bit'}
    """
    named, method = _settings(config), method_of(config)
    if named is None or method is None:
        return {}
    if method == "bitsandbytes":
        return {"quantization": f"bitsandbytes-{4 if named.get('load_in_4bit') else 8}bit"}
    bits = named.get("bits") or named.get("w_bit")
    detail = f"{bits}bit" if bits else named.get("format")
    shown = f"{method}-{detail}" if detail else method
    return {"quantization": f"{shown} (dequantized)" if named.get("dequantize") else shown}


def _settings(config: Any) -> Mapping[str, Any] | None:
    found = getattr(config, "quantization_config", None)
    if found is None or isinstance(found, Mapping):
        return found
    method = getattr(found, "quant_method", None)
    named = {**vars(found), **found.to_dict(), "quant_method": getattr(method, "value", method)}
    return {**named, "load_in_4bit": getattr(found, "load_in_4bit", None)}


def check_quantization(path: str, config: Any, asked: str | None) -> None:
    """Refuse, before anything is loaded, what cannot be read here.

    Raises:
        SettingsError: `--quantization` with a method that is not known.
        EngineError: `--quantization` of weights that are quantised already.
        MissingEngineError: packages are not installed.
    """
    if asked is not None and asked not in QUANTIZATIONS:
        raise SettingsError(f"--quantization must be one of {', '.join(QUANTIZATIONS)}; got {asked!r}")
    method = method_of(config)
    if asked is not None and method is not None:
        raise EngineError(f"the weights of {path} are quantized already ({method}): leave --quantization {asked} out")
    needed = _PACKAGES.get(asked.split("-")[0] if asked else method or "", ())
    missing = [one for one in needed if not _installed(_MODULES.get(one) or one)]
    if missing:
        raise MissingEngineError(
            f"the quantized weights ({asked or method}) of {path} need {' and '.join(missing)}, which "
            f"{'are' if missing[1:] else 'is'} not installed: pip install {' '.join(missing)}"
        )


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is not there
        return False


def config_of(asked: str | None) -> BitsAndBytesConfig | None:
    """The transformers library's settings of one of `QUANTIZATIONS`, as it has them by default."""
    if asked is None:
        return None
    return BitsAndBytesConfig(load_in_8bit=asked.endswith("8bit"), load_in_4bit=asked.endswith("4bit"))

"""Quantised weights: which method a checkpoint names, which packages read it, and what results say of it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from transformers import BitsAndBytesConfig, CompressedTensorsConfig

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


def describe_quantization(config: Any, loaded: Any = None) -> dict[str, str]:
    """What results say of a model's weights; nothing of plain ones.

    >>> from types import SimpleNamespace
    >>> describe_quantization(SimpleNamespace(quantization_config={"quant_method": "gptq", "bits": 4}))
    {'quantization': 'gptq-4bit'}

    Args:
        config: the checkpoint's.
        loaded: the loaded model's; it names no method where the library dequantized the weights while it read them.
    """
    loaded = config if loaded is None else loaded
    named = _settings(loaded) or _settings(config)
    if named is None:
        return {}
    method = named.get("quant_method") or "of unknown method"
    if method == "bitsandbytes":
        return {"quantization": f"bitsandbytes-{4 if named.get('load_in_4bit') else 8}bit"}
    bits = named.get("bits") or named.get("w_bit")
    detail = f"{bits}bit" if bits else named.get("format")
    shown = f"{method}-{detail}" if detail else str(method)
    plain = _settings(loaded) is None or bool(named.get("dequantize"))
    return {"quantization": f"{shown} (dequantized)" if plain else shown}


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


def loading_config(config: Any, asked: str | None) -> Any:
    """What the transformers library is told besides what the checkpoint says of itself; None: nothing.

    bitsandbytes in 8 bits has no columns of outliers here: which ones these are depends on all tokens of a batch, so a
    token's activations would depend on what stands after it. compressed-tensors would wait with its weights for the
    first forward of the whole model, and counting runs the decoder alone.
    """
    if asked is not None:
        eight = asked.endswith("8bit")
        return BitsAndBytesConfig(load_in_8bit=eight, load_in_4bit=not eight, llm_int8_threshold=0.0)
    if method_of(config) == "compressed-tensors":
        return CompressedTensorsConfig(dequantize=True)
    return None

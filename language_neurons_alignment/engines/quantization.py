"""Quantised weights: which method a checkpoint names, which packages read it, and what results say of it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from copy import copy
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import BitsAndBytesConfig, CompressedTensorsConfig
from transformers.utils.quantization_config import Mxfp4Config

from ..errors import EngineError, MissingEngineError, SettingsError
from .replaced import replaced

QUANTIZATIONS = ("bitsandbytes-8bit", "bitsandbytes-4bit")
"""What `--quantization` takes: methods that need no calibration, so that any checkpoint can be loaded with them."""

_PACKAGES = {
    "bitsandbytes": ("accelerate", "bitsandbytes"),
    "gptq": ("accelerate", "gptqmodel", "optimum"),
    "awq": ("accelerate", "gptqmodel"),
    "compressed-tensors": ("accelerate", "compressed-tensors"),
    "fp8": ("accelerate",),
    "mxfp4": ("accelerate",),
    "torchao": ("accelerate", "torchao"),
    "auto-round": ("accelerate", "auto-round"),
}
"""The packages that the transformers library reads weights with, by `quant_method`."""
_MODULES: dict[str, str] = {
    "compressed-tensors": "compressed_tensors",
    "auto-round": "auto_round",
    "optimum": "optimum.gptq",  # a namespace, which optimum-quanto is in too
}
_NOT_READ = ("hqq", "quanto", "nvfp4")
"""Methods that transformers names, but whose stored weights it does not read (5.17)."""
_LIBRARIES = {
    **{method: method for method in ("bitsandbytes", "compressed-tensors", "torchao", "auto-round", "hqq")},
    **{"quanto": "optimum-quanto", "awq": "gptqmodel", "gptq": "gptqmodel"},
}
"""The package that unpacks a method's weights or computes with them, where that is not transformers itself."""
_OF_QUANTIZED = re.compile(
    r".*(\.scales?|(weight|weight_global|_proj|\.w\d+)_scales?(_2|_inv)?"
    r"|\.SCB|\.absmax|qweight|qzeros|weight_packed|_blocks)"
)
"""Names of tensors that only quantised weights have; scales of activations, keys and values are none of them."""


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
        loaded: that of the model that transformers loaded; it names no method if the weights were dequantized while
            they were read. If it is given, the library that reads them is named too.
    """
    library = loaded is not None  # another engine has kernels of its own
    loaded = config if loaded is None else loaded
    named = _settings(loaded) or _settings(config)
    if named is None:
        return {}
    method = str(named.get("quant_method") or "of unknown method")
    shown = "-".join([method, *_detail(method, named)])
    if _settings(loaded) is None or bool(named.get("dequantize")):
        shown += " (dequantized, activations quantized)" if _rounds_activations(named) else " (dequantized)"
    said = _version_of(method) if library else None
    return {"quantization": shown, **({"quantization_library": said} if said else {})}


def _detail(method: str, named: Mapping[str, Any]) -> Iterator[str]:
    """The precision, in the method's own words."""
    if method == "bitsandbytes":
        yield "4bit" if named.get("load_in_4bit") else "8bit"
        if named.get("load_in_4bit"):
            yield str(named.get("bnb_4bit_quant_type") or "fp4")
        return
    kind = named.get("quant_type")  # torchao's: {"default": {"_type": "Int8WeightOnlyConfig", …}}, or the object itself
    if kind is not None and method == "torchao":
        inner = kind.get("default", kind) if isinstance(kind, Mapping) else kind
        yield str(inner.get("_type", "") if isinstance(inner, Mapping) else type(inner).__name__)
    elif bits := named.get("bits") or named.get("w_bit"):
        yield f"{bits}bit"
    elif said := named.get("format") or named.get("weights"):
        yield str(said)


def _rounds_activations(named: Mapping[str, Any]) -> bool:
    """Whether compressed-tensors also rounds the inputs of linear maps; it still does so after they are dequantized."""
    inner = named.get("quantization_config") or named
    groups = inner.get("config_groups") if isinstance(inner, Mapping) else getattr(inner, "config_groups", None)
    groups = groups.values() if isinstance(groups, Mapping) else ()
    return any(
        bool(one.get("input_activations") if isinstance(one, Mapping) else getattr(one, "input_activations", None))
        for one in groups
    )


def _version_of(method: str) -> str | None:
    """The library that reads a method's weights and its version; None if that is transformers itself."""
    package = _LIBRARIES.get(method)
    try:
        return f"{package} {version(package)}" if package is not None else None
    except PackageNotFoundError:
        return None


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
    if method is not None and not _is_read(method):
        named = _settings(config) or {}
        said = f"by {method!r}" if named.get("quant_method") else "(quantization_config), without a quant_method"
        raise EngineError(
            f"the weights of {path} are quantized {said}, which transformers {transformers.__version__} does not read: "
            "give the model before it was quantized, or quantized by compressed-tensors, GPTQ, AWQ or bitsandbytes"
        )
    needed = _PACKAGES.get(asked.split("-")[0] if asked else method or "", ())
    missing = [one for one in needed if not _installed(_MODULES.get(one) or one)]
    if missing:
        raise MissingEngineError(
            f"the quantized weights ({asked or method}) of {path} need {' and '.join(missing)}, which "
            f"{'are' if missing[1:] else 'is'} not installed: pip install {' '.join(missing)}"
        )


def _is_read(method: str) -> bool:
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    return method in {*AUTO_QUANTIZATION_CONFIG_MAPPING, "bitsandbytes"} - {*_NOT_READ}


def _installed(module: str) -> bool:
    try:
        found = find_spec(module)
    except ModuleNotFoundError:  # the package around it is not there
        return False
    return found is not None and found.origin is not None  # a folder of this name in the current one is no package


def loading_config(config: Any, asked: str | None) -> Any:
    """What the transformers library is told besides what the checkpoint says of itself; None: nothing.

    bitsandbytes in 4 bits is NF4, as in QLoRA; the library's own default is FP4, which is further from the weights.
    In 8 bits, columns of outliers are turned off: which columns these are depends on all tokens of a batch, so a
    token's activations would depend on the text after it. compressed-tensors would decompress its weights only in the
    first forward of the whole model, and counting runs the decoder alone. MXFP4's kernels show no activations.
    """
    if asked is not None:
        eight = asked.endswith("8bit")
        return BitsAndBytesConfig(
            load_in_8bit=eight, load_in_4bit=not eight, bnb_4bit_quant_type="nf4", llm_int8_threshold=0.0
        )
    method = method_of(config)
    if method == "compressed-tensors":
        return CompressedTensorsConfig(dequantize=True)
    if method == "mxfp4":
        return Mxfp4Config(dequantize=True)
    return None


def without_outliers(config: Any) -> Any:
    """A checkpoint's config; for bitsandbytes in 8 bits, a copy with columns of outliers turned off (`loading_config`).

    A stored threshold (6.0 by default) only says how to compute: the stored weights do not depend on it.
    """
    named = _settings(config)
    if named is None or named.get("quant_method") != "bitsandbytes" or named.get("load_in_4bit"):
        return config
    changed = copy(config)
    changed.quantization_config = {**named, "llm_int8_threshold": 0.0}
    return changed


def check_all_read(path: str, unexpected: Iterable[str], *, method: str | None) -> None:
    """Refuse weights whose scales were not read: the encoded numbers would be taken for the weights.

    Layers in the file that the model leaves out, such as those for multi-token prediction, have scales too. They are
    accepted if their matrices were not read either and the config names a method.

    Args:
        path: for the error.
        unexpected: the names of the tensors in the file that were not read.
        method: the config's `quant_method` (`method_of`).

    Raises:
        EngineError: scales were not read.
    """
    unread = set(unexpected)
    scales = {one for one in unread if _OF_QUANTIZED.fullmatch(one)}
    left = sorted(one for one in scales if method is None or not unread & _matrices_of(one))
    if left:
        raise EngineError(
            f"the weights of {path} are quantized, and {len(left)} of their scales were not read ({left[0]}, …), so "
            "every result would be wrong: its config.json needs the quantization_config that they were quantized with; "
            "give a checkpoint whose config has it, or the model before it was quantized"
        )


def _matrices_of(scale: str) -> set[str]:
    """The names that the matrix of a scale may have in the file."""
    module, stem = scale.rpartition(".")[0], re.sub(r"_(scales?|scale_2|scale_inv|blocks)$", "", scale)
    of_stem = () if stem == scale else (stem, f"{stem}_blocks")
    return {module, *of_stem, *(f"{module}.{one}" for one in ("weight", "qweight", "weight_packed"))}


def no_talk(method: str | None) -> AbstractContextManager[object]:
    """While this is open, what gptqmodel prints goes to stderr: stdout is for results (`--json`)."""
    return redirect_stdout(sys.stderr) if "gptqmodel" in _PACKAGES.get(method or "", ()) else nullcontext()


def whole_blocks(method: str | None) -> AbstractContextManager[None]:
    """While this is open, matrices that end in the middle of a block are dequantized block by block.

        w[r, c] = q[r, c] · s[⌊r / R⌋, ⌊c / C⌋]        of blocks of R rows and C columns, as the config says

    transformers 5.17 (FP8) and compressed-tensors 0.17 (FP8 in blocks) take R to be rows / rows of scales. For 192 rows
    in blocks of 128 that is 96, and rows 96 to 127 get another block's scale. Others, such as 576 rows (DeepSeek's
    latent keys and values), end in an error in these libraries.
    """
    return {"fp8": _blocks_of_fp8, "compressed-tensors": _blocks_of_compressed_tensors}.get(method or "", nullcontext)()


@contextmanager
def _blocks_of_fp8() -> Iterator[None]:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    original = Fp8Dequantize._dequantize_one

    def dequantize_one(self: Any, quantized: Tensor, scales: Tensor, output_dtype: Any = None) -> Tensor:
        block, (rows, columns) = self.hf_quantizer.quantization_config.weight_block_size, quantized.shape[-2:]
        if block is None or not (rows % block[0] or columns % block[1]) or not quantized.is_floating_point():
            return original(self, quantized, scales, output_dtype)
        grid = -(-rows // block[0]), -(-columns // block[1])
        if tuple(scales.shape[-2:]) != grid:  # blocks of another size than the config's
            return original(self, quantized, scales, output_dtype)
        short = (0, grid[1] * block[1] - columns, 0, grid[0] * block[0] - rows)
        padded = torch.nn.functional.pad(quantized.float(), short)
        return original(self, padded, scales, output_dtype)[..., :rows, :columns].contiguous()

    with replaced(Fp8Dequantize, "_dequantize_one", dequantize_one):
        yield


@contextmanager
def _blocks_of_compressed_tensors() -> Iterator[None]:
    from compressed_tensors.compressors.model_compressors import model_compressor
    from compressed_tensors.compressors.naive_quantized.base import NaiveQuantizationCompressor
    from compressed_tensors.quantization.lifecycle.forward import dequantize

    original = NaiveQuantizationCompressor.decompress

    def decompress(_class: Any, state_dict: dict[str, Tensor], scheme: Any) -> dict[str, Tensor]:
        if scheme.weights.block_structure is None:
            return original(state_dict, scheme)
        scale, zero = state_dict["weight_scale"], state_dict.get("weight_zero_point")
        return {**state_dict, "weight": dequantize(state_dict["weight"], scale, zero, scheme.weights, scale.dtype)}

    with (
        replaced(NaiveQuantizationCompressor, "decompress", classmethod(decompress)),
        replaced(model_compressor, "tqdm", lambda modules, **_: modules),  # its bars cannot be switched off
    ):
        yield

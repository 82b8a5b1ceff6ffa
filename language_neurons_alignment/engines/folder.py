"""A model's folder before anything is loaded from it: what cannot be used, and what lies beside and is not used.

`check_model_path` and `check_weight_files` refuse what is not a model (an adapter, another file, pointers of git-lfs)
in one line that says what it is. `remarks` names the files that would change the numbers on another machine, where
another package is installed, or in another engine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .._file_kinds import SAFETENSORS, file_kind
from .._gguf import is_gguf
from ..errors import EngineError

_LARGEST = 64 * 2**20
"""Bytes of the largest JSON file of a model that is believed: indices have a few MB."""
_OTHER_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.h5", "*.msgpack", "*.onnx")
_NO_WEIGHTS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt")
_QUANTIZED = ("quantize_config.json", "quant_config.json", "hf_quant_config.json", "quantization_config.json")


def check_model_path(path: str) -> dict[str, Any] | None:
    """The config of a local model folder; None for a hub id.

    Raises:
        EngineError: the path is a file, or a folder of something other than a model, or its config is malformed.
    """
    folder = Path(path)
    if not folder.exists():
        return None
    if not folder.is_dir():
        kind = file_kind(folder) or "of no known kind"
        raise EngineError(
            f"{path} is a file ({kind}), expected a model folder or a GGUF file: give the folder it is in"
        )
    adapter = folder / "adapter_config.json"
    if (folder / "config.json").is_file():
        if adapter.exists():
            raise EngineError(
                f"{path} holds a model and an adapter ({adapter.name}): where the package peft is installed, the "
                "adapter would be loaded on top, elsewhere not; move the adapter's files into a folder of their own "
                "and give that as --adapter"
            )
        return _config(folder / "config.json")
    if adapter.exists():
        base = read_json(adapter).get("base_model_name_or_path")
        raise EngineError(
            f"{path} is an adapter (LoRA) of the model {base!r}, not a model: give the base model as --model-path and "
            f"this folder as --adapter"
        )
    if files := _gguf_files(folder):
        raise EngineError(f"{path} has no config.json and {_give_one(files)}")
    if (folder / "params.json").exists():
        raise EngineError(
            f"{path} holds a model in its maker's own format (params.json), without config.json: give the folder in "
            "Hugging Face's format"
        )
    there = ", ".join(sorted(one.name for one in folder.iterdir())[:4]) or "nothing"
    raise EngineError(f"cannot load the config of {path}: there is no config.json in it (it holds {there})")


def _gguf_files(folder: Path) -> list[Path]:
    return sorted(one for one in folder.glob("*.gguf") if is_gguf(one))


def _give_one(files: list[Path]) -> str:
    """What to do with a folder of GGUF files."""
    if len(files) == 1:
        return f"holds a GGUF model: give the file itself, {files[0]}"
    names = ", ".join(one.name for one in files[:4])
    more = ", …" if len(files) > 4 else ""
    return f"holds {len(files)} GGUF files ({names}{more}): give one of them, such as {files[0]}"


def _config(path: Path) -> dict[str, Any]:
    config = read_json(path)
    named = config.get("architectures")
    if named is not None and not (isinstance(named, list) and all(isinstance(one, str) for one in named)):
        raise EngineError(f'{path} has "architectures": {_short(named)}; expected a list of names; {_AGAIN}')
    if "model_type" in config and not isinstance(config["model_type"], str):
        raise EngineError(f'{path} has "model_type": {_short(config["model_type"])}; expected a name; {_AGAIN}')
    quantized = config.get("quantization_config")
    if quantized is not None and not isinstance(quantized, dict):
        raise EngineError(f'{path} has "quantization_config": {_short(quantized)}; expected an object; {_AGAIN}')
    return config


_AGAIN = "copy the model folder again"


_MOST_TOKENS = 2**24
"""A token's number that no vocabulary reaches; the tokenizers library takes memory up to the largest number."""


def check_token_numbers(folder: Path) -> None:
    """Refuse tokenizer files in which a token has a number that only damage explains, before they are loaded.

    EngineError, with the file, the token and its number.
    """
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = folder / name
        if not file.is_file() or not re.search(rb"[0-9]{8,}", file.read_bytes()):
            continue  # no number is that long, so nothing need be parsed
        for token, number in _token_numbers(read_json(file)):
            if isinstance(number, (int, float)) and not number < _MOST_TOKENS:
                raise EngineError(
                    f"{file} gives the token {str(token)[:40]!r} the number {number:,}, expected one below "
                    f"{_MOST_TOKENS:,}: {_AGAIN}"
                )


def _token_numbers(content: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Each token with its number, wherever a tokenizer's files name it."""
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        yield from vocabulary.items()
    added = content.get("added_tokens")
    for one in added if isinstance(added, list) else ():
        if isinstance(one, dict):
            yield one.get("content"), one.get("id")
    decoder = content.get("added_tokens_decoder")
    for number, one in decoder.items() if isinstance(decoder, dict) else ():
        if number.isascii() and number.isdigit():
            yield one.get("content") if isinstance(one, dict) else one, int(number[:20])


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model folder."""
    try:
        if path.stat().st_size > _LARGEST:
            raise EngineError(f"{path} has {path.stat().st_size:,} bytes, expected at most {_LARGEST:,}: {_AGAIN}")
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError, OSError) as error:
        kind = file_kind(path)
        kind = str(error)[:120] if kind in (None, "JSON", "text") else f"it is {kind}"
        raise EngineError(f"{path} is not JSON ({kind}): {_AGAIN}") from error
    if not isinstance(content, dict):
        raise EngineError(f"{path} is a {type(content).__name__}, not a JSON object: {_AGAIN}")
    return content


def _short(value: Any) -> str:
    return json.dumps(value)[:60]


def check_weight_files(path: str) -> None:
    """Refuse a local folder whose weights are not all there, before a library reads them.

    Raises:
        EngineError: no weights, git-lfs's pointers in place of weights, or an index that names files that are missing.
    """
    folder = Path(path)
    if not folder.is_dir():
        return
    used = _used(folder)
    if not used and (files := _gguf_files(folder)):
        raise EngineError(f"{path} has no model.safetensors and no pytorch_model.bin, and {_give_one(files)}")
    if not used:
        others = [one.name for one in _weights(folder)]
        seen = f" but {', '.join(others[:3])}, which are not read" if others else ""
        raise EngineError(
            f"cannot load the weights of {path}: it has no model.safetensors and no pytorch_model.bin{seen}; {_AGAIN}, "
            "with its weights"
        )
    missing = [name for name in used if not (folder / name).is_file()]
    if missing:
        raise EngineError(
            f"{path} lacks {len(missing)} of the {len(used)} weight files that its index names ({missing[0]}, …): "
            f"{_AGAIN}"
        )
    for name in used:
        kind = file_kind(folder / name)
        if kind is not None and kind != SAFETENSORS:
            raise EngineError(f"{folder / name} holds no weights: it is {kind}; {_AGAIN}")


def _used(folder: Path) -> list[str]:
    """The weight files that transformers reads, by its order of preference."""
    for single in ("model.safetensors", "pytorch_model.bin"):
        if (folder / single).is_file():
            return [single]
        index = folder / f"{single}.index.json"
        if index.is_file():
            files = read_json(index).get("weight_map")
            if not isinstance(files, Mapping) or not all(isinstance(name, str) for name in files.values()):
                raise EngineError(f'{index} has no "weight_map" from weights to files: {_AGAIN}')
            outside = [name for name in files.values() if Path(name).name != name]
            if outside:
                raise EngineError(f"{index} names a file outside the folder ({outside[0][:80]!r}): {_AGAIN}")
            return sorted(set(files.values()))
    return []


def _weights(folder: Path) -> list[Path]:
    found = {one for pattern in _OTHER_WEIGHTS for one in folder.glob(pattern) if one.name not in _NO_WEIGHTS}
    return sorted(found)


def remarks(path: str, *, tokenizer: Any, vocabulary: int | None) -> Iterator[str]:
    """What lies in a local folder and is not used, or would be elsewhere: one line for each."""
    folder = Path(path)
    if not folder.is_dir():
        return
    config = read_json(folder / "config.json")
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    yield from _about_weights(folder, config)
    for inner in sorted(folder.glob("*/adapter_config.json"))[:3]:
        yield f"{inner.parent} holds an adapter, which is not used: to use it, give it as --adapter"
    yield from _about_code(folder, config, settings)
    yield from _about_answers(folder)
    yield from _about_tokenizer(folder, settings, tokenizer=tokenizer, vocabulary=vocabulary)


def _about_weights(folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    used = set(_used(folder))
    unused = [one.name for one in _weights(folder) if one.name not in used]
    if unused and used:
        yield (
            f"{folder} has several sets of weights: {sorted(used)[0]}{', …' if len(used) > 1 else ''} is read, "
            f"{', '.join(unused[:3])}{', …' if len(unused) > 3 else ''} is not"
        )
    quantized = config.get("quantization_config")
    if isinstance(quantized, Mapping):
        method = quantized.get("quant_method", "of unknown method")
        yield f"{folder / 'config.json'} says quantization_config ({method}): the numbers are of the quantized weights"
    for name in _QUANTIZED:
        if (folder / name).is_file() and not quantized:
            yield f"{folder / name} is not read by transformers; vLLM may quantize the model by it"


def _about_code(folder: Path, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    for name, content in (("config.json", config), ("tokenizer_config.json", settings)):
        if content.get("auto_map"):
            code = ", ".join(sorted(one.name for one in folder.glob("*.py"))) or "from elsewhere"
            yield f"{folder / name} names code of its own (auto_map; {code}): it is not run, the library's own code is"


def _about_answers(folder: Path) -> Iterator[str]:
    path = folder / "generation_config.json"
    if not path.is_file():
        return
    usual = {"_from_model_config", "transformers_version", "bos_token_id", "eos_token_id", "pad_token_id"}
    usual |= {
        "use_cache",
        "output_attentions",
        "output_hidden_states",
        "return_dict_in_generate",
        "cache_implementation",
    }
    said = [
        f"{key} {_short(value)}" for key, value in read_json(path).items() if key not in usual and value is not None
    ]
    if said:
        yield f"{path} asks for {', '.join(said[:4])}{', …' if len(said) > 4 else ''}: only its end tokens are used"


def _about_tokenizer(
    folder: Path, settings: Mapping[str, Any], *, tokenizer: Any, vocabulary: int | None
) -> Iterator[str]:
    template = folder / "chat_template.jinja"
    if template.is_file() and settings.get("chat_template") not in (None, getattr(tokenizer, "chat_template", None)):
        yield f"{template} is used as the chat template, not the other one in tokenizer_config.json"
    if (folder / "tekken.json").is_file() and (folder / "tokenizer.json").is_file():
        yield f"{folder / 'tekken.json'} is not read: tokenizer.json is, whether mistral_common is installed or not"
    added = folder / "added_tokens.json"
    if added.is_file() and (folder / "tokenizer.json").is_file():
        own = {one.get("content") for one in read_json(folder / "tokenizer.json").get("added_tokens") or []}
        extra = sorted(token for token in read_json(added) if token not in own)
        if extra:
            yield f"{added} adds tokens that tokenizer.json does not have ({', '.join(map(repr, extra[:3]))}): in use"
    if vocabulary:
        largest = max(tokenizer.get_vocab().values(), default=-1) + 1
        if largest > vocabulary or largest < vocabulary / 2:
            yield (
                f"the tokenizer in {folder} has {largest:,} tokens and the model {vocabulary:,}: do its files belong "
                "to this model?"
            )

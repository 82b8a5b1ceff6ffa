"""A GGUF file as a model: its config and weights by the transformers library, its tokenizer from the file's own tables.

The weights are dequantised. The tokenizer that transformers 5.17 makes of such a file can be wrong in silence (Gemma 3:
single characters, no BOS; SmolLM2: another pre-tokenizer, BOS and EOS exchanged), so it is built here, and checked:

    tokenizer.ggml.model   rebuilt as
    llama                  BPE of SentencePiece. Of two neighbours the pair is merged first whose token has the highest
                           score; so each way to split a normal token into two normal tokens is a merge, in the order of
                           scores. A space is ▁; what is in no token becomes bytes.
    gpt2                   byte-level BPE with the file's merges; tokenizer.ggml.pre says how a text is split before.

`check` proves what the file itself can prove. Where that fails, the model's own tokenizer.json beside the file is used,
and has to pass the same check.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoTokenizer, GgufConfig, PreTrainedConfig, PreTrainedTokenizerFast

from .._gguf import GgufHeader, read_gguf
from ..errors import EngineError, LNAWarning, MissingEngineError
from .replaced import replaced

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
"""tokenizer.ggml.token_type."""
_T = "tokenizer.ggml."
_PROBED = 4096
"""Tokens of each kind, spread over the vocabulary, that `check` encodes."""
_UNREACHABLE = 0.01
"""Share of normal tokens that may come out as several: some real vocabularies have a few that no merges lead to."""

PROBES = (
    "The capital of France is Paris.",
    "Сколько будет 12 + 34? ¿Cuánto es 5,6? L'été à la plage; die Straße, größer.",
    "三个苹果和四个梨，一共多少个？ りんごが3つあります。",
    "রহিমের কাছে ৫টি আম আছে। มีแอปเปิลกี่ผล  Juma ana machungwa mangapi?",
    " two  spaces,\ttabs\nand\n\nlines \U0001f600 \U00010348 ʘ",
)
"""Texts that a tokenizer must give back as they were: the demo's ten languages, spaces, lines and rare characters."""

_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _by_regex(digits: str) -> list[Any]:
    """Splitting by one regular expression, as in Llama 3 (digits by threes) and Qwen 2 (one by one)."""
    pattern = Regex(f"{_CONTRACTIONS}|{_WORDS}|{digits}|{_REST}")
    return [
        pre_tokenizers.Split(pattern, behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]


def _like_gpt2() -> list[Any]:
    return [pre_tokenizers.ByteLevel(add_prefix_space=False)]


_PRE = {
    "gpt-2": _like_gpt2,
    "smollm": lambda: [pre_tokenizers.Digits(individual_digits=True), *_like_gpt2()],
    "llama-bpe": lambda: _by_regex(r"\p{N}{1,3}"),
    "qwen2": lambda: _by_regex(r"\p{N}"),
}
"""How a text is split before its bytes are merged, by tokenizer.ggml.pre."""
_WHOLE_FIRST = ("llama-bpe",)
"""Where a piece of text that is a token is taken as it is, whatever the merges say."""
_COMPOSED = ("qwen2",)
"""Where a text is brought to Unicode's form NFC first."""


def need_packages(path: str) -> None:
    """Raise MissingEngineError unless the packages are there with which transformers reads a GGUF file."""
    missing = [name for name in ("gguf", "accelerate") if find_spec(name) is None]
    if missing:
        raise MissingEngineError(
            f"{path} is a GGUF file, and reading its weights needs the package{'s' * (len(missing) > 1)} "
            f"{' and '.join(missing)}: pip install 'language_neurons_alignment[gguf]'"
        )


def arguments(path: str) -> dict[str, Any]:
    """What `from_pretrained` of the transformers library needs to read a GGUF file instead of a folder."""
    return {
        "pretrained_model_name_or_path": str(Path(path).parent),
        "gguf_file": Path(path).name,
        "quantization_config": GgufConfig(dequantize=True),
    }


@contextmanager
def quick_reader() -> Iterator[None]:
    """While this is open, what transformers reads of a GGUF file is cut from plain memory.

    The reader of the package gguf makes a `numpy.memmap` of every number and string, three times slower. With a
    vocabulary of 262,144 tokens that is 12 seconds in place of 4, and transformers reads it twice. The bar that it
    draws of the tensors is left out.
    """
    import gguf
    from transformers import modeling_gguf_pytorch_utils as reading

    class Reader(gguf.GGUFReader):
        def _get(self, *arguments: Any, **named: Any) -> Any:
            if isinstance(self.data, np.memmap):
                self.data: Any = self.data.view(np.ndarray)
            return super()._get(*arguments, **named)

    with (
        replaced(gguf, "GGUFReader", Reader),
        replaced(reading, "tqdm", lambda tensors, **_: tensors),  # it cannot be switched off
    ):
        yield


def load_config(path: str) -> PreTrainedConfig:
    """The config that transformers makes of a GGUF file.

    Raises:
        EngineError: the file is one part of several, or holds what transformers leaves out and the model needs.
        MissingEngineError: a package is missing.
    """
    header, adapter = read_gguf(path), Path(path).with_name("adapter_config.json")
    architecture, kind = (header.metadata.get(f"general.{what}") for what in ("architecture", "type"))
    if kind not in (None, "model"):
        raise EngineError(f"{path} is a GGUF file of the type {kind!r}, not a model: give the file of the model itself")
    if adapter.is_file():
        raise EngineError(
            f"{path} lies beside an adapter ({adapter.name}), which the transformers library would read in its place: "
            "move the adapter's files into a folder of their own and give that as --adapter"
        )
    if header.metadata.get("split.count", 1) > 1:
        raise EngineError(
            f"{path} is one of {header.metadata['split.count']} parts of a GGUF model, and transformers reads one "
            "file: merge them (llama-gguf-split --merge), or give the model folder that it was made from"
        )
    scaling = header.metadata.get(f"{architecture}.rope.scaling.type", "none")
    if scaling != "none" or "rope_freqs.weight" in header.tensors:
        seen = "rope_freqs.weight" if scaling == "none" else f"rope.scaling.type {scaling!r}"
        raise EngineError(
            f"{path} scales its rotary positions ({seen}), which transformers does not read from a GGUF file, so every "
            "number would be of another model: give the model folder that it was made from"
        )
    need_packages(path)
    with quick_reader():
        return AutoConfig.from_pretrained(str(Path(path).parent), gguf_file=Path(path).name)


def stored_as(path: str) -> str:
    """The types of number in which a GGUF file holds its weights, the most frequent first.

    "Q5_0, Q4_K, Q8_0, Q6_K, F32" in a file of the kind Q4_K_M.
    """
    from gguf import GGMLQuantizationType

    kinds = list(read_gguf(path).tensors.values())
    ordered = sorted(set(kinds), key=lambda kind: (kind < 2, -kinds.count(kind)))  # 0 and 1 are F32 and F16: the norms
    return ", ".join(GGMLQuantizationType(kind).name for kind in ordered)


def further_ends(path: str) -> tuple[int, ...]:
    """The tokens beside EOS that end a turn, by the file's metadata."""
    metadata = read_gguf(path).metadata
    named = (metadata.get(f"{_T}{name}_token_id") for name in ("eot", "eom"))
    return tuple(token for token in named if token is not None)


def load_tokenizer(path: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a GGUF file, rebuilt from its tables and checked; or the one beside it, where that fails.

    Raises:
        EngineError: neither passes the check.
    """
    header = read_gguf(path)
    try:
        tokenizer = rebuild(header)
        check(tokenizer, header)
        return tokenizer
    except _UnfitError as error:
        folder = Path(path).parent
        if not (folder / "tokenizer.json").is_file():
            raise EngineError(
                f"the tokenizer of {path} cannot be trusted: {error}; put the tokenizer.json and tokenizer_config.json "
                "of the model that it was made from beside it, or give that model's folder"
            ) from error
        why = str(error)
    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    try:
        check(tokenizer, header)
    except _UnfitError as error:
        raise EngineError(f"the tokenizer in {folder} is not that of {path}: {error}; give the model's own") from error
    warnings.warn(
        f"the tokenizer in {folder} is used for {path}, because that file's own cannot be trusted: {why}",
        LNAWarning,
        stacklevel=3,
    )
    return tokenizer


class _UnfitError(Exception):
    """A tokenizer that does not do what the file's tables say."""


def rebuild(header: GgufHeader) -> PreTrainedTokenizerFast:
    """Build a tokenizer from the tables of a GGUF file; `check` tells whether it is the model's."""
    metadata = header.metadata
    model, tokens = metadata.get(f"{_T}model"), metadata.get(f"{_T}tokens")
    if model not in ("llama", "gpt2"):
        raise _UnfitError(f"it is of the kind {model!r}; rebuilt are llama (SentencePiece's BPE) and gpt2 (bytes)")
    if not isinstance(tokens, list) or not all(isinstance(one, str) for one in tokens):
        raise _UnfitError("it has no list of tokens")
    types = metadata.get(f"{_T}token_type", [_NORMAL] * len(tokens))
    if len(types) != len(tokens):
        raise _UnfitError(f"it has {len(tokens)} tokens and {len(types)} token types")
    backend = (_sentencepiece if model == "llama" else _byte_level)(metadata, tokens, types)
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    around = {name: _special(metadata, tokens, name) for name in ("bos", "eos", "unknown", "padding")}
    before, after = _framing(metadata)
    framed = [*((around["bos"],) if before else ()), "$A", *((around["eos"],) if after else ())]
    if None in framed:
        raise _UnfitError("its metadata ask for a BOS or EOS and do not say which token that is")
    backend.post_processor = processors.TemplateProcessing(
        single=framed,  # pyright: ignore[reportArgumentType] - a list of pieces will do
        special_tokens=[(one, tokens.index(one)) for one in framed if one not in ("$A", None)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=around["bos"],
        eos_token=around["eos"],
        unk_token=around["unknown"],
        pad_token=around["padding"],
        chat_template=metadata.get("tokenizer.chat_template"),
        model_max_length=metadata.get(f"{metadata.get('general.architecture')}.context_length", 10**30),
        clean_up_tokenization_spaces=False,
    )


def _special(metadata: dict[str, Any], tokens: Sequence[str], name: str) -> str | None:
    index = metadata.get(f"{_T}{name}_token_id")
    if index is None:
        return None
    if not 0 <= index < len(tokens):
        raise _UnfitError(f"its {name} token is number {index} of {len(tokens)}")
    return str(tokens[index])


def _framing(metadata: dict[str, Any]) -> tuple[bool, bool]:
    """Whether BOS stands in front of every text, and EOS at its end; where the file is silent, as its kind has it."""
    usual = metadata[f"{_T}model"] == "llama" or metadata.get(f"{_T}pre") == "llama-bpe"
    return bool(metadata.get(f"{_T}add_bos_token", usual)), bool(metadata.get(f"{_T}add_eos_token", False))


def merges_of(tokens: Sequence[str], scores: Sequence[float], types: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Each way to split a normal token into two normal tokens, by the score of the whole token, the highest first.

    >>> list(merges_of(["a", "b", "ab", "abb"], [-1.0, -2.0, -4.0, -3.0], [1, 1, 1, 1]))
    [('ab', 'b'), ('a', 'b')]
    """
    normal = {token: index for index, token in enumerate(tokens) if types[index] == _NORMAL}
    for token in sorted(normal, key=lambda one: (-scores[normal[one]], normal[one])):
        ways = [
            (normal[token[:at]], normal[token[at:]])
            for at in range(1, len(token))
            if token[:at] in normal and token[at:] in normal
        ]
        yield from ((tokens[left], tokens[right]) for left, right in sorted(ways))


def _sentencepiece(metadata: dict[str, Any], tokens: list[str], types: Sequence[int]) -> Tokenizer:
    scores = metadata.get(f"{_T}scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise _UnfitError(f"it has {len(tokens)} tokens, and scores for {len(scores) if scores else 'none'} of them")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    unknown = _special(metadata, tokens, "unknown")
    merges = list(merges_of(tokens, scores, types))
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, byte_fallback=_BYTE in types, unk_token=unknown, fuse_unk=True)
    )
    prefix = metadata.get(f"{_T}add_space_prefix", True)
    spaces = normalizers.Replace(" ", "▁")
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
        backend.decoder = decoders.Sequence([*back, decoders.Strip(" ", left=1)])
    else:
        backend.normalizer, backend.decoder = spaces, decoders.Sequence(back)
    # in SentencePiece a user-defined token is cut out of the text with its spaces already ▁
    mine = [AddedToken(tokens[i], normalized=not prefix) for i in range(len(tokens)) if types[i] == _USER]
    backend.add_tokens(mine)
    return backend


def _byte_level(metadata: dict[str, Any], tokens: list[str], types: Sequence[int]) -> Tokenizer:
    pre, merges = metadata.get(f"{_T}pre"), metadata.get(f"{_T}merges")
    if pre not in _PRE:
        raise _UnfitError(f"how it splits a text before merging is {pre!r}, and known are {', '.join(_PRE)}")
    if not isinstance(merges, list):
        raise _UnfitError("it has no merges")
    backend = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=[tuple(one.split(" ", 1)) for one in merges],  # pyright: ignore
            ignore_merges=pre in _WHOLE_FIRST,
        )
    )
    if pre in _COMPOSED:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Sequence(_PRE[pre]()), decoders.ByteLevel()
    backend.add_tokens([AddedToken(tokens[i], normalized=False) for i in range(len(tokens)) if types[i] == _USER])
    return backend


def check(tokenizer: Any, header: GgufHeader) -> None:
    """Prove, as far as a GGUF file can tell, that this is the tokenizer of the model in it.

    - its vocabulary is the file's, number by number
    - BOS and EOS stand around a text exactly as the file says, once
    - each normal token's text comes out as that one token, so the merges lead to it (but for 1 % of them)
    - control and user-defined tokens stay whole
    - texts in ten languages, with spaces, lines and characters that no token has, come back as they were

    Raises:
        _UnfitError: one of these fails.
    """
    metadata = header.metadata
    tokens: list[str] = metadata[f"{_T}tokens"]
    types = metadata.get(f"{_T}token_type", [_NORMAL] * len(tokens))
    vocabulary = tokenizer.get_vocab()
    other = next((i for i, token in enumerate(tokens) if vocabulary.get(token) != i), None)
    if other is not None and types[other] != _UNUSED:
        raise _UnfitError(f"token {other} of the file is {tokens[other]!r}, which the tokenizer has as another")
    _check_framing(tokenizer, metadata)
    _check_whole(tokenizer, metadata, tokens, types)
    for text in PROBES:
        back = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False))
        if back != text:
            at = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), len(back))
            raise _UnfitError(f"{text[at : at + 20]!r} comes back as {back[at : at + 20]!r}")


def _check_framing(tokenizer: Any, metadata: dict[str, Any]) -> None:
    before, after = _framing(metadata)
    bos, eos = metadata.get(f"{_T}bos_token_id"), metadata.get(f"{_T}eos_token_id")
    for text in ("", "a"):
        bare = tokenizer.encode(text, add_special_tokens=False)
        wanted = [*([bos] if before else []), *bare, *([eos] if after else [])]
        if (got := tokenizer.encode(text)) != wanted:
            raise _UnfitError(
                f"the file asks for {'a' if before else 'no'} BOS and {'an' if after else 'no'} EOS, so {text!r} "
                f"should be {wanted} and is {got}"
            )


def _check_whole(tokenizer: Any, metadata: dict[str, Any], tokens: Sequence[str], types: Sequence[int]) -> None:
    """Each token's text is that token."""
    for kind in (_CONTROL, _USER):
        for index in _spread([i for i, one in enumerate(types) if one == kind and tokens[i]]):
            if tokenizer.encode(tokens[index].replace("▁", " "), add_special_tokens=False) != [index]:
                raise _UnfitError(f"{tokens[index]!r}, token {index}, does not stay whole")
    normal = _spread([i for i, one in enumerate(types) if one == _NORMAL])
    if metadata[f"{_T}model"] == "llama":
        prefixed = metadata.get(f"{_T}add_space_prefix", True)
        normal = [i for i in normal if tokens[i].startswith("▁") or not prefixed]
        texts = [tokens[i].replace("▁", " ")[1 if prefixed else 0 :] for i in normal]
    else:
        texts = [tokenizer.backend_tokenizer.decoder.decode([tokens[i]]) for i in normal]
    pairs = [(i, text) for i, text in zip(normal, texts, strict=True) if text and "\ufffd" not in text]
    encoded = tokenizer([text for _, text in pairs], add_special_tokens=False)["input_ids"] if pairs else []
    split = [(i, found) for (i, _), found in zip(pairs, encoded, strict=True) if found != [i]]
    if len(split) > _UNREACHABLE * len(pairs):
        index, found = split[0]
        raise _UnfitError(
            f"{len(split)} of {len(pairs)} tokens come out as others: {tokens[index]!r}, token {index}, as {found[:6]}"
        )


def _spread(indices: Sequence[int]) -> list[int]:
    """So many of these that are spread evenly."""
    step = max(1, -(-len(indices) // _PROBED))
    return list(indices[::step])

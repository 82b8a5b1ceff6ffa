"""The model and the corpus of the stored results: `tests.planted` in small, four languages and 120 neurons.

Each word's embedding is common + language + parity + index, and attention writes nothing. Every neuron's gate row is an
odd whole number of halves on every token: no rounding on another machine turns a firing neuron into a silent one.

    single, pairs, triples   planted: they fire on the words of 1, 2 or 3 languages; single ones let the model speak it
    everywhere               on every word
    mixed                    on words of some random indices, or of one parity, more in one language than in others
    silent                   on none
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from tests.planted import NOISE, WORDS
from tests.tiny_models import MAX_LENGTH, SPECIALS, save_quietly, wrap_tokenizer

LANGUAGES = {"en": "English", "es": "Spanish", "fr": "French", "de": "German"}
LAYERS, D_MLP, HIDDEN = 3, 40, 32
TARGET = 12
QUESTIONS = 8

_COMMON, _SPECIAL, _EVEN, _ODD, _NO_LANGUAGE = 0, 5, 7, 8, 6
_LANGUAGE = {code: 1 + k for k, code in enumerate(LANGUAGES)}
_INDEX = list(range(9, 21))
_SPEAK = {code: 21 + k for k, code in enumerate(LANGUAGES)}
_UNIT = (HIDDEN / 4) ** 0.5  # what RMSNorm makes of each of the four ones of a word


def words_of(code: str) -> list[str]:
    """A language's twelve words; the last one names the right answer."""
    *others, last = WORDS[LANGUAGES[code]].split()
    return [*others, f"{last}={TARGET}"]


def records() -> list[dict[str, Any]]:
    """A corpus with targets: the same questions in every language, answered at different lengths."""
    return [
        {
            "lang": code,
            "id": f"q{start}",
            "target": str(TARGET),
            "instruction": _say(code, start, 3 + (start + k) % 4),
            "answers": [{"generated": " " + _say(code, 3 * start + 5 * n + k, 7 + k + 2 * n)} for n in range(2)],
        }
        for k, code in enumerate(LANGUAGES)
        for start in range(QUESTIONS)
    ]


def save_model(folder: Path, *, seed: int, moved: Mapping[int, tuple[str, ...]] | None = None) -> None:
    """A model; `moved` gives the neurons at some places of the list of planted ones other languages."""
    config = LlamaConfig(
        vocab_size=len(_vocabulary()),
        hidden_size=HIDDEN,
        intermediate_size=D_MLP,
        num_hidden_layers=LAYERS,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=4,
        max_position_embeddings=MAX_LENGTH,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
        dtype="float32",
    )
    torch.manual_seed(seed)
    network = LlamaForCausalLM(config).float()
    gates, downs = _neurons(torch.Generator().manual_seed(seed), moved or {})
    noise = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        network.model.embed_tokens.weight.copy_(_embedding())
        network.lm_head.weight.copy_(_head())
        for layer, gate, down in zip(network.model.layers, gates, downs, strict=True):
            for name in "qkvo":
                getattr(layer.self_attn, f"{name}_proj").weight.zero_()
            layer.mlp.gate_proj.weight.copy_(gate)
            layer.mlp.down_proj.weight.copy_(down)
            layer.mlp.up_proj.weight.copy_(torch.randn(D_MLP, HIDDEN, generator=noise) * 0.05)
            layer.mlp.up_proj.weight[:, _COMMON] = 1 / _UNIT
    save_quietly(network, folder)
    _tokenizer().save_pretrained(folder)


def write_corpora(folder: Path) -> None:
    """`corpus.json`, and its questions alone in `questions.json`."""
    every = records()
    for name, some in (("corpus", every), ("questions", [{**one, "answers": []} for one in every])):
        lines = ",\n".join(json.dumps(one, ensure_ascii=False) for one in some)
        (folder / f"{name}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _neurons(generator: torch.Generator, moved: Mapping[int, tuple[str, ...]]) -> tuple[Tensor, Tensor]:
    """Gate and down projections of all layers."""
    codes = list(LANGUAGES)
    around = [*codes, *codes]
    sets = [tuple(around[k : k + n]) for n, copies in ((1, 3), (2, 1), (3, 1)) for k in range(4) for _ in range(copies)]
    sets = [moved.get(place, languages) for place, languages in enumerate(sets)]
    places = torch.randperm(LAYERS * D_MLP, generator=generator).tolist()
    gate = torch.zeros(LAYERS * D_MLP, HIDDEN)
    down = torch.zeros(LAYERS * D_MLP, HIDDEN)
    gate[:, _COMMON] = -2.0
    for place, languages in zip(places, sets, strict=False):
        gate[place, [_LANGUAGE[code] for code in languages]] = 4.0
        if len(languages) == 1:
            down[place, _SPEAK[languages[0]]] = 2 / (3 * 2 * _UNIT)
    rest = places[len(sets) :]
    gate[rest[:3], _COMMON] = 2.0
    for place in rest[3:55]:
        chosen = torch.randperm(len(_INDEX), generator=generator)[: 2 + place % 7].tolist()
        gate[place, _COMMON] = -0.5
        gate[place, [_INDEX[at] for at in chosen]] = 1.0
        gate[place, list(_LANGUAGE.values())[place % 4]] = -1.0 if place % 3 else 1.0
        gate[place, _EVEN] = float(place % 5 == 0)
        heard = [*_INDEX, *_SPEAK.values()]
        down[place, heard] = torch.randn(len(heard), generator=generator) * 0.02
    shape = (LAYERS, D_MLP, HIDDEN)
    return gate.view(shape), down.view(shape).transpose(1, 2).contiguous()


def _embedding() -> Tensor:
    weight = torch.zeros(len(_vocabulary()), HIDDEN)
    weight[:, [_COMMON, _SPECIAL]] = torch.tensor([1.0, 3**0.5])
    for row, index, direction in _words():
        weight[row, _SPECIAL] = 0
        weight[row, [_COMMON, direction, _ODD if index % 2 else _EVEN, _INDEX[index]]] = 1.0
    return weight


def _head() -> Tensor:
    weight = torch.zeros(len(_vocabulary()), HIDDEN)
    speak = {direction: _SPEAK[code] for code, direction in _LANGUAGE.items()}
    for row, index, direction in _words():
        weight[row, _INDEX[index - 1]] = 1.0
        weight[row, speak.get(direction, _COMMON)] = 0.8 if direction in speak else 0.3
    return weight


def _words() -> list[tuple[int, int, int]]:
    """(token, index in its language, direction of its language) of every word."""
    rows = [(index, _LANGUAGE[code]) for code in LANGUAGES for index in range(len(words_of(code)))]
    rows += [(index, _NO_LANGUAGE) for index in range(len(NOISE))]
    return [(len(SPECIALS) + row, index, direction) for row, (index, direction) in enumerate(rows)]


def _vocabulary() -> list[str]:
    return [*SPECIALS, *(word for code in LANGUAGES for word in words_of(code)), *NOISE]


def _tokenizer() -> Any:
    """One token per word, and a BOS in front."""
    vocabulary = {word: index for index, word in enumerate(_vocabulary())}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return wrap_tokenizer(backend)


def _say(code: str, start: int, length: int) -> str:
    words = words_of(code)
    return " ".join(words[(start + step) % len(words)] for step in range(length))

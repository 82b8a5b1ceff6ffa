"""A tiny Llama whose language neurons are known, because they were put there by hand.

Every word's embedding is a sum of four directions of equal length (so that RMSNorm scales them all alike):

    e(word) = common + language(word) + parity(word) + index(word)

Attention writes nothing. A planted neuron for the languages S has the gate row 2 Σ_{k∈S} language_k − common, so that
it fires exactly on the words of S; other neurons fire on everything (common), on every second word (2 even − common)
or never (−common). The neurons of a single language write the direction `speak_k` into the residual stream, which the
lm_head reads for the words of language k: without them, and only then, the model cannot say language k, and says
meaningless words in its place. The lm_head also reads the index, so that each word is followed by the next one.

    language k    word 0 → word 1 → … → word 11 → word 0

`Numbered` is the same model whose last word in each language ends in a number: a model with answers to evaluate.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from language_neurons_alignment._session import Session, open_session
from language_neurons_alignment.activation import collect_activations
from language_neurons_alignment.autosweep import autosweep
from language_neurons_alignment.config import Sampling, Selection
from language_neurons_alignment.corpus.encode import PromptGroup
from language_neurons_alignment.corpus.encode import Tokenizer as AnyTokenizer
from language_neurons_alignment.identify import identify
from tests.tiny_models import MAX_LENGTH, SPECIALS, save_quietly, wrap_tokenizer

WORDS = {
    "English": "the house water children read good books today with many friends here",
    "Russian": "этот дом вода дети читают хорошие книги сегодня с многими друзьями здесь",
    "Spanish": "la casa agua niños leen buenos libros hoy con muchos amigos aquí",
    "French": "le maison eau enfants lisent bons livres aujourd'hui avec beaucoup d'amis ici",
    "German": "das Haus Wasser Kinder lesen gute Bücher heute mit vielen Freunden hier",
    "Chinese": "这 房子 水 孩子 读 好 书 今天 和 许多 朋友 这里",
    "Japanese": "この 家 みず 子供 読む よい 本 きょう と たくさん 友達 ここ",
    "Bengali": "এই বাড়ি জল শিশুরা পড়ে ভালো বই আজ সঙ্গে অনেক বন্ধু এখানে",
    "Thai": "นี้ บ้าน น้ำ เด็ก อ่าน ดี หนังสือ วันนี้ กับ หลาย เพื่อน ที่นี่",
    "Swahili": "hii nyumba maji watoto wanasoma vizuri vitabu leo na wengi marafiki hapa",
}
NOISE = [f"~{index}" for index in range(12)]
"""What is said where no language is spoken."""

LANGUAGES = tuple(WORDS)
LAYERS, D_MLP, HIDDEN, VOCABULARY = 4, 160, 256, 192

_COMMON, _EVEN, _ODD, _SPECIAL, _NO_LANGUAGE = 0, 11, 12, 26, 27
_LANGUAGE = {language: 1 + k for k, language in enumerate(LANGUAGES)}
_INDEX = list(range(14, 26))
_SPEAK = {language: 32 + k for k, language in enumerate(LANGUAGES)}

Neuron = tuple[int, int]


@dataclass(frozen=True)
class PlantedModel:
    """The model on disk, and the truth about its neurons.

    Attributes:
        folder: where it is.
        planted: (layer, neuron) → the languages on whose every word it fires; it fires on nothing else.
        everywhere: neurons that fire on every token.
        half: neurons that fire on every second word of each language alike.
    """

    folder: Path
    planted: dict[Neuron, frozenset[str]]
    everywhere: frozenset[Neuron]
    half: frozenset[Neuron]

    languages = LANGUAGES

    @classmethod
    def save(
        cls,
        folder: Path,
        *,
        speaks: bool = True,
        seed: int = 0,
        moved: Mapping[Neuron, frozenset[str]] | None = None,
    ) -> PlantedModel:
        """Make the model in `folder`.

        Args:
            folder: made if it is not there.
            speaks: the neurons of a single language carry its words to the lm_head; else no neuron does anything.
            seed: decides which neurons are planted.
            moved: (layer, neuron) → other languages than the model without moves has there, perhaps none or all.
        """
        places = [(layer, neuron) for layer in range(LAYERS) for neuron in range(D_MLP)]
        random.Random(seed).shuffle(places)
        sets = _planted_sets()
        moved = moved or {}
        planted = dict(zip(places, sets, strict=False)) | dict(moved)
        rest = places[len(sets) :]
        truth = cls(folder, planted, frozenset(rest[:16]) - moved.keys(), frozenset(rest[16:96]) - moved.keys())
        save_quietly(_network(truth, speaks=speaks), folder)
        planted_tokenizer().save_pretrained(folder)
        return truth

    def fires_on(self, language: str) -> Bool[Tensor, "layer neuron"]:
        """The neurons that fire on every word of this language."""
        return _mask([*self.everywhere, *(place for place, some in self.planted.items() if language in some)])

    def silent_on(self, language: str) -> Bool[Tensor, "layer neuron"]:
        """The neurons that fire on no word of this language."""
        return ~(self.fires_on(language) | _mask(self.half))

    def belonging(self, language: str) -> Bool[Tensor, "layer neuron"]:
        """The planted neurons of this language: its mask, if it is found exactly."""
        return _mask([place for place, some in self.planted.items() if language in some])

    def speakers(self, language: str) -> Bool[Tensor, "layer neuron"]:
        """The neurons through which alone the model can say this language."""
        return _mask([place for place, some in self.planted.items() if some == {language}])


def planted_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word, and a BOS in front."""
    words = [*SPECIALS, *(word for text in WORDS.values() for word in text.split()), *NOISE]
    vocabulary = {word: index for index, word in enumerate(words)}
    if len(vocabulary) != len(words) or len(words) > VOCABULARY:
        raise ValueError("every word must belong to one language, and all must fit the vocabulary")
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return wrap_tokenizer(backend)


def planted_records(languages: Iterable[str] = LANGUAGES, *, prompts: int = 6, answers: int = 2) -> list[dict]:
    """A corpus in the documented schema: the same words by index in every language."""
    return [
        {
            "lang": language,
            "instruction": _say(language, start, 4 + start),
            "answers": [{"generated": " " + _say(language, 2 * start + 4 + n, 12 + 2 * n)} for n in range(answers)],
        }
        for language in languages
        for start in range(prompts)
    ]


def planted_groups(tokenizer: AnyTokenizer, language: str) -> list[PromptGroup]:
    """One language's part of the corpus, as tokens."""
    return [
        PromptGroup(
            tuple(tokenizer.encode(record["instruction"])),
            tuple(tuple(tokenizer.encode(record["instruction"] + one["generated"])) for one in record["answers"]),
        )
        for record in planted_records([language])
    ]


def _say(language: str, start: int, length: int) -> str:
    words = WORDS[language].split()
    return " ".join(words[(start + step) % len(words)] for step in range(length))


def _planted_sets() -> list[frozenset[str]]:
    """Six neurons for each language, one for each pair and each triple of neighbours: 80 of 640."""
    around = [*LANGUAGES, *LANGUAGES]
    return [
        frozenset(around[k : k + size])
        for size, copies in ((1, 6), (2, 1), (3, 1))
        for k in range(len(LANGUAGES))
        for _ in range(copies)
    ]


def _mask(places: Iterable[Neuron]) -> Bool[Tensor, "layer neuron"]:
    mask = torch.zeros(LAYERS, D_MLP, dtype=torch.bool)
    for layer, neuron in places:
        mask[layer, neuron] = True
    return mask


SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": MAX_LENGTH,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
    "dtype": "float32",
}
"""What the configs of all planted models say."""


def _network(truth: PlantedModel, *, speaks: bool) -> LlamaForCausalLM:
    network = LlamaForCausalLM(LlamaConfig(**SIZES, intermediate_size=D_MLP)).float()
    with torch.no_grad():
        network.model.embed_tokens.weight.copy_(_embedding())
        network.lm_head.weight.copy_(_head())
        for index, layer in enumerate(network.model.layers):
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.gate_proj.weight.copy_(_gate(truth, index))
            layer.mlp.up_proj.weight.zero_()[:, _COMMON] = 1 / 8  # up x = 1 on every token, before anything is written
            layer.mlp.down_proj.weight.copy_(_down(truth, index) if speaks else torch.zeros(HIDDEN, D_MLP))
    return network


def _embedding() -> Tensor:
    weight = torch.zeros(VOCABULARY, HIDDEN)
    weight[:, [_COMMON, _SPECIAL]] = torch.tensor([1.0, 3**0.5])
    for row, index, direction in _words():
        weight[row, _SPECIAL] = 0
        weight[row, [_COMMON, direction, _ODD if index % 2 else _EVEN, _INDEX[index]]] = 1.0
    return weight


def _gate(truth: PlantedModel, layer: int) -> Tensor:
    """Rows that are +16 on what fires and −16 on the rest, once RMSNorm has made every direction 8 long."""
    weight = torch.zeros(D_MLP, HIDDEN)
    weight[:, _COMMON] = -2.0
    for (where, neuron), languages in truth.planted.items():
        if where == layer:
            weight[neuron, [_LANGUAGE[language] for language in languages]] = 4.0
    weight[[neuron for where, neuron in truth.everywhere if where == layer], _COMMON] = 2.0
    weight[[neuron for where, neuron in truth.half if where == layer], _EVEN] = 4.0
    return weight


def _down(truth: PlantedModel, layer: int) -> Tensor:
    weight = torch.zeros(HIDDEN, D_MLP)
    for (where, neuron), languages in truth.planted.items():
        if where == layer and len(languages) == 1:
            weight[_SPEAK[next(iter(languages))], neuron] = 2 / (6 * 16)  # the six of a language add up to 2
    return weight


def _head() -> Tensor:
    weight = torch.zeros(VOCABULARY, HIDDEN)
    speak = {direction: _SPEAK[language] for language, direction in _LANGUAGE.items()}
    for row, index, direction in _words():
        weight[row, _INDEX[index - 1]] = 1.0
        if direction in speak:
            weight[row, speak[direction]] = 0.8
        else:
            weight[row, _COMMON] = 0.3
    return weight


def _words() -> list[tuple[int, int, int]]:
    """(token, index in its language, direction of its language) of every word."""
    rows = [(index, _LANGUAGE[language]) for language, text in WORDS.items() for index in range(len(text.split()))]
    rows += [(index, _NO_LANGUAGE) for index in range(len(NOISE))]
    return [(len(SPECIALS) + row, index, direction) for row, (index, direction) in enumerate(rows)]


TARGET = 12
"""No number that the model says where it has no language (`planted.NOISE`)."""
ASKED = ("en", "es", "fr")
SHORT = Sampling(max_new_tokens=14)
_LAST = {text.split()[-1]: f"{text.split()[-1]}={TARGET}" for text in WORDS.values()}


@dataclass(frozen=True)
class Numbered:
    """A folder with the model, a corpus with targets, counts and the mask; and the mask's rates."""

    folder: Path
    top_rate: float
    lam: float

    @classmethod
    def make(cls, folder: Path) -> Numbered:
        """Save the model and the corpus, count, and find the neurons."""
        truth = PlantedModel.save(folder / "planted")
        path = folder / "planted" / "tokenizer.json"
        saved = json.loads(path.read_text(encoding="utf-8"))
        words = saved["model"]["vocab"]
        saved["model"]["vocab"] = {_LAST.get(word, word): number for word, number in words.items()}
        path.write_text(json.dumps(saved, ensure_ascii=False), encoding="utf-8")
        (folder / "corpus.json").write_text(json.dumps(numbered_records(), ensure_ascii=False), encoding="utf-8")
        made = cls(folder, len(truth.planted) / (LAYERS * D_MLP), 0.0)
        with made.open() as session:
            for language in session.corpus.languages:
                collect_activations(session, language)
            lam = autosweep(session.layout, session.corpus.languages, top_rate=made.top_rate).lam
            identify(session.layout, session.corpus.languages, Selection(made.top_rate, lam))
        return cls(folder, made.top_rate, lam)

    def at(self, folder: Path) -> Numbered:
        """The same in a copy."""
        return Numbered(folder, self.top_rate, self.lam)

    def open(self, **choices: Any) -> Session:
        """A session of it."""
        given = {"root": self.folder, "device": "cpu", **choices}
        return open_session(str(self.folder / "planted"), self.folder / "corpus.json", "words", **given)


def numbered_records() -> list[dict[str, Any]]:
    """The planted corpus, the same questions in every language, each with its target."""
    return [
        {
            **record,
            "id": f"q{number % 6}",
            "instruction": _with_number(record["instruction"]),
            "answers": [{"generated": f" {_with_number(one['generated'])}"} for one in record["answers"]],
            "target": str(TARGET),
        }
        for number, record in enumerate(planted_records())
    ]


def _with_number(text: str) -> str:
    return " ".join(_LAST.get(word, word) for word in text.split())

"""A naive engine: the plain model with textbook attention, one sequence at a time, no cache, no batch.

Full and prefix sequences run by themselves. Written without the engines' code, to be compared with them. It finds
neurons in its own way: the activation module is replaced by a wrapper that looks at, or changes, what passes through.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer

from language_neurons_alignment.config import Sampling
from language_neurons_alignment.core.counts import LanguageCounts, LanguageMoments, SpanCounts, SpanMoments
from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.core.model import ModelInfo
from language_neurons_alignment.core.perplexity import TextLikelihood
from language_neurons_alignment.corpus.encode import GeneratedAnswer, Prompt, PromptGroup, ScoredText
from tests.tiny_models import auto_model

_SEES = re.compile("visi|visual|project|connector")
"""Names of modules that work on images."""
_ACTIVATIONS = ("act_fn", "activation_fn", "activation", "act", "gelu_impl")


class Tap(nn.Module):
    """Replaces an activation module: applies its function, then the changes, and remembers the result."""

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.changes: list[tuple[Tensor, Tensor]] = []
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        activation = self.function(x)
        for scale, shift in self.changes:
            scale, shift = scale[: activation.shape[-1]], shift[: activation.shape[-1]]
            changed = torch.where(scale == 0, shift.expand_as(activation), activation * scale + shift)
            activation = torch.where((scale != 1) | (shift != 0), changed, activation)
        self.seen.append(activation.reshape(-1, activation.shape[-1]))
        return activation


class NaiveEngine:
    """The oracle, with the methods of an engine."""

    def __init__(self, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
        # eager is the only attention that does all that every architecture needs (Gemma 2 caps its scores)
        kind = auto_model(AutoConfig.from_pretrained(folder))
        loaded = kind.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
        self.network = loaded.eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.taps = _tap(self.network)
        config = self.network.config
        self.widths = [0] * len(self.taps)
        self.widths = [one.shape[1] for one in self._activations((1,))]
        width = max(self.widths)
        name = config.architectures[0]
        longest = getattr(config.get_text_config(), "max_position_embeddings", None) or config.max_seq_len
        self.model = ModelInfo(str(folder), name, len(self.taps), width, longest, "float32", _ends(folder))
        self.provenance: dict[str, str | int | float | bool] = {"engine": "oracle"}

    def count(
        self,
        groups: Sequence[PromptGroup],
        *,
        progress: Callable[[int], None] = lambda _: None,
        moments: bool = False,
    ) -> LanguageCounts:
        spans, summed = [], []
        for sequences in ([f for g in groups for f in g.full], [g.prefix for g in groups for _ in g.full]):
            shape = (self.model.layers, self.model.d_mlp)
            total, over_zero = 0, torch.zeros(shape, dtype=torch.int64)
            plain, squares = np.zeros(shape), np.zeros(shape)
            for sequence in sequences:
                if sequence:
                    activations = self._activations(sequence)
                    total += activations[0].shape[0]
                    over_zero += torch.stack([(one > 0).sum(0) for one in activations])
                    seen = torch.stack(activations).to(torch.float64).numpy()  # [layer, position, neuron]
                    plain, squares = plain + seen.sum(1), squares + np.square(seen).sum(1)
                    progress(len(sequence))
            spans.append(SpanCounts(total, over_zero))
            summed.append(SpanMoments(total, torch.from_numpy(plain), torch.from_numpy(squares)))
        return LanguageCounts(spans[0], spans[1], LanguageMoments(*summed) if moments else None)

    def log_likelihood(
        self, texts: Sequence[ScoredText], *, progress: Callable[[int], None] = lambda _: None
    ) -> list[TextLikelihood]:
        results = []
        for text in texts:
            first = max(text.start, 1)
            if first >= len(text.tokens):
                results.append(TextLikelihood(0.0, 0))
                continue
            with torch.no_grad():
                logits = self.network(input_ids=torch.tensor([text.tokens])).logits[0].double()
            losses = nn.functional.cross_entropy(
                logits[first - 1 : -1], torch.tensor(text.tokens[first:]), reduction="sum"
            )
            results.append(TextLikelihood(losses.item(), len(text.tokens) - first))
            progress(len(text.tokens))
        return results

    def generate(
        self, prompts: Sequence[Prompt], *, sampling: Sampling, progress: Callable[[int], None] = lambda _: None
    ) -> list[GeneratedAnswer]:
        assert sampling.greedy, "the oracle takes the likeliest token; it draws none"
        answers = [self._answer(prompt.tokens, sampling) for prompt in prompts]
        progress(sum(len(answer.tokens) for answer in answers))
        return answers

    def answer_batches(self, prompts: Sequence[Prompt], *, sampling: Sampling) -> list[list[int]]:
        return [[index] for index in range(len(prompts))]

    def probabilities(self, tokens: Sequence[int]) -> Tensor:
        """The probabilities of the next token, in float64."""
        with torch.no_grad():
            logits = self.network(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
        return torch.softmax(logits.double(), dim=-1)

    def _answer(self, prompt: Sequence[int], sampling: Sampling) -> GeneratedAnswer:
        """An answer; each token is computed without a cache, and the text is decoded anew after each."""
        new: list[int] = []
        read = partial(self.tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        while True:
            token = int(self.probabilities([*prompt, *new]).argmax())
            if token in self.model.end_tokens:
                return GeneratedAnswer(read([*prompt, *new])[len(read(prompt)) :], tuple(new), "eos")
            new.append(token)
            text = read([*prompt, *new])[len(read(prompt)) :]
            found = [text.index(stop) for stop in sampling.stop if stop in text]
            if found:
                return GeneratedAnswer(text[: min(found)], tuple(new), "stop")
            if len(new) == sampling.max_new_tokens or len(prompt) + len(new) == self.model.max_length:
                return GeneratedAnswer(text.rstrip("\ufffd"), tuple(new), "length")

    @contextmanager
    def intervene(self, intervention: Intervention) -> Iterator[None]:
        dtype = self.network.dtype
        for tap, scale, shift in zip(
            self.taps, intervention.scale.to(dtype), intervention.shift.to(dtype), strict=True
        ):
            tap.changes.append((scale, shift))
        try:
            yield
        finally:
            for tap in self.taps:
                tap.changes.pop()

    def close(self) -> None:
        del self.network

    def _activations(self, tokens: tuple[int, ...]) -> list[Tensor]:
        for tap in self.taps:
            tap.seen.clear()
        with torch.no_grad():
            self.network(input_ids=torch.tensor([tokens]))
        seen = [torch.cat(tap.seen) for tap in self.taps]
        widest = max(self.widths)
        return [nn.functional.pad(one, (0, max(0, widest - one.shape[1]))) for one in seen]  # as wide as the widest


def _ends(folder: Path) -> tuple[int, ...]:
    """The end tokens, from the file that names them."""
    named = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    return tuple(named) if isinstance(named, list) else (named,)


def _tap(network: nn.Module) -> list[Tap]:
    """Replace the activation module of every decoder layer; a vision tower keeps its own."""
    taps = []
    for name, module in list(network.named_modules()):
        for attribute in _ACTIVATIONS:
            inner = "mlp" in module._modules  # a layer of Gemma 3n or 4: its own activation gates embeddings
            if isinstance(module._modules.get(attribute), nn.Module) and not _SEES.search(name) and not inner:
                tap = Tap(getattr(module, attribute))
                setattr(module, attribute, tap)
                taps.append(tap)
    return taps

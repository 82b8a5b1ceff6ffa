"""A naive engine: the plain model with textbook attention, one sequence at a time, no cache, no batch.

Full and prefix sequences run by themselves. Written without the engines' code, to be compared with them. It finds
neurons in its own way: the activation module is replaced by a wrapper that looks at, or changes, what passes through.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer

from language_neurons_alignment.config import Sampling
from language_neurons_alignment.core.counts import LanguageCounts, LanguageMoments, SpanCounts, SpanMoments
from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.core.model import ModelInfo
from language_neurons_alignment.core.perplexity import TextLikelihood
from language_neurons_alignment.core.routing import Experts, LanguageRouting, SpanRouting
from language_neurons_alignment.corpus.encode import GeneratedAnswer, Prompt, PromptGroup, ScoredText
from tests.tiny_models import auto_model

_ELSEWHERE = re.compile("visi|visual|audio|temporal|project|connector|attn|attention|mamba|router")
"""Names of modules that work on images, mix tokens, or choose experts."""
_FUNCTIONS = {
    "silu": nn.functional.silu,
    "gelu": nn.functional.gelu,
    "gelu_pytorch_tanh": partial(nn.functional.gelu, approximate="tanh"),
}
"""Of experts, by their name in a config."""
_OWN_EXPERTS = {"gpt_oss": "gpt_oss", "llama4_text": "llama4"}
"""Kinds whose experts compute by an equation of their own."""
_ACTIVATIONS = ("act_fn", "activation_fn", "activation", "act", "gelu_impl", "1")


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


class ExpertsTap(nn.Module):
    """Replaces a layer's experts: computes every expert on every token, and keeps of each token what its router chose.

    The equations are written out here: nothing is asked of the library but weights and the router's choice.
    """

    def __init__(self, experts: nn.Module, act: str) -> None:
        super().__init__()
        self.experts = experts
        self.act = act
        self.changes: list[tuple[Tensor, Tensor]] = []
        self.seen: list[Tensor] = []
        self.chosen: list[Tensor] = []
        self.weights: list[Tensor] = []

    def forward(self, hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        experts = self.experts
        first, down = experts.gate_up_proj, experts.down_proj  # [expert, out, in]
        if self.act == "gpt_oss":
            both = torch.einsum("th,ehf->tef", hidden, first) + experts.gate_up_proj_bias
            gate, up = both[..., 0::2].clamp(max=7.0), both[..., 1::2].clamp(-7.0, 7.0) + 1
            activation = gate / (1 + torch.exp(-1.702 * gate))
        elif self.act == "llama4":  # the weights are of the experts' inputs
            share = torch.zeros(len(hidden), len(down)).scatter_(1, index, weights)
            both = torch.einsum("teh,ehf->tef", hidden[:, None] * share[..., None], first)
            gate, up = both.chunk(2, dim=-1)
            activation = gate / (1 + torch.exp(-gate))
        else:
            width = first.shape[1] // 2
            gate = torch.einsum("th,efh->tef", hidden, first[:, :width])
            up = torch.einsum("th,efh->tef", hidden, first[:, width:])
            activation = _FUNCTIONS[self.act](gate)
        share = torch.zeros(len(hidden), len(down), dtype=weights.dtype).scatter_(1, index, weights)
        chosen = torch.zeros(len(hidden), len(down), dtype=torch.bool).scatter_(1, index, True)
        flat = activation.flatten(1)
        for scale, shift in self.changes:
            scale, shift = scale[: flat.shape[1]], shift[: flat.shape[1]]  # behind them are the shared experts
            changed = torch.where(scale == 0, shift.expand_as(flat), flat * scale + shift)
            flat = torch.where((scale != 1) | (shift != 0), changed, flat)
        activation = flat.view_as(activation)
        self.seen.append((activation * chosen[..., None]).flatten(1))
        self.chosen.append(chosen)
        self.weights.append(share)
        if self.act == "gpt_oss":
            given = torch.einsum("tef,efh->teh", activation * up, down) + experts.down_proj_bias
        elif self.act == "llama4":
            return (torch.einsum("tef,efh->teh", activation * up, down) * chosen[..., None]).sum(1)
        else:
            given = torch.einsum("tef,ehf->teh", activation * up, down)
        return (given * share[..., None]).sum(1).to(hidden.dtype)


@dataclass(frozen=True)
class Pass:
    """What a sequence, run by itself, gives."""

    activations: list[Tensor]  # of each layer, [position, neuron], as wide as the widest
    logits: Tensor  # [position, vocabulary]
    routing: SpanRouting | None


class NaiveEngine:
    """The oracle, with the methods of an engine.

    Args:
        folder: the model.
        dtype: its precision.
        keep: a sequence is run once for all who ask; the network must not be changed but by `intervene`.
    """

    at_once = 1

    def __init__(self, folder: Path, *, dtype: torch.dtype = torch.float32, keep: bool = False) -> None:
        # eager is the only attention that does all that every architecture needs (Gemma 2 caps its scores)
        kind = auto_model(AutoConfig.from_pretrained(folder))
        loaded = kind.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
        self.network = loaded.eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.taps = _tap(self.network)
        self.experts = None
        self._passes: dict[tuple[object, ...], Pass] | None = {} if keep else None
        self._changes: list[tuple[bytes, bytes]] = []
        config = self.network.config
        self.routers: dict[int, ExpertsTap] = {}
        width = self._run((1,)).activations[0].shape[1]  # of the widest layer
        routed = [(layer, tap) for layer, taps in enumerate(self.taps) for tap in taps if isinstance(tap, ExpertsTap)]
        self.routers = dict(routed)
        if routed:
            number, top_k = routed[0][1].chosen[0].shape[1], int(routed[0][1].chosen[0].sum(1)[0])
            of_one = routed[0][1].seen[0].shape[1] // number
            self.experts = Experts(tuple(layer for layer, _ in routed), number, of_one, top_k)
        name = config.architectures[0]
        named = (getattr(config.get_text_config(), name, None) for name in ("max_position_embeddings", "max_seq_len"))
        longest = next(filter(None, named), self.tokenizer.model_max_length)
        self.model = ModelInfo(str(folder), name, len(self.taps), width, longest, "float32", _ends(folder))
        self.model = replace(self.model, experts=self.experts)
        self.provenance: dict[str, str | int | float | bool] = {"engine": "oracle"}

    def count(
        self,
        groups: Sequence[PromptGroup],
        *,
        progress: Callable[[int], None] = lambda _: None,
        moments: bool = False,
    ) -> LanguageCounts:
        spans, summed, routings = [], [], []
        for sequences in ([f for g in groups for f in g.full], [g.prefix for g in groups for _ in g.full]):
            shape = (self.model.layers, self.model.d_mlp)
            total, over_zero = 0, torch.zeros(shape, dtype=torch.int64)
            plain, squares = np.zeros(shape), np.zeros(shape)
            routing = self.experts and SpanRouting.zero(self.model.layers, self.experts.number)
            for sequence in sequences:
                if sequence:
                    done = self._pass(sequence)
                    activations = done.activations
                    total += activations[0].shape[0]
                    over_zero += torch.stack([(one > 0).sum(0) for one in activations])
                    seen = torch.stack(activations).to(torch.float64).numpy()  # [layer, position, neuron]
                    plain, squares = plain + seen.sum(1), squares + np.square(seen).sum(1)
                    if routing is not None and done.routing is not None:
                        routing = routing + done.routing
                    progress(len(sequence))
            routings.append(routing)
            spans.append(SpanCounts(total, over_zero))
            summed.append(SpanMoments(total, torch.from_numpy(plain), torch.from_numpy(squares)))
        routing = self.experts and LanguageRouting(self.experts, *routings)
        return LanguageCounts(spans[0], spans[1], LanguageMoments(*summed) if moments else None, routing)

    def _routed(self, tokens: int) -> SpanRouting:
        """What the routers chose in the last pass."""
        assert self.experts is not None
        routed = torch.zeros(self.model.layers, self.experts.number, dtype=torch.int64)
        weight = torch.zeros(routed.shape, dtype=torch.float64)
        for layer, tap in self.routers.items():
            routed[layer] = tap.chosen[-1].sum(0)
            weight[layer] = tap.weights[-1].double().sum(0)
        return SpanRouting(tokens, routed, weight)

    def log_likelihood(
        self, texts: Sequence[ScoredText], *, progress: Callable[[int], None] = lambda _: None
    ) -> list[TextLikelihood]:
        results = []
        for text in texts:
            first = max(text.start, 1)
            if first >= len(text.tokens):
                results.append(TextLikelihood(0.0, 0))
                continue
            logits = self._pass(text.tokens).logits.double()
            losses = nn.functional.cross_entropy(
                logits[first - 1 : -1], torch.tensor(text.tokens[first:]), reduction="sum"
            )
            results.append(TextLikelihood(losses.item(), len(text.tokens) - first))
            progress(len(text.tokens))
        return results

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        sampling: Sampling,
        progress: Callable[[int], None] = lambda _: None,
        follow: Callable[[int, str], bool] = lambda _position, _text: True,
    ) -> list[GeneratedAnswer]:
        assert sampling.greedy, "the oracle takes the likeliest token; it draws none"
        answers = [
            self._answer(prompt.tokens, sampling, partial(follow, position)) for position, prompt in enumerate(prompts)
        ]
        progress(sum(len(answer.tokens) for answer in answers))
        return answers

    def answer_batches(self, prompts: Sequence[Prompt], *, sampling: Sampling) -> list[list[int]]:
        return [[index] for index in range(len(prompts))]

    def probabilities(self, tokens: Sequence[int]) -> Tensor:
        """The probabilities of the next token, in float64."""
        return torch.softmax(self._pass(tuple(tokens)).logits[-1].double(), dim=-1)

    def _answer(self, prompt: Sequence[int], sampling: Sampling, follow: Callable[[str], bool]) -> GeneratedAnswer:
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
            if not follow(text[: min(found, default=None)].rstrip("\ufffd")) and not found:
                return GeneratedAnswer(text.rstrip("\ufffd"), tuple(new), "cancelled")
            if found:
                return GeneratedAnswer(text[: min(found)], tuple(new), "stop")
            if len(new) == sampling.max_new_tokens or len(prompt) + len(new) == self.model.max_length:
                return GeneratedAnswer(text.rstrip("\ufffd"), tuple(new), "length")

    @contextmanager
    def intervene(self, intervention: Intervention) -> Iterator[None]:
        dtype = self.network.dtype
        self._changes.append((intervention.scale.numpy().tobytes(), intervention.shift.numpy().tobytes()))
        for taps, scale, shift in zip(
            self.taps, intervention.scale.to(dtype), intervention.shift.to(dtype), strict=True
        ):
            start = 0
            for tap in taps:
                tap.changes.append((scale[start:], shift[start:]))
                start += tap.seen[-1].shape[1]
        try:
            yield
        finally:
            self._changes.pop()
            for taps in self.taps:
                for tap in taps:
                    tap.changes.pop()

    def close(self) -> None:
        del self.network

    def _pass(self, tokens: tuple[int, ...]) -> Pass:
        if self._passes is None:
            return self._run(tokens)
        key = (tokens, *self._changes)
        if key not in self._passes:
            self._passes[key] = self._run(tokens)
        return self._passes[key]

    def _run(self, tokens: tuple[int, ...]) -> Pass:
        for taps in self.taps:
            for tap in taps:
                tap.seen.clear()
        with torch.no_grad():
            logits = self.network(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
        layers = [torch.cat([torch.cat(tap.seen) for tap in taps], dim=1) for taps in self.taps]
        widest = max(one.shape[1] for one in layers)
        activations = [nn.functional.pad(one, (0, widest - one.shape[1])) for one in layers]
        return Pass(activations, logits, None if self.experts is None else self._routed(len(tokens)))


def _ends(folder: Path) -> tuple[int, ...]:
    """The end tokens, from the file that names them."""
    named = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    return tuple(named) if isinstance(named, list) else (named,)


def _tap(network: nn.Module) -> list[list[Tap | ExpertsTap]]:
    """Replace the activation modules and the experts of every decoder layer; a vision tower keeps its own.

    A layer's experts come first, then what is computed for every token.
    """
    taps: dict[int, list[Tap | ExpertsTap]] = {}
    for name, module in list(network.named_modules()):
        layer = re.search(r"\.(\d+)\.", f".{name}.")
        if layer is None or _ELSEWHERE.search(name) or ".experts." in name:
            continue
        here = taps.setdefault(int(layer[1]), [])
        experts = module._modules.get("experts")
        if experts is not None:
            config = network.config.get_text_config()
            named = getattr(config, "hidden_act", None) or getattr(config, "hidden_activation", "silu")
            act = _OWN_EXPERTS.get(config.model_type, named)
            module.experts = ExpertsTap(experts, act)
            here.insert(0, module.experts)
        if type(module).__name__ == "Llama4TextMoe":
            module.forward = partial(routed_by_sigmoid, module)
        if type(module).__name__ in ("Lfm2MLP", "Lfm2MoeMLP"):  # they have no activation module
            module.act_fn = nn.SiLU()
            module.forward = partial(_gated, module)
        for attribute in _ACTIVATIONS:
            inner = "mlp" in module._modules  # a layer of Gemma 3n or 4: its own activation gates embeddings
            if isinstance(module._modules.get(attribute), nn.Module) and not (inner or name.endswith(".experts")):
                tap = Tap(getattr(module, attribute))
                setattr(module, attribute, tap)
                here.append(tap)
    return [taps[layer] for layer in sorted(taps) if taps[layer]]


def _gated(mlp: nn.Module, x: Tensor) -> Tensor:
    return mlp.w2(mlp.act_fn(mlp.w1(x)) * mlp.w3(x))


def routed_by_sigmoid(block: Any, x: Tensor, boost: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """Llama 4: the experts of the largest logits read x times σ(logit); one expert reads every token."""
    x, k = x.flatten(0, 1), block.router.top_k
    logits = x @ block.router.weight.T + boost
    largest, index = logits.sort(dim=-1, descending=True)
    return block.experts(x, index[:, :k], torch.sigmoid(largest[:, :k])) + block.shared_expert(x), logits

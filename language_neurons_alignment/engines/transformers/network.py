"""A loaded model of the transformers library: its parts, and likelihoods from its output."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from transformers import Cache, GenerationConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from ...core.perplexity import TextLikelihood
from ...core.routing import Experts
from ...corpus.encode import ScoredText
from ...errors import EngineError, LNAError, LNAWarning, UnknownArchitectureError
from ..base import not_finite
from ..checkpoint import quiet, rope_switch
from ..families import family_of
from .experts import experts_of
from .interventions import Interventions
from .sites import NeuronSite, decoder_layers, find_sites, layer_widths, probe

LOGITS = {"cpu": 2**24, "cuda": 2**27, "mps": 2**25}
"""The most logits (tokens × vocabulary) in memory, by device: 64, 512 and 128 MiB in float32."""

_CACHED_LOGITS = {"cpu": 2**18}
"""The most logits that the log-softmax reads at a time, by device: 1 MiB in float32, which fits a core's cache."""


@dataclass(frozen=True)
class Head:
    """Turns a decoder's output into logits."""

    projection: nn.Module  # the model's lm_head
    softcap: float | None = None  # c in c · tanh(logits / c), where the model has one (Gemma 2)
    scale: float = 1.0  # what the projection's output is multiplied with (Cohere, Granite)

    @property
    def vocabulary(self) -> int:
        """How many logits a token has."""
        weight = self.projection.weight
        return int(weight.shape[0]) if isinstance(weight, Tensor) else 1

    def __call__(self, hidden: Tensor) -> Float32[Tensor, "token vocabulary"]:
        """Logits in float32, from hidden states [token, hidden]."""
        return self.finish(self.projection(hidden))

    def finish(self, projected: Float[Tensor, "token vocabulary"]) -> Float32[Tensor, "token vocabulary"]:
        """Logits in float32, from what the projection gives."""
        logits = projected.float() if self.scale == 1 else projected.float() * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


@dataclass(frozen=True)
class Network:
    """A model's parts."""

    model: PreTrainedModel  # generates
    decoder: nn.Module  # the model without its lm_head
    layers: nn.ModuleList  # the decoder's
    sites: tuple[NeuronSite, ...]
    head: Head
    device: torch.device
    switch: int | None  # `rope_switch`
    interventions: Interventions
    shares: bool = True  # whether a sequence can be continued from another one's KV cache
    pads: bool = True  # whether a prompt padded on the left can be continued from the library's cache
    mixes: bool = True  # whether prompts of several lengths can be answered together, padded on the left

    @classmethod
    def of(cls, model: PreTrainedModel) -> Network:
        """Take a model apart, and prove on a few tokens that the parts are what they are taken for."""
        name = type(model).__name__
        decoder, lm_head = decoder_of(model), model.get_output_embeddings()
        if lm_head is None:
            raise UnknownArchitectureError(
                f"{name} has no lm_head, so it is not a causal language model: give a model that is one"
            )
        try:
            place = family_of(model.config).transformers
            layers = decoder_layers(decoder, place)
            sites = find_sites(decoder, place, layers=layers)
            with torch.no_grad():  # what a caller's model keeps of it may meet its gradients later
                tokens = probe(decoder)
                hidden = decoder(input_ids=tokens, use_cache=False)[0]
                head = _head(model, lm_head, tokens, hidden)
                shares = _continues(decoder, tokens, hidden)
                pads = shares or _continues_padded(model, tokens, cache=True)
                mixes = pads or _continues_padded(model, tokens, cache=False)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a model's own code raises
            if _gives_no_numbers(decoder):
                raise not_finite("hidden states, on a few tokens of text,", model.device) from error
            if isinstance(error, LNAError | Warning):  # a warning that the caller made an error
                raise
            raise UnknownArchitectureError(
                f"{name} does not run on a few tokens of text alone, so its neurons cannot be proved: "
                f"{type(error).__name__}: {str(error).strip() or 'no message'}; give another model"
            ) from error
        switch = rope_switch(model.config.get_text_config())
        interventions = Interventions(decoder, sites)
        return cls(model, decoder, layers, sites, head, model.device, switch, interventions, shares, pads, mixes)

    @property
    def vocabulary(self) -> int:
        """How many tokens it can read."""
        return int(self.decoder.get_input_embeddings().weight.shape[0])  # pyright: ignore[reportCallIssue]

    @property
    def widths(self) -> tuple[int, ...]:
        """The neurons of each layer."""
        return tuple(layer_widths(self.sites))

    @property
    def shape(self) -> tuple[int, int]:
        """Layers, and neurons in the widest."""
        return len(self.widths), max(self.widths)

    @property
    def experts(self) -> Experts | None:
        """The model's experts, if it is a mixture of them."""
        return experts_of({site.layer: site.experts for site in self.sites if site.experts is not None})

    def run(self, tokens: Int64[Tensor, "row position"], *, cache: Any = None, keep_cache: bool = False) -> Any:
        """One forward of the decoder alone, without a mask and without positions.

        Every row starts at the same place, after the same number of cached tokens, and only its right end may be
        padding. No token attends to what stands on its right, so padding changes nothing in front of it.

        The cache is always ours, because the library's own choices make the host wait for the device: no cache at all
        in each forward (`Passing`), and a sliding window's cache in each layer. A cache of whole texts gives the same
        attention, because the masks know the window. A model whose layers keep something other than keys and values
        runs without any cache.
        """
        return _run(self.decoder, tokens, cache=cache, keep_cache=keep_cache, shares=self.shares)


def decoder_of(model: Any) -> nn.Module:
    """The model without its lm_head.

    `get_decoder` gives a language model with an lm_head in Llama 4's classes, and the lm_head itself in ModernBERT's.
    """
    decoder = model.get_decoder()
    if decoder is model.get_output_embeddings():
        return model.base_model
    if isinstance(decoder, PreTrainedModel) and decoder.get_output_embeddings() is not None:
        inner = [one for one in decoder.children() if isinstance(one, PreTrainedModel)]
        decoder = inner[0] if len(inner) == 1 else decoder
    return decoder


def _gives_no_numbers(decoder: nn.Module) -> bool:
    """Whether the decoder gives NaN or infinite numbers on a few tokens; False if it does not run."""
    try:
        with torch.no_grad():
            return not bool(torch.isfinite(decoder(input_ids=probe(decoder), use_cache=False)[0]).all())
    except Exception:  # whatever a model's own code raises
        return False


def _run(
    decoder: nn.Module,
    tokens: Int64[Tensor, "row position"],
    *,
    cache: Any = None,
    keep_cache: bool = False,
    shares: bool = True,
) -> Any:
    """`Network.run`."""
    keeps = keep_cache or cache is not None
    if shares and cache is None:
        cache = Cache(layer_class_to_replicate=DynamicLayer if keep_cache else Passing)
    return decoder(input_ids=tokens, past_key_values=cache, use_cache=keeps)


def _continues(decoder: nn.Module, tokens: Int64[Tensor, "row position"], hidden: Tensor) -> bool:
    """Whether the decoder gives the same with our caches, in one piece and in two, as without any cache (`hidden`).

    Layers that keep a state instead of keys and values (Qwen3-Next, Mamba) do not.
    """
    try:
        whole = _run(decoder, tokens)[0]
        begun = _run(decoder, tokens[:, :3], keep_cache=True)
        rest = _run(decoder, tokens[:, 3:], cache=begun.past_key_values)[0]
    except Exception:  # whatever a model's own code raises on a cache that is not its own
        return False
    pieces, plain = torch.cat([begun[0], rest], dim=1), hidden.float()
    return all(bool((one.float() - plain).abs().max() <= 1e-2 * plain.abs().max()) for one in (whole, pieces))


def _continues_padded(model: Any, tokens: Int64[Tensor, "row position"], *, cache: bool) -> bool:
    """Whether the second new token of a prompt padded on the left has the logits that it has without cache or padding.

    With a cache, MiniMax's does not: its linear attention reads the padding's mask at each new token. Recurrent Gemma's
    does not even without one: its recurrence reads the padding.
    """
    prompt = tokens[:, 4:]
    padded = torch.cat([tokens, nn.functional.pad(prompt, (4, 0))])
    attended = torch.ones_like(padded)
    attended[1, :4] = 0
    config = GenerationConfig(do_sample=False, min_new_tokens=2, max_new_tokens=2, pad_token_id=0, use_cache=cache)
    with quiet():
        given = model.generate(
            input_ids=padded,
            attention_mask=attended,
            generation_config=config,
            return_dict_in_generate=True,
            output_logits=True,
        )
    whole = torch.cat([prompt, given.sequences[1:, -2:-1]], dim=1)
    plain, continued = model(input_ids=whole, use_cache=False).logits[0, -1].float(), given.logits[1][1].float()
    return bool((plain - continued).abs().max() <= 1e-2 * plain.abs().max())


def _head(model: PreTrainedModel, projection: nn.Module, tokens: Int64[Tensor, "row position"], hidden: Tensor) -> Head:
    """The head that gives the model's own logits from the decoder's output (`hidden`), proved on a few tokens.

    A config can name a scale and a soft cap that the model's class does not apply (Aya Vision). On logits far below a
    soft cap both heads come close to the model's, so the one without is taken where it comes ten times as close.
    """
    text = model.config.get_text_config()

    def told(*names: str) -> float | None:
        return next((one for name in names if (one := getattr(text, name, None))), None)

    scale = told("logit_scale", "output_multiplier") or 1 / (told("logits_scaling") or 1)
    named = Head(projection, told("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap"), scale)
    own = model(input_ids=tokens, use_cache=False).logits.float()
    plain = Head(projection)
    off, off_plain = ((own - head(hidden)).abs().max() for head in (named, plain))
    most = 1e-2 * own.abs().max()
    if not min(off, off_plain) <= most:
        raise EngineError(
            f"the logits of {type(model).__name__} are not those of its lm_head: expected them up to the known scale "
            "and soft cap, so likelihoods would be wrong and the model is refused"
        )
    if off <= min(most, 10 * off_plain):
        return named
    warnings.warn(
        f"the config of {type(model).__name__} names a scale ({scale:g}) or a soft cap for its logits, "
        "but its class in the transformers library applies none: likelihoods and sampled answers are those "
        "of this class, and vLLM's may differ; counts and greedy answers do not depend on it",
        LNAWarning,
        stacklevel=4,
    )
    return plain


class Passing(DynamicLayer):
    """One layer of a KV cache that keeps nothing.

    Without any cache, the library checks in each forward whether several texts were packed into one row, and the host
    waits for the device. With a cache it does not check, and a cache that keeps nothing costs nothing.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_more: object
    ) -> tuple[Tensor, Tensor]:
        """The keys and values of this forward alone."""
        return key_states, value_states


def score(
    texts: Sequence[ScoredText], hidden: Float[Tensor, "text position hidden"], head: Head
) -> list[TextLikelihood]:
    """The likelihood of each text of a batch, from its decoder's output.

        nll = Σ_{t = max(start, 1)}^{length − 1}  −ln softmax(head(hidden[t − 1]))[token t]

    Log-softmax in float32, sums in float64. Logits are computed for scored tokens only, a bounded number at a time.
    """
    losses = scored_losses(texts, hidden, head).cpu()
    sums = [math.fsum(some.tolist()) for some in losses.split([text.scored_tokens for text in texts])]
    if not all(math.isfinite(total) for total in sums):
        raise not_finite("logits", hidden.device)
    return [TextLikelihood(total, text.scored_tokens) for total, text in zip(sums, texts, strict=True)]


def scored_losses(
    texts: Sequence[ScoredText], hidden: Float[Tensor, "text position hidden"], head: Head
) -> Float32[Tensor, " token"]:
    """`token_losses` of the scored tokens of a batch, text by text."""
    rows, columns, targets = [], [], []
    for row, text in enumerate(texts):
        first = max(text.start, 1)
        rows += [row] * text.scored_tokens
        columns += range(first - 1, len(text.tokens) - 1)
        targets += text.tokens[first:]
    device = hidden.device
    before = hidden[torch.tensor(rows, device=device), torch.tensor(columns, device=device)]
    return token_losses(before, torch.tensor(targets, device=device), head)


def token_losses(
    hidden: Float[Tensor, "token hidden"], targets: Int64[Tensor, " token"], head: Head
) -> Float32[Tensor, " token"]:
    """−ln p of each target, with a bounded number of logits in memory, and fewer at a time where caches are small.

    A token's loss is computed from its own logits alone, so it does not depend on how they are divided.
    """
    losses, start = [], 0
    for logits in in_pieces(hidden, head):
        these = targets[start : start + len(logits)]
        losses.append(torch.logsumexp(logits, dim=-1) - logits.gather(-1, these[:, None]).squeeze(-1))
        start += len(logits)
    return torch.cat(losses)


def in_pieces(
    hidden: Float[Tensor, "token hidden"], head: Head, *, before: Callable[[Tensor], Tensor] | None = None
) -> Iterator[Float32[Tensor, "piece vocabulary"]]:
    """The logits of tokens, in their order, a few tokens at a time; `before` comes before the head."""
    where = hidden.device.type
    most = LOGITS.get(where, 2**25)
    size, few = (max(1, some // head.vocabulary) for some in (most, _CACHED_LOGITS.get(where, most)))
    for some in hidden.split(size):
        for projected in head.projection(some if before is None else before(some)).split(few):
            yield head.finish(projected)

"""The logit lens on a model of the transformers library: the residual stream, as the model's own end reads it.

A probe of a few tokens proves three things, and a model on which one of them fails is refused by name:

1. what a layer gives is bit for bit what the next layer reads, so it is the residual stream;
2. modules behind the last layer (a final norm, with OPT a projection) lead from what it gives to what the decoder
   gives, each bit for bit from the one before;
3. what the head makes of that are the model's own logits.

Layers are read while the model's usual forward runs, each as soon as it is done: neither the states of several layers
nor the logits of more than a bounded number of positions are ever in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor, nn

from ...core.lens import read_out
from ...corpus.encode import ScoredText
from ...errors import SilentHookError, UnknownArchitectureError
from ..base import not_finite
from ..proof import Call, what_came, what_went
from .interventions import hooked
from .network import Head, Network, in_pieces
from .sites import probe


@dataclass(frozen=True)
class LensHead:
    """A decoder's layers, and what leads from the residual stream to logits: the modules at its end, and the head."""

    layers: tuple[nn.Module, ...]
    end: tuple[nn.Module, ...]
    head: Head

    @classmethod
    def of(cls, network: Network) -> LensHead:
        """Find them on a few tokens, and prove them.

        Raises:
            UnknownArchitectureError: one of the proofs fails; the message says which.
        """
        decoder, name = network.decoder, type(network.model).__name__
        layers = tuple(network.layers)
        with torch.no_grad():
            tokens = probe(decoder)
            through, around, given = _trace(decoder, layers, tokens)
            if [len(calls) for calls in through] != [1] * len(layers):
                raise _refused(name, "a layer runs more or less than once for a text")
            states = [calls[0] for calls in through]
            for layer, (one, following) in enumerate(pairwise(states)):
                if not any(torch.equal(one.output, came) for came in following.inputs):
                    raise _refused(name, f"what layer {layer} gives is not what layer {layer + 1} reads")
            read = cls(layers, _end(name, states[-1].output, around, given), network.head)
            own = network.model(input_ids=tokens, use_cache=False).logits[0].float()
            off = (torch.cat(list(read.logits(states[-1].output[0]))) - own).abs().max()
            if not off <= 1e-2 * own.abs().max():
                raise _refused(name, f"behind the last layer it reads logits that differ from the model's by {off:g}")
        return read

    def logits(self, states: Float[Tensor, "position hidden"]) -> Iterator[Float32[Tensor, "piece vocabulary"]]:
        """The logits of some positions' states, a few positions at a time."""
        return in_pieces(states, self.head, before=self._finished)

    def _finished(self, states: Tensor) -> Tensor:
        states = states[None]
        for module in self.end:
            states = module(states)
        return states[0]


def _trace(
    decoder: nn.Module, layers: Sequence[nn.Module], tokens: Int64[Tensor, "one token"]
) -> tuple[list[list[Call]], list[Call], Tensor]:
    """The calls of each layer on a probe, those of the modules outside of all layers, and what the decoder gives."""
    through: list[list[Call]] = [[] for _ in layers]
    around: list[Call] = []
    came_in: dict[int, list[list[Tensor]]] = {}

    def before(module: nn.Module, inputs: tuple[Any, ...], more: dict[str, Any]) -> None:
        came_in.setdefault(id(module), []).append(what_came(inputs, more))

    def after(name: str, kept: list[Call], module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        inputs, given = came_in[id(module)].pop(), what_went(output)
        if given is not None:
            kept.append(Call(name, module, inputs, given))

    inside = {id(module) for layer in layers for module in layer.modules()}
    looked_at = [("", module, kept) for module, kept in zip(layers, through, strict=True)]
    looked_at += [(name, one, around) for name, one in decoder.named_modules() if name and id(one) not in inside]
    with ExitStack() as hooks:
        for name, module, kept in looked_at:
            hooks.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(partial(after, name, kept)).remove)
        given = decoder(input_ids=tokens, use_cache=False)[0]
    return through, around, given


def _end(name: str, state: Tensor, around: Sequence[Call], given: Tensor) -> tuple[nn.Module, ...]:
    """The modules that lead from what the last layer gives to what the decoder gives."""
    end: list[nn.Module] = []
    for call in around:  # in the order in which they ran
        if len(call.inputs) == 1 and torch.equal(call.inputs[0], state):
            end.append(call.module)
            state = call.output
    if not torch.equal(state, given):
        raise _refused(name, "the modules behind its last layer do not lead to what its decoder gives")
    return tuple(end)


def _refused(name: str, seen: str) -> UnknownArchitectureError:
    return UnknownArchitectureError(
        f"the logit lens cannot be proved on {name}: {seen}; it would read something other than the residual stream, "
        "so the model is refused: give another model"
    )


def read_batch(
    network: Network,
    readout: LensHead,
    tokens: Int64[Tensor, "row position"],
    texts: Sequence[ScoredText],
    read: Sequence[Sequence[int]],
    members: Float32[Tensor, "token group"],
) -> list[Float64[Tensor, "layer measure"]]:
    """For each text of a batch, `core.lens.read_out` of each layer, summed over the places of `read`.

    A place is that of a token of the text, and what is read is the prediction of this token, one position before it.
    """
    device = tokens.device
    numbers = [len(places) for places in read]
    rows = torch.tensor([row for row, number in enumerate(numbers) for _ in range(number)], device=device)
    before = torch.tensor([place - 1 for places in read for place in places], device=device)
    targets = torch.tensor(
        [text.tokens[place] for text, places in zip(texts, read, strict=True) for place in places], device=device
    )
    found: dict[int, list[Tensor]] = {}

    def reads(layer: int, _module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        states = (output[0] if isinstance(output, tuple) else output)[rows, before]
        pieces, start = [], 0
        for logits in readout.logits(states):
            pieces.append(read_out(logits, targets[start : start + len(logits)], members))
            start += len(logits)
        found.setdefault(layer, []).append(torch.cat(pieces))

    with hooked([(module, partial(reads, layer)) for layer, module in enumerate(readout.layers)]):
        network.run(tokens)
    if any(len(found.get(layer, [])) != 1 for layer in range(len(readout.layers))):
        raise SilentHookError(
            f"the lens read {sum(map(len, found.values()))} times in a forward of {len(readout.layers)} layers, "
            "expected once behind each: the model's code is not what was proved; please report the model"
        )
    values = torch.stack([found[layer][0] for layer in range(len(readout.layers))]).cpu().double()
    if not bool(values.isfinite().all()):
        raise not_finite("logits", device)
    return [one.sum(dim=1) for one in values.split(numbers, dim=1)]

"""What the first layers of a decoder give for a batch, kept for every intervention that changes nothing in them.

    state at layer l   what layer l − 1 gave for a batch
    first change       the first layer in which the model is changed now and was not when the work began
    a forward          starts at the deepest kept state that is not beyond its first change

A forward from a kept state is the model's own, with its own masks and positions, in which each layer in front of that
state gives it back instead of computing. So it is equal to the whole forward bit for bit, and for each layer that a
forward may start at, this is proved on a few tokens first. Where it does not hold, as behind layers whose keys and
values are used by later ones (Gemma 3n), nothing is kept and the whole model runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ...core.interventions import Intervention
from ...corpus.encode import Tokens
from .interventions import forward_replaced, hooked
from .network import Network
from .sites import probe

State = Any
"""What a layer gives, with a copy of its tensor of hidden states."""


class PartialForwards:
    """Forwards of a decoder that start at a layer, from what the layer in front of it gave."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._layers = list(network.layers)

    def forward(
        self, tokens: Tensor, *, found: dict[int, State], start: int = 0, state: State = None, keep: Sequence[int] = ()
    ) -> Tensor:
        """One forward from the state at layer `start`; the states at the layers of `keep` come into `found`."""

        def keeping(layer: int) -> tuple[nn.Module, Any]:
            return self._layers[layer - 1], lambda _module, _inputs, output: found.update({layer: _copy(output)})

        self._network.interventions.skip(start)
        with hooked([keeping(layer) for layer in keep]), _replaced(self._layers[:start], state):
            return self._network.run(tokens).last_hidden_state

    def prove(self, layers: set[int]) -> dict[int, float]:
        """The layers at which a forward of the probe can start, with the bytes that a token's state takes there."""
        if not layers:
            return {}
        tokens, states = probe(self._network.decoder), {}
        with torch.no_grad():
            plain = self.forward(tokens, found=states, keep=sorted(layers))
            return {
                layer: _hidden(state).nbytes / tokens.numel()
                for layer, state in states.items()
                if self._is_same(plain, tokens, layer, state)
            }

    def _is_same(self, plain: Tensor, tokens: Tensor, layer: int, state: State) -> bool:
        try:
            return torch.equal(self.forward(tokens, found={}, start=layer, state=state), plain)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # whatever a model's own code raises where a layer did not compute
            return False


class LayerReuse:
    """The kept states of batches, at the layers that save the most; `run` keeps them and starts from them."""

    def __init__(self, network: Network, changes: Sequence[Intervention], *, tokens: int, memory: int) -> None:
        """Choose the layers, and prove that forwards can start there.

        Args:
            network: the model; what is in force on it now is the base that all changes come on top of.
            changes: the interventions under which the same batches will run.
            tokens: of all these batches.
            memory: the most bytes that are kept; batches that find no room are computed whole.
        """
        self._network = network
        self._partial = PartialForwards(network)
        self._base = network.interventions.current
        self._kept: dict[tuple[Tokens, ...], dict[int, State]] = {}
        self._memory = memory
        firsts = [self._base.then(one).first_change(self._base) for one in changes]
        sizes = self._partial.prove({first for first in firsts if first > 0})
        fitting = int(memory // (tokens * max(sizes.values(), default=1.0) or 1))
        self.starts = best_starts(firsts, sizes, most=max(1, fitting))

    def run(
        self, rows: Sequence[Tokens], tokens: Int64[Tensor, "row position"]
    ) -> Float[Tensor, "row position hidden"]:
        """The hidden states of a batch under what is in force now."""
        first = self._network.interventions.current.first_change(self._base)
        kept = self._kept.setdefault(tuple(rows), {}) if self.starts else {}
        start = max((layer for layer in kept if layer <= first), default=0)
        found: dict[int, State] = {}
        hidden = self._partial.forward(
            tokens,
            start=start,
            state=kept.get(start),
            keep=[layer for layer in self.starts if start < layer <= first and layer not in kept],
            found=found,
        )
        for layer, state in found.items():
            size = _hidden(state).nbytes
            if size <= self._memory:
                self._memory -= size
                kept[layer] = state
        return hidden


def best_starts(firsts: Sequence[int], allowed: Collection[int], *, most: int) -> list[int]:
    """The layers, `most` of them, that save the most to forwards whose first changes are these, chosen one by one.

        saved = Σ over forwards of the deepest chosen layer that is not beyond the first change

    >>> best_starts([2, 2, 15, 20], [2, 15, 20], most=1), best_starts([2, 2, 15, 20], [2, 15, 20], most=2)
    ([15], [15, 20])
    """

    def saved(layers: list[int]) -> int:
        return sum(max((layer for layer in layers if layer <= first), default=0) for first in firsts)

    chosen: list[int] = []
    while len(chosen) < most:
        best = max(sorted(allowed), key=lambda layer: saved([*chosen, layer]), default=0)
        if saved([*chosen, best]) == saved(chosen):
            break
        chosen.append(best)
    return sorted(chosen)


@contextmanager
def _replaced(layers: Sequence[nn.Module], state: State) -> Iterator[None]:
    """While the context is open, these layers compute nothing: the last one gives the state, as the others do."""
    with ExitStack() as stack:
        for layer in layers:
            # a copy each time, because a model may add to hidden states in place
            stack.enter_context(forward_replaced(layer, lambda *_inputs, **_more: _copy(state)))
        yield


def _hidden(output: State) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _copy(output: State) -> State:
    """What a layer gave, with a copy of its hidden states and nothing else, such as attention weights."""
    return output.clone() if isinstance(output, Tensor) else (output[0].clone(), *[None] * (len(output) - 1))

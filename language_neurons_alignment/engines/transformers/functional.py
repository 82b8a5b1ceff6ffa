"""Gated MLPs whose activation function is a plain function, so that no module gives their activations (LFM2).

    down(act(gate x) · up x)        three linear maps, and no module for act

Such an MLP gets a forward of our own, which computes the same with the activation in a module, `act_fn`. Which map is
the gate, and which function is applied, is read off a few tokens: act(gate x) · up x must be what the down projection
read, bit for bit. Where the neurons are is then found and proved as in any other model (`sites`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import permutations
from types import MethodType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..proof import Call, what_came, what_went

_FUNCTIONS = (nn.SiLU, nn.GELU, partial(nn.GELU, approximate="tanh"), nn.ReLU)
"""The activation functions that are tried."""


def open_mlps(layers: nn.ModuleList, run: Callable[[], object], is_linear: Callable[[nn.Module], bool]) -> None:
    """Give each MLP of three linear maps and no activation module one that is seen by hooks, where it is understood.

    Args:
        layers: a decoder's layers.
        run: one forward of a few tokens; not called where there is no such MLP.
        is_linear: whether a module is a linear map.
    """
    found = [module for layer in layers for module in layer.modules() if _has_three_maps(module, is_linear)]
    if not found:
        return
    calls: dict[int, list[Call]] = {}

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], more: dict[str, Any], output: Any) -> None:
        given = what_went(output)
        if given is not None:
            calls.setdefault(id(module), []).append(Call(name, module, what_came(inputs, more), given))

    with ExitStack() as hooks:
        for module in found:
            for name, one in (("", module), *module.named_children()):
                hooks.callback(one.register_forward_hook(partial(note, name), with_kwargs=True).remove)
        run()
    for module in found:
        seen = [calls.get(id(one), []) for one in (module, *module.children())]
        if all(len(some) == 1 and len(some[0].inputs) == 1 for some in seen):
            _open(module, seen[0][0], [some[0] for some in seen[1:]])


def _has_three_maps(module: nn.Module, is_linear: Callable[[nn.Module], bool]) -> bool:
    children = list(module.children())
    return len(children) == 3 and all(map(is_linear, children))


def _open(module: Any, whole: Call, maps: Sequence[Call]) -> None:
    """Set our forward, if it gives what the module's own gave."""
    for gate, up, down in permutations(maps):
        read = down.inputs[0]
        if not gate.output.shape == up.output.shape == read.shape or not torch.equal(down.output, whole.output):
            continue
        if not all(torch.equal(one.inputs[0], whole.inputs[0]) for one in (gate, up)):
            continue
        for function in _FUNCTIONS:
            if torch.equal(function()(gate.output) * up.output, read):
                module.act_fn = function()
                module.forward = MethodType(partial(_forward, names=(gate.name, up.name, down.name)), module)
                return


def _forward(self: Any, x: Float[Tensor, "..."], *, names: tuple[str, str, str]) -> Float[Tensor, "..."]:
    gate, up, down = (getattr(self, name) for name in names)
    return down(self.act_fn(gate(x)) * up(x))

"""What both engines look at to prove where a model keeps its neurons: the calls of its modules on a few tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Call:
    """One call of a module: what came in, and what went out."""

    name: str
    module: nn.Module
    inputs: Sequence[Tensor]
    output: Tensor


def what_came(inputs: Sequence[Any], more: Mapping[str, Any]) -> list[Tensor]:
    """Copies of the tensors that a module was called with; the model may change them in place."""
    return [one.clone() for one in (*inputs, *more.values()) if isinstance(one, Tensor)]


def what_went(output: Any) -> Tensor | None:
    """A copy of the tensor that a module gave, or of the first of several; None where it gave none."""
    first = output[0] if isinstance(output, tuple) and output else output
    return first.clone() if isinstance(first, Tensor) else None


def zeros(_module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    """A forward hook that sets what a module gives to zero."""
    return torch.zeros_like(output)


def outer_lists(model: nn.Module) -> list[nn.ModuleList]:
    """The lists of modules that are in no other list."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    inner = {id(one) for some in lists for one in some.modules() if one is not some}
    return [one for one in lists if id(one) not in inner]


def heaviest_list(model: nn.Module, among: Sequence[nn.ModuleList] = ()) -> nn.ModuleList | None:
    """The outermost list of modules with the most weights: a decoder's layers.

    Args:
        model: the model to search.
        among: the lists to choose from; if empty, all outermost ones.
    """
    lists = among or outer_lists(model)
    return max(lists, key=lambda one: sum(weight.numel() for weight in one.parameters()), default=None)


def passes_on(around: Call, inner: Call) -> bool:
    """Whether a module gives what one inside of it gave, or that plus something that came into the outer one."""
    added = [inner.output + one for one in around.inputs if one.shape == inner.output.shape]
    return any(torch.equal(around.output, one) for one in (inner.output, *added))

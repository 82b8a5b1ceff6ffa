"""Which weights of a checkpoint vLLM reads, and which of its own it fills: a proof that needs no names.

vLLM's classes leave out what they have no place for, without a word: GLM-4V's biases of attention where the config does
not name them, for one. And a matrix that several of the checkpoint's make up (gate and up) counts as loaded with the
first of them; the rest is then whatever memory held. Both give wrong numbers without an error.

So while vLLM loads, `Reading` sees every operation on tensors. A weight is read when an operation takes its memory for
something else than a view of it, or when a parameter has become this memory. A parameter is filled when as many numbers
were written into it as it has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from .messages import Message

_REPORT = "lna_loaded"
"""Where a model keeps what was seen while it was loaded."""

_NOTHING: Message = {"unread": [], "unfilled": []}

_LARGE = 2**20
"""Numbers of a weight that is not looked through for others than 0: biases are smaller."""


def watch_loading() -> None:
    """From now on, see how the models that vLLM loads in this process are loaded; `loaded` tells."""
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    original = DefaultModelLoader.load_weights
    if hasattr(original, _REPORT):
        return

    def load_weights(self: Any, model: nn.Module, model_config: Any) -> None:
        with Reading(model) as reading:
            original(self, model, model_config)
        model.__dict__[_REPORT] = reading.report(quantized=model_config.quantization is not None)

    setattr(load_weights, _REPORT, True)
    DefaultModelLoader.load_weights = load_weights


def loaded(model: nn.Module) -> Message:
    """What was seen while a model was loaded; nothing where another of vLLM's loaders did it."""
    return model.__dict__.get(_REPORT, _NOTHING)


class Reading(TorchDispatchMode):
    """Sees what becomes of the weights that are handed to a model's `load_weights` while the context is open."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self._waiting: dict[int, str] = {}  # the names of weights that nothing has read, by their memory
        self._held = [_hold(one) for one in model.parameters()]  # so that no other memory gets the same number
        self._names: list[str] = []
        self._zero: set[str] = set()  # weights of zeros, which say what no weight says
        self._sizes = {_memory(one): (name, one.numel()) for name, one in model.named_parameters()}
        self._written: dict[int, int] = {}
        self._kinds: dict[Any, tuple[bool, bool]] = {}
        self._ours = False

    def __enter__(self) -> Reading:
        """Begin."""
        model: Any = self._model
        original: Callable[[Iterable[tuple[str, Tensor]]], Any] = model.load_weights
        model.__dict__["load_weights"] = lambda weights: original(self._follow(weights))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        """End."""
        super().__exit__(*error)
        self._model.__dict__.pop("load_weights", None)

    def _follow(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        for name, weight in weights:
            memory = _memory(weight)
            if memory:
                self._held.append(_hold(weight))
                self._waiting[memory] = name
            self._names.append(name)
            yield name, weight
            if memory in self._waiting and weight.numel() <= _LARGE:
                self._ours = True
                with suppress(RuntimeError, NotImplementedError):  # in 8 bits and fewer not all is implemented
                    if not bool(weight.any()):
                        self._zero.add(name)
                self._ours = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """See one operation."""
        result = func(*args, **(kwargs or {}))
        is_view, writes = self._kind(func)
        if self._ours or is_view:
            return result
        if self._waiting:
            for one in (*args, *(kwargs or {}).values()):
                for tensor in one if isinstance(one, list | tuple) else (one,):
                    if isinstance(tensor, Tensor):
                        self._waiting.pop(_memory(tensor), None)
        if writes and isinstance(args[0], Tensor) and (memory := _memory(args[0])) in self._sizes:
            self._written[memory] = self._written.get(memory, 0) + args[0].numel()
        return result

    def _kind(self, func: Any) -> tuple[bool, bool]:
        """Whether an operation gives a view, and whether it writes into what it was given."""
        if func not in self._kinds:
            self._kinds[func] = bool(func.is_view), bool(func._schema.is_mutable)
        return self._kinds[func]

    def report(self, *, quantized: bool) -> Message:
        """What was seen.

        `unread` has the weights that nothing read and that are not 0: the name, and whether others of the same module
        or layer were read. `unfilled` has the parameters of which only a part was written: the name, the numbers
        written, and how many there are.
        """
        if any(getattr(getattr(one, "quant_method", None), "uses_meta_device", False) for one in self._model.modules()):
            return _NOTHING  # vLLM quantizes as it loads, and puts that off
        for one in (*self._model.parameters(), *self._model.buffers()):
            self._waiting.pop(_memory(one), None)
        own = {_memory(one) for one in self._model.parameters()} - {0}
        unread = set(self._waiting.values())
        read = {place for name in self._names if name not in unread for place in _places(name)}
        return {
            "unread": [[name, not read.isdisjoint(_places(name))] for name in sorted(unread - self._zero)],
            "unfilled": [
                [name, self._written[memory], size]
                for memory, (name, size) in self._sizes.items()
                if not quantized and memory in own and 0 < self._written.get(memory, 0) < size
            ],
        }


def _places(name: str) -> set[str]:
    """The module that a weight belongs to, and the first thing with a number around it: its layer."""
    numbered = re.match(r"(?:.*?\.)??\d+(?=\.)", name)
    return {name.rpartition(".")[0], *([numbered[0]] if numbered else [])} - {""}


def _hold(tensor: Tensor) -> StorageWeakRef | None:
    return StorageWeakRef(tensor.untyped_storage()) if _memory(tensor) else None


def _memory(tensor: Tensor) -> int:
    """The memory of a tensor and of its views, as a number; 0 for none."""
    with suppress(RuntimeError, NotImplementedError):  # some quantized tensors have none of their own
        return tensor.untyped_storage()._cdata
    return 0

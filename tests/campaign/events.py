"""The events of a run at which a trial kills it or makes a call fail: files opened, written, renamed, and units.

`watch` replaces what Python calls for them in this process (a fork, which ends soon): each event is counted by kind in
memory that the parent shares, and at the chosen one the trial's `act` is called. A write is an event twice: with half
of its bytes on disk, and with none.
"""

from __future__ import annotations

import builtins
import io
import mmap
import os
import struct
from collections.abc import Callable
from typing import Any

KINDS = ("open", "write", "fsync", "rename", "remove", "folder", "unit")
"""What is counted; a unit is one pass of the model."""


class Counter:
    """Counts by kind, in memory that a fork shares with its parent, so that they outlive a kill.

    Beside the events it keeps how many units had been done when a result of them was last put on disk.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8 * (len(KINDS) + 2))

    def _slot(self, name: str) -> int:
        return 8 * (*KINDS, "kept", "pid").index(name)

    def get(self, name: str) -> int:
        """A count."""
        return struct.unpack_from("q", self._memory, self._slot(name))[0]

    def set(self, name: str, value: int) -> None:
        """Change a count."""
        struct.pack_into("q", self._memory, self._slot(name), value)

    def all(self) -> dict[str, int]:
        """The events by kind, those that never came left out."""
        return {kind: self.get(kind) for kind in KINDS if self.get(kind)}


Act = Callable[[str, Callable[[], object] | None], None]
"""Called at the chosen event with its kind and what does half of it."""


def watch(counter: Counter, *, kind: str = "", number: int = 0, act: Act | None = None) -> None:
    """Count events from now on; at event `number` (from 1) of `kind`, call `act`."""

    def event(name: str, half: Callable[[], object] | None = None) -> None:
        counter.set(name, counter.get(name) + 1)
        if act is not None and name == kind and counter.get(name) == number:
            act(name, half)

    real_open, pid = builtins.open, os.getpid()

    class Raw(io.FileIO):
        def write(self, data: Any) -> int:
            half = memoryview(data).cast("B")
            event("write", lambda: super(Raw, self).write(half[: len(half) // 2]))
            return super().write(data) or 0

        def truncate(self, size: int | None = None) -> int:
            event("write")
            return super().truncate(size)

    def opened(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **named: Any) -> Any:
        if os.getpid() != pid or not set(mode) & set("wxa+") or isinstance(file, int) or str(file).startswith("/dev/"):
            return real_open(file, mode, buffering, *args, **named)
        event("open")
        if "b" not in mode:
            return real_open(file, mode, buffering, *args, **named)
        raw = Raw(file, mode.replace("b", ""))
        if buffering == 0:
            return raw
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)

    def wrapped(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            event(name)
            return function(*args, **named)

        return call

    builtins.open = io.open = opened  # type: ignore[assignment]
    for name, kinds in {
        "fsync": "fsync",
        "replace": "rename",
        "rename": "rename",
        "unlink": "remove",
        "remove": "remove",
        "rmdir": "remove",
        "mkdir": "folder",
    }.items():
        setattr(os, name, wrapped(getattr(os, name), kinds))
    _count_units(counter, event)


def _count_units(counter: Counter, event: Callable[..., None]) -> None:
    from torch.nn.modules.module import register_module_forward_pre_hook
    from transformers import PreTrainedModel

    from language_neurons_alignment import activation
    from language_neurons_alignment.engines.transformers import network
    from language_neurons_alignment.store.grid import GridFile, Lines

    taking_apart, proving = network.Network.of, []

    def of(model: Any) -> Any:
        proving.append(model)  # the passes that prove where its neurons are, each time that it is loaded
        try:
            return taking_apart(model)
        finally:
            proving.pop()

    def before(module: Any, _inputs: Any) -> None:
        if isinstance(module, PreTrainedModel) and hasattr(module, "lm_head") and not proving:
            event("unit")

    network.Network.of = of  # type: ignore[method-assign]
    register_module_forward_pre_hook(before)

    def keeping(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            result = function(*args, **named)
            counter.set("kept", counter.get("unit"))
            return result

        return call

    for holder, name in ((GridFile, "append"), (Lines, "append"), (activation, "save_counts")):
        setattr(holder, name, keeping(getattr(holder, name)))

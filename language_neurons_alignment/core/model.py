"""A loaded model as the rest of the package sees it: what is known about it, and how its work reports progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from .routing import Experts
from .widths import Widths, size_in_words

MOST_LAYERS, WIDEST = 2**10, 2**20
"""More layers, and more neurons per layer, than any model has: beyond them a file is damaged."""

IN_MEMORY = "memory-"
"""How the digest of weights in memory begins; nothing tells whether they are those of some files."""


@dataclass(frozen=True)
class ModelInfo:
    """The properties of a loaded model: the path or hub id that it was loaded from, the class named in its config, ….

    `d_mlp` is the number of neurons per layer (`intermediate_size`), in the widest layer where they differ; `widths`
    has the neurons of each layer then (`core.widths`). `max_length` is the longest sequence in tokens,
    `dtype` the precision ("bfloat16", …), `end_tokens` the tokens that end an answer, `switch` the length in tokens
    beyond which sequences are computed in another way than shorter ones (`rope_switch`), where there is one. In a
    mixture of `experts`, d_mlp counts the neurons of all experts of a layer (`core.routing`).
    """

    path: str
    architecture: str
    layers: int
    d_mlp: int
    max_length: int
    dtype: str
    end_tokens: tuple[int, ...] = ()
    switch: int | None = None
    experts: Experts | None = None
    widths: Widths | None = None

    @property
    def layer_widths(self) -> Widths:
        """The neurons of each layer."""
        return self.widths or (self.d_mlp,) * self.layers

    @property
    def size(self) -> str:
        """Layers and neurons, to be read."""
        return size_in_words(self.layers, self.d_mlp, self.widths)


@runtime_checkable
class Progress(Protocol):
    """A progress bar of one piece of work, measured in tokens or other steps."""

    def __call__(self, done: int, /) -> None:
        """Advance by so many steps."""

    def spare(self, tokens: int, /) -> None:
        """Lower the total: an answer ended early, so these tokens will not come."""


StartProgress = Callable[[str, int], Progress]  # starts a progress bar; called with a label and the total


class _Silent:
    def __call__(self, done: int, /) -> None:
        pass

    def spare(self, tokens: int, /) -> None:
        pass


SILENT: Progress = _Silent()  # shows nothing


def silent(label: str, total: int) -> Progress:
    """A `StartProgress` that shows nothing."""
    return SILENT

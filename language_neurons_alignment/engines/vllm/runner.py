"""vLLM's model runner, which feeds a rank's part of the model step by step. vLLM has two, and they differ here alone.

                             V1 (`gpu_model_runner`)               V2 (`gpu.model_runner`)
    order of a step's rows   `input_batch.req_ids` of the runner   `req_ids` of what `prepare_inputs` returns
    warm-up                  calls the model, outside of steps     is a step: `execute_model(…, dummy_run=True)`
    evicted requests         come back as cached ones              come back as new ones (`passes.Schedule` takes both)
    draws on a CPU           generators of PyTorch, by request     a kernel's, from seed and position

What both share needs no adapter: `SchedulerOutput` says how many tokens of which request a step feeds, and from which
position on; the rows of the requests follow each other without gaps, and padding follows them; the model is called once
a step with `input_ids` and `positions` by row, and gives the final hidden states by row. Nothing here reads block
tables or slots: which state an attention layer reads is vLLM's own business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

_CLASSES = {
    1: "vllm.v1.worker.gpu_model_runner.GPUModelRunner",
    2: "vllm.v1.worker.gpu.model_runner.GPUModelRunner",
}
"""The two runners by version; those of other platforms are built on one of them."""

COMPARED = (1,)
"""The versions whose counts were compared with those of another engine."""


class Runner:
    """A model runner of vLLM, and what it runs."""

    def __init__(self, own: Any) -> None:
        """Take vLLM's own object."""
        bases = [f"{base.__module__}.{base.__qualname__}" for base in type(own).__mro__]
        self.own = own
        self.name = bases[0]
        self.version = next((number for number, name in _CLASSES.items() if name in bases), None)
        self._fed: Sequence[str] = ()

    @property
    def model(self) -> Any:
        """The part of the model on this rank."""
        return self.own.get_model()

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.own.device

    @property
    def vocabulary(self) -> int:
        """How many logits the model gives."""
        return self.own.model_config.get_vocab_size()

    @property
    def is_eager(self) -> bool:
        """Whether hooks are called: nothing is compiled, and no graph is replayed."""
        compilation = self.own.vllm_config.compilation_config
        return bool(self.own.model_config.enforce_eager) and int(compilation.mode) == 0

    @property
    def requests(self) -> Sequence[str]:
        """The requests that the model is fed now, in the order of their rows."""
        return self.own.input_batch.req_ids if self.version == 1 else self._fed

    def generators(self) -> dict[str, torch.Generator]:
        """The generators from which requests are sampled, where these are PyTorch's own."""
        if self.version != 1:
            return {}
        batch = self.own.input_batch
        return {batch.req_ids[row]: generator for row, generator in batch.generators.items()}

    def set_generator(self, request: str, generator: torch.Generator) -> None:
        """From now on, sample a request from this generator, also when it comes back after an eviction."""
        batch = self.own.input_batch
        batch.generators[batch.req_ids.index(request)] = generator
        self.own.requests[request].generator = generator

    def follow(
        self,
        *,
        step: Callable[[Any], None] | None,
        before: Callable[[Mapping[str, Any]], None],
        after: Callable[[object], None],
    ) -> None:
        """From now on, call these; `leave` ends it.

        Args:
            step: with a step's `SchedulerOutput` when it begins, and with None when it is over; not in warm-ups.
            before: with the model's inputs by name, before it runs, also in warm-ups.
            after: with what the model gave.
        """
        original = self.model.forward

        def forward(*args: Any, **named: Any) -> Any:
            before({**dict(zip(("input_ids", "positions"), args, strict=False)), **named})
            output = original(*args, **named)
            after(output)
            return output

        self.model.__dict__["forward"] = forward  # classes that vLLM could compile as a whole (ERNIE 4.5) call no hooks
        if step is not None:
            self.own.execute_model = _stepping(self.own.execute_model, step)
            if self.version == 2:
                self.own.prepare_inputs = self._preparing(self.own.prepare_inputs)

    def leave(self) -> None:
        """Undo `follow`."""
        self.model.__dict__.pop("forward", None)
        for name in ("execute_model", "prepare_inputs"):
            self.own.__dict__.pop(name, None)

    def _preparing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def prepare_inputs(*args: Any, **kwargs: Any) -> Any:
            batch = original(*args, **kwargs)
            self._fed = batch.req_ids
            return batch

        return prepare_inputs


def _stepping(original: Callable[..., Any], step: Callable[[Any], None]) -> Callable[..., Any]:
    def execute_model(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("dummy_run"):
            return original(scheduler_output, *args, **kwargs)
        step(scheduler_output)
        try:
            return original(scheduler_output, *args, **kwargs)
        finally:
            step(None)

    return execute_model

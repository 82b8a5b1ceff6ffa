"""The methods that the driver calls in each of vLLM's workers; `worker_extension_cls` mixes them into the worker class.

A pass or an intervention wraps the runner and hooks the model, and its end undoes both:

    runner                   followed: which requests a step feeds, and from which position on
    model                    hooked: which node each row is; afterwards, the final hidden states
    activation modules       forward hooks that count and change
    routed experts           wrapped: which tokens each expert has; under an intervention, computed here
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...errors import UnknownArchitectureError
from .experts import keep_weights
from .launch import tell_causes
from .messages import Message
from .passes import AnswerWatch, Pass
from .rank import Rank
from .watch import end_with_driver
from .weights import loaded, watch_loading

end_with_driver()  # vLLM imports this module before a worker loads the model
keep_weights()
watch_loading()
tell_causes()


class NeuronWorker:
    """What is added to vLLM's worker; the driver calls its methods by name (`collective_rpc`)."""

    model_runner: Any
    lna_rank: Rank

    def lna_attach(self, d_mlp: int) -> Message:
        """Describe this rank and how its weights were loaded; where its neurons are is not known yet."""
        self.lna_rank = Rank.of(self.model_runner, d_mlp=d_mlp)
        return {**self.lna_rank.describe(), **loaded(self.lna_rank.runner.model)}

    def lna_trace(self) -> None:
        """From now on, follow what the layers compute, until `lna_find` or `lna_end`."""
        self.lna_rank.trace()

    def lna_find(self) -> Message:
        """Find and prove this rank's neurons in what was followed.

        Describes the rank, or says why it is refused, or that it must be followed again.
        """
        try:
            with torch.inference_mode():
                if not self.lna_rank.find():
                    return {"again": True}
        except UnknownArchitectureError as error:
            return {"refused": str(error)}
        return self.lna_rank.describe()

    def lna_begin(self, message: Mapping[str, Any] | None) -> None:
        """From now on, count and score the tree in this message; without one, only watch answers for NaN."""
        rank = self.lna_rank
        rank.observe(None)
        rank.observe(AnswerWatch(rank) if message is None else Pass(rank, message))

    def lna_end(self) -> Message:
        """Stop, and report what was seen."""
        observer = self.lna_rank.observer
        self.lna_rank.observe(None)
        if observer is None:
            raise RuntimeError("lna_end without lna_begin")
        with torch.inference_mode():
            return observer.report()

    def lna_intervene(self, message: Mapping[str, Any] | None) -> Message:
        """Replace the intervention (None: none), and report how often the one before it acted."""
        return self.lna_rank.change(message)

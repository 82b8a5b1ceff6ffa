"""The methods that the driver calls in each of vLLM's workers; `worker_extension_cls` mixes them into the worker class.

A pass or an intervention wraps the runner and hooks the model, and its end undoes both:

    runner.execute_model     wrapped: which requests a step feeds, and from which position on
    runner._model_forward    wrapped: which node each row is; afterwards, the final hidden states
    activation modules       forward hooks that count and change
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .messages import Message
from .passes import AnswerWatch, Pass
from .rank import Rank
from .watch import end_with_driver

end_with_driver()  # vLLM imports this module before a worker loads the model


class NeuronWorker:
    """What is added to vLLM's worker; the driver calls its methods by name (`collective_rpc`)."""

    model_runner: Any
    lna_rank: Rank

    def lna_attach(self, model_type: str, d_mlp: int) -> Message:
        """Find this rank's neuron sites, and describe the rank."""
        self.lna_rank = Rank.of(self.model_runner, model_type=model_type, d_mlp=d_mlp)
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

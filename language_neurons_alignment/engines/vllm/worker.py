"""What runs inside each of vLLM's workers: mixed into the worker class by `worker_extension_cls`.

    runner.execute_model     wrapped: which requests a step feeds, from which position on
    runner._model_forward    wrapped: which node each row is; afterwards, the final hidden states
    activation modules       forward hooks: count, change

Nothing is wrapped or hooked but during a pass or an intervention, and all of it is taken off again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .passes import AnswerWatch, Pass
from .rank import Rank
from .tree import Message


class NeuronWorker:
    """Methods of the worker that the driver calls by name (`collective_rpc`)."""

    model_runner: Any
    lna_rank: Rank
    lna_pass: Pass | None
    lna_watcher: AnswerWatch | None

    def lna_attach(self, model_type: str, d_mlp: int) -> Message:
        """Find the neuron sites of this rank, and say what runs here."""
        self.lna_rank = Rank.of(self.model_runner, model_type=model_type, d_mlp=d_mlp)
        self.lna_pass = self.lna_watcher = None
        return self.lna_rank.describe()

    def lna_begin(self, message: Mapping[str, Any]) -> None:
        """From now on, count and score what is fed."""
        self.lna_rank.drop_pass()
        self.lna_pass = Pass(self.lna_rank, message)
        self.lna_rank.start(self.lna_pass)

    def lna_end(self) -> Message:
        """Stop, and report what was seen."""
        ended, self.lna_pass = self.lna_pass, None
        self.lna_rank.drop_pass()
        if ended is None:
            raise RuntimeError("lna_end without lna_begin")
        with torch.inference_mode():
            return ended.report()

    def lna_watch(self) -> None:
        """From now on, look for NaN in what the model computes."""
        self.lna_rank.drop_pass()
        self.lna_watcher = AnswerWatch(self.lna_rank)
        self.lna_rank.start(self.lna_watcher)

    def lna_watched(self) -> int:
        """Stop looking; in how many steps there was NaN or infinity."""
        watcher, self.lna_watcher = self.lna_watcher, None
        self.lna_rank.drop_pass()
        return 0 if watcher is None else watcher.infinite

    def lna_intervene(self, message: Mapping[str, Any] | None) -> Message:
        """Replace the intervention (None: none), and say how often the one before it acted."""
        return self.lna_rank.change(message)

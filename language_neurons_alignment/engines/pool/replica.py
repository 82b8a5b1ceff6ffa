"""What runs in each of a pool's actors: a model, and the units of work that it does."""

from __future__ import annotations

import os
import socket
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from ...core.interventions import Intervention
from ...core.model import ModelInfo
from ...corpus.encode import Tokenizer
from ...errors import LNAError, LNAWarning
from .. import Engine, EngineSettings, load_engine
from ..base import Batching

COUNT, SCORE, LENS, ANSWER = "count", "score", "lens", "answer"
"""The kinds of units."""


@dataclass(frozen=True)
class Described:
    """A loaded replica: what every engine tells of itself, where it runs, and the warnings that loading it gave."""

    model: ModelInfo
    tokenizer: Tokenizer
    provenance: dict[str, str | int | float | bool]
    batching: Batching
    node: str
    process: int
    warnings: tuple[str, ...]


class Replica:
    """A model in a process of its own. Between two units no intervention is in force on it."""

    def __init__(self, settings: EngineSettings, threads: int) -> None:
        """Take note of what to load; `load` loads it, because an actor that fails to start does not say why."""
        torch.set_num_threads(threads)
        self._settings = settings
        self._engine: Engine | None = None

    def load(self) -> Described | LNAError:
        """Load the model; an error that explains itself is returned, for Ray would wrap it in its own."""
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always", LNAWarning)
            try:
                engine = self._engine = load_engine(self._settings)
            except LNAError as error:
                return error
        said = tuple(str(one.message) for one in given if issubclass(one.category, LNAWarning))
        return Described(
            engine.model, engine.tokenizer, engine.provenance, engine.batching, socket.gethostname(), os.getpid(), said
        )

    def run(self, kind: str, work: dict[str, Any], change: Intervention | None) -> tuple[Any, int] | LNAError:
        """Do a unit under an intervention; return its result and the progress that it made, or why it cannot be done.

        That the intervention acted was checked when this returns.
        """
        engine = self._engine
        assert engine is not None, "a unit before the model was loaded"
        done = _Done()
        do = {COUNT: engine.count_batches, SCORE: engine.log_likelihood, LENS: engine.lens, ANSWER: engine.generate}[
            kind
        ]
        try:
            with nullcontext() if change is None else engine.intervene(change):
                result = do(**work, progress=done)
        except LNAError as error:
            return error
        return result, done.tokens


class _Done:
    """Adds up a unit's progress."""

    def __init__(self) -> None:
        self.tokens = 0

    def __call__(self, done: int, /) -> None:
        self.tokens += done

    def spare(self, tokens: int, /) -> None:
        pass

"""Replicas that are forked off one process, in the place of Ray: each saves the seconds of importing torch."""

from __future__ import annotations

import pickle
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from language_neurons_alignment.engines import EngineSettings
from language_neurons_alignment.engines.pool.cluster import Share
from language_neurons_alignment.engines.pool.dispatcher import Unit
from language_neurons_alignment.engines.pool.replica import Replica

_PROCESSES = get_context("forkserver")  # a process without threads forks, so no lock is held in a fork for ever
_PROCESSES.set_forkserver_preload(
    [__name__, "language_neurons_alignment.engines.transformers", "transformers.models.llama.modeling_llama"]
)


class ForkedReplicas:
    """A cluster that starts each replica as a fork on this machine."""

    def share(self, *_given: object, **_more: object) -> Share:
        return Share(1.0, 0)

    def start(self, _name: str, settings: EngineSettings, share: Share) -> ForkedReplica:
        return ForkedReplica(settings, share)

    def put(self, value: Any) -> Any:
        return value

    def close(self) -> None: ...


class ForkedReplica:
    """A replica in a process of its own (`dispatcher.Worker`). Where the process is killed, what it was to do fails."""

    def __init__(self, settings: EngineSettings, share: Share) -> None:
        self._pipe, theirs = _PROCESSES.Pipe()
        self._process = _PROCESSES.Process(target=_serve, args=(theirs, settings, share.threads), daemon=True)
        self._process.start()
        theirs.close()
        self._calls = ThreadPoolExecutor(1)
        self.ready: Future[Any] = self._calls.submit(self._answer)

    def run(self, unit: Unit) -> Future[Any]:
        return self._calls.submit(self._answer, unit.kind, unit.work, unit.change)

    def end(self) -> None:
        self._process.kill()
        self._calls.shutdown(wait=False)

    def _answer(self, *call: object) -> Any:
        if call:
            self._pipe.send_bytes(pickle.dumps(call))
        return pickle.loads(self._pipe.recv_bytes())


def _serve(pipe: Connection, settings: EngineSettings, threads: int) -> None:
    replica = Replica(settings, threads)
    pipe.send_bytes(pickle.dumps(replica.load()))
    while True:
        pipe.send_bytes(pickle.dumps(replica.run(*pickle.loads(pipe.recv_bytes()))))

"""Ray: started on this machine or joined, and the actors of a pool. The only module that imports Ray."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ...errors import EngineError, MissingEngineError
from .. import EngineSettings
from .dispatcher import Unit
from .replica import Replica

AUTO, LOCAL = "auto", "local"
"""What `--ray` takes besides an address: the cluster that this machine belongs to, and this machine alone."""


@dataclass(frozen=True)
class Share:
    """What each replica gets of a cluster."""

    cpus: float
    gpus: int

    @property
    def threads(self) -> int:
        """The threads that compute in a replica."""
        return max(1, int(self.cpus))


def share_of(nodes: Sequence[float], replicas: int, *, free: float) -> float:
    """The CPUs of each replica: the most, as a whole number, so that all find room; less than 1 where there are fewer.

    >>> share_of([4, 4], 2, free=8), share_of([4, 4], 3, free=8), share_of([2], 2, free=2), share_of([2], 4, free=2)
    (4.0, 2.0, 1.0, 0.5)

    Args:
        nodes: the CPUs of each node.
        replicas: how many.
        free: CPUs that nobody uses now, on all nodes together.
    """
    for cpus in range(int(free // replicas), 0, -1):
        if sum(node // cpus for node in nodes) >= replicas:
            return float(cpus)
    return max(int(100 * free / replicas) / 100, 0.01)


class Cluster:
    """Ray while a pool uses it. If this process had not joined it before, it leaves it again, or ends it."""

    def __init__(self, address: str | None) -> None:
        """Start Ray on this machine (None, `LOCAL`), or join the cluster at an address (`AUTO`: this machine's)."""
        if find_spec("ray") is None:
            raise MissingEngineError(
                "--replicas needs the package ray, which is not installed: "
                "pip install 'language_neurons_alignment[ray]'"
            )
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        with _own_signals():
            import ray

            self._ray: Any = ray
            self._ours = not ray.is_initialized()
            if self._ours:
                choices: dict[str, Any] = (
                    {"address": "local", "num_cpus": len(os.sched_getaffinity(0)), "include_dashboard": False}
                    if address in (None, LOCAL)
                    else {"address": address}
                )
                try:
                    ray.init(**choices, logging_level=logging.ERROR, log_to_driver=False)
                except Exception as error:  # ConnectionError, RuntimeError, ValueError: by what is wrong
                    raise EngineError(
                        f"Ray cannot be {'started here' if address in (None, LOCAL) else f'joined at {address}'} "
                        f"({str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}): "
                        "give --ray ADDRESS, --ray auto for this machine's cluster, or --ray local"
                    ) from error
                keep_off_stdout(ray)

    def share(self, replicas: int, *, gpus: int, on_gpu: bool | None) -> Share:
        """What each of some replicas gets; EngineError where there are too few GPUs.

        Args:
            replicas: how many.
            gpus: that each of them needs where there are any.
            on_gpu: they must use GPUs (True), must not (False), or do where there are any (None).
        """
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        every = sum(int(node.get("GPU", 0)) // gpus for node in nodes)
        if on_gpu is not False and every:
            free = int(self._ray.available_resources().get("GPU", 0)) // gpus
            if min(every, free) < replicas:
                raise EngineError(
                    f"--replicas {replicas} needs {gpus} GPUs for each; Ray has room for {every}, and {free} of these "
                    "are free: give fewer --replicas, or --device cpu"
                )
            return Share(1.0, gpus)
        if on_gpu:
            raise EngineError("--device cuda with --replicas: Ray knows of no GPU: start its nodes with --num-gpus")
        free = float(self._ray.available_resources().get("CPU", 0))
        if free <= 0:
            raise EngineError(
                f"--replicas {replicas}: no CPU of Ray's {sum(node.get('CPU', 0) for node in nodes):.0f} is free: wait "
                "until others have finished, or give --ray local"
            )
        cpus = share_of([node.get("CPU", 0) for node in nodes], replicas, free=free)
        if (told := os.environ.get("OMP_NUM_THREADS", "")).isdigit() and int(told):
            cpus = min(cpus, float(told))
        return Share(cpus, 0)

    def start(self, name: str, settings: EngineSettings, share: Share) -> Actor:
        """Start a replica."""
        kind: Any = self._ray.remote(Replica)
        options = {"num_cpus": share.cpus, "num_gpus": share.gpus, "max_restarts": 0, "max_task_retries": 0}
        options["scheduling_strategy"] = "SPREAD"  # over the nodes, each of which has memory of its own
        return Actor(self._ray, kind.options(name=name, **options).remote(settings, share.threads))

    def put(self, value: Any) -> Any:
        """A reference to a value that many units take: it is sent to each machine once."""
        return self._ray.put(value)

    def close(self) -> None:
        """Leave Ray, and end what was started here."""
        if self._ours:
            with _own_signals():
                self._ray.shutdown()


class Actor:
    """A replica in a Ray actor (`dispatcher.Worker`)."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor
        self.ready: Future[Any] = actor.load.remote().future()

    def run(self, unit: Unit) -> Future[Any]:
        """Begin a unit; Ray's dashboard shows its label."""
        return self._actor.run.options(name=unit.label).remote(unit.kind, unit.work, unit.change).future()

    def end(self) -> None:
        """End it now, whatever it does."""
        with suppress(Exception):  # it may be gone, and Ray with it
            self._ray.kill(self._actor, no_restart=True)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's signal handlers: Ray puts its own in their place."""
    kept = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None:
            kept[number] = signal.getsignal(number)
    try:
        yield
    finally:
        for number, handler in kept.items():
            if handler is not None:
                with suppress(ValueError):  # not in the main thread, where Ray changes none either
                    signal.signal(number, handler)


def keep_off_stdout(ray: Any) -> None:
    """Log what Ray would print of dead workers, about ten lines each; the dispatcher tells of them in one.

    Commands print their results on stdout, and Ray has no option for this.
    """
    worker = getattr(ray._private, "worker", None)
    if hasattr(worker, "print_to_stdstream"):

        def log(data: dict[str, Any], **_more: Any) -> None:
            logging.getLogger("ray").info("%s: %s", data.get("pid"), " ".join(map(str, data.get("lines", ()))))

        setattr(worker, "print_to_stdstream", log)  # noqa: B010 - not a name of Ray's public interface

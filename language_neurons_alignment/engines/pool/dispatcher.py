"""Who does what: units of work, the replicas that do them, and what happens when one dies, hangs or fails.

    waiting   u₅ u₆ u₇ …          in the order of submission; a unit that is done again goes to the front
    replicas  r₁: u₃   r₂: u₄     one unit each; whoever is free takes the next one

A unit is acknowledged once: when the replica that has it now gives its result. A replica that dies, hangs beyond the
unit's time limit, or raises an error that explains nothing is ended, and another one is started in its place; its unit
goes to whoever is free. A unit that was lost `FAILURES` times is given up, and so is a replica that fails to start as
often. Nothing here knows Ray.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, Queue, SimpleQueue
from typing import Any, Protocol

from ...errors import EngineError, LNAError
from ..base import CLOSED

FAILURES = 3
"""How often a unit may be lost, and a replica may fail to start."""


@dataclass(frozen=True)
class Patience:
    """How long replicas may take, in seconds.

        limit of a unit = unit + slower · size · (the most seconds per size that a unit of its kind took so far)

    Before one was done, a unit of size s may take first · s more.
    """

    start: float = 1800.0
    unit: float = 120.0
    first: float = 1.0
    slower: float = 20.0


@dataclass(eq=False)
class Unit:
    """A piece of work for one replica.

    Attributes:
        kind, work, change: what `Replica.run` takes.
        size: what its time grows with: tokens.
        label: what it is called in Ray's dashboard.
        records: names its texts, for the error of a unit that is given up.
        future: its result, or its error.
    """

    kind: str
    work: Mapping[str, Any]
    change: Any
    size: int
    label: str
    records: Callable[[], str]
    future: Future[Any] = field(default_factory=Future)
    lost: list[str] = field(default_factory=list)  # what happened each time it was lost


class Worker(Protocol):
    """A replica that is starting or running. `ready` gives what it says of itself."""

    ready: Future[Any]

    def run(self, unit: Unit) -> Future[Any]:
        """Begin a unit."""
        ...

    def end(self) -> None:
        """End it now, whatever it does."""
        ...


@dataclass(eq=False)
class _Slot:
    """A place for a replica."""

    number: int
    worker: Worker | None = None
    unit: Unit | None = None
    since: float = 0.0
    limit: float = float("inf")
    said: Any = None  # what the replica says of itself, once it is ready
    failed: int = 0  # starts in a row


class Dispatcher:
    """Runs units on replicas, in a thread of its own."""

    def __init__(
        self,
        start: Callable[[int, int], Worker],
        replicas: int,
        *,
        accept: Callable[[Any], None],
        patience: Patience | None = None,
    ) -> None:
        """Start the replicas.

        Args:
            start: starts replica number k for the n-th time.
            replicas: how many.
            accept: is given what a new replica says of itself, and raises what is wrong with it.
            patience: how long replicas may take.
        """
        self._start, self._accept, self._patience = start, accept, patience or Patience()
        self._events: Queue[Callable[[], None]] = Queue()
        self._waiting: deque[Unit] = deque()
        self._slots = [_Slot(number) for number in range(replicas)]
        self._starts = [0] * replicas
        self._slowest: dict[str, float] = {}
        self._broken: LNAError | None = None
        self._closed = False
        self.restarts = 0
        self.losses: SimpleQueue[str] = SimpleQueue()  # what to tell of replicas that were lost, once
        self.started: Future[None] = Future()
        self._thread = threading.Thread(target=self._loop, name="lna-dispatcher", daemon=True)
        self._thread.start()
        for slot in self._slots:
            self._events.put(partial(self._begin, slot))

    def submit(self, unit: Unit) -> None:
        """Have a unit done; its future tells."""
        self._events.put(lambda: self._add(unit))
        if not self._thread.is_alive():  # nobody reads that any more
            _fail(unit, EngineError(CLOSED))

    def running(self) -> list[Any]:
        """What the replicas that are running said of themselves."""
        return [said for slot in self._slots if (said := slot.said) is not None]

    def close(self) -> None:
        """End the replicas; units that are not done are given up."""
        if not self._closed:
            self._events.put(self._close)
            self._thread.join()

    # ── Everything below runs in the dispatcher's thread ─────────────────────────────────────────────────────────

    def _loop(self) -> None:
        while not self._closed:
            limit = min((slot.limit for slot in self._slots), default=float("inf"))
            left = max(0.0, limit - time.monotonic())
            try:
                self._events.get(timeout=min(left, 3600.0))()
            except Empty:
                self._check_limits()

    def _add(self, unit: Unit) -> None:
        if self._broken is not None:
            unit.future.set_exception(self._broken)
            return
        self._waiting.append(unit)
        self._hand_out()

    def _begin(self, slot: _Slot) -> None:
        """Start a replica in its place."""
        self._starts[slot.number] += 1
        slot.said, slot.unit = None, None
        slot.since, slot.limit = time.monotonic(), time.monotonic() + self._patience.start
        try:
            worker = slot.worker = self._start(slot.number, self._starts[slot.number])
        except Exception as error:  # whatever Ray raises
            self._not_started(slot, error)
            return
        worker.ready.add_done_callback(lambda future: self._events.put(lambda: self._started(slot, worker, future)))

    def _started(self, slot: _Slot, worker: Worker, future: Future[Any]) -> None:
        if slot.worker is not worker:
            return
        try:
            said = future.result()
            if isinstance(said, LNAError):
                raise said
            self._accept(said)
        except Exception as error:  # a replica that died, or one that is not like the others
            self._not_started(slot, error)
            return
        slot.said, slot.failed, slot.limit = said, 0, float("inf")
        if not self.started.done() and all(one.said is not None for one in self._slots):
            self.started.set_result(None)
        self._hand_out()

    def _not_started(self, slot: _Slot, error: Exception) -> None:
        """A replica did not start: what explains itself will not change; anything else is tried again."""
        self._drop(slot)
        slot.failed += 1
        explained = isinstance(error, LNAError)
        if not explained and slot.failed < FAILURES:
            self._begin(slot)
            return
        slot.limit = float("inf")
        wrong = error if explained else EngineError(
            f"replica {slot.number} failed to start {FAILURES} times ({_short(error)}): look into Ray's logs, or use "
            "fewer --replicas"
        )  # fmt: skip
        if not self.started.done():
            self.started.set_exception(wrong)
        if all(one.worker is None for one in self._slots):
            self._break(wrong)

    def _break(self, error: Exception) -> None:
        """No replica is left."""
        self._broken = error if isinstance(error, LNAError) else EngineError(_short(error))
        while self._waiting:
            _fail(self._waiting.popleft(), self._broken)

    def _hand_out(self) -> None:
        for slot in self._slots:
            while slot.said is not None and slot.unit is None and self._waiting:
                unit = self._waiting.popleft()
                if not unit.future.cancelled():
                    self._give(slot, unit)

    def _give(self, slot: _Slot, unit: Unit) -> None:
        worker, rate = slot.worker, self._slowest.get(unit.kind)
        assert worker is not None, "a replica that is ready has a worker"
        extra = self._patience.first if rate is None else self._patience.slower * rate
        slot.unit, slot.since = unit, time.monotonic()
        slot.limit = slot.since + self._patience.unit + extra * unit.size
        try:
            future = worker.run(unit)
        except Exception as error:  # the replica's end may be known before its unit is begun
            self._lost(slot, _short(error))
            return
        future.add_done_callback(lambda future: self._events.put(lambda: self._done(slot, worker, unit, future)))

    def _done(self, slot: _Slot, worker: Worker, unit: Unit, future: Future[Any]) -> None:
        if slot.worker is not worker or slot.unit is not unit:
            return  # it was given to another replica meanwhile, whose result counts
        error = future.exception()
        if error is not None:
            self._lost(slot, _short(error))
            return
        seconds = (time.monotonic() - slot.since) / max(unit.size, 1)
        self._slowest[unit.kind] = max(self._slowest.get(unit.kind, 0.0), seconds)
        slot.unit, slot.limit = None, float("inf")
        self._hand_out()  # before the result is dealt with: the replica need not wait for that
        result = future.result()
        if isinstance(result, LNAError):
            _fail(unit, result)
        elif unit.future.set_running_or_notify_cancel():
            unit.future.set_result(result)

    def _check_limits(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            if slot.limit <= now:
                took = f"it took longer than {now - slot.since:.0f} s"
                if slot.said is not None:
                    self._lost(slot, took)
                else:
                    self._not_started(slot, EngineError(
                        f"replica {slot.number} was not ready after {now - slot.since:.0f} s: see `ray status` for "
                        "what is free, or use fewer --replicas"
                    ))  # fmt: skip

    def _lost(self, slot: _Slot, why: str) -> None:
        """A replica is of no use any more: its unit is done again, and another one takes its place."""
        unit = slot.unit
        self._drop(slot)
        self.restarts += 1
        again = "" if unit is None else f", and its piece of work ({unit.label}) is done again"
        self.losses.put(
            f"replica {slot.number} was lost ({why}): another one is started in its place{again} "
            f"(replicas lost in this run: {self.restarts})"
        )
        if unit is not None and not unit.future.cancelled():
            unit.lost.append(why)
            if len(unit.lost) < FAILURES:
                self._waiting.appendleft(unit)
            else:
                _fail(unit, EngineError(
                    f"replicas failed {FAILURES} times on one piece of work ({unit.label}; {unit.lost[-1]}), so it was "
                    f"given up; everything else was done. It holds {unit.records()}: leave these out, or give "
                    "replicas more memory"
                ))  # fmt: skip
        self._begin(slot)
        self._hand_out()

    def _drop(self, slot: _Slot) -> None:
        worker, slot.worker, slot.unit, slot.said = slot.worker, None, None, None
        if worker is not None:
            worker.end()

    def _close(self) -> None:
        self._closed = True
        closed = EngineError(CLOSED)
        for slot in self._slots:
            if slot.unit is not None:
                _fail(slot.unit, closed)
            self._drop(slot)
        self._break(closed)
        if not self.started.done():
            self.started.set_exception(closed)
        while not self._events.empty():  # units that were submitted meanwhile
            self._events.get()()


def _fail(unit: Unit, error: Exception) -> None:
    """Tell whoever waits for a unit."""
    if not unit.future.done() and unit.future.set_running_or_notify_cancel():
        unit.future.set_exception(error)


def _short(error: BaseException) -> str:
    """What went wrong, in a few words: Ray's errors have many lines, the last of which names the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = f"{type(error).__name__}: {lines[-1] if 'Task' in type(error).__name__ else lines[0]}" if lines else ""
    return (said or type(error).__name__)[:200]

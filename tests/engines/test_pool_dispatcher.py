"""Who does which unit, and what becomes of units whose replica dies: with replicas that are made up, and no Ray."""

from __future__ import annotations

import gc
import random
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from language_neurons_alignment.core.counts import LanguageCounts
from language_neurons_alignment.core.model import ModelInfo
from language_neurons_alignment.corpus.encode import PromptGroup
from language_neurons_alignment.engines import EngineSettings
from language_neurons_alignment.engines.pool import engine as pool_module
from language_neurons_alignment.engines.pool.dispatcher import FAILURES, Dispatcher, Patience, Unit
from language_neurons_alignment.engines.pool.replica import Described
from language_neurons_alignment.engines.pool.threads import in_threads
from language_neurons_alignment.engines.transformers.plan import Cut
from language_neurons_alignment.errors import CorpusError, EngineError, SettingsError

Play = Callable[[Unit, Future], None]


class Made:
    """A replica that does with a unit what `play` says; it is ready at once."""

    def __init__(self, play: Play, ready: Any = "ready") -> None:
        self.play = play
        self.ended = False
        self.ready: Future[Any] = Future()
        if isinstance(ready, Exception):
            self.ready.set_exception(ready)
        elif ready is not None:
            self.ready.set_result(ready)

    def run(self, unit: Unit) -> Future[Any]:
        future: Future[Any] = Future()
        self.play(unit, future)
        return future

    def end(self) -> None:
        self.ended = True


def well(unit: Unit, future: Future) -> None:
    future.set_result(unit.work["number"])


def units(number: int, *, size: int = 1) -> list[Unit]:
    return [Unit("count", {"number": n}, None, size, f"unit {n}", lambda n=n: f"record {n}") for n in range(number)]


@contextmanager
def dispatcher(start: Callable[[int, int], Made], replicas: int = 2, **choices: Any) -> Iterator[Dispatcher]:
    made = Dispatcher(start, replicas, accept=lambda _said: None, **choices)
    try:
        yield made
    finally:
        made.close()


def results(some: list[Unit]) -> list[Any]:
    return [unit.future.result(timeout=20) for unit in some]


@pytest.mark.parametrize("seed", range(10))
def test_whatever_dies_each_unit_is_acknowledged_once(seed: int) -> None:
    """Replicas die before, in and after a unit; some give their result although they were already given up."""
    chance, acknowledged, late = random.Random(seed), Counter(), []

    def play(unit: Unit, future: Future) -> None:
        number = unit.work["number"]
        if chance.random() < 0.3 and len(unit.lost) < FAILURES - 1:
            if chance.random() < 0.3:
                raise RuntimeError("gone before it was begun")
            future.set_exception(RuntimeError("killed"))
            late.append(future)
        else:
            future.set_result(number)

    some = units(60)
    with dispatcher(lambda _number, _start: Made(play), 3) as made:
        for unit in some:
            unit.future.add_done_callback(lambda future: acknowledged.update([future.result()]))
            made.submit(unit)
        assert results(some) == list(range(60))
        assert made.restarts == sum(len(unit.lost) for unit in some) > 0
    assert set(acknowledged.values()) == {1}
    assert len(acknowledged) == 60


def test_a_unit_that_is_lost_three_times_is_given_up_by_record_and_the_others_are_done() -> None:
    def play(unit: Unit, future: Future) -> None:
        if unit.work["number"] == 3:
            future.set_exception(RuntimeError("killed for memory"))
        else:
            well(unit, future)

    some = units(8)
    with dispatcher(lambda _number, _start: Made(play)) as made:
        for unit in some:
            made.submit(unit)
        with pytest.raises(EngineError, match=r"failed 3 times .*unit 3; RuntimeError: killed for memory.*record 3"):
            some[3].future.result(timeout=20)
        assert results(some[:3] + some[4:]) == [0, 1, 2, 4, 5, 6, 7]
        assert made.restarts == FAILURES


def test_an_error_that_explains_itself_is_told_at_once_and_ends_no_replica() -> None:
    with dispatcher(lambda _number, _start: Made(lambda _unit, future: future.set_result(CorpusError("no")))) as made:
        (unit,) = units(1)
        made.submit(unit)
        with pytest.raises(CorpusError, match=r"^no$"):
            unit.future.result(timeout=20)
        assert made.restarts == 0


def test_a_replica_that_hangs_is_ended_after_a_time_that_grows_with_the_unit() -> None:
    begun: list[tuple[int, Made]] = []

    def start(_number: int, times: int) -> Made:
        made = Made(lambda _unit, _future: None if times == 1 else well(_unit, _future))
        begun.append((times, made))
        return made

    (small,), (large,) = units(1), units(1, size=10_000)
    with dispatcher(start, 1, patience=Patience(unit=0.05, first=0.1)) as made:
        made.submit(small)
        assert small.future.result(timeout=20) == 0
        assert [one.ended for _, one in begun] == [True, False]
        assert "took longer than" in small.lost[0]
    with dispatcher(start, 1, patience=Patience(unit=0.05, first=0.1)) as made:
        made.submit(large)
        with pytest.raises(TimeoutError):
            large.future.result(timeout=0.4)
        assert made.restarts == 0, "a large unit may take 1000 s"


def test_a_result_that_comes_too_late_is_not_taken() -> None:
    given: list[Future] = []

    def play(unit: Unit, future: Future) -> None:
        given.append(future)
        if len(given) > 1:
            well(unit, future)

    (unit,) = units(1)
    with dispatcher(lambda _number, _start: Made(play), 1, patience=Patience(unit=0.05, first=0.0)) as made:
        made.submit(unit)
        assert unit.future.result(timeout=20) == 0
        given[0].set_result("late")
        (after,) = units(1)
        made.submit(after)
        assert after.future.result(timeout=20) == 0
        assert unit.future.result() == 0


def test_what_explains_why_no_replica_starts_is_told_and_the_rest_is_tried_three_times() -> None:
    for ready, error, starts in (
        (SettingsError("no such option"), SettingsError, 1),
        (RuntimeError("out of memory"), EngineError, FAILURES),
    ):
        tried: list[int] = []

        def start(_number: int, times: int, ready: Exception = ready, tried: list[int] = tried) -> Made:
            tried.append(times)
            return Made(well, ready)

        with dispatcher(start, 1) as made:
            with pytest.raises(error, match=str(ready)):
                made.started.result(timeout=20)
            (unit,) = units(1)
            made.submit(unit)
            with pytest.raises(error, match=str(ready)):
                unit.future.result(timeout=20)
        assert tried == list(range(1, 1 + starts))


def test_others_go_on_while_a_replica_cannot_be_started_again() -> None:
    def play(unit: Unit, future: Future) -> None:
        if unit.work["number"] == 0 and not unit.lost:
            future.set_exception(RuntimeError("its machine is gone"))
        else:
            well(unit, future)

    some = units(20)
    with dispatcher(lambda _number, times: Made(play, "ready" if times == 1 else None)) as made:
        for unit in some:
            made.submit(unit)
        assert results(some) == list(range(20))
        assert len(made.running()) == 1


def test_after_the_end_nothing_waits() -> None:
    waiting, after = units(3), units(1)
    with dispatcher(lambda _number, _start: Made(lambda _unit, _future: None)) as made:
        for unit in waiting:
            made.submit(unit)
    made.submit(after[0])
    for unit in [*waiting, *after]:
        with pytest.raises(EngineError, match="the engine is closed"):
            unit.future.result(timeout=20)


def test_threads_give_all_results_before_the_error_of_one() -> None:
    together, begun = threading.Barrier(3, timeout=20), []

    def do(item: int) -> int:
        begun.append(item)
        if item < 3:
            together.wait()  # three at a time, or this would break
        time.sleep(0.002 * (item % 3 == 0))
        if item == 1:
            raise EngineError("poisoned")
        return item * item

    given: dict[int, int] = {}

    def take() -> None:
        for item, result in in_threads(do, range(9), threads=3):
            given[item] = result

    with pytest.raises(EngineError, match="poisoned"):
        take()
    assert list(given.items()) == [(item, item * item) for item in range(9) if item != 1], "in order"
    for number in range(8):  # also where all are done before the first is asked for
        assert list(in_threads(str, range(number), threads=2)) == [(one, str(one)) for one in range(number)]
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda item: 1 // item, range(9), threads=3))


class Counting(Made):
    """A replica that counts nothing, and remembers whether what it gave is still held by anybody."""

    def __init__(self, given: list[weakref.ref[torch.Tensor]]) -> None:
        model = ModelInfo("made up", "made up", 2, 8, 4096, "float32")
        cut = Cut(64, 64, invariant=False, longest=4096, vocabulary=99, switch=None, shares=True)
        provenance: dict[str, str | int | float | bool] = {"engine": "transformers"}
        super().__init__(self.count, Described(model, None, provenance, cut, "here", 0, ()))  # type: ignore[arg-type]
        self.given = given

    def count(self, _unit: Unit, future: Future) -> None:
        counts = LanguageCounts.zero(2, 8)
        self.given.append(weakref.ref(counts.full.over_zero))
        future.set_result((counts, 1))


class NoCluster:
    """In the place of Ray."""

    def __init__(self, given: list[weakref.ref[torch.Tensor]]) -> None:
        self.given = given

    def share(self, *_given: object, **_more: object) -> None: ...

    def start(self, *_given: object) -> Counting:
        return Counting(self.given)

    def close(self) -> None: ...


def test_the_driver_holds_a_few_units_results_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[weakref.ref[torch.Tensor]] = []
    held: list[int] = []
    monkeypatch.setattr(pool_module, "Cluster", lambda _address: NoCluster(given))
    pool = pool_module.EnginePool(EngineSettings("made up"), replicas=2)
    gc.disable()  # what only the collector would free is not bounded
    try:
        groups = [PromptGroup((1, 2), (tuple(range(1, 60)),))] * 300
        pool.count(groups, progress=lambda _done: held.append(sum(one() is not None for one in given)))
    finally:
        gc.enable()
        pool.close()
    assert len(given) == 300
    assert max(held) <= 2 * pool_module.AHEAD + 3

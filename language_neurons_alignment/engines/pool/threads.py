"""Several pieces of work at a time, so that a pool has enough to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

from ...errors import LNAError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(do: Callable[[Item], Result], items: Iterable[Item], *, threads: int) -> Iterator[tuple[Item, Result]]:
    """Do a piece of work with each item in threads, and give the items with their results, in the order of the items.

    Items are taken one by one, in the caller's thread, the next one whenever one is done. Each thread begins with the
    caller's context variables. After an `LNAError` the other items are done and given nevertheless, so that a caller
    who stores results has all but the one that failed; then the error is raised.
    """
    done: SimpleQueue[int] = SimpleQueue()
    left, failed = enumerate(items), None
    begun: dict[int, tuple[Item, Future[Result]]] = {}
    pool = ThreadPoolExecutor(threads, thread_name_prefix="lna-pool")

    def begin(some: Iterable[tuple[int, Item]]) -> int:
        before = len(begun)
        for number, item in some:
            begun[number] = item, pool.submit(copy_context().run, do, item)
            begun[number][1].add_done_callback(lambda _future, number=number: done.put(number))
        return len(begun) - before

    try:
        running, following = begin(islice(left, threads)), 0
        while running:
            done.get()
            running += begin(islice(left, 1)) - 1
            while following in begun and begun[following][1].done():
                item, future = begun.pop(following)
                following += 1
                try:
                    result = future.result()
                except LNAError as error:
                    failed = failed or error
                    continue
                yield item, result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if failed is not None:
        raise failed

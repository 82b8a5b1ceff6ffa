"""What a pool of replicas costs and gains: threads against replicas, memory, and its balance on up to 1,000 replicas.

python benchmarks/pool.py [MODEL] [--questions 10] [--pairs 3] [--only threads,weights,balance,driver]

MODEL is a folder; without one, the demo's SmolLM2 is taken.

threads  two replicas of one thread each against one engine of two threads, in turns: the same groups, counted
weights  the memory of a replica that it shares with the others on a machine (mapped files): PSS against RSS
balance  the pool's rule, the next unit to whoever is free, played with unit times drawn from those measured here
driver   the driver's memory for counts of 80 × 28672 neurons, and for each sequence of a corpus; nothing is computed
"""

from __future__ import annotations

import argparse
import heapq
import os
import random
import resource
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from language_neurons_alignment._demo import demo_corpus_path, demo_model_path
from language_neurons_alignment.core.counts import LanguageCounts
from language_neurons_alignment.core.model import ModelInfo
from language_neurons_alignment.corpus.encode import PromptGroup, encode_groups
from language_neurons_alignment.corpus.records import read_corpus
from language_neurons_alignment.engines import EngineSettings
from language_neurons_alignment.engines.pool import EnginePool
from language_neurons_alignment.engines.pool import engine as pool_module
from language_neurons_alignment.engines.pool.cluster import Share
from language_neurons_alignment.engines.pool.dispatcher import Unit
from language_neurons_alignment.engines.pool.replica import Described
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.engines.transformers.plan import Cut

SHAPE = (80, 28672)
"""Layers and neurons of a model of 70 billion parameters."""


def groups_of(tokenizer: Any, questions: int) -> list[PromptGroup]:
    """The first questions of each language of the demo's corpus, with their answers."""
    corpus = read_corpus(demo_corpus_path())
    return [
        group
        for code in corpus.languages
        for group in encode_groups(corpus.of_language(code)[:questions], tokenizer, max_length=8192).groups
    ]


def threads_against_replicas(pool: EnginePool, one: TransformersEngine, groups: list[PromptGroup], pairs: int) -> None:
    """One engine of two threads and two replicas of one, in turns."""
    tokens, took = sum(group.full_tokens for group in groups), {"one": [], "pool": []}
    torch.set_num_threads(2)
    counted: dict[str, LanguageCounts] = {}
    for turn in range(2 * pairs):
        name = ("one", "pool")[turn % 2]
        begun = time.perf_counter()
        counted[name] = (one if name == "one" else pool).count(groups)
        took[name].append(time.perf_counter() - begun)
    torch.set_num_threads(1)
    apart = int((counted["one"].full.over_zero != counted["pool"].full.over_zero).sum())
    ratios = [one / pool for one, pool in zip(took["one"], took["pool"], strict=True)]
    speeds = {name: [tokens / seconds for seconds in some] for name, some in took.items()}
    print(f"threads: {tokens} tokens, {pairs} pairs, load {os.getloadavg()[0]:.1f}")
    for name, what in (("one", "one engine, 2 threads"), ("pool", "2 replicas, 1 thread")):
        some = speeds[name]
        print(f"  {what}: {statistics.median(some):.0f} tokens/s ({min(some):.0f}–{max(some):.0f})")
    print(f"  ratio: {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}); cells that differ: {apart}")


def weights(pool: EnginePool, model: str) -> None:
    """What each replica holds, and what of that the others hold too."""
    size = sum(path.stat().st_size for path in Path(model).rglob("*.safetensors"))
    print(f"weights: {size / 2**20:.0f} MiB of safetensors files, {len(pool.processes)} replicas")
    for _, process in pool.processes:
        lines = Path(f"/proc/{process}/smaps").read_text(encoding="ascii").splitlines()
        rss = pss = mapped = 0
        inside = False
        for line in lines:
            if "-" in line.split(" ", 1)[0]:
                inside = line.endswith(".safetensors")
            kind, _, value = line.partition(":")
            if kind in ("Rss", "Pss"):
                amount = int(value.split()[0]) / 1024
                rss, pss = rss + amount * (kind == "Rss"), pss + amount * (kind == "Pss")
                mapped += amount * (kind == "Rss" and inside)
        print(
            f"  a replica: {rss:.0f} MiB resident, of which {mapped:.0f} mapped from these files; its share {pss:.0f}"
        )


def unit_times(one: TransformersEngine, groups: list[PromptGroup]) -> list[float]:
    """Seconds of each unit of one count."""
    took = []
    for batch in one.batching.count_batches(groups):
        begun = time.perf_counter()
        one.count_batches([batch])
        took.append(time.perf_counter() - begun)
    return took


def of_the_driver(pool: EnginePool) -> float:
    """Processor seconds of the driver for a unit with next to nothing to compute: handed out, and its counts added."""
    some = list(pool.batching.count_batches([PromptGroup((1,), ((1, 2),))]))
    pool.count_batches(some * 20)
    begun = time.process_time()
    pool.count_batches(some * 200)
    return (time.process_time() - begun) / 200


def makespan(times: Sequence[float], replicas: int, *, driver: float) -> float:
    """Seconds until all units are done: the driver hands out one at a time, the next to whoever is free."""
    free = [0.0] * replicas
    handed = 0.0
    for seconds in times:
        begun = max(heapq.heappop(free), handed)
        handed = begun + driver
        heapq.heappush(free, begun + driver + seconds)
    return max(free)


def balance(times: list[float], driver: float) -> None:
    """The rule played for 1 to 1,000 replicas, on corpora of several sizes."""
    chance = random.Random(0)
    measured = f"{len(times)} units measured, {min(times):.2f}–{max(times):.2f} s"
    print(f"balance: {measured}; {1000 * driver:.1f} ms of the driver for each")
    print("  replicas | " + " | ".join(f"{units} units" for units in (64, 512, 4096)))
    for replicas in (1, 2, 8, 64, 256, 1000):
        cells = []
        for units in (64, 512, 4096):
            drawn = sorted(chance.choices(times, k=units), reverse=True)
            cells.append(f"{sum(drawn) / (replicas * makespan(drawn, replicas, driver=driver)):.2f}")
        print(f"  {replicas:8} | " + " | ".join(f"{cell:>9}" for cell in cells))


class Nothing:
    """A replica that has counted as soon as it is asked."""

    def __init__(self) -> None:
        model = ModelInfo("70b", "made up", *SHAPE, 4096, "bfloat16")
        cut = Cut(16384, 16384, invariant=False, longest=4096, vocabulary=2**17, switch=None, shares=True)
        said = Described(model, None, {"engine": "transformers"}, cut, "here", os.getpid(), ())  # type: ignore[arg-type]
        self.ready: Future[Any] = Future()
        self.ready.set_result(said)
        self._counts = LanguageCounts.zero(*SHAPE)

    def run(self, _unit: Unit) -> Future[Any]:
        """Counts of no token, in memory of their own."""
        future: Future[Any] = Future()
        counts = LanguageCounts.zero(*SHAPE)
        future.set_result((counts, 1))
        return future

    def end(self) -> None:
        """Nothing is held."""


class NoCluster:
    """In the place of Ray."""

    def __init__(self, _address: str | None) -> None:
        pass

    def share(self, *_given: Any, **_more: Any) -> Share:
        """What nobody needs."""
        return Share(1.0, 0)

    def start(self, *_given: Any) -> Nothing:
        """A replica that computes nothing."""
        return Nothing()

    def close(self) -> None:
        """Nothing is held."""


def driver_memory() -> None:
    """The driver's peak while replicas give counts of 80 × 28672 neurons as fast as it takes them."""

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize() / 2**20

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    one = 2 * 8 * SHAPE[0] * SHAPE[1] / 2**20
    print(f"driver: counts of one language take {one:.0f} MiB")
    with patch.object(pool_module, "Cluster", NoCluster):
        pool = EnginePool(EngineSettings("70b"), replicas=8)
        for sequences in (50_000, 100_000, 200_000):
            before = resident()
            groups = [
                PromptGroup(tuple(range(n, n + 60)), (tuple(range(n, n + 160)),))
                for n in (1000 + number % 100_000 for number in range(sequences))
            ]
            corpus = resident()
            units, begun = len(list(pool.batching.count_batches(groups))), time.process_time()
            pool.count(groups)
            took = (time.process_time() - begun) / min(units, pool_module.UNITS)
            print(
                f"  {sequences} sequences of 160 tokens: {1024 * (corpus - before) / sequences:.1f} KiB each as a "
                f"corpus; peak over it while they are counted {peak() - corpus:.0f} MiB; "
                f"{1000 * took:.0f} ms of the driver for each of {units} units"
            )
            del groups
        pool.close()


def main() -> None:
    """Run the sections that were asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", nargs="?")
    parser.add_argument("--questions", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--only", default="driver,threads,weights,balance")
    given = parser.parse_args()
    only = given.only.split(",")
    if "driver" in only:  # first: its peaks are the process's
        driver_memory()
    if set(only) & {"threads", "weights", "balance"}:
        os.environ["OMP_NUM_THREADS"] = "1"
        model = given.model or str(demo_model_path())
        settings = EngineSettings(model, "transformers", "bfloat16", {"device": "cpu"})
        pool = EnginePool.load(settings, replicas=2)
        try:
            one = TransformersEngine.load(model, device="cpu", dtype="bfloat16")
            groups = groups_of(one.tokenizer, given.questions)
            pool.count(groups[:2])
            if "weights" in only:
                weights(pool, model)
            if "threads" in only:
                threads_against_replicas(pool, one, groups, given.pairs)
            if "balance" in only:
                balance(unit_times(one, groups), of_the_driver(pool))
        finally:
            pool.close()


if __name__ == "__main__":
    main()

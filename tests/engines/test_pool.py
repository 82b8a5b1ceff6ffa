"""The engine contract on a pool of two replicas, on a Ray cluster of two nodes; and steps whose replicas die."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from itertools import count as count_from
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import torch

from language_neurons_alignment._evaluate import evaluate
from language_neurons_alignment._lens import lens
from language_neurons_alignment._session import Session
from language_neurons_alignment.activation import collect_activations
from language_neurons_alignment.config import EvaluationSettings, MapSettings, Selection
from language_neurons_alignment.core.model import StartProgress, silent
from language_neurons_alignment.corpus.encode import encode_groups
from language_neurons_alignment.engines import Engine, EngineSettings, EngineSource, load_engine
from language_neurons_alignment.engines.pool import EnginePool
from language_neurons_alignment.engines.pool.cluster import keep_off_stdout
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.errors import LNAWarning
from language_neurons_alignment.ppl import perplexity_map
from language_neurons_alignment.store.counts import load_counts
from tests.engines.contract import assert_same_counts, groups_of
from tests.engines.generation_contract import GenerationContract
from tests.engines.intervention_contract import InterventionContract
from tests.engines.ray_cluster import NODE, needs_ray, ray_cluster
from tests.engines.vllm_engines import needs_vllm
from tests.planted import ASKED, SHORT, Numbered
from tests.workspace import contents

pytestmark = [needs_ray]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Any]:
    with ray_cluster() as cluster:
        yield cluster


def load_pool(engine: str, folder: Path, *, batch_tokens: int | None = None, **options: Any) -> Engine:
    """Two replicas; one where batches are small and of the planted model: each takes seconds to import libraries."""
    usual = folder.name == "tiny-llama" and batch_tokens is None
    if engine == "vllm" and not usual:
        pytest.skip("another pool of vLLM takes minutes beside other tests: TestVLLM and TestPool have this test")
    options["replicas"] = 2 if usual else 1
    if batch_tokens is not None:
        options["batch_tokens"] = batch_tokens
    return load_engine(EngineSettings(str(folder), engine, "float32", options))


class TestPool(InterventionContract, GenerationContract):
    load = staticmethod(partial(load_pool, "transformers", device="cpu"))


@pytest.mark.vllm
@needs_vllm
class TestPoolOfVLLM(InterventionContract, GenerationContract):
    load = staticmethod(
        partial(load_pool, "vllm", distributed_executor_backend="mp", engine_args={"kv_cache_memory_bytes": 2**28})
    )


# ── Replicas that die while steps run: files are those of an undisturbed run on one engine ────────────────────────────


class Given(EngineSource):
    """A source of an engine that is loaded already, and stays so."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(EngineSettings("given"))
        self._engine = engine

    def __exit__(self, *_error: object) -> None:
        pass


BATCH = 64
"""Tokens of a batch: so few that each piece of work has several units."""


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Numbered:
    return Numbered.make(tmp_path_factory.mktemp("numbered"))


@pytest.fixture(scope="module")
def one(numbered: Numbered) -> TransformersEngine:
    return TransformersEngine.load(numbered.folder / "planted", device="cpu", batch_tokens=BATCH)


@pytest.fixture(scope="module")
def pool(cluster: Any, numbered: Numbered) -> Iterator[EnginePool]:
    options = {"device": "cpu", "batch_tokens": BATCH, "replicas": 2}
    pool = load_engine(EngineSettings(str(numbered.folder / "planted"), options=options))
    assert isinstance(pool, EnginePool)
    yield pool
    pool.close()


@dataclass
class Once:
    """Starts progress bars, the first of which brings harm when the first units are done."""

    harm: Callable[[], None]
    done: bool = False

    def __call__(self, _label: str, _total: int) -> Once.Bar:
        return self.Bar(self)

    @dataclass
    class Bar:
        """A progress bar that shows nothing."""

        of: Once

        def __call__(self, _done: int, /) -> None:
            if not self.of.done:
                self.of.done = True
                self.of.harm()

        def spare(self, _tokens: int, /) -> None:
            pass


def is_alive(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill_one(pool: EnginePool) -> None:
    os.kill(pool.processes[-1][1], signal.SIGKILL)


Step = Callable[[Session, StartProgress], object]


def files_of(numbered: Numbered, folder: Path, engine: Engine, step: Step, start: StartProgress) -> dict[str, bytes]:
    """The files that a step leaves, byte for byte."""
    work = numbered.at(Path(shutil.copytree(numbered.folder, folder)))
    for name in ("activations",) if step is count else ():
        shutil.rmtree(folder / name)
    with work.open() as session:
        step(replace(session, source=Given(engine)), start)
    return {
        name: content.replace(os.fsencode(folder), b"")
        for name, content in contents(folder).items()
        if not name.endswith(".png")
    }


def count(session: Session, start: StartProgress) -> None:
    for language in ASKED:
        collect_activations(session, language, moments=True, start=start)


def test_counts_are_the_same_bytes_with_a_replica_killed_in_the_middle(
    numbered: Numbered, one: TransformersEngine, pool: EnginePool, tmp_path: Path
) -> None:
    before, once = pool.restarts, Once(lambda: kill_one(pool))
    expected = files_of(numbered, tmp_path / "one", one, count, silent)
    with pytest.warns(LNAWarning, match=r"replica \d was lost .* started in its place, and its piece of work \(count"):
        found = files_of(numbered, tmp_path / "pool", pool, count, once)
    assert pool.restarts == before + 1
    assert len(expected) > 12
    apart = [name for name in expected if expected[name] != found[name] and "moments" not in name]
    assert not apart
    assert expected.keys() == found.keys()
    # in float64, sums of the same numbers in another order: the last bits
    for language in ASKED:
        for kind in ("", "prefix."):
            (a, b) = (
                torch.load(next((tmp_path / name).rglob(f"{kind}moments.{language}.*.pt")), weights_only=True)
                for name in ("one", "pool")
            )
            for key in a:
                if isinstance(a[key], torch.Tensor):
                    torch.testing.assert_close(a[key], b[key], rtol=1e-12, atol=1e-12)


def test_a_map_is_the_same_with_a_replica_killed_in_the_middle(
    numbered: Numbered, one: TransformersEngine, pool: EnginePool, tmp_path: Path
) -> None:
    def step(session: Session, start: StartProgress) -> None:
        settings = MapSettings(controls=0)
        perplexity_map(session, ASKED, top_rate=numbered.top_rate, lam=numbered.lam, settings=settings, start=start)

    before, once = pool.restarts, Once(lambda: kill_one(pool))
    expected = files_of(numbered, tmp_path / "one", one, step, silent)
    assert files_of(numbered, tmp_path / "pool", pool, step, once) == expected
    assert pool.restarts == before + 1
    assert any(name.startswith("ppl_maps") for name in expected)


def test_what_layers_give_is_the_same(
    numbered: Numbered, one: TransformersEngine, pool: EnginePool, tmp_path: Path
) -> None:
    def step(session: Session, start: StartProgress) -> None:
        lens(session, languages=ASKED, selection=Selection(numbered.top_rate, numbered.lam), start=start)

    expected = files_of(numbered, tmp_path / "one", one, step, silent)
    assert files_of(numbered, tmp_path / "pool", pool, step, silent) == expected
    assert any(name.startswith("lenses") for name in expected)


def test_an_evaluation_is_the_same_with_a_node_removed_in_the_middle(
    cluster: Any, numbered: Numbered, one: TransformersEngine, pool: EnginePool, tmp_path: Path
) -> None:
    def step(session: Session, start: StartProgress) -> None:
        settings = EvaluationSettings(sampling=SHORT, controls=0)
        evaluate(session, ASKED[:2], top_rate=numbered.top_rate, lam=numbered.lam, settings=settings, start=start)

    (second,) = cluster.worker_nodes
    once = Once(lambda: cluster.remove_node(second, allow_graceful=False))
    expected = files_of(numbered, tmp_path / "one", one, step, silent)
    assert files_of(numbered, tmp_path / "pool", pool, step, once) == expected
    assert once.done
    assert any(name.startswith("evaluations") for name in expected)
    cluster.add_node(**NODE)


def test_ray_prints_nothing_of_the_dead_on_stdout(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray, worker = import_module("ray"), import_module("ray._private.worker")
    assert "print_to_stdstream" in worker.listen_error_messages.__code__.co_names, "Ray prints them otherwise now"
    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)
    for printed in (True, False):
        worker.print_to_stdstream({"lines": ["A worker died"], "pid": "raylet", "is_err": False}, ignore_prefix=False)
        assert ("A worker died" in capsys.readouterr().out) == printed
        keep_off_stdout(ray)


@pytest.mark.slow
def test_twenty_random_kills_change_nothing(
    numbered: Numbered, one: TransformersEngine, pool: EnginePool, tmp_path: Path
) -> None:
    """A unit may be lost twice; so the kills are spread over many short pieces of work, one or two in each."""
    chance, killed = random.Random(20), 0
    expected = files_of(numbered, tmp_path / "one", one, count, silent)
    while killed < 20:
        at = chance.randint(1, 4)

        def harm(at: int = at) -> None:
            for _ in range(1 + at % 2):
                os.kill(chance.choice(pool.processes)[1], signal.SIGKILL)

        found = files_of(numbered, tmp_path / f"{killed}", pool, count, Once(harm))
        assert {name: found[name] for name in expected if "moments" not in name} == {
            name: content for name, content in expected.items() if "moments" not in name
        }
        killed += 1 + at % 2
        while len(running := pool.processes) < 2 or not all(is_alive(process) for _, process in running):
            if len(running) == 2:
                pool.count(groups_of(pool.tokenizer))  # that it was killed with nothing to do is noticed
            time.sleep(0.2)
    assert pool.restarts >= 12


@pytest.mark.slow
def test_two_drivers_on_one_cluster_and_one_that_is_killed_goes_on_with_other_replicas(
    cluster: Any, numbered: Numbered, one: TransformersEngine, pool: EnginePool, tmp_path: Path
) -> None:
    settings = MapSettings(controls=4)

    def step(session: Session, start: StartProgress) -> None:
        chosen: dict[str, Any] = {"top_rate": numbered.top_rate, "lam": numbered.lam, "settings": settings}
        perplexity_map(session, ASKED, start=start, **chosen)

    expected = files_of(numbered, tmp_path / "one", one, step, silent)
    theirs = numbered.at(Path(shutil.copytree(numbered.folder, tmp_path / "theirs")))
    arguments = [
        "--model-path", theirs.folder / "planted", "-d", theirs.folder / "corpus.json", "-s", "words",
        "-r", theirs.top_rate, "-l", theirs.lam, "--langs", ",".join(ASKED), "--controls", 4, "--root", theirs.folder,
        "--device", "cpu", "--batch-tokens", BATCH, "--replicas", 1, "--ray", cluster.address,
    ]  # fmt: skip
    program = [sys.executable, "-m", "language_neurons_alignment.cli", "ppl", *map(str, arguments)]

    def ours(number: int) -> bool:
        return files_of(numbered, tmp_path / f"ours{number}", pool, step, silent) == expected

    with (
        ThreadPoolExecutor(1) as beside,
        subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver,
    ):
        numbers = count_from(0)
        running, cells = beside.submit(ours, next(numbers)), list[bytes]()
        while len(cells) < 3:
            time.sleep(0.02)
            assert driver.poll() is None, driver.communicate()
            cells = [line for path in theirs.folder.rglob("*.cells.jsonl") for line in path.read_bytes().splitlines()]
            if running.done():
                assert running.result()
                running = beside.submit(ours, next(numbers))
        driver.kill()
        assert running.result()
    replicas = {one[1] for one in pool.processes}
    left: set[int] = set()
    for _ in range(100):
        left = {one.pid for one in psutil.process_iter(["name"]) if (one.info["name"] or "").startswith("ray::Replica")}
        if left == replicas:
            break
        time.sleep(0.2)
    assert left == replicas, "the replicas of a driver that is gone end, and nobody else's"
    with theirs.open() as session:
        before = len(cells)
        step(replace(session, source=Given(pool)), silent)
    cells = [line for path in theirs.folder.rglob("*.cells.jsonl") for line in path.read_bytes().splitlines()]
    assert len(cells) > before
    done = {
        name: content for name, content in contents(theirs.folder).items() if name.endswith("ppl.Llama-planted.json")
    }
    assert done
    for name, content in done.items():
        assert content.replace(os.fsencode(theirs.folder), b"") == expected[name]


@pytest.mark.slow
@pytest.mark.vllm
@needs_vllm
def test_a_command_starts_ray_with_a_vllm_of_two_ranks_in_a_replica_and_leaves_nothing_behind(
    numbered: Numbered, one: TransformersEngine, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    arguments = [
        "--model-path", numbered.folder / "planted", "-d", numbered.folder / "corpus.json", "-s", "words", "-l", "en",
        "--engine", "vllm", "--dtype", "float32", "--engine-arg", f"kv_cache_memory_bytes={2**28}",
        "--tensor-parallel-size", 2, "--replicas", 1, "--ray", "local", "--root", folder,
    ]  # fmt: skip
    program = [sys.executable, "-m", "language_neurons_alignment.cli", "activation", *map(str, arguments)]
    mark = uuid4().hex  # every process that comes of it has that in its environment
    done = subprocess.run(program, capture_output=True, text=True, timeout=500, env={**os.environ, "LNA_TEST": mark})
    assert done.returncode == 0, done.stderr
    with numbered.open() as session:
        groups = encode_groups(session.corpus.of_language("en"), one.tokenizer, max_length=512).groups
    with numbered.open(root=folder) as session:
        counts, _ = load_counts(session.layout, "en")
    assert_same_counts(counts, one.count(groups))
    left: list[psutil.Process] = []
    for _ in range(50):
        left = [one for one in psutil.process_iter() if _environment(one).get("LNA_TEST") == mark]
        if not left:
            break
        time.sleep(0.2)
    assert not left


def _environment(process: psutil.Process) -> dict[str, str]:
    with suppress(psutil.Error, OSError):
        return process.environ()
    return {}

"""vLLM's processes end when the process that started them is gone, whatever it was doing and whatever ended it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from tests.engines.vllm_engines import needs_vllm
from tests.tiny_models import save_tiny_model

linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
pytestmark = [pytest.mark.vllm, needs_vllm, linux]

WITHIN = 5.0
"""Seconds that every process has to end."""

DRIVER = """
import ctypes
import json
import os
import signal
import sys
import tempfile
import threading
import pytest
from language_neurons_alignment.config import Sampling
from language_neurons_alignment.corpus.encode import Prompt, PromptGroup, ScoredText
from language_neurons_alignment.engines.vllm import VLLMEngine
from tests.engines.vllm_engines import fork_processes

def drive(folder, doing, tensor, pipeline, spawned):
    if not spawned:
        fork_processes(pytest.MonkeyPatch())
    print("starting", flush=True)
    engine = VLLMEngine.load(
        folder, dtype="float32", tensor_parallel_size=tensor, pipeline_parallel_size=pipeline,
        engine_args={"kv_cache_memory_bytes": 2**28},
    )
    tell = lambda _tokens: print(doing, flush=True)
    texts = [tuple(5 + (row * 7 + at * at) % 300 for at in range(120)) for row in range(400)]
    if doing == "closed":
        engine.count([PromptGroup(texts[0][:40], (texts[0],))])
        engine.close()
        print(doing, flush=True)
        sys.stdin.readline()

    def end() -> None:
        if sys.stdin.readline().strip() == "exit":
            os._exit(3)
        ctypes.string_at(0)

    threading.Thread(target=end, daemon=True).start()
    while True:
        if doing == "counting":
            engine.count([PromptGroup(one[:40], (one,)) for one in texts], progress=tell)
        elif doing == "scoring":
            engine.log_likelihood([ScoredText(one) for one in texts], progress=tell)
        elif doing == "generating":
            engine.generate([Prompt(one) for one in texts], sampling=Sampling(max_new_tokens=200), progress=tell)

if __name__ == "__main__":
    import vllm.engine.arg_utils
    import vllm.v1.engine.llm_engine
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the forks leave no zombies
    for line in sys.stdin:
        arguments, environment, pipes = json.loads(line)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            for number, (path, flags) in enumerate(zip(pipes, (os.O_RDONLY, os.O_WRONLY))):
                os.dup2(os.open(path, flags), number)
            sys.stdin, sys.stdout = open(0), open(1, "w")
            os.environ.update(environment)
            tempfile.tempdir = None
            try:
                drive(*arguments)
            finally:
                os._exit(1)
        print(pid, flush=True)
"""
"""A process that has imported vLLM, and forks the drivers.

Each starts vLLM by spawning, as on CPUs, or by forking, as on GPUs (`open_vllm`).
"""


class Forked:
    """A fork of that process, with pipes to and from it."""

    def __init__(self, pid: int, stdin: IO[str], stdout: IO[str]) -> None:
        self.pid, self.stdin, self.stdout = pid, stdin, stdout

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout: float) -> None:
        until = time.monotonic() + timeout
        while Path(f"/proc/{self.pid}").exists():
            assert time.monotonic() < until, f"{self.pid} has not ended within {timeout} s"
            time.sleep(0.02)


@dataclass
class Driver:
    """A process that runs vLLM, and the processes that come of it."""

    process: Forked
    mark: str
    tmp: Path

    def wait_for(self, line: str) -> None:
        """Read its output up to a line that begins so."""
        for said in self.process.stdout:
            if said.startswith(line):
                return
        raise AssertionError(f"it ended before it said {line!r}")

    def wait_for_processes(self, count: int) -> None:
        """Wait until so many processes besides itself run; those that only tidy up do not count."""
        for _ in range(600):
            commands = [command_of(one) for one in self.others()]
            if sum("spawn_main" in one or "VLLM" in one for one in commands) >= count:
                return
            time.sleep(0.05)
        raise AssertionError(f"{count} processes did not appear")

    def others(self) -> list[int]:
        """The processes that came of it and are alive: those that have its mark, or are in its session."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            pid = int(folder.name)
            try:
                state, _parent, _group, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                marked = self.mark.encode() in (folder / "environ").read_bytes()
            except OSError:
                continue
            if pid not in (self.process.pid, os.getpid()) and state not in "ZX":
                found += [pid] if marked or int(session) == self.process.pid else []
        return found

    def left_in_tmp(self) -> list[str]:
        """Sockets and files of vLLM that are still there."""
        return [path.name for pattern in ("lna-vllm-*", "vllm_dist_*") for path in self.tmp.glob(pattern)]

    def survivors(self, within: float = WITHIN) -> list[str]:
        """What is still alive after so many seconds."""
        until = time.monotonic() + within
        while (left := self.others()) and time.monotonic() < until:
            time.sleep(0.1)
        return [f"{one} {command_of(one)}" for one in left]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]
    except OSError:
        return ""


def shared_memory_of(pid: int) -> set[str]:
    """The files in /dev/shm that a process has mapped; those of other tests' engines are not its own."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return set()
    return {line.partition("/dev/shm/")[2].split(" ")[0] for line in lines if "/dev/shm/" in line}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("mistral", tmp_path_factory.mktemp("ends") / "tiny-mistral")


Start = Callable[..., Driver]


@pytest.fixture(scope="module")
def forking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path_factory.mktemp("driver") / "driver.py"
    script.write_text(DRIVER, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "SPT_NOENV": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        start_new_session=True,
    ) as process:
        yield process
        process.kill()


@pytest.fixture
def start(forking: subprocess.Popen[str], model: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a driver; whatever is left of it is ended after the test."""
    started: list[Driver] = []
    temporary = Path(tempfile.mkdtemp(prefix="lna-test-"))  # short: sockets lie in it

    def begin(doing: str, *, tensor: int = 1, pipeline: int = 1, spawned: bool = True) -> Driver:
        assert forking.stdin is not None
        assert forking.stdout is not None
        mark, pipes = f"LNA_TEST_MARK={uuid.uuid4().hex}", [str(tmp_path / name) for name in ("in", "out")]
        for pipe in pipes:
            os.mkfifo(pipe)
        environment = dict([mark.split("=")]) | {"TMPDIR": str(temporary)}
        print(
            json.dumps([[str(model), doing, tensor, pipeline, spawned], environment, pipes]),
            file=forking.stdin,
            flush=True,
        )
        pid = int(forking.stdout.readline())
        started.append(Driver(Forked(pid, open(pipes[0], "w"), open(pipes[1])), mark, temporary))  # noqa: SIM115
        return started[-1]

    yield begin
    for driver in started:
        driver.process.send_signal(signal.SIGKILL)
        driver.process.wait(WITHIN)
        for pid in driver.others():
            os.kill(pid, signal.SIGKILL)
        with suppress(BrokenPipeError):
            driver.process.stdin.close()
        driver.process.stdout.close()
    shutil.rmtree(temporary, ignore_errors=True)


def die(driver: Driver, how: str) -> None:
    """End a driver without a chance to close vLLM."""
    if how in ("exit", "segfault"):
        driver.process.stdin.write(how + "\n")
        driver.process.stdin.flush()
    else:
        driver.process.send_signal(getattr(signal, how))
    driver.process.wait(WITHIN)


@pytest.mark.parametrize(
    ("doing", "tensor", "pipeline", "how", "guarded"),
    [
        ("scoring", 1, 2, "segfault", True),
        ("generating", 2, 1, "exit", False),  # an unlucky kill took the guard: each worker notices by itself
    ],
)
def test_a_parent_that_dies_leaves_no_process(
    start: Start, doing: str, tensor: int, pipeline: int, how: str, guarded: bool
) -> None:
    driver = start(doing, tensor=tensor, pipeline=pipeline, spawned=guarded)
    driver.wait_for(doing)
    assert driver.others(), "vLLM runs in processes of its own"
    shared = {name for pid in driver.others() for name in shared_memory_of(pid)}
    if not guarded:
        (guard,) = (pid for pid in driver.others() if "watch.py" in command_of(pid))
        os.kill(guard, signal.SIGKILL)
    die(driver, how)
    within = WITHIN if guarded else 4 * WITHIN  # Python's own resource tracker is slow on busy cores
    assert driver.survivors(within) == []
    if guarded:
        assert driver.left_in_tmp() == []
        assert shared & set(os.listdir("/dev/shm")) == set()


@pytest.mark.parametrize(("tensor", "processes", "later"), [(1, 1, 3.0), (2, 2, 1.0)])
def test_a_parent_killed_while_vllm_starts_leaves_no_process(
    start: Start, tensor: int, processes: int, later: float
) -> None:
    """While vLLM is imported, and while two workers load the model."""
    driver = start("counting", tensor=tensor)
    driver.wait_for("starting")
    driver.wait_for_processes(processes)
    time.sleep(later)
    die(driver, "SIGKILL")
    assert driver.survivors() == []


def test_a_closed_engine_leaves_neither_processes_nor_files(start: Start) -> None:
    driver = start("closed", spawned=False)
    driver.wait_for("closed")
    others = [pid for pid in driver.others() if "resource_tracker" not in command_of(pid)]
    assert [command_of(pid) for pid in others] == []
    assert driver.left_in_tmp() == []

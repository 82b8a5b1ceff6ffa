"""vLLM's processes end when the process that started them is gone, whatever it was doing and whatever ended it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engines.vllm_engines import needs_vllm
from tests.tiny_models import save_tiny_model

linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
pytestmark = [pytest.mark.vllm, needs_vllm, linux]

WITHIN = 5.0
"""Seconds that every process has to end."""

DRIVER = """
import sys
from language_neurons_alignment.config import Sampling
from language_neurons_alignment.corpus.encode import Prompt, PromptGroup, ScoredText
from language_neurons_alignment.engines.vllm import VLLMEngine

if __name__ == "__main__":
    folder, doing, tensor, pipeline = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    print("starting", flush=True)
    engine = VLLMEngine.load(
        folder, dtype="float32", tensor_parallel_size=tensor, pipeline_parallel_size=pipeline,
        engine_args={"kv_cache_memory_bytes": 2**28},
    )
    tell = lambda _tokens: print(doing, flush=True)
    texts = [tuple(5 + (row * 7 + at * at) % 300 for at in range(120)) for row in range(400)]
    if doing == "idle":
        print("idle", flush=True)
        sys.stdin.read()
    while True:
        if doing == "counting":
            engine.count([PromptGroup(one[:40], (one,)) for one in texts], progress=tell)
        elif doing == "scoring":
            engine.log_likelihood([ScoredText(one) for one in texts], progress=tell)
        elif doing == "generating":
            engine.generate([Prompt(one) for one in texts], sampling=Sampling(max_new_tokens=200), progress=tell)
"""


@dataclass
class Driver:
    """A process that runs vLLM, and the processes that come of it."""

    process: subprocess.Popen[str]
    mark: str

    def wait_for(self, line: str) -> None:
        """Read its output up to a line that begins so."""
        assert self.process.stdout is not None
        for said in self.process.stdout:
            if said.startswith(line):
                return
        raise AssertionError(f"it ended before it said {line!r}")

    def wait_for_processes(self, count: int) -> None:
        """Wait until so many processes besides itself run; those that only tidy up do not count."""
        for _ in range(600):
            if len([one for one in self.others() if "spawn_main" in command_of(one) or "VLLM" in command_of(one)]) >= count:
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

    def survivors(self) -> list[str]:
        """What is still alive after `WITHIN` seconds."""
        until = time.monotonic() + WITHIN
        while (left := self.others()) and time.monotonic() < until:
            time.sleep(0.1)
        return [f"{one} {command_of(one)}" for one in left]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]
    except OSError:
        return ""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("mistral", tmp_path_factory.mktemp("ends") / "tiny-mistral")


Start = Callable[..., Driver]


@pytest.fixture
def start(model: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a driver; whatever is left of it is ended after the test."""
    started: list[Driver] = []

    def begin(doing: str, *, tensor: int = 1, pipeline: int = 1) -> Driver:
        script, mark = tmp_path / "driver.py", f"LNA_TEST_MARK={uuid.uuid4().hex}"
        script.write_text(DRIVER, encoding="utf-8")
        environment = {**os.environ, "SPT_NOENV": "1", "TMPDIR": str(tmp_path)}
        environment |= dict([mark.split("=")]) | {"PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            [sys.executable, str(script), str(model), doing, str(tensor), str(pipeline)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            start_new_session=True,
        )
        started.append(Driver(process, mark))
        return started[-1]

    yield begin
    for driver in started:
        driver.process.kill()
        driver.process.wait()
        for pid in driver.others():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("tensor", [1, 2])
@pytest.mark.parametrize("doing", ["counting", "generating"])
def test_a_killed_parent_leaves_no_process(start: Start, doing: str, tensor: int) -> None:
    driver = start(doing, tensor=tensor)
    driver.wait_for(doing)
    assert driver.others(), "vLLM runs in processes of its own"
    driver.process.kill()
    assert driver.survivors() == []

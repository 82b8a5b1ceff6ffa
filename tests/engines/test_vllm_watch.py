"""The guard of vLLM's processes, with ordinary processes in place of vLLM's; with real vLLM: test_vllm_ends.py."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from language_neurons_alignment.engines.vllm import watch

WITHIN = 5.0

LOADED = f"""
import importlib.util, multiprocessing, os, subprocess, sys, time
spec = importlib.util.spec_from_file_location("watch", {watch.__file__!r})
watch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(watch)
"""

DRIVER = (
    LOADED
    + """
guard = watch.Guard()
marked = {**os.environ, **guard.environment(elsewhere=False)}
if sys.argv[1] == "spawn":  # a child that has one of its own, in another session, and that minds no signal
    inner = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(0, flush=True); time.sleep(600)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}], start_new_session=True)"
    child = subprocess.Popen([sys.executable, "-c", outer], env=marked, stdout=subprocess.PIPE)
    child.stdout.readline()
else:  # forked: it has this process's environment, without the mark
    with guard.marking():
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        child.start()
open(os.path.join(guard.folder, "socket"), "w").close()
print(child.pid, guard.mark, guard.folder, guard._process.pid, flush=True)
if len(sys.argv) > 2:
    guard.close()
    print("closed", flush=True)
time.sleep(600)
"""
)


class Started:
    """A driver and what it started."""

    def __init__(self, how: str, *more: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, how, *more], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        child, self.mark, folder, guard = self.process.stdout.readline().split()
        self.child, self.guard, self.folder = int(child), int(guard), Path(folder)

    def left(self) -> list[int]:
        """What of it is alive `WITHIN` seconds later at the latest."""
        until = time.monotonic() + WITHIN
        while (left := self._alive()) and time.monotonic() < until:
            time.sleep(0.1)
        return left

    def _alive(self) -> list[int]:
        known = [pid for pid in (self.child, self.guard) if watch.alive(pid)]
        return sorted({*known, *watch.marked(self.mark)})


@pytest.fixture
def started() -> Iterator[list[Started]]:
    all_: list[Started] = []
    yield all_
    for one in all_:
        one.process.kill()
        one.process.wait()
        for pid in one._alive():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(one.folder, ignore_errors=True)  # its guard was just killed


@pytest.mark.parametrize("how", ["spawn", "fork"])
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_what_a_driver_started_ends_with_it(started: list[Started], how: str, by: signal.Signals) -> None:
    started.append(one := Started(how))
    assert watch.alive(one.child)
    one.process.send_signal(by)
    one.process.wait()
    assert one.left() == []
    assert not one.folder.exists()


def test_ctrl_c_and_a_closed_terminal_do_not_end_the_guard(started: list[Started]) -> None:
    started.append(one := Started("spawn"))
    time.sleep(0.5)  # it is a Python that starts
    for by in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(one.guard, by)
    time.sleep(0.5)
    assert watch.alive(one.guard)
    one.process.kill()
    one.process.wait()
    assert one.left() == []


def test_closing_ends_the_processes_and_the_guard_and_not_the_driver(started: list[Started]) -> None:
    started.append(one := Started("spawn", "close"))
    assert one.process.stdout is not None
    assert one.process.stdout.readline() == "closed\n"
    assert one.left() == []
    assert not one.folder.exists()
    assert one.process.poll() is None


def test_a_guard_ends_nothing_of_another_driver(started: list[Started]) -> None:
    started += [one := Started("spawn"), other := Started("spawn")]
    one.process.kill()
    one.process.wait()
    assert one.left() == []
    assert watch.alive(other.child)
    assert watch.alive(other.guard)


def test_processes_of_ps_where_there_is_no_proc(started: list[Started], monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    started.append(one := Started("spawn"))
    there = watch.marked(one.mark)
    monkeypatch.setattr(watch.os.path, "isdir", lambda _path: False)
    assert set(watch.marked(one.mark)) == set(there)
    assert one.child in there


def test_a_worker_ends_without_a_guard(started: list[Started]) -> None:
    """The guard was killed first."""
    code = LOADED + "watch.end_with_driver(); print(0, flush=True); time.sleep(600)"
    driver = subprocess.Popen(["sleep", "600"])
    marked = {**os.environ, watch.MARK: f"{driver.pid}-0"}
    worker = subprocess.Popen([sys.executable, "-c", code], env=marked, stdout=subprocess.PIPE)
    try:
        assert worker.stdout is not None
        worker.stdout.readline()
        time.sleep(1)
        assert worker.poll() is None
        driver.kill()
        driver.wait()
        assert worker.wait(WITHIN) == -signal.SIGKILL
    finally:
        worker.kill()
        driver.kill()


@pytest.mark.parametrize("variable", ["TMPDIR", "VLLM_RPC_BASE_PATH"])
def test_sockets_fit_where_the_usual_folder_has_a_long_name(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (long := tmp_path / ("x" * 90)).mkdir()
    monkeypatch.setattr(watch.tempfile, "tempdir", str(long) if variable == "TMPDIR" else None)
    if variable != "TMPDIR":
        monkeypatch.setenv(variable, str(long))
    guard = watch.Guard()
    try:
        assert len(guard.folder) + 37 <= 103
    finally:
        guard.close()
    assert not Path(guard.folder).exists()


def test_a_process_whose_parent_was_gone_before_it_looked_ends_too() -> None:
    other = [sys.executable, "-c", LOADED + "watch.end_with(os.getppid() + 1); time.sleep(60)"]
    assert subprocess.run(other, check=False, timeout=WITHIN * 4).returncode == -signal.SIGKILL


def test_a_forked_process_puts_its_files_into_the_driver_s_folder() -> None:
    """Where it is killed, they go with the folder. Python remembers the usual place, and a fork with it."""
    code = (
        LOADED
        + """
import tempfile
guard = watch.Guard()
usual = tempfile.gettempdir()
os.environ["TMPDIR"] = guard.environment(elsewhere=False)["TMPDIR"]
with guard.marking():
    if (child := os.fork()) == 0:
        os._exit(0 if tempfile.gettempdir() == guard.folder else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), tempfile.gettempdir() == usual)
guard.close()
"""
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["0", "True"], done.stderr

"""The end of vLLM's processes when the process that started them is gone, whatever ended it.

vLLM's scheduler waits for requests for as long as it lives, and its workers wait for the scheduler, so a killed driver
would leave them and their memory behind. Two things notice that, each without the other:

    a guard        a small process beside the driver. It starts before vLLM does, so it covers start-up too, waits for
                   no lock and no GPU, and ends every process that has the driver's mark in its environment.
    each process   a thread in each worker, and in each process that vLLM forks off the driver, that ends its own
                   process. It covers the case in which the guard itself was killed.

As a script (`python watch.py DRIVER MARK FOLDER`) this file is the guard: it imports the standard library alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "LNA_VLLM_OF"
"""The environment variable by which a driver's processes are known: the driver's number and a random one."""

CAUSE = "cause"
"""The file in a driver's folder in which a process of vLLM says what ended it (`launch.Causes`)."""

_OFTEN = 0.25
"""Seconds between two looks at whether the driver lives."""

_LONGEST = 20.0
"""Seconds for which the guard goes on: a process that was about to start when the driver ended shows late."""

_PATH = 103 - len("/123e4567-e89b-12d3-a456-426614174000")
"""The longest path, in bytes, of a folder of sockets: a socket's own may have 103 bytes (macOS; 107 on Linux)."""

_TIDY = b"resource_tracker"
"""Python's process that removes shared memory once nobody uses it, and then ends by itself: it is left to do that."""

_starting: int | None = None
"""While processes are started that watch this one: its number."""


class Guard:
    """The driver's side: start a guard, mark what is started, and end both."""

    def __init__(self) -> None:
        """Start the guard of this process."""
        self.mark = f"{os.getpid()}-{uuid.uuid4().hex}"
        usual = os.environ.get("VLLM_RPC_BASE_PATH") or tempfile.gettempdir()
        fits = len(os.fsencode(usual)) + len("/lna-vllm-12345678") <= _PATH or not os.access("/tmp", os.W_OK)
        self.folder = tempfile.mkdtemp(prefix="lna-vllm-", dir=usual if fits else "/tmp")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(os.getpid()), self.mark, self.folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, MARK: self.mark},
            start_new_session=True,  # Ctrl-C and a closed terminal are the driver's affair
        )

    def environment(self, *, elsewhere: bool) -> dict[str, str]:
        """What vLLM's processes get: the mark, titles that do not overwrite it, and a folder for sockets and files.

        Those on other machines (`elsewhere`) do not have the folder.
        """
        marks = {MARK: self.mark, "SPT_NOENV": "1"}
        if elsewhere:
            return marks
        compiled = os.path.join(tempfile.gettempdir(), f"torchinductor_{os.getuid()}")  # outlives us
        kept = {} if "TORCHINDUCTOR_CACHE_DIR" in os.environ else {"TORCHINDUCTOR_CACHE_DIR": compiled}
        return {**marks, **kept, "VLLM_RPC_BASE_PATH": self.folder, "TMPDIR": self.folder}

    def cause(self) -> str:
        """What ended one of vLLM's processes, as far as it could tell; "" where none did."""
        with suppress(OSError):
            return Path(self.folder, CAUSE).read_text(encoding="utf-8")
        return ""

    @contextmanager
    def marking(self) -> Iterator[None]:
        """While the context is open, processes forked off this one watch it."""
        global _starting
        _starting = os.getpid()
        try:
            yield
        finally:
            _starting = None

    def close(self) -> None:
        """End what is left of vLLM, its sockets, and the guard; a second call does nothing."""
        self._process.kill()
        self._process.wait()
        for _ in range(3):  # one that was just starting another shows the other at the next look
            end_marked(self.mark)
        tidy(self.folder)


def _watch_if_started_here() -> None:
    """In a forked child. Its parent may be gone already, so who that was is known from before the fork."""
    global _starting
    if _starting is not None:
        parent, _starting = _starting, os.getpid()
        tempfile.tempdir = None  # the parent's, which a fork remembers: this process has a TMPDIR of its own
        end_with(parent)


os.register_at_fork(after_in_child=_watch_if_started_here)


def end_with_driver() -> None:
    """End this process when the driver named in its environment is gone, or the process that started it."""
    driver = os.environ.get(MARK, "").partition("-")[0]
    if driver.isdecimal() and int(driver) != os.getpid():  # Ray's workers have no mark: Ray ends them
        end_with(os.getppid(), int(driver))


def end_with(parent: int, driver: int | None = None) -> None:
    """Start a thread that kills this process once `parent` is no longer its parent, or `driver` is gone."""

    def look() -> None:
        while os.getppid() == parent and (driver is None or alive(driver)):
            time.sleep(_OFTEN)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=look, name="lna-ends-with-driver", daemon=True).start()


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] not in (b"Z", b"X", b"")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def end_marked(mark: str) -> int:
    """Kill every process with this mark but the caller and those that tidy up; gives their number."""
    killed = 0
    for pid in marked(mark):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


def marked(mark: str) -> list[int]:
    """The processes with this mark but the caller and those that tidy up."""
    wanted = f"{MARK}={mark}".encode()
    others = (one for one in _processes() if one[0] != os.getpid())
    return [pid for pid, command, environment in others if wanted in environment and _TIDY not in command]


def _processes() -> Iterator[tuple[int, bytes, bytes]]:
    """Number, command and environment of each process of ours; without /proc, `ps` tells both in one."""
    if not os.path.isdir("/proc/self"):
        listed = subprocess.run(["ps", "axeww", "-o", "pid=,command="], capture_output=True, check=False)
        for line in listed.stdout.splitlines():
            pid, _, rest = line.strip().partition(b" ")
            yield int(pid), rest, rest
        return
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with suppress(OSError):
                yield int(name), Path(f"/proc/{name}/cmdline").read_bytes(), Path(f"/proc/{name}/environ").read_bytes()


def tidy(folder: str) -> None:
    """Remove the sockets and files of processes that ended, and the memory that their ranks shared.

    The ranks of a group on CPUs name that memory after the group's file in the folder; no one else removes it.
    """
    for group in Path(folder).glob("vllm_dist_*"):
        for memory in Path("/dev/shm").glob(f"{group.name}*"):
            memory.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def guard(driver: int, mark: str, folder: str) -> None:
    """Wait until the driver, which started this process, is gone; then end its vLLM, and remove its sockets."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    while os.getppid() == driver:
        time.sleep(_OFTEN)
    until = time.monotonic() + _LONGEST
    quiet = 0
    while quiet < 4 and time.monotonic() < until:
        quiet = 0 if end_marked(mark) else quiet + 1
        time.sleep(_OFTEN)
    tidy(folder)


if __name__ == "__main__":
    guard(int(sys.argv[1]), sys.argv[2], sys.argv[3])

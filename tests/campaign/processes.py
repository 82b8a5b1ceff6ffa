"""Children of this process that run one thing each, and what came of them.

Torch, transformers and the package take seconds to import. The campaign imports them once, and each trial is a fork.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

GOOD_EXITS = frozenset({0, 1, 2, 129, 130, 141, 143})
"""Done, explained, wrong usage, and what the four signals that a shell sends leave."""

KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        code: its exit code; negative for a signal.
        memory: the most memory that it had, in MB.
    """

    code: int
    out: str
    err: str
    seconds: float
    memory: int
    hung: bool = False

    @property
    def traceback(self) -> str:
        """What is wrong with the way in which it ended; empty where nothing is."""
        if "Traceback (most recent call last)" in self.err:
            return self.err.strip().splitlines()[-1]
        told = self.code < 0 and 128 - self.code in GOOD_EXITS and "lna: " in self.err  # a signal, after a message
        if self.code not in GOOD_EXITS and self.code != KILLED and not told:
            return f"exit code {self.code}: {self.err.strip()[-200:]}"
        return ""


class Child:
    """A fork that calls `work` in `folder`, with its streams in files; its exit code is what `work` returns."""

    def __init__(self, work: Callable[[], int], folder: Path, *, name: str = "child") -> None:
        self.files = [folder / f".{name}.out", folder / f".{name}.err"]
        self.started = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._live(work, folder)

    def _live(self, work: Callable[[], int], folder: Path) -> None:
        code = 70
        try:
            os.setsid()
            for number, file in enumerate(self.files, start=1):
                descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                os.dup2(descriptor, number)
                os.close(descriptor)
            sys.stdin, sys.stdout, sys.stderr = (open(number, mode) for number, mode in enumerate(("r", "w", "w")))  # noqa: SIM115
            sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # as in a process of its own
            os.chdir(folder)
            code = work()
        except BaseException:
            with suppress(Exception):
                traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):
                    stream.flush()
            os._exit(code & 255)

    def ended(self) -> bool:
        """Whether it is over, without waiting for it."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, *, limit: float = 60.0) -> Ended:
        """Wait for its end; what takes longer than `limit` seconds hangs, and is killed."""
        hung = False
        end = self.started + limit
        while not self.ended():
            if time.monotonic() > end:
                hung = True
                with suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
                break
            time.sleep(0.003)
        _, status, used = os.wait4(self.pid, 0)
        out, err = (file.read_text(encoding="utf-8", errors="replace") if file.exists() else "" for file in self.files)
        for file in self.files:
            file.unlink(missing_ok=True)
        code = os.waitstatus_to_exitcode(status)
        return Ended(code, out, err, time.monotonic() - self.started, used.ru_maxrss // 1024, hung)


def lna(*arguments: str) -> int:
    """Call the program as its console script does; the exit code."""
    from language_neurons_alignment import cli

    if arguments[:1] in (("push",), ("pull",)):
        _use_a_file_as_hub(Path("out/hub.json"))
    sys.argv = ["lna", *arguments]
    try:
        cli.main()
    except SystemExit as ended:
        return _code(ended)
    return 0


def _use_a_file_as_hub(hub: Path) -> None:
    """In place of the network: a file that takes a commit whole or not at all. tests/test_share.py speaks HTTP."""
    from language_neurons_alignment.store import hub as of_package
    from language_neurons_alignment.store.files import write_text

    class Api:
        def create_repo(self, *_: object, **__: object) -> None:
            pass

        def create_commit(self, _repo: str, added: list[Any], **_: object) -> SimpleNamespace:
            files = {one.path_in_repo: Path(one.path_or_fileobj).read_bytes().hex() for one in added}
            write_text(hub, json.dumps(files, sort_keys=True))
            return SimpleNamespace(commit_url="commit")

        def dataset_info(self, *_: object, **__: object) -> SimpleNamespace:
            return SimpleNamespace(sha="commit")

        def hf_hub_download(self, _repo: str, name: str, *, local_dir: Path, **_: object) -> Path:
            path = local_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes.fromhex(json.loads(hub.read_text())[name]))
            return path

    of_package.HfApi = Api  # type: ignore[assignment]
    os.environ["HF_TOKEN"] = "of nobody"


def _code(ended: SystemExit) -> int:
    if ended.code is None:
        return 0
    return ended.code if isinstance(ended.code, int) else 1


def peak_memory() -> int:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

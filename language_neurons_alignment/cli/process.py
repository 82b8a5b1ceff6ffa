"""The program as a process: streams that are closed or full, and the signals that end it."""

from __future__ import annotations

import atexit
import errno
import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import Any

_HOW = {
    "SIGINT": "interrupted",
    "SIGTERM": "terminated (SIGTERM)",
    "SIGHUP": "the terminal was closed (SIGHUP)",
}


CTRL_C = 128 + signal.SIGINT
"""The exit code of a process that Ctrl-C ended."""


class Ended(BaseException):
    """A signal that ends the process, while a command was at work."""

    def __init__(self, number: int) -> None:
        """Name the signal."""
        super().__init__(number)
        self.code = 128 + number
        self.how = _HOW[signal.Signals(number).name]


@contextmanager
def ended_by_signal() -> Iterator[None]:
    """While the context is open, Ctrl-C, SIGTERM and SIGHUP raise `Ended`, so that everything open is closed.

    A second signal kills the process at once. A signal that is ignored (`nohup`, a shell's background job) stays so.
    """
    received: list[int] = []
    before: dict[int, Any] = {}
    process = os.getpid()

    def end(number: int, _frame: Any) -> None:
        for one in before:
            signal.signal(one, signal.SIG_DFL)
        if os.getpid() != process:  # a child that was forked, and not set up
            os.kill(os.getpid(), number)
            return
        received.append(number)
        raise Ended(number)

    for number in (getattr(signal, name) for name in _HOW if hasattr(signal, name)):
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            with suppress(ValueError):  # not in the main thread, which no signal reaches
                before[number] = signal.signal(number, end)
    try:
        yield
    except Ended:
        raise
    except BaseException as error:  # an import that is cut short may fail in another way
        if received:
            raise Ended(received[0]) from error
        raise
    finally:
        if not received:
            for number, handler in before.items():
                signal.signal(number, handler)


class Unprinted(Exception):
    """Not everything that was to be printed on stdout was printed."""

    def __init__(self, error: OSError) -> None:
        """Say why; a reader that has gone, as after `| head`, gets no message, as with any other program."""
        reason = "it is closed" if error.errno == errno.EBADF else error.strerror or str(error)
        gone = error.errno == errno.EPIPE
        self.code = 128 + 13 if gone else 1
        message = f"cannot print to stdout ({reason}); what was computed is stored"
        super().__init__("" if gone else message)


class _Output(TextIOWrapper):
    """Stdout, whose failures are not an `OSError`, because the libraries in between would handle one as their own."""

    def write(self, text: str) -> int:
        with _unprinted():
            return super().write(text)

    def flush(self) -> None:
        with _unprinted():
            super().flush()


@contextmanager
def _unprinted() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _discard(1)
        raise Unprinted(error) from error


class _Notes(TextIOWrapper):
    """Stderr: if it cannot be written, its text is dropped and the work continues."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            _discard(2)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            _discard(2)


def _discard(descriptor: int) -> None:
    """Discard what is still to be written there; otherwise the interpreter reports it when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def complete_streams() -> None:
    """Make stdin, stdout and stderr what commands can rely on, however the process was started.

    One that is closed is opened on /dev/null, or the next file opened would take its place, and what is printed would
    end up in it; writing to a stdout that was closed still fails. A terminal that has no λ gets an escape.
    """
    for descriptor, way in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, way), True)
    if sys.stdin is None:
        sys.stdin = open(0)  # noqa: SIM115 - for as long as the process
    for name, kind, descriptor in (("stdout", _Output, 1), ("stderr", _Notes, 2)):
        stream = getattr(sys, name)
        if stream is None:
            stream = TextIOWrapper(open(descriptor, "wb"), encoding="utf-8")  # noqa: SIM115 - likewise
        elif not isinstance(stream, TextIOWrapper):
            continue
        elif type(stream) is not TextIOWrapper or stream is not getattr(sys, f"__{name}__"):
            stream.reconfigure(errors="backslashreplace")  # another program's, which calls `main`
            continue
        settings = {one: getattr(stream, one) for one in ("encoding", "line_buffering", "write_through")}
        made = kind(stream.detach(), errors="backslashreplace", **settings)
        setattr(sys, name, made)
        setattr(sys, f"__{name}__", made)


def end_at_once() -> None:
    """Skip the last garbage collection when the process ends: it would search everything that torch loaded."""
    atexit.unregister(gc.freeze)  # of an earlier call in this process
    atexit.register(gc.freeze)

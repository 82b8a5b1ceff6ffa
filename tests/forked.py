"""Shell scripts whose commands are forked off one process: each saves the seconds in which it would import torch."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.campaign.__main__ import import_everything
from tests.campaign.processes import Child, lna

PROGRAM = """#!{python} -IS
import json, os, socket, sys
given, program = sys.argv[1:], ["-m", "language_neurons_alignment.cli"]
words = given if {name!r} == "lna" else given[2:] if given[:2] == program else None
if words is None:
    os.execv({python!r}, [{python!r}, *given])
if " ".join(words).startswith({apart!r}):
    os.execv({python!r}, [{python!r}, *program, *words])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    server.sendall(json.dumps([words, os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    code, out, err = json.load(server.makefile())
sys.stdout.buffer.write(out.encode())
sys.stderr.buffer.write(err.encode())
sys.exit(code)
"""


@contextmanager
def forked_commands(*, apart: str) -> Iterator[Path]:
    """A folder with a `lna` and a `python` for the front of PATH; a script may run them one after the other.

    Args:
        apart: the command, by its first words, that is a Python of its own as all are for users. So is whatever else
            `python` is asked for.
    """
    with tempfile.TemporaryDirectory(prefix="lna-") as folder, socket.socket(socket.AF_UNIX) as listening:
        address = str(Path(folder) / "socket")  # a short path: a socket's may have 103 bytes
        listening.bind(address)
        listening.listen()
        for name in ("lna", "python"):
            file = Path(folder) / name
            file.write_text(PROGRAM.format(python=sys.executable, name=name, apart=apart, address=address))
            file.chmod(file.stat().st_mode | stat.S_IXUSR)
        server = os.fork()
        if server == 0:
            with suppress(BaseException):
                _serve(listening)
            os._exit(1)
        try:
            yield Path(folder)
        finally:
            os.kill(server, signal.SIGKILL)
            os.waitpid(server, 0)


def _serve(listening: socket.socket) -> None:
    """Run what is asked for, one after the other."""
    import_everything()
    while True:
        connection, _ = listening.accept()
        with connection, connection.makefile("rw", encoding="utf-8") as asked:
            words, folder, environment = json.load(asked)

            def work(words: list[str] = words, environment: dict[str, str] = environment) -> int:
                os.environ.clear()
                os.environ.update(environment)
                return lna(*words)

            ended = Child(work, Path(folder)).wait(limit=300)
            json.dump([ended.code, ended.out, ended.err], asked)

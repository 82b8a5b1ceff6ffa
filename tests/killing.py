"""Runs a command, kills it at each of its steps on disk, runs it again, and tells what came of it.

    python tests/killing.py '{"folder": …, "first": [argv, …], "killed": argv, "again": argv, "kills": 20}'

The commands run in forked children of one process that has loaded everything, so that a kill takes a fraction of a
second. A step is a call of `os.replace`, `os.fsync`, `os.unlink` or `os.rmdir`; the kill, a real SIGKILL, comes before
it. Printed is one JSON object a line for each kill.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEPS = ("replace", "fsync", "unlink", "rmdir")
WORK = ("count", "log_likelihood", "generate")


def main() -> None:
    """Try all kills."""
    asked = json.loads(sys.argv[1])
    folder = Path(asked["folder"])
    done, calls = folder / "done", folder / "calls"
    for argv in asked["first"]:
        assert run(argv, done, calls)[0] == 0, (folder / "told").read_text()
    root = fresh(done, folder / "root")  # always the same, because some results name the paths of others
    code, steps, work = run(asked["killed"], root, calls)
    assert code == 0, (folder / "told").read_text()
    whole, forced = contents(root), fresh(root, folder / "forced")
    spread = range(0, steps, max(1, steps // asked["kills"]))
    for at in sorted({*spread, *range(max(0, steps - 8), steps)}):  # the last steps are those of replacing
        root = fresh(done, folder / "root")
        code, _, before = run(asked["killed"], root, calls, kill_at=at)
        assert code == -signal.SIGKILL, f"step {at} of {steps} ended with {code}"
        lost = sorted(contents(done).keys() - contents(root).keys())
        code, _, after = run(asked["again"], root, calls)
        told = (folder / "told").read_text()
        now = contents(root)
        differing = sorted(name for name in now.keys() | whole.keys() if now.get(name) != whole.get(name))
        left = sorted(str(one.relative_to(root)) for one in root.rglob("*.part"))
        seen = {"at": at, "code": code, "work": work, "before": before, "after": after}
        print(json.dumps({**seen, "lost": lost, "differing": differing, "left": left, "told": told}), flush=True)
    again = run(asked["killed"], forced, calls)
    print(json.dumps({"finished": True, "code": again[0], "work": work, "after": again[2]}), flush=True)


def fresh(source: Path, target: Path) -> Path:
    """Copy a folder of results, with its times."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=shutil.copy2)
    return target


def contents(root: Path) -> dict[str, bytes]:
    """Every file under a folder, but for locks and pictures."""
    found = [path for path in root.rglob("*") if path.is_file() and path.suffix not in (".lock", ".png", ".part")]
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def run(argv: list[str], root: Path, calls: Path, *, kill_at: int | None = None) -> tuple[int, int, int]:
    """Run a command in a child; return its exit code, its steps, and its finished calls of the engine."""
    calls.write_text("")
    child = os.fork()
    if not child:
        os._exit(call([one.format(root=root) for one in argv], calls, kill_at))
    _, status = os.waitpid(child, 0)
    lines = calls.read_text().split()
    return os.waitstatus_to_exitcode(status), lines.count("step"), len(lines) - lines.count("step")


def call(argv: list[str], calls: Path, kill_at: int | None) -> int:
    """Run a command in this process."""
    log = os.open(calls, os.O_WRONLY | os.O_APPEND)
    told = os.open(calls.with_name("told"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(told, 1)
    os.dup2(told, 2)
    steps = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            nonlocal steps
            if steps == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            steps += 1
            os.write(log, b"step\n")
            return real(*arguments, **named)

        return step

    def noted(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def work(*arguments: Any, **named: Any) -> Any:
            done = real(*arguments, **named)
            os.write(log, name.encode() + b"\n")
            return done

        return work

    from language_neurons_alignment import cli
    from language_neurons_alignment.engines.transformers import TransformersEngine

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    for name in WORK:
        setattr(TransformersEngine, name, noted(getattr(TransformersEngine, name), name))
    sys.argv = ["lna", *argv]
    with contextlib.suppress(SystemExit):
        try:
            cli.main()
        except SystemExit as ended:
            return int(ended.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
            return 99
    return 0


if __name__ == "__main__":
    import matplotlib
    import torch

    matplotlib.use("Agg")
    torch.set_num_threads(1)

    main()

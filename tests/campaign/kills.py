"""Commands that are killed, or in which a call fails, and run again: nothing is torn, lost, or different.

A trial copies the results that a command needs, runs the command until its end or until the trial ends it, looks at
what is on disk, runs the same command again, and compares with an uninterrupted run.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from language_neurons_alignment.errors import LNAError

from .commands import COMMANDS, OVERWRITING, Results, workspace
from .events import Counter, watch
from .processes import KILLED, Child, Ended, lna

LIMIT = 60.0
"""Seconds after which a command hangs."""


@dataclass(frozen=True)
class Plan:
    """A trial: everything that decides it.

    Attributes:
        how: "kill" at an event, "late" at a time, "pair" of processes of which one is killed, or a fault.
        kind: of the event, and its number; for "late", thousandths of an uninterrupted run.
    """

    command: str
    overwrite: bool
    how: str
    kind: str
    number: int

    def __str__(self) -> str:
        return f"{self.how}:{self.command.replace(' ', '_')}:{int(self.overwrite)}:{self.kind}:{self.number}"

    @classmethod
    def parse(cls, text: str) -> Plan:
        """Read what `str` wrote."""
        how, command, overwrite, kind, number = text.split(":")
        return cls(command.replace("_", " "), overwrite == "1", how, kind, int(number))


@dataclass
class Harm:
    """What a trial did, by the columns of the table; each with a line that says it."""

    found: list[tuple[str, str]] = field(default_factory=list)
    memory: int = 0
    reached: bool = True

    def add(self, column: str, message: str) -> None:
        """Note some harm."""
        self.found.append((column, message))


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run of a command: its events, its time and its results."""

    before: Path
    after: dict[str, bytes]
    events: dict[str, int]
    seconds: float


class Trials:
    """Runs trials of commands, each in a folder of its own under `folder`."""

    def __init__(self, results: Results, folder: Path) -> None:
        self._results, self._folder = results, folder
        self._references: dict[tuple[str, bool], Reference] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def reference(self, command: str, overwrite: bool) -> Reference:
        """The uninterrupted run, made at the first call."""
        if (command, overwrite) not in self._references:
            known = COMMANDS[command]
            before = self._results.after(*known.after, *([command] if overwrite else []))
            place, counter = self._place(before), Counter()

            def work() -> int:
                watch(counter)
                return lna(*known.argv, *(["--force"] if overwrite else []))

            ended = Child(work, place).wait(limit=4 * LIMIT)
            if ended.code:
                raise RuntimeError(f"lna {known.line}: exit {ended.code}\n{ended.err}")
            self._references[command, overwrite] = Reference(before, tree(place / "out"), counter.all(), ended.seconds)
            shutil.rmtree(place)
        return self._references[command, overwrite]

    def _place(self, before: Path) -> Path:
        self._number = getattr(self, "_number", 0) + 1
        return workspace(self._results.inputs, self._folder / f"{os.getpid()}-{self._number}", before)

    def draw(self, rng: Random, hows: tuple[str, ...]) -> Plan:
        """A trial at random."""
        command = rng.choice(tuple(COMMANDS))
        overwrite = command in OVERWRITING and rng.random() < 0.4
        how = rng.choice(hows)
        if how in ("late", "stdout", "stderr", "memory", "flock"):
            return Plan(command, overwrite, how, "time", rng.randrange(1000))
        events = self.reference(command, overwrite).events
        kinds = [
            kind for kind in events if how not in FAILING or kind in ("open", "write", "fsync", "rename", "folder")
        ]
        if not kinds:  # a command that writes nothing
            return Plan(command, overwrite, "late" if how in KILLS else "stdout", "time", rng.randrange(1000))
        kind = rng.choice(kinds)
        return Plan(command, overwrite, how, kind, rng.randrange(events[kind]) + 1)

    def run(self, plan: Plan) -> tuple[Harm, Path]:
        """Make a trial; gives the harm and its folder, which the caller removes."""
        reference = self.reference(plan.command, plan.overwrite)
        place, harm, counter = self._place(reference.before), Harm(), Counter()
        known = COMMANDS[plan.command]
        argv = [*known.argv, *(["--force"] if plan.overwrite else [])]
        old = tree(place / "out")

        def call() -> int:
            return lna(*argv)

        def first() -> int:
            arrange(plan, counter)
            return call()

        child = Child(first, place)
        other = Child(call, place, name="other") if plan.how == "pair" else None
        if plan.how == "late":
            time.sleep(reference.seconds * plan.number / 1000)
            child.signal(signal.SIGKILL)
        ended = child.wait(limit=LIMIT)
        finished = ended.code == 0
        self._note(harm, "the run", ended)
        harm.reached = plan.how not in ("kill", "pair") or ended.code == KILLED
        if other is not None:
            survivor = other.wait(limit=LIMIT)
            self._note(harm, "the other process", survivor)
            refused = "is there already" if known.once else "another process"
            if survivor.code not in (0, 1) or (survivor.code == 1 and refused not in survivor.err):
                harm.add(
                    "lost", f"the process that was not killed: exit {survivor.code}: {survivor.err.strip()[-200:]}"
                )
        for message in torn(place, old, reference.after, overwrite=plan.overwrite):
            harm.add("torn", message)
        for name in old:
            if not (place / "out" / name).exists() and name in reference.after:
                harm.add("lost", f"{name} is gone, and the new one is not there")

        finished = finished or tree(place / "out") == reference.after  # then --force begins anew, as it should
        again = Counter()

        def second() -> int:
            watch(again)
            return call()

        ended = Child(second, place).wait(limit=LIMIT)
        self._note(harm, "the run again", ended)
        if ended.code and not (known.once and tree(place / "out") == reference.after):
            harm.add("differing", f"the run again: exit {ended.code}: {ended.err.strip()[-300:]}")
        units, kept, done = reference.events.get("unit", 0), counter.get("kept"), again.get("unit")
        if plan.how != "pair" and not finished and kept and done > units - kept:
            harm.add("lost", f"{kept} of {units} units were on disk, and {done} were done again")
        now = tree(place / "out")
        for name in sorted({*reference.after, *now}):
            if name.endswith(".part"):
                harm.add("torn", f"{name} is left")
            elif reference.after.get(name) != now.get(name) and not same(
                name, reference.after.get(name), now.get(name)
            ):
                state = "missing" if name not in now else "another" if name in reference.after else "new"
                harm.add("differing", f"{name} is {state}")
        return harm, place

    def _note(self, harm: Harm, who: str, ended: Ended) -> None:
        harm.memory = max(harm.memory, ended.memory)
        if ended.hung:
            harm.add("hangs", f"{who}: no end after {LIMIT:g} s")
        elif ended.traceback:
            harm.add("tracebacks", f"{who}: {ended.traceback}")


# ── How a run is ended or disturbed ───────────────────────────────────────────────────────────────────────────────

FAILING = {
    "full": errno.ENOSPC,
    "quota": errno.EDQUOT,
    "readonly": errno.EROFS,
    "denied": errno.EACCES,
    "broken": errno.EIO,
}
"""Faults that one call of the system reports, and from then on each one of its kind."""

SIGNALS = {"int": signal.SIGINT, "term": signal.SIGTERM, "hup": signal.SIGHUP, "pipe": signal.SIGPIPE}

KILLS = ("kill", "kill", "kill", "kill", "late", "pair")
FAULTS = (*FAILING, *SIGNALS, "stdout", "stderr", "memory", "flock")


def arrange(plan: Plan, counter: Counter) -> None:
    """Make this process, a fork, meet what the plan says."""
    if plan.how in ("kill", "pair"):
        watch(counter, kind=plan.kind, number=plan.number, act=_die)
    elif plan.how in SIGNALS:
        watch(counter, kind=plan.kind, number=plan.number, act=lambda *_: os.kill(os.getpid(), SIGNALS[plan.how]))
    elif plan.how in FAILING:
        watch(counter, kind=plan.kind, number=plan.number, act=_failing(FAILING[plan.how]))
    elif plan.how == "stdout":
        full = os.open("/dev/full", os.O_WRONLY) if plan.number % 2 else None
        os.close(1) if full is None else os.dup2(full, 1)
    elif plan.how == "stderr":
        os.close(2)
    elif plan.how == "memory":
        grow = 30 + plan.number
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (grow << 20),) * 2)
    elif plan.how == "flock":
        import fcntl

        def missing(*_: object) -> None:
            raise OSError(errno.ENOSYS, "Function not implemented")

        fcntl.flock = missing  # type: ignore[assignment]


def _die(_kind: str, half: Callable[[], object] | None) -> None:
    if half is not None:
        half()
    os.kill(os.getpid(), signal.SIGKILL)


def _failing(number: int) -> Callable[..., None]:
    def act(_kind: str, half: Callable[[], object] | None) -> None:
        if half is not None:
            half()
        raise OSError(number, os.strerror(number))

    return act


# ── What is on disk ───────────────────────────────────────────────────────────────────────────────────────────────


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under a folder; lock files aside."""
    if not folder.exists():
        return {}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def torn(place: Path, old: dict[str, bytes], new: dict[str, bytes], *, overwrite: bool) -> Iterator[str]:
    """The files that are neither as before nor as they will be, and that cannot be read."""
    for name, data in tree(place / "out").items():
        if name.endswith(".part") or data in (old.get(name), new.get(name)):
            continue
        try:
            whole = is_whole(place / "out" / name, data)
        except (LNAError, ValueError, OSError) as error:
            whole = False
            name = f"{name} ({' '.join(str(error).split())[:150]})"
        if not whole:
            yield f"{name} is torn"


def is_whole(path: Path, data: bytes) -> bool:
    """Whether our readers, or a reader of the format, take a file."""
    from safetensors.torch import load_file

    from language_neurons_alignment.store.files import load_tensors
    from language_neurons_alignment.store.grid import Lines

    if path.name.endswith(".jsonl"):
        Lines(path).read()
        return True
    if path.suffix == ".json":
        json.loads(data)
        return True
    if path.suffix == ".safetensors":
        load_file(path)
        return True
    if path.suffix == ".pt" or path.name.startswith("mask."):
        load_tensors(path, remedy="")
        return True
    ends = {".png": b"IEND\xaeB`\x82", ".svg": b"</svg>\n", ".html": b"</html>\n", ".csv": b"\n"}
    return data.rstrip(b"\n").endswith(ends.get(path.suffix, b"").rstrip(b"\n")) and bool(data)


def same(name: str, one: bytes | None, other: bytes | None) -> bool:
    """Whether two files say the same; the order of lines and cells aside, which processes side by side decide."""
    if one is None or other is None:
        return False
    if name.endswith(".jsonl"):
        return sorted(one.splitlines()) == sorted(other.splitlines())
    if name.endswith(".json"):
        return _unordered(json.loads(one)) == _unordered(json.loads(other))
    return False


def _unordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unordered(one) for key, one in value.items()}
    if isinstance(value, list):
        return sorted(json.dumps(_unordered(one), sort_keys=True) for one in value)
    return value

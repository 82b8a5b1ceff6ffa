"""The campaign: `python -m tests.campaign --minutes 20 --seed 1`.

It kills commands, makes calls of the system fail, and fuzzes readers, parsers and the command line, until the time is
over. Then it prints one table, and for each kind of harm a line that repeats it. It exits with 0 if there was none.

    python -m tests.campaign --again kill:run:1:rename:24       one trial of `kills`
    python -m tests.campaign --again fuzz:1:counts:3            one input of `fuzz`: seed, target, number
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import pkgutil
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from contextlib import suppress
from mmap import mmap
from pathlib import Path
from random import Random
from typing import Any

STARTED = time.monotonic()

os.environ.update(
    HF_HUB_OFFLINE="1",
    MPLBACKEND="Agg",
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    TRANSFORMERS_VERBOSITY="error",
    COLUMNS="100",
)

COLUMNS = ("torn", "lost", "differing", "tracebacks", "hangs", "memory")
SHARES = {"kills": 0.5, "faults": 0.15, "fuzz": 0.35}
"""Of the time."""

SLICE = 12.0
"""Seconds of fuzzing in one process, which then ends: what it leaked goes with it."""

MORE_MEMORY = 3 << 30
"""Bytes of address space beyond what is taken at the start that a fuzzing process may take."""


def main() -> int:
    """Run the campaign; the exit code."""
    asked = _arguments()
    import_everything()
    folder = (
        Path(tempfile.mkdtemp(prefix="campaign-", dir=asked.folder))
        if asked.folder
        else Path(tempfile.mkdtemp(prefix="campaign-"))
    )
    keep = folder / "failures"
    keep.mkdir()
    try:
        if asked.again:
            return again(asked.again, folder)
        rows, harms = campaign(asked, folder, keep)
    finally:
        for one in ("results", "inputs", "trials", "fuzz"):
            shutil.rmtree(folder / one, ignore_errors=True)
        if not any(keep.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)
    print(table(rows))
    for (row, column, where), (recipe, message, times) in sorted(harms.items()):
        print(f"\n{row}: {column}, {times} times, {where}\n  {' '.join(message.split())[:500]}\n  {recipe}")
    if harms:
        print(f"\nthe inputs and results of each are in {keep}")
    return 1 if harms else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="in all, with what is prepared")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", choices=tuple(SHARES), help="kills, faults or fuzz alone")
    parser.add_argument("--targets", default="", help="of fuzz, with commas between them; all by default")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument("--again", help="one trial or input: the last words of a recipe")
    return parser.parse_args()


def import_everything() -> None:
    """Import once what every fork needs; nothing is computed before forking, so no threads are lost."""
    import torch
    import transformers  # noqa: F401

    import language_neurons_alignment as package

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if ".vllm" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()  # forks share the pages of what is there


Rows = dict[str, dict[str, int]]
Harms = dict[tuple[str, str, str], tuple[str, str, int]]


def campaign(asked: argparse.Namespace, folder: Path, keep: Path) -> tuple[Rows, Harms]:
    """Let workers try things until the time is over, and add up what they report."""
    from . import fuzz
    from .commands import Results

    end = STARTED + 60 * asked.minutes
    results = Results(folder)
    results.after(*fuzz.EVERYTHING)
    log = folder / "log.jsonl"
    log.touch()
    pids = []
    for number in range(asked.workers):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setsid()
                Worker(asked, number, results, folder, end, log, keep).work()
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    rows, harms = added_up(log)
    log.unlink()
    if any(codes):
        harms["campaign", "tracebacks", "a worker"] = ("", f"the campaign itself broke: workers ended with {codes}", 1)
    return rows, harms


def added_up(log: Path) -> tuple[Rows, Harms]:
    """Read what the workers reported."""
    rows: Rows = defaultdict(lambda: dict.fromkeys(("tried", *COLUMNS), 0))
    harms: Harms = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        row = rows[one["row"]]
        row["tried"] += one.get("tried", 0)
        row["memory"] = max(row["memory"], one.get("memory", 0))
        for column, where, message, recipe in one.get("found", []):
            if column != "memory":
                row[column] += 1
            key = (one["row"], column, where)
            before = harms.get(key, (recipe, message, 0))
            harms[key] = (before[0], before[1], before[2] + 1)
    return rows, harms


class Worker:
    """A process that tries things, one after the other, and reports each in a line of the log."""

    def __init__(
        self, asked: argparse.Namespace, number: int, results: Any, folder: Path, end: float, log: Path, keep: Path
    ) -> None:
        from .fuzz import TARGETS
        from .kills import Trials

        self.asked, self.number, self.results, self.folder, self.end, self.keep = (
            asked,
            number,
            results,
            folder,
            end,
            keep,
        )
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND)
        self.trials = Trials(results, folder / "trials" / str(number))
        self.rng = Random(f"{asked.seed}/{number}")
        self.targets = [one for one in asked.targets.split(",") if one] or list(TARGETS)
        self.progress = mmap(-1, 8 * (len(self.targets) + 2))
        """The next number of each target; then the target at work, and whether one is."""

    def report(self, row: str, **values: Any) -> None:
        """Write a line of the log."""
        os.write(self.log, (json.dumps({"row": row, **values}, ensure_ascii=True) + "\n").encode())

    def work(self) -> None:
        """Go on until the time is over and each was done; what is furthest behind its share of the time comes next."""
        spent = dict.fromkeys([self.asked.only] if self.asked.only else SHARES, 0.0)
        while time.monotonic() < self.end or 0.0 in spent.values():
            job = min(spent, key=lambda one: spent[one] / SHARES[one])
            start = time.monotonic()
            self.fuzz() if job == "fuzz" else self.trial(job)
            spent[job] += time.monotonic() - start

    def trial(self, job: str) -> None:
        """One kill or fault."""
        from .kills import FAULTS, KILLS

        plan = self.trials.draw(self.rng, KILLS if job == "kills" else FAULTS)
        harm, place = self.trials.run(plan)
        recipe = f"python -m tests.campaign --again {plan}"
        found = [
            (column, f"{plan.command}{' --force' if plan.overwrite else ''}", message, recipe)
            for column, message in harm.found
        ]
        self.report(f"{ROWS.get(plan.how, plan.how)}", tried=int(harm.reached), memory=harm.memory, found=found)
        if found and len(list(self.keep.iterdir())) < 300:
            shutil.move(place, self.keep / str(plan).replace(":", "-"))
        else:
            shutil.rmtree(place, ignore_errors=True)

    # fuzzing

    def _get(self, index: int) -> int:
        return struct.unpack_from("q", self.progress, 8 * index)[0]

    def _set(self, index: int, value: int) -> None:
        struct.pack_into("q", self.progress, 8 * index, value)

    def fuzz(self) -> None:
        """A slice of fuzzing in a process of its own, which may die or hang."""
        self._set(len(self.targets) + 1, 0)
        end = min(max(self.end, time.monotonic() + 2), time.monotonic() + SLICE)
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setsid()
                self._fuzz_slice(end)
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc(file=sys.__stderr__)
            finally:
                sys.__stderr__.flush()
                os._exit(code)
        hung = False
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > end + 150:
                hung = True
                os.killpg(pid, signal.SIGKILL)
                break
            time.sleep(0.05)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code and self._get(len(self.targets) + 1):
            name = self.targets[self._get(len(self.targets))]
            number = self._get(self.targets.index(name)) - self.asked.workers
            message = "no end, and no signal reaches it" if hung else f"the process ended with {code}"
            self.report(
                f"fuzz {name}",
                tried=0,
                found=[("hangs" if hung else "tracebacks", name, message, self._recipe(name, number))],
            )
        elif code:
            raise RuntimeError(f"fuzzing ended with {code}, and nothing was at work")

    def _recipe(self, name: str, number: int) -> str:
        return f"python -m tests.campaign --again {f'fuzz:{self.asked.seed}:{name}:{number}'.replace(' ', '_')}"

    def _fuzz_slice(self, end: float) -> None:
        from .fuzz import Place, try_input
        from .processes import peak_memory

        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MORE_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        folder = Path(tempfile.mkdtemp(dir=self.folder)) / "fuzz"
        place = Place(self.results, folder)
        os.chdir(folder)
        order = list(range(len(self.targets)))
        Random(f"{self.asked.seed}/{self.number}/{end}").shuffle(order)
        base = peak_memory()
        try:
            while time.monotonic() < end:
                for index in order:
                    name, tried, found = self.targets[index], 0, []
                    stop = min(end, time.monotonic() + 0.25)
                    self._set(len(self.targets), index)
                    self._set(len(self.targets) + 1, 1)
                    while time.monotonic() < stop:
                        number = self._get(index) or self.number + 1
                        self._set(index, number + self.asked.workers)
                        one, _ = try_input(self.asked.seed, name, number, place)
                        tried += 1
                        if one is not None:
                            found.append((one.column, one.where, one.message, self._recipe(name, number)))
                            self._keep(place, f"fuzz-{name}-{number}".replace(" ", "_"))
                        place.restore()
                    if tried:
                        self.report(f"fuzz {name}", tried=tried, memory=peak_memory() - base, found=found)
                    self._set(len(self.targets) + 1, 0)
                    if time.monotonic() > end:
                        break
        finally:
            os.chdir("/")
            shutil.rmtree(folder.parent, ignore_errors=True)

    def _keep(self, place: Any, name: str) -> None:
        """Keep the files of an input; of many that did harm, the first few hundred."""
        if len(list(self.keep.iterdir())) >= 300:
            return
        for path in place.changed():
            with suppress(OSError, ValueError):
                target = self.keep / name / path.relative_to(place.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)


ROWS = {
    "kill": "kill at an event",
    "late": "kill at a time",
    "pair": "kill one of two",
    "full": "disk full",
    "quota": "quota used up",
    "readonly": "read-only disk",
    "denied": "no permission",
    "broken": "broken disk",
    "int": "SIGINT",
    "term": "SIGTERM",
    "hup": "SIGHUP",
    "pipe": "SIGPIPE",
    "stdout": "stdout full or closed",
    "stderr": "stderr closed",
    "memory": "memory limit",
    "flock": "no flock",
}


def again(recipe: str, folder: Path) -> int:
    """One trial or input, and what came of it."""
    from . import fuzz
    from .commands import Results
    from .kills import Plan, Trials

    results = Results(folder)
    if recipe.startswith("fuzz:"):
        _, seed, name, number = recipe.replace("_", " ").split(":")
        place = fuzz.Place(results, folder / "fuzz")
        os.chdir(place.folder)
        found, ended = fuzz.try_input(int(seed), name, int(number), place)
        print(found or ended)
        return int(found is not None)
    harm, place = Trials(results, folder / "trials").run(Plan.parse(recipe))
    for column, message in harm.found:
        print(f"{column}: {message}")
    return int(bool(harm.found))


def table(rows: Rows) -> str:
    """The table: one row a kind, and sums of kills, faults and inputs."""

    def group(name: str) -> str:
        return "fuzz" if name.startswith("fuzz") else "kills" if name.startswith("kill") else "faults"

    head = ("", "tried", "torn", "lost", "differing", "tracebacks", "hangs", "largest memory, MB")
    lines = [head]
    for kind, title in (("kills", "all kills"), ("faults", "all faults"), ("fuzz", "all fuzzed inputs")):
        inner = sorted(name for name in rows if group(name) == kind)
        if not inner:
            continue
        lines += [(name, *(str(rows[name][one]) for one in ("tried", *COLUMNS))) for name in inner]
        sums = [sum(rows[name][one] for name in inner) for one in ("tried", *COLUMNS[:-1])]
        lines.append((title, *map(str, sums), str(max(rows[name]["memory"] for name in inner))))
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


if __name__ == "__main__":
    sys.exit(main())

"""The time of the commands that need no model, as multiples of `import torch`: real counts of Mistral-7B over MGSM.

    python benchmarks/commands.py [--counts FOLDER] [--against CHECKOUT] [--repeats 5]

Every round runs `import torch` and each command once, all as processes of their own with one thread, and a multiple is
that of its round. Times are of the processor (user and system, with those of child processes) and of the wall: on a
busy machine only the first means much. The bytecode lies in a temporary folder: a first round, with an empty one each
time, gives the cold start; the others find it full. `--against` measures another checkout in the same rounds.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TAG = "de76d14562b1da1ba0e52d5b245cf9c0859e2af3"
HERE = Path(__file__).resolve().parents[1]
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "--help": ["--help"],
    "identify": ["identify", "-r", "0.01", "-l", "0.109375"],
    "autosweep": ["autosweep"],
    "analyze": ["analyze", "-l", "0.109375"],
    "report": ["report", "-l", "0.109375"],
}
Times = tuple[float, float]


def measure(name: str, checkout: Path, counts: Path, bytecode: Path) -> Times:
    """Processor and wall seconds of one process, which starts with no results but the counts."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "activations").symlink_to(counts / "activations")
        arguments = COMMANDS[name]
        if name != "import torch":
            arguments = ["-m", "language_neurons_alignment.cli", *arguments]
            if name != "--help":
                arguments += ["--model-name", "Mistral", "--model-path", TAG, "-s", "mgsm", "--root", folder]
        env = os.environ | {"PYTHONPATH": str(checkout), "PYTHONPYCACHEPREFIX": str(bytecode), "OMP_NUM_THREADS": "1"}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *arguments], cwd=folder, env=env, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{' '.join(arguments)} ended with {process.returncode}: run it by hand to see why")
    return used.ru_utime + used.ru_stime, wall


def row(name: str, rounds: list[dict[str, Times]]) -> str:
    """The medians of a command's times, and of its multiples of `import torch` in the same round."""
    cells = []
    for clock in (0, 1):
        seconds = [one[name][clock] for one in rounds]
        times = [one[name][clock] / one["import torch"][clock] for one in rounds]
        low, high = min(times), max(times)
        cells += [f"{statistics.median(seconds):.2f}", f"{statistics.median(times):.2f} ({low:.2f}–{high:.2f})"]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Measure and print a table for each checkout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=Path, default=HERE.parent / "shared/reference/mistral-7b-mgsm")
    parser.add_argument("--against", type=Path, help="another checkout, measured in the same rounds")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    if not (given.counts / "activations").is_dir():
        print(f"not measured: there are no counts in {given.counts}; give their folder with --counts")
        return
    checkouts = {"this checkout": HERE} | ({"the other checkout": given.against.resolve()} if given.against else {})
    cold: dict[str, dict[str, Times]] = {name: {} for name in checkouts}
    warm: dict[str, list[dict[str, Times]]] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as bytecode:
        for number in range(given.repeats + 2):  # cold, then one that fills the folder, then those that count
            for label, checkout in checkouts.items():
                found = {}
                for name in COMMANDS:
                    with tempfile.TemporaryDirectory() as empty:
                        folder = Path(empty if number == 0 else bytecode)
                        found[name] = measure(name, checkout, given.counts.resolve(), folder)
                if number == 0:
                    cold[label] = found
                elif number > 1:
                    warm[label].append(found)
    print(f"{platform.machine()}, 1 thread, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")
    header = "processor s | … / import torch | wall s | … / import torch |\n|---|---:|---:|---:|---:|"
    for label in checkouts:
        print(f"\n| {label}, medians of {given.repeats} | {header}")
        print("\n".join(row(name, warm[label]) for name in COMMANDS))
        print(f"\n| {label}, no bytecode, once | {header}")
        print("\n".join(row(name, [cold[label]]) for name in COMMANDS))


if __name__ == "__main__":
    main()

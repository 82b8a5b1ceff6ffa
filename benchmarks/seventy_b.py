"""identify, exact autosweep and analyze at the shape of a 70B model: seconds and peak memory, each in its own process.

    python benchmarks/seventy_b.py [--folder /tmp/seventy-b] [--layers 80 --d-mlp 28672]

The counts are synthetic, 21 languages of them, written once as count files into the folder (0.8 GB; a temporary one is
deleted at the end): most neurons fire alike in all languages, a few in one, in some, or strongly in all.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import torch

from language_neurons_alignment.core.counts import LanguageCounts, SpanCounts
from language_neurons_alignment.store.counts import save_counts
from language_neurons_alignment.store.layout import Layout

CODES = tuple("en ru es fr de zh ja bn th sw pt it nl pl tr ar hi ko vi id cs".split())  # noqa: SIM905 - one a line is no better
LAYOUT = ("synthetic", "Llama-seventy-b")
SPECIFIC, RELATED, GENERAL = 0.004, 0.006, 0.017
"""Shares of neurons; Mistral-7B on MGSM has about as many."""
FULL, PREFIX = 220_000, 70_000
MODEL = ["--model-path", "seventy-b", "--model-name", "Llama", "-s", "synthetic", "--langs", ",".join(CODES)]
LAM = "0.05"
STEPS = {
    "identify": ["identify", *MODEL, "-l", LAM],
    "autosweep (bisection)": ["autosweep", *MODEL],
    "autosweep --exact": ["autosweep", *MODEL, "--exact"],
    "analyze": ["analyze", *MODEL, "-l", LAM],
}


def write_counts(folder: Path, layers: int, d_mlp: int) -> None:
    """Count files of every language, one at a time."""
    generator = torch.Generator().manual_seed(0)
    kind = torch.rand(layers, d_mlp, generator=generator)
    base = torch.rand(layers, d_mlp, generator=generator) ** 3 * 0.55
    loud = 0.6 + 0.38 * torch.rand(layers, d_mlp, generator=generator)
    favourite = torch.randint(len(CODES), (layers, d_mlp), generator=generator)
    breadth = torch.randint(2, 9, (layers, d_mlp), generator=generator)
    for k, code in enumerate(CODES):
        p = (base * (1 + 0.25 * torch.randn(layers, d_mlp, generator=generator))).clamp(0.0, 0.99)
        distance = (k - favourite) % len(CODES)
        p = torch.where(kind < SPECIFIC, torch.where(distance == 0, loud, 0.05 * p), p)
        related = (kind >= SPECIFIC) & (kind < SPECIFIC + RELATED)
        p = torch.where(related, torch.where(distance < breadth, loud, 0.1 * p), p)
        p = torch.where(kind > 1 - GENERAL, loud, p)
        prefix = (p * PREFIX).round().long()
        full = prefix + (p * (FULL - PREFIX)).round().long()
        counts = LanguageCounts(SpanCounts(FULL, full), SpanCounts(PREFIX, prefix))
        save_counts(Layout(folder, *LAYOUT), code, counts, {"language": code})


def measure(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Seconds and peak GiB of one command in a process of its own; what it prints goes to a file in the folder."""
    start = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        descriptor = os.open(folder / "printed.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        command = [sys.executable, "-m", "language_neurons_alignment.cli", *arguments, "--root", str(folder)]
        os.execv(sys.executable, command)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"failed: lna {' '.join(arguments)}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30
    return seconds, peak


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep the counts here, and use those that are there")
    parser.add_argument("--layers", type=int, default=80)
    parser.add_argument("--d-mlp", type=int, default=28672)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="seventy-b.") as temporary:
        folder = args.folder or Path(temporary)
        if not Layout(folder, *LAYOUT).activation(CODES[-1]).exists():
            write_counts(folder, args.layers, args.d_mlp)
        for path in folder.rglob("*.pt"):  # what is measured is not the disk
            path.read_bytes()
        print(
            f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
            f"{args.layers} × {args.d_mlp} neurons × {len(CODES)} languages\n"
        )
        print("| command | seconds | peak GiB |\n|---|---:|---:|")
        for name, arguments in STEPS.items():
            taken, peak = measure(arguments, folder)
            print(f"| {name} | {taken:.1f} | {peak:.2f} |", flush=True)


if __name__ == "__main__":
    main()

"""How long a report takes, and how large it is: real counts, or made-up ones of the same shape (32 × 14336 × 10).

    python benchmarks/report.py [--counts FOLDER]

Two figures: the use-case alone, everything imported, and the whole command in a process of its own. Nothing is written
into the repository.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from language_neurons_alignment._report import write_report
from language_neurons_alignment.config import Selection
from language_neurons_alignment.core.counts import LanguageCounts, SpanCounts
from language_neurons_alignment.languages import DEFAULT_LANGUAGES
from language_neurons_alignment.store.counts import save_counts
from language_neurons_alignment.store.layout import Layout

TAG = "de76d14562b1da1ba0e52d5b245cf9c0859e2af3"
LAM = 0.109375
SHAPE = (32, 14336)
TOKENS = 400_000


def make_up(layout: Layout) -> None:
    """Counts of most neurons alike over languages, and some of one language or two."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.rand(SHAPE, generator=generator) ** 3
    for code in DEFAULT_LANGUAGES:
        share = (shared + 0.1 * torch.rand(SHAPE, generator=generator) - 0.05).clamp(0, 1)
        own = torch.rand(SHAPE, generator=generator) < 0.004
        share[own] = 0.6 + 0.3 * torch.rand(int(own.sum()), generator=generator)
        span = SpanCounts(TOKENS, (share * TOKENS).long())
        save_counts(layout, code, LanguageCounts(span, SpanCounts.zero(*SHAPE)), {})


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parents[2] / "shared/reference/mistral-7b-mgsm"
    parser.add_argument("--counts", type=Path, default=here, help="folder that holds activations/mgsm")
    counts = parser.parse_args().counts
    with tempfile.TemporaryDirectory() as folder:
        root, layout = Path(folder), Layout(Path(folder), "mgsm", f"Mistral-{TAG}")
        if (counts / "activations").is_dir():
            (root / "activations").symlink_to((counts / "activations").resolve())
        else:
            make_up(layout)
        start, busy = time.perf_counter(), time.process_time()
        written = write_report([layout], Selection(0.01, LAM, 0.95), called=[TAG])
        alone, alone_busy = time.perf_counter() - start, time.process_time() - busy
        command = ["-m", "language_neurons_alignment.cli", "report", "--model-name", "Mistral", "--model-path", TAG]
        start = time.perf_counter()
        subprocess.run([sys.executable, *command, "-s", "mgsm", "-l", str(LAM), "--root", folder], check=True,
                       capture_output=True)  # fmt: skip
        whole = time.perf_counter() - start
        pictures = sum(path.stat().st_size for path in written.pictures)
        print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
        print("| what | |\n|---|---:|")
        print(f"| the report, everything imported: wall (processor) seconds | {alone:.1f} ({alone_busy:.1f}) |")
        print(f"| the whole command: wall seconds | {whole:.1f} |")
        print(f"| pictures and tables: how many, MB | {len(written.pictures)}, {pictures / 1e6:.1f} |")
        print(f"| the page: MB | {written.page.stat().st_size / 1e6:.2f} |")


if __name__ == "__main__":
    main()

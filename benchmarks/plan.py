"""The memory that `lna plan` tells, beside the peak of a process that counts and scores.

    python benchmarks/plan.py [MODEL]

How far the resident memory grows over what the process had before the model was loaded, in float32 and in bfloat16,
each in a process of its own; SmolLM2-135M on the demo's corpus by default.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import torch

from language_neurons_alignment._demo import demo_model_path
from language_neurons_alignment._plan import plan
from language_neurons_alignment.corpus.encode import encode_groups, encode_texts
from language_neurons_alignment.corpus.records import read_corpus
from language_neurons_alignment.engines.transformers import TransformersEngine

CORPUS = Path(__file__).parents[1] / "datasets" / "demo.json"
GIB = 2**30


class Peak:
    """The most resident memory while the context is open."""

    def __init__(self) -> None:
        self.bytes, self._open = 0, True

    def _watch(self) -> None:
        process = psutil.Process()
        while self._open:
            self.bytes = max(self.bytes, process.memory_info().rss)
            time.sleep(0.002)

    def __enter__(self) -> Peak:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._open = False
        self._thread.join()


def measure(model: str, dtype: str) -> None:
    """Print a row of the table."""
    torch.set_num_threads(1)
    corpus, longest = read_corpus(CORPUS), {"max_length": 2048}
    (memory,) = plan(model, CORPUS, engine="transformers", device="cpu", dtype=dtype).memory
    before = psutil.Process().memory_info().rss
    engine = TransformersEngine.load(model, device="cpu", dtype=dtype)
    with Peak() as peak:
        for language in ("en", "bn", "zh"):
            engine.count(encode_groups(corpus.of_language(language)[:6], engine.tokenizer, **longest).groups)
        for language in ("en", "bn"):
            engine.log_likelihood(
                encode_texts(corpus.of_language(language)[:12], engine.tokenizer, text="full", **longest)
            )
    grown = peak.bytes - before
    print(f"| {dtype} | {memory.total / GIB:.3f} | {grown / GIB:.3f} | {memory.total / grown:.2f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=None)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    given = parser.parse_args()
    model = given.model or str(demo_model_path())
    if given.dtype:
        measure(model, given.dtype)
        return
    print("| | planned, GiB | measured, GiB | planned / measured |\n|---|---:|---:|---:|", flush=True)
    for dtype in ("float32", "bfloat16"):
        subprocess.run([sys.executable, __file__, model, "--dtype", dtype], check=True)


if __name__ == "__main__":
    main()

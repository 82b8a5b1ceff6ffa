"""Peak memory of a likelihood at a long text under a large vocabulary: 4096 tokens × 152,064 logits.

    python benchmarks/likelihood_memory.py

A tiny Llama with that vocabulary scores one text in float32, on each engine that is installed. Shown is how far the
resident memory of the engine's processes rises above what they held before, beside what all the logits at once would
take. Linux only: peaks are read from /proc. Prints Markdown on stdout.
"""

from __future__ import annotations

import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import psutil
from transformers import AutoModelForCausalLM, LlamaConfig

from language_neurons_alignment._demo import demo_model_path
from language_neurons_alignment.corpus.encode import ScoredText
from language_neurons_alignment.engines import EngineSettings, load_engine

VOCABULARY, TOKENS = 152_064, 4096
MIB = 2**20


def save_wide_model(folder: Path) -> None:
    """A Llama of one small layer and a very wide head, with a real tokenizer."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=2 * TOKENS,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for file in demo_model_path().glob("*token*"):
        shutil.copy(file, folder)


def processes() -> list[psutil.Process]:
    """This process and the engine's."""
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def forget_peak() -> int:
    """Begin a new peak in each process; bytes resident now."""
    for one in processes():
        Path(f"/proc/{one.pid}/clear_refs").write_text("5")
    return sum(one.memory_info().rss for one in processes())


def peak() -> int:
    """Bytes resident at the most since `forget_peak`, over all processes."""
    total = 0
    for one in processes():
        line = next(line for line in Path(f"/proc/{one.pid}/status").read_text().splitlines() if "VmHWM" in line)
        total += int(line.split()[1]) * 1024
    return total


def rise(engine: str, folder: str) -> str:
    """A row of the table: what scoring the long text takes on one engine."""
    options = (
        {"engine_args": {"max_model_len": str(2 * TOKENS), "kv_cache_memory_bytes": 2**28}}
        if engine == "vllm"
        else {"device": "cpu"}
    )
    loaded = load_engine(EngineSettings(folder, engine, "float32", options))
    try:
        loaded.log_likelihood([ScoredText(tuple(range(16)))], progress=lambda _: None)
        before = forget_peak()
        (likelihood,) = loaded.log_likelihood([ScoredText(tuple(range(TOKENS)))], progress=lambda _: None)
        risen = peak() - before
    finally:
        loaded.close()
    everything = likelihood.tokens * VOCABULARY * 4
    return f"| {engine} | {risen / MIB:.0f} | {everything / MIB:.0f} | {risen / everything:.3f} |"


def main() -> None:
    """Measure and print."""
    engines = ["transformers", *(["vllm"] if find_spec("vllm") else [])]
    print(f"{TOKENS} tokens × {VOCABULARY} logits, float32\n")
    print("| engine | rise of the peak, MiB | all logits at once, MiB | ratio |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        save_wide_model(Path(folder))
        for engine in engines:
            print(rise(engine, folder))


if __name__ == "__main__":
    main()

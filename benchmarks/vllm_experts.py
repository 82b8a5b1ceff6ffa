"""What counting costs in vLLM on a mixture of experts: its kernels are asked as always, and gates computed again.

    PYTHONPATH=. python benchmarks/vllm_experts.py

A random Qwen3-MoE, and a random Qwen3 of as many neurons for each token. Runs alternate; medians of processor seconds,
which other work on the same cores disturbs less than the clock. Prints Markdown on stdout.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.vllm_counting import alternate, bare
from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.core.model import SILENT
from language_neurons_alignment.corpus.encode import PromptGroup
from language_neurons_alignment.engines.vllm import VLLMEngine
from tests.tiny_models import save_tiny_model

SIZES = {"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64}
EXPERTS = {"num_experts": 32, "num_experts_per_tok": 4, "moe_intermediate_size": 384}


def measure(kind: str, folder: Path, repeats: int, **sizes: int) -> list[str]:
    """The table's rows of one model."""
    save_tiny_model(kind, folder, dtype=torch.bfloat16, spread=0.02, **SIZES, **sizes)
    draw = random.Random(0)
    texts = [tuple(draw.randrange(4, 300) for _ in range(128)) for _ in range(64)]
    groups = [PromptGroup(text[:40], (text,)) for text in texts]
    engine = VLLMEngine.load(str(folder), engine_args={"kv_cache_memory_bytes": 2**29})
    shape = (engine.model.layers, engine.model.d_mlp)

    def changed() -> None:
        with engine.intervene(Intervention.zero(torch.rand(shape) < 0.01)):
            engine.count(groups, progress=SILENT)

    try:
        runs = {
            "nothing": lambda: bare(engine, groups),
            "counting": lambda: engine.count(groups, progress=SILENT),
            "counting, 1 % of the neurons off": changed,
        }
        spent = {name: [one.processor for one in some] for name, some in alternate(runs, repeats).items()}
    finally:
        engine.close()
    usual = statistics.median(spent["nothing"])
    return [
        f"| {kind} | {name} | {statistics.median(some):.2f} ({min(some):.2f}–{max(some):.2f}) | "
        f"{statistics.median(some) / usual:.2f} |"
        for name, some in spent.items()
    ]


if __name__ == "__main__":
    print("| model | vLLM with | processor seconds | ratio |\n|---|---|---:|---:|")
    with tempfile.TemporaryDirectory() as where:
        for name, more in (("qwen3_moe", EXPERTS), ("qwen3", {"intermediate_size": 4 * 384})):
            print("\n".join(measure(name, Path(where) / name, 5, **more)), flush=True)

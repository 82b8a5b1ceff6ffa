"""The tables of `lna plan` in docs/beyond-one-machine.md, made by that command.

python -m tests.plan_tables
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from language_neurons_alignment._plan import Plan, plan
from language_neurons_alignment.cli.plan import fit_lines, memory_lines, time_lines

PAGE = Path(__file__).parents[1] / "docs" / "beyond-one-machine.md"
BEGIN, END = "<!-- plans -->\n", "<!-- /plans -->"

TOKENS = 1_000_000
LONGEST = 4096

_COMMON = {"dtype": "bfloat16", "tie_word_embeddings": False, "hidden_act": "silu", "num_key_value_heads": 8}
CONFIGS: dict[str, dict[str, Any]] = {
    "Mistral-7B-v0.1": {
        **_COMMON,
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
        "max_position_embeddings": 32768,
    },
    "Qwen2.5-32B": {
        **_COMMON,
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": 5120,
        "intermediate_size": 27648,
        "num_hidden_layers": 64,
        "num_attention_heads": 40,
        "vocab_size": 152064,
        "max_position_embeddings": 131072,
    },
    "Llama-3.1-70B": {
        **_COMMON,
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
    },
}
"""What the public config.json of three models says of their sizes."""

PARAMETERS = {"Mistral-7B-v0.1": 7_241_732_096, "Qwen2.5-32B": 32_763_876_352, "Llama-3.1-70B": 70_553_706_496}
"""The parameters of these models, as their model cards tell them."""

THROUGHPUT = {"Mistral-7B-v0.1": 33_132, "Qwen2.5-32B": 7_965, "Llama-3.1-70B": 3_700}
"""Tokens counted in a second: the first two measured on an H200 (benchmarks/README.md), the last one given."""


def save_config(name: str, folder: Path) -> Path:
    """A folder with nothing in it but a model's config.json."""
    (folder / name).mkdir()
    (folder / name / "config.json").write_text(json.dumps(CONFIGS[name]), encoding="utf-8")
    return folder / name


def planned(name: str, folder: Path, **choices: Any) -> Plan:
    """The plan of one of the models."""
    return plan(str(save_config(name, folder)), **{"longest": LONGEST, **choices})


def tables() -> str:
    """All tables, between their markers."""
    lines = []
    with TemporaryDirectory() as place:
        for name in CONFIGS:
            found = planned(name, Path(place), tokens=TOKENS, tokens_per_second=THROUGHPUT[name])
            lines += [
                f"`lna plan {name} --tokens {TOKENS} --tokens-per-second {THROUGHPUT[name]} "
                f"--engine-arg max_model_len={LONGEST}`",
                "",
                "```text",
                *memory_lines(found),
                "",
                *fit_lines(found),
                "",
                *time_lines(found),
                "```",
                "",
            ]
    return BEGIN + "\n".join(lines) + END


def main() -> None:
    """Make the tables, and write them into the page."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page[: page.index(BEGIN)] + tables() + page[page.index(END) + len(END) :], encoding="utf-8")


if __name__ == "__main__":
    main()

"""What counting costs in vLLM: the hooks, one pass for full and prefix, ten answers per prompt.

    python benchmarks/vllm_counting.py --model ~/models/SmolLM2-135M-Instruct --engine-arg max_model_len=2048

All figures of a table come from one run on one machine; runs that are compared alternate, and medians are shown. On a
CPU the share is of processor seconds, which other people's work on the same cores disturbs less than the clock. Prints
Markdown on stdout.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from language_neurons_alignment._demo import demo_model_path
from language_neurons_alignment.core.model import SILENT
from language_neurons_alignment.corpus.encode import PromptGroup, Tokenizer
from language_neurons_alignment.engines.vllm import VLLMEngine
from language_neurons_alignment.engines.vllm.tree import weighted_tree


def corpus(path: Path, tokenizer: Tokenizer, *, answers: int, limit: int, shots: int = 0) -> list[PromptGroup]:
    """Prompts of a corpus file, each with as many answers, borrowed from the same language where it has too few.

    Args:
        path: the corpus.
        tokenizer: the model's.
        answers: per prompt.
        limit: prompts.
        shots: worked examples of the same language in front of each prompt, as in few-shot benchmarks.
    """
    records = [record for record in json.loads(path.read_text(encoding="utf-8")) if record["answers"]]
    pool: dict[str, list[str]] = {}
    for record in records:
        pool.setdefault(record["lang"], []).extend(answer["generated"] for answer in record["answers"])
    examples: dict[str, list[str]] = {}
    for record in records:
        examples.setdefault(record["lang"], []).append(
            record["instruction"] + record["answers"][0]["generated"] + "\n\n"
        )
    groups = []
    for index, record in enumerate(records[:limit]):
        borrowed = pool[record["lang"]][index % 7 :] * answers
        own = [answer["generated"] for answer in record["answers"]]
        prompt = "".join(examples[record["lang"]][-shots:] if shots else ()) + record["instruction"]
        full = [prompt + answer for answer in list(dict.fromkeys([*own, *borrowed]))[:answers]]
        encode = tokenizer.encode
        groups.append(PromptGroup(tuple(encode(prompt)), tuple(tuple(encode(text)) for text in full)))
    return groups


def bare(engine: VLLMEngine, groups: list[PromptGroup]) -> None:
    """The same requests through the same vLLM, with no hook anywhere."""
    tree, weights = weighted_tree(groups)
    engine._process.forget_prefixes()
    engine._process.feed(tree, weights=weights[0], progress=SILENT)


@dataclass(frozen=True)
class Spent:
    """What one run took."""

    seconds: float
    processor: float


def processor_seconds() -> float:
    """What vLLM's processes and this one have used of the processors so far."""
    me = psutil.Process()
    times = [one.cpu_times() for one in (me, *me.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def alternate(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[Spent]]:
    """What each run takes, in turns, after one of each that does not count."""
    spent: dict[str, list[Spent]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start, busy = time.perf_counter(), processor_seconds()
            run()
            if turn:
                spent[name].append(Spent(time.perf_counter() - start, processor_seconds() - busy))
    return spent


def hook_cost(engine: VLLMEngine, groups: list[PromptGroup], repeats: int) -> str:
    """Counting against the same vLLM run without it."""
    runs = {"without": lambda: bare(engine, groups), "with": lambda: engine.count(groups, progress=SILENT)}
    spent = alternate(runs, repeats)
    on_cpu = engine.provenance["device"] == "cpu"
    costs = {name: [one.processor if on_cpu else one.seconds for one in some] for name, some in spent.items()}
    share = statistics.median(costs["with"]) / statistics.median(costs["without"])
    rows = engine.last_pass.rows
    lines = ["| run | tokens | median s | median processor s | tokens/s |", "|---|---|---|---|---|"]
    for name, some in spent.items():
        middle, busy = statistics.median(one.seconds for one in some), statistics.median(one.processor for one in some)
        lines.append(f"| vLLM {name} counting | {rows} | {middle:.3f} | {busy:.3f} | {rows / middle:.0f} |")
    spread = ", ".join(f"{name} {min(some):.2f} to {max(some):.2f}" for name, some in costs.items())
    unit = "processor seconds" if on_cpu else "seconds"
    return "\n".join([*lines, "", f"Counting takes {share:.3f} of the {unit} without it ({spread}; {repeats} pairs)."])


def one_pass(engine: VLLMEngine, groups: list[PromptGroup], repeats: int) -> str:
    """Full and prefix from one pass, against a pass for each."""
    full = [PromptGroup((), group.full) for group in groups]
    prefix = [PromptGroup((), (group.prefix,) * len(group.full)) for group in groups]
    rows: dict[str, int] = {}

    def one() -> None:
        engine.count(groups, progress=SILENT)
        rows["one pass"] = engine.last_pass.rows

    def two() -> None:
        engine.count(full, progress=SILENT)
        first = engine.last_pass.rows
        engine.count(prefix, progress=SILENT)
        rows["two passes"] = first + engine.last_pass.rows

    seconds = alternate({"one pass": one, "two passes": two}, repeats)
    lines = ["| full and prefix in | tokens computed | median s |", "|---|---|---|"]
    lines += [
        f"| {name} | {rows[name]} | {statistics.median(one.seconds for one in some):.3f} |"
        for name, some in seconds.items()
    ]
    return "\n".join(lines)


def many_answers(engine: VLLMEngine, groups: list[PromptGroup]) -> str:
    """Tokens actually computed with several answers per prompt."""
    engine.count(groups, progress=SILENT)
    seen = engine.last_pass
    naive = sum(group.full_tokens + group.prefix_tokens for group in groups)
    full = sum(group.full_tokens for group in groups)
    tree = weighted_tree(groups)[0].nodes
    lines = ["| way | tokens computed | share |", "|---|---|---|"]
    ways = {"full and prefix passes": naive, "full pass": full, "this engine": seen.rows, "no token twice": tree}
    for name, tokens in ways.items():
        lines.append(f"| {name} | {tokens} | {tokens / naive:.1%} |")
    return "\n".join([*lines, "", f"{seen.cached_tokens} tokens came from the prefix cache; {seen.steps} steps."])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a model folder; by default the demo's")
    parser.add_argument("--corpus", type=Path, default=Path(__file__).parents[1] / "datasets" / "demo.json")
    parser.add_argument("--records", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--engine-arg", action="append", default=[], metavar="K=V")
    given = parser.parse_args()
    options = dict(one.split("=", 1) for one in given.engine_arg)
    engine = VLLMEngine.load(
        given.model or str(demo_model_path()), dtype=given.dtype, batch_tokens=given.batch_tokens, engine_args=options
    )
    try:
        one = corpus(given.corpus, engine.tokenizer, answers=1, limit=given.records)
        ten = corpus(given.corpus, engine.tokenizer, answers=10, limit=max(4, given.records // 4))
        shots = corpus(given.corpus, engine.tokenizer, answers=10, limit=max(4, given.records // 4), shots=2)
        model = engine.model
        where = f"{engine.provenance['device']}, {torch.get_num_threads()} threads, vLLM {engine.provenance['vllm']}"
        print(f"{model.architecture} {model.layers} × {model.d_mlp}, {model.dtype}, {where}\n")
        print(f"## The counting hooks\n\n{hook_cost(engine, one, given.repeats)}\n")
        print(f"## Full and prefix in one pass or two\n\n{one_pass(engine, one, max(1, given.repeats // 2))}\n")
        print(f"## Ten answers per prompt\n\n{many_answers(engine, ten)}\n")
        print(f"## Ten answers per prompt with two worked examples in front\n\n{many_answers(engine, shots)}")
    finally:
        engine.close()


if __name__ == "__main__":
    main()

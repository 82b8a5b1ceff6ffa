"""What counting costs on a GPU, in one table: on models of real shapes with random weights, made on the card.

    python benchmarks/gpu.py --json gpu.json               # under six minutes on an H100; needs no network
    python benchmarks/gpu.py --tiny --device cpu           # the same script, in seconds, where there is no GPU
    python benchmarks/gpu.py --compile                     # counting in compiled forwards too

First `pytest -m gpu`; `--no-tests` leaves it out. Then, for each shape, what ROWS lists: counting against the bare
decoder, against the decoder's matrix products alone, and against what one would write by hand; one pass for full and
prefix against two; likelihoods under an intervention, answers, memory, and how often the host waits for the GPU. What
is compared runs in turns on the same batches, and medians are shown. What is not measured is named below the table.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import transformers
from counting import SHAPES, random_engine, random_groups, seconds, shape_config
from torch import Tensor, nn

from language_neurons_alignment.config import Sampling
from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.corpus.encode import GeneratedAnswer, Prompt, PromptGroup, ScoredText
from language_neurons_alignment.engines.generation import batches
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.engines.transformers import engine as engine_module
from language_neurons_alignment.engines.transformers.counting import FiringCounter
from language_neurons_alignment.engines.transformers.interventions import hooked
from language_neurons_alignment.engines.transformers.loading import pick_device
from language_neurons_alignment.engines.transformers.plan import Batch, BatchRow, plan

ROOT = Path(__file__).resolve().parents[1]
TESTS = "tests/engines"
"""Where the tests are that need a GPU."""

Figures = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much is measured on a shape.

    Attributes:
        tokens: of the corpus, about.
        length: of a text, about; half of it is the prompt.
        batch: padded tokens per forward.
        prompts: with ten answers each.
        cell: texts of a cell of the perplexity map.
        answers: asked for at once.
        new: tokens of each answer.
        repeats: of what is compared.
    """

    tokens: int
    length: int
    batch: int
    prompts: int
    cell: int
    answers: int
    new: int
    repeats: int


SIZES = {
    "tiny": Size(tokens=256, length=32, batch=64, prompts=1, cell=2, answers=2, new=2, repeats=1),
    "mistral-7b": Size(tokens=49152, length=512, batch=16384, prompts=4, cell=32, answers=64, new=32, repeats=3),
    "llama-3.1-8b": Size(tokens=49152, length=512, batch=16384, prompts=4, cell=32, answers=64, new=32, repeats=3),
    "qwen2.5-32b": Size(tokens=32768, length=512, batch=16384, prompts=2, cell=32, answers=64, new=16, repeats=2),
}


@dataclass(frozen=True)
class Bench:
    """A loaded model and what is fed to it."""

    engine: Any  # a TransformersEngine, or what has its network
    size: Size
    groups: list[PromptGroup]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.engine._network.device

    @property
    def tokens(self) -> int:
        """Of the whole corpus, without padding."""
        return sum(group.full_tokens for group in self.groups)

    @property
    def batched(self) -> list[list[BatchRow]]:
        """The batches in which the engine counts the corpus."""
        return batched(self.groups, self.size.batch)


def batched(groups: Sequence[PromptGroup], budget: int) -> list[list[BatchRow]]:
    """The batches in which the engine counts groups of one answer each."""
    rows = [job.first for group in groups for job in plan(group)]
    return list(batches(rows, length=lambda row: len(row.tokens), budget=budget))


# ── What is compared ─────────────────────────────────────────────────────────────────────────────────────────────────


def bare(bench: Bench, fed: Sequence[Sequence[BatchRow]]) -> None:
    """The decoder as the library runs it: no lm_head, no hook."""
    decoder = bench.engine._network.decoder
    with torch.inference_mode():
        for rows in fed:
            decoder(input_ids=Batch.of(rows, bench.device).tokens, use_cache=False)


def attended(rows: Sequence[BatchRow], device: torch.device) -> Tensor:
    """Where a batch is no padding."""
    lengths = torch.tensor([len(row.tokens) for row in rows], device=device)
    return torch.arange(int(lengths.max()), device=device) < lengths[:, None]


def by_hand(bench: Bench, fed: Sequence[Sequence[BatchRow]]) -> Tensor:
    """Plain forward hooks, as one writes them first: each layer's counts go to the CPU at once. Whole texts only."""
    network = bench.engine._network
    over_zero = torch.zeros(network.shape, dtype=torch.int64)
    inside = torch.empty(0)

    def counting(layer: int) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, activation: Tensor) -> None:
            over_zero[layer] += ((activation > 0) & inside[..., None]).sum(dim=(0, 1)).cpu()

        return hook

    with torch.inference_mode(), hooked([(site.module, counting(site.layer)) for site in network.sites]):
        for rows in fed:
            inside = attended(rows, bench.device)
            network.decoder(input_ids=Batch.of(rows, bench.device).tokens, use_cache=False)
    return over_zero


def by_nnsight(bench: Bench, fed: Sequence[Sequence[BatchRow]]) -> Tensor:
    """The same with nnsight: one trace a batch."""
    from nnsight import NNsight

    network = bench.engine._network
    over_zero = torch.zeros(network.shape, dtype=torch.int64)
    model: Any = NNsight(network.decoder)
    for rows in fed:
        inside, tokens = attended(rows, bench.device), Batch.of(rows, bench.device).tokens
        with torch.inference_mode(), model.trace(input_ids=tokens, use_cache=False):
            fired = list().save()  # noqa: C408 - nnsight's own way of keeping a list
            for layer in model.layers:
                fired.append(((layer.mlp.act_fn.output > 0) & inside[..., None]).sum(dim=(0, 1)).cpu())
        over_zero += torch.stack(list(fired))
    return over_zero


# ── Clocks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def in_turns(runs: dict[str, Callable[[], object]], device: torch.device, repeats: int) -> dict[str, float]:
    """Median seconds of each until the device is done, in turns; the caller has warmed it up."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            spent[name].append(seconds(run, device)[0])
    return {name: statistics.median(some) for name, some in spent.items()}


def milliseconds(run: Callable[[], object], device: torch.device) -> float:
    """How long the device itself is busy with this, by CUDA events; elsewhere by the clock."""
    if device.type != "cuda":
        return seconds(run, device)[0] * 1e3
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def events_in_turns(runs: dict[str, Callable[[], object]], device: torch.device, repeats: int) -> dict[str, float]:
    """Median milliseconds of each, in turns, after one of each that does not count."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            took = milliseconds(run, device)
            if turn:
                spent[name].append(took)
    return {name: statistics.median(some) for name, some in spent.items()}


def waits(run: Callable[[], object]) -> int:
    """How often the host waits for the GPU in this, as CUDA tells it."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(one.message) for one in seen)


@contextmanager
def peak(device: torch.device, figures: Figures) -> Iterator[None]:
    """Note the most memory that tensors take on the GPU while the context is open."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield
    if device.type == "cuda":
        figures["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30


# ── Sections: each measures one thing on one model ───────────────────────────────────────────────────────────────────


def card(device: torch.device) -> Figures:
    """What the card itself reaches: a large matrix product, a large copy."""
    side, cells = (8192, 2**30) if device.type == "cuda" else (512, 2**20)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.randint(0, 100, (cells,), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    took = events_in_turns({"product": lambda: one @ other, "copy": lambda: target.copy_(source)}, device, 10)
    return {"tflops": 2 * side**3 / took["product"] / 1e9, "copy_gb_s": 2 * cells / took["copy"] / 1e6}


def products(bench: Bench) -> Figures:
    """The decoder's matrix products alone, on as many positions as a batch has: what no decoder is faster than."""
    network, positions = bench.engine._network, bench.size.batch
    layers: Any = network.decoder.layers
    linear = [module for module in layers[0].modules() if isinstance(module, nn.Linear)]
    total, work = 0.0, 0
    for module in linear:
        rows = torch.randn(positions, module.in_features, device=bench.device, dtype=module.weight.dtype)
        with torch.inference_mode():
            total += events_in_turns({"it": lambda module=module, rows=rows: module(rows)}, bench.device, 5)["it"]
        work += 2 * positions * module.in_features * module.out_features
    many = len(layers)
    return {
        "ms": total * many,
        "tokens_per_s": positions / (total * many) * 1e3,
        "tflops": work / total / 1e9,
        "flop_per_token": work * many / positions,
    }


def passes(bench: Bench) -> Figures:
    """Counting, the bare decoder, and hooks by hand, over the corpus."""
    fed, figures = bench.batched, Figures()
    made: dict[str, Tensor] = {}

    def count() -> None:
        made["counting"] = bench.engine.count(bench.groups).full.over_zero

    def count_by_hand() -> None:
        made["by_hand"] = by_hand(bench, fed)

    with peak(bench.device, figures):
        count()
    for rows in fed[-1:]:
        bare(bench, [rows])
        by_hand(bench, [rows])
    took = in_turns(
        {"bare": lambda: bare(bench, fed), "counting": count, "by_hand": count_by_hand},
        bench.device,
        bench.size.repeats,
    )
    bench.engine.count(bench.groups[:1], moments=True)
    moments = in_turns({"it": lambda: bench.engine.count(bench.groups, moments=True)}, bench.device, 1)["it"]
    positions = sum(len(rows) * max(len(row.tokens) for row in rows) for rows in fed)
    return {
        **figures,
        "tokens": bench.tokens,
        "batches": len(fed),
        "padding": 1 - bench.tokens / positions,
        **{f"{name}_tokens_per_s": bench.tokens / some for name, some in took.items()},
        "positions_per_s": positions / took["counting"],
        "of_bare": took["counting"] / took["bare"],
        "by_hand_of_counting": took["by_hand"] / took["counting"],
        "with_moments_of_counting": moments / took["counting"],
        "same_counts_by_hand": bool(torch.equal(made["by_hand"], made["counting"])),
    }


def hooks(bench: Bench) -> Figures:
    """What the counting hooks add to one forward of a full batch."""
    network, device = bench.engine._network, bench.device
    batch = Batch.of(bench.batched[0], device, d_mlp=network.shape[1])
    counter = FiringCounter(network.sites, device)
    counting = counter.hooks()
    seen: list[Tensor] = []

    def with_hooks() -> None:
        with hooked(counting):
            counter.expect(batch)
            counter.settle(network.run(batch.tokens).last_hidden_state)

    def alone() -> None:
        counter.expect(batch)
        for _module, hook in counting:
            hook(_module, None, seen[0])

    with torch.inference_mode():
        with hooked([(network.sites[0].module, lambda _module, _inputs, output: seen.append(output.clone()))]):
            network.run(batch.tokens)
        took = events_in_turns(
            {"without": lambda: network.run(batch.tokens), "with": with_hooks, "alone": alone},
            device,
            bench.size.repeats + 2,
        )
    return {
        "positions": batch.tokens.numel(),
        "ms_without": took["without"],
        "ms_with": took["with"],
        "ms_more": took["with"] - took["without"],
        "ms_alone": took["alone"],
        "share": took["alone"] / took["without"],
        "activations_gb": seen[0].nbytes * network.shape[0] / 1e9,
    }


def one_pass(bench: Bench) -> Figures:
    """Full and prefix in one pass, against a pass for each: with one answer per prompt, and with ten."""
    engine, size = bench.engine, bench.size
    half, vocabulary = size.length // 2, engine._network.head.vocabulary
    ten = random_groups(size.prompts, 10, prompt=half, answer=half, vocabulary=vocabulary)
    figures = Figures()
    for name, groups in {"one": bench.groups, "ten": ten}.items():
        full = [PromptGroup((), (tokens,)) for group in groups for tokens in group.full]
        # one prefix for each answer; none equals another, so that none is shared
        prefix = [PromptGroup((), ((*group.prefix[:-1], n),)) for group in groups for n in range(len(group.full))]
        hand = [*batched(full, size.batch), *batched(prefix, size.batch)]
        runs: dict[str, Callable[[], object]] = {
            "one": lambda groups=groups: engine.count(groups),
            "two": lambda full=full, prefix=prefix: (engine.count(full), engine.count(prefix)),
            "by_hand": lambda hand=hand: by_hand(bench, hand),
        }
        for some in (groups, full, prefix) if name == "ten" else (prefix,):  # the others have been counted before
            engine.count(some)
        took = in_turns(runs, bench.device, 1)
        figures[f"{name}_answer_share"] = took["one"] / took["two"]
        figures[f"{name}_answer_by_hand"] = took["by_hand"] / took["one"]
        figures[f"{name}_answer_tokens"] = sum(group.full_tokens + group.prefix_tokens for group in groups)
    return figures


def cells(bench: Bench) -> Figures:
    """Cells of the perplexity map: a language's texts, with a hundredth of all neurons off."""
    engine, figures = bench.engine, Figures()
    texts = [ScoredText(group.full[0]) for group in bench.groups[: bench.size.cell]]
    tokens = sum(len(text.tokens) for text in texts)
    chosen = torch.rand(engine.model.layers, engine.model.d_mlp, generator=torch.Generator().manual_seed(0)) < 0.01
    off = Intervention.zero(chosen)

    def cell() -> None:
        with engine.intervene(off):
            engine.log_likelihood(texts)

    with peak(bench.device, figures):
        cell()
        took = in_turns({"plain": lambda: engine.log_likelihood(texts), "off": cell}, bench.device, bench.size.repeats)
    return {
        **figures,
        "texts": len(texts),
        "tokens": tokens,
        "cells_per_s": 1 / took["off"],
        "tokens_per_s": tokens / took["off"],
        "of_plain": took["off"] / took["plain"],
    }


def attentions(device: torch.device) -> Iterator[str]:
    """The attention that the engine takes, and PyTorch's own choice, which may be cuDNN's."""
    yield "own"
    if device.type == "cuda":
        with patch.object(engine_module, "without_cudnn_attention", nullcontext):
            torch.backends.cuda.enable_cudnn_sdp(True)
            try:
                yield "with_cudnn"
            finally:
                torch.backends.cuda.enable_cudnn_sdp(False)


def unseen(bench: Bench) -> Figures:
    """Counting texts once, in batches of shapes that nothing had before: as it is with a real corpus."""
    engine, size, figures = bench.engine, bench.size, Figures()
    half, vocabulary, many = size.length // 2, engine._network.head.vocabulary, size.tokens // size.length // 2
    for shift, way in enumerate(attentions(bench.device), start=1):
        engine.count(bench.groups[:1])
        groups = random_groups(many, 1, prompt=half - 7 * shift, answer=half - 8 * shift, vocabulary=vocabulary)
        took = in_turns({"it": lambda groups=groups: engine.count(groups)}, bench.device, 1)["it"]
        figures[f"{way}_tokens_per_s"] = sum(group.full_tokens for group in groups) / took
    return figures


def answers(bench: Bench) -> Figures:
    """The model's own answers, greedy, to prompts of lengths that nothing had before."""
    engine, size, figures = bench.engine, bench.size, Figures()
    sampling = Sampling(max_new_tokens=size.new)
    with peak(bench.device, figures):
        for shift, way in enumerate(attentions(bench.device), start=1):
            prompts = [Prompt(group.prefix[shift * size.new :]) for group in bench.groups[: size.answers]]
            engine.generate(prompts[:1], sampling=Sampling(max_new_tokens=2))
            took = in_turns({"it": lambda p=prompts: engine.generate(p, sampling=sampling)}, bench.device, 1)["it"]
            figures[f"{way}_tokens_per_s"] = len(prompts) * size.new / took
    return {**figures, "answers": min(size.answers, len(bench.groups)), "new": size.new}


def waiting(bench: Bench) -> Figures:
    """How often the host waits for the GPU, by two small corpora of which one has more batches."""
    if bench.device.type != "cuda":
        raise LeftOut("only CUDA tells when the host waits for it")
    engine, figures = bench.engine, Figures()
    corpora = [
        random_groups(many, 1, prompt=64, answer=64, vocabulary=engine._network.head.vocabulary) for many in (8, 24)
    ]
    ways: dict[str, Callable[[list[PromptGroup], list[list[BatchRow]]], object]] = {
        "counting": lambda groups, _fed: engine.count(groups),
        "bare": lambda _groups, fed: bare(bench, fed),
        "by_hand": lambda _groups, fed: by_hand(bench, fed),
        "likelihood": lambda groups, _fed: engine.log_likelihood([ScoredText(group.full[0]) for group in groups]),
    }
    cut, engine.batching = engine.batching, replace(engine.batching, budget=512)
    try:
        few, many = [batched(groups, 512) for groups in corpora]
        for name, way in ways.items():
            way(corpora[0], few)
            once, more = waits(lambda way=way: way(corpora[0], few)), waits(lambda way=way: way(corpora[1], many))
            figures[f"{name}_per_batch"] = (more - once) / (len(many) - len(few))
            figures[f"{name}_per_layer"] = figures[f"{name}_per_batch"] / engine.model.layers
            figures[f"{name}_in_all"] = more
    finally:
        engine.batching = cut
    return {**figures, "batches": len(many)}


def nnsight(bench: Bench) -> Figures:
    """The same counts with nnsight."""
    if find_spec("nnsight") is None:
        raise LeftOut("nnsight is not installed")
    fed, made = bench.batched, []
    by_nnsight(bench, fed[-1:])
    took = in_turns({"it": lambda: made.append(by_nnsight(bench, fed))}, bench.device, 1)["it"]
    counted = bench.engine.count(bench.groups).full.over_zero
    return {
        "version": importlib.metadata.version("nnsight"),
        "tokens_per_s": bench.tokens / took,
        "same_counts": bool(torch.equal(made[-1], counted)),
    }


def compiled(bench: Bench, backend: str | None) -> Figures:
    """Counting in forwards that torch.compile has compiled, and such a decoder without counting."""
    if backend is None:
        raise LeftOut("--compile asks for it")
    plain, fed, made = bench.engine, bench.batched, dict[str, Tensor]()
    engine = TransformersEngine(
        plain._network, plain.tokenizer, info=plain.model, batch_tokens=bench.size.batch, compiled=backend
    )
    decoder: Any = torch.compile(plain._network.decoder, backend=backend, dynamic=True)
    alone = replace(bench, engine=SimpleNamespace(_network=replace(plain._network, decoder=decoder)))

    def count(name: str, one: TransformersEngine) -> None:
        made[name] = one.count(bench.groups).full.over_zero

    started = time.perf_counter()
    bare(alone, fed)
    count("compiled", engine)
    compiling = time.perf_counter() - started
    runs: dict[str, Callable[[], object]] = {
        "bare": lambda: bare(alone, fed),
        "compiled": lambda: count("compiled", engine),
        "plain": lambda: count("plain", plain),
    }
    took = in_turns(runs, bench.device, bench.size.repeats)
    apart = (made["compiled"] - made["plain"]).abs().sum()
    return {
        "backend": backend,
        "compiling_s": compiling,
        "tokens_per_s": bench.tokens / took["compiled"],
        "bare_tokens_per_s": bench.tokens / took["bare"],
        "of_counting": took["compiled"] / took["plain"],
        "same_counts": not bool(apart),
        "apart": float(apart / made["plain"].sum()),
    }


SECTIONS: dict[str, Callable[[Bench], Figures]] = {
    "products": products,
    "passes": passes,
    "hooks": hooks,
    "waiting": waiting,
    "cells": cells,
    "unseen": unseen,
    "answers": answers,
    "one_pass": one_pass,
    "nnsight": nnsight,
}


def vllm(shape: str, size: Size, dtype: str, device: torch.device, groups: list[PromptGroup]) -> Figures:
    """Counting and answering by this package's vLLM engine, on a model of the shape with vLLM's own dummy weights."""
    if find_spec("vllm") is None:
        raise LeftOut("vLLM is not installed")
    from language_neurons_alignment.engines.vllm import VLLMEngine

    with tempfile.TemporaryDirectory() as folder:
        shape_config(shape).save_pretrained(folder)
        any_tokenizer().save_pretrained(folder)
        options = {"load_format": "dummy", "max_model_len": 2048}
        engine = VLLMEngine.load(folder, dtype=dtype, engine_args=options)
        try:
            prompts = [Prompt(group.prefix) for group in groups[: size.answers]]
            sampling = Sampling(max_new_tokens=size.new)
            engine.count(groups[:4])
            engine._process.forget_prefixes()
            given: list[GeneratedAnswer] = []
            took = in_turns(
                {
                    "answers": lambda: given.extend(engine.generate(prompts, sampling=sampling)),
                    "counting": lambda: engine.count(groups),
                },
                device,
                1,
            )
            version = str(engine.provenance["vllm"])
        finally:
            engine.close()
    return {
        "version": version,
        "counting_tokens_per_s": sum(group.full_tokens for group in groups) / took["counting"],
        "answers_tokens_per_s": sum(len(one.tokens) for one in given) / took["answers"],
    }


def any_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A tokenizer of one word, for an engine that insists on one."""
    from tokenizers import Tokenizer, models

    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>")), unk_token="<unk>"
    )


# ── Running all of it ────────────────────────────────────────────────────────────────────────────────────────────────


class LeftOut(Exception):
    """Why something is not measured."""


def run_tests(device: torch.device, limit: float) -> Figures:
    """`pytest -m gpu`: how it ended. Its output goes to stderr."""
    if device.type != "cuda":
        raise LeftOut("there is no CUDA device for `pytest -m gpu`")
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", TESTS]
    started = time.perf_counter()
    try:
        done = subprocess.run(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit
        )
        output, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as late:
        output, code = f"{late.stdout or ''}\nnot done after {limit:.0f} s", -1
    sys.stderr.write(output)
    lines = output.strip().splitlines()
    return {
        "passed": code == 0,
        "summary": lines[-1].strip("= ") if lines else "",
        "failed": [line for line in lines if re.match(r"(FAILED|ERROR) ", line)],
        "seconds": time.perf_counter() - started,
    }


def attempt(measure: Callable[[], Figures], *, what: str, deadline: float) -> Figures:
    """Measure, or say why not: nothing that fails keeps the rest from being measured."""
    started = time.monotonic()
    if started > deadline:
        return {"left_out": "the time was up"}
    try:
        figures = measure()
    except LeftOut as why:
        return {"left_out": str(why)}
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return {"left_out": f"{type(error).__name__}: {first[:300]}"}
    took = time.monotonic() - started
    print(f"{what}: {took:.1f} s", file=sys.stderr, flush=True)
    return {**figures, "measuring_s": round(took, 2)}


def check_room(shape: str, dtype: str, device: torch.device) -> None:
    """Raise LeftOut where a shape's weights, and room to run it, do not fit the GPU."""
    if device.type != "cuda":
        return
    _, hidden, d_mlp, layers, heads, kv_heads, vocabulary = SHAPES[shape]
    per_layer = 3 * hidden * d_mlp + 2 * hidden * hidden * (1 + kv_heads / heads)
    weights = (layers * per_layer + 2 * vocabulary * hidden) * (4 if dtype == "float32" else 2) / 2**30
    total = torch.cuda.get_device_properties(device).total_memory / 2**30
    if weights + 12 > total:
        raise LeftOut(f"{weights:.0f} GiB of weights and 12 to run in do not fit the GPU's {total:.0f}")


def measure_shape(shape: str, args: argparse.Namespace, figures: Figures, keep: Callable[[], None]) -> None:
    """Every section on one shape, into `figures`; `keep` is called after each."""
    size, device = SIZES[shape], pick_device(args.device)
    half, vocabulary = size.length // 2, SHAPES[shape][-1]
    groups = random_groups(size.tokens // size.length, 1, prompt=half, answer=half, vocabulary=vocabulary)
    loaded: list[Bench] = []

    def load() -> Figures:
        check_room(shape, args.dtype, device)
        loaded.append(Bench(random_engine(shape, args.device, args.dtype, size.batch), size, groups))
        network = loaded[0].engine._network
        weights = sum(one.nbytes for one in network.model.parameters())
        return {"layers": network.shape[0], "d_mlp": network.shape[1], "weights_gib": weights / 2**30}

    figures["model"] = attempt(load, what=f"{shape}: making the model", deadline=args.deadline)
    for name, section in SECTIONS.items():
        if loaded:
            figures[name] = attempt(lambda s=section: s(loaded[0]), what=f"{shape}: {name}", deadline=args.deadline)
            keep()
    if loaded:
        figures["compiled"] = attempt(
            lambda: compiled(loaded[0], args.compile), what=f"{shape}: compiled", deadline=args.deadline
        )
        keep()
    fits = bool(loaded)
    while loaded:
        loaded.pop().engine.close()

    def with_vllm() -> Figures:
        if args.tiny and not args.vllm:
            raise LeftOut("vLLM takes longer to start than all of --tiny does: --vllm asks for it")
        return vllm(shape, size, args.dtype, device, groups)

    if fits:
        figures["vllm"] = attempt(with_vllm, what=f"{shape}: vllm", deadline=args.deadline)


# ── The table ────────────────────────────────────────────────────────────────────────────────────────────────────────

ROWS = [
    ("layers × neurons", "model", "{layers} × {d_mlp}"),
    ("weights, GiB", "model", "{weights_gib:.1f}"),
    ("bare decoder, tokens/s", "passes", "{bare_tokens_per_s:,.0f}"),
    ("**counting, tokens/s**", "passes", "**{counting_tokens_per_s:,.0f}**"),
    ("counting / bare decoder, time", "passes", "{of_bare:.3f}"),
    ("the decoder's matrix products alone, tokens/s (TFLOP/s)", "products", "{tokens_per_s:,.0f} ({tflops:.0f})"),
    ("counting: share of the matrix products' rate", "derived", "{of_products:.0%}"),
    ("counting: share of the card's rate in an 8192³ product", "derived", "{of_card:.0%}"),
    ("forward of a full batch without / with hooks, ms", "hooks", "{ms_without:.1f} / {ms_with:.1f}"),
    ("the hooks alone, ms per forward (share of it)", "hooks", "{ms_alone:.2f} ({share:.1%})"),
    ("… reading the activations once at the speed of a copy, ms", "derived", "{read_ms:.2f}"),
    ("counting with moments / without, time", "passes", "{with_moments_of_counting:.3f}"),
    ("full and prefix in one pass / in two, time: one answer per prompt", "one_pass", "{one_answer_share:.1%}"),
    ("… ten answers per prompt", "one_pass", "{ten_answer_share:.1%}"),
    (
        "full and prefix by plain hooks / by counting, time: one answer per prompt",
        "one_pass",
        "{one_answer_by_hand:.2f}",
    ),
    ("… ten answers per prompt", "one_pass", "{ten_answer_by_hand:.2f}"),
    ("perplexity map, cells/s (tokens of a cell)", "cells", "{cells_per_s:.2f} ({tokens:,})"),
    ("… tokens/s", "cells", "{tokens_per_s:,.0f}"),
    ("… time with the intervention / without", "cells", "{of_plain:.3f}"),
    ("answers, tokens/s (prompts at once)", "answers", "{own_tokens_per_s:,.0f} ({answers})"),
    ("… with cuDNN's attention", "answers", "{with_cudnn_tokens_per_s:,.0f}"),
    ("counting batches of shapes not seen before, tokens/s", "unseen", "{own_tokens_per_s:,.0f}"),
    ("… with cuDNN's attention", "unseen", "{with_cudnn_tokens_per_s:,.0f}"),
    ("counting in compiled forwards, tokens/s (compiling, s)", "compiled", "{tokens_per_s:,.0f} ({compiling_s:.0f})"),
    ("… compiled decoder without counting, tokens/s", "compiled", "{bare_tokens_per_s:,.0f}"),
    ("… time / that of counting without --compile; the same counts", "compiled", "{of_counting:.3f}; {same_counts}"),
    ("peak memory, GiB: counting", "passes", "{peak_gib:.1f}"),
    ("… perplexity map", "cells", "{peak_gib:.1f}"),
    ("… answers", "answers", "{peak_gib:.1f}"),
    (
        "host waits for the GPU: counting, per batch / per layer",
        "waiting",
        "{counting_per_batch:g} / {counting_per_layer:g}",
    ),
    ("… counting, in the whole pass", "waiting", "{counting_in_all}"),
    ("… bare decoder without a cache, per batch", "waiting", "{bare_per_batch:g}"),
    ("… likelihoods, per batch", "waiting", "{likelihood_per_batch:g}"),
    ("… plain hooks, per batch / per layer", "waiting", "{by_hand_per_batch:g} / {by_hand_per_layer:.3g}"),
    ("plain hooks, `.cpu()` in each layer, full texts alone: tokens/s", "passes", "{by_hand_tokens_per_s:,.0f}"),
    ("… time / counting's; the same counts", "passes", "{by_hand_of_counting:.3f}; {same_counts_by_hand}"),
    ("nnsight, full texts alone: tokens/s", "nnsight", "{tokens_per_s:,.0f}"),
    ("… time / counting's; the same counts", "derived", "{nnsight_of_counting:.3f}; {nnsight_same_counts}"),
    ("vLLM engine: counting, tokens/s", "vllm", "{counting_tokens_per_s:,.0f}"),
    ("… answers, tokens/s", "vllm", "{answers_tokens_per_s:,.0f}"),
]
"""What is shown: its name, the section it is from, and how it is written."""


def derived(figures: Figures, card: Figures) -> Figures:
    """What follows from the figures of several sections."""
    result = Figures()
    some = {name: one for name, one in figures.items() if "left_out" not in one}
    if {"passes", "products"} <= some.keys():
        positions, products = some["passes"]["positions_per_s"], some["products"]
        result["of_products"] = positions / products["tokens_per_s"]
        if "tflops" in card:
            result["of_card"] = positions * products["flop_per_token"] / card["tflops"] / 1e12
    if "hooks" in some and "copy_gb_s" in card:
        result["read_ms"] = some["hooks"]["activations_gb"] / card["copy_gb_s"] * 1e3
    if {"passes", "nnsight"} <= some.keys():
        result["nnsight_of_counting"] = some["passes"]["counting_tokens_per_s"] / some["nnsight"]["tokens_per_s"]
        result["nnsight_same_counts"] = some["nnsight"]["same_counts"]
    return result


def written(pattern: str, figures: Figures) -> str:
    """A cell of the table; a dash where it was not measured."""
    try:
        return pattern.format(**figures).replace("True", "yes").replace("False", "NO")
    except KeyError:
        return "–"


def table(result: Figures) -> str:
    """The result as Markdown."""
    models = result["models"]
    lines = [result["title"], "", f"| | {' | '.join(models)} |", f"|---|{'---:|' * len(models)}"]
    for name, section, pattern in ROWS:
        shown = [written(pattern, figures.get(section, {})) for figures in models.values()]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    sections = {name: result[name] for name in ("tests", "card")}
    sections |= {f"{shape}, {name}": some for shape, figures in models.items() for name, some in figures.items()}
    notes = [f"{name}: {figures['left_out']}" for name, figures in sections.items() if "left_out" in figures]
    if "summary" in result["tests"]:
        lines += ["", f"`pytest -m gpu`: {result['tests']['summary']}", *result["tests"]["failed"]]
    return "\n".join([*lines, "", *(f"Left out – {note}" for note in notes)]).rstrip()


def about(args: argparse.Namespace, device: torch.device) -> Figures:
    """Where and with what this is measured."""
    cuda = device.type == "cuda"
    facts = {
        "device": torch.cuda.get_device_name(device) if cuda else f"{device} ({platform.machine()})",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "dtype": args.dtype,
    }
    title = "{device}, {dtype}, {date}, torch {torch}, transformers {transformers}, Python {python}".format(**facts)
    return {**facts, "title": title}


def main(arguments: Sequence[str] | None = None) -> None:
    """Test, measure, print, and write JSON after each section if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], help="bfloat16 on a GPU, else float32")
    parser.add_argument("--shapes", nargs="+", choices=SIZES, help="by default those of 7B, 8B and 32B")
    parser.add_argument("--tiny", action="store_true", help="a tiny shape alone, to try the script")
    parser.add_argument("--vllm", action="store_true", help="vLLM too with --tiny")
    parser.add_argument(
        "--compile", nargs="?", const="inductor", metavar="BACKEND", help="counting in compiled forwards too"
    )
    parser.add_argument("--no-tests", action="store_true", help="leave `pytest -m gpu` out")
    parser.add_argument("--seconds", type=float, default=345, help="begin nothing new after so long")
    parser.add_argument("--json", type=Path, help="write the figures here, after each section")
    args = parser.parse_args(arguments)
    args.deadline = time.monotonic() + args.seconds
    device = pick_device(args.device)
    args.dtype = args.dtype or ("bfloat16" if device.type == "cuda" else "float32")
    if device.type != "cuda" and not (args.tiny or args.shapes):
        print("There is no CUDA device here, so nothing is measured; --tiny --device cpu tries the script.")
        return
    shapes = args.shapes or (["tiny"] if args.tiny else [shape for shape in SIZES if shape != "tiny"])
    result: Figures = {**about(args, device), "models": {}}

    def keep(*_figures: Figures) -> None:
        if args.json:
            args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    tests = {"left_out": "--no-tests"}
    if not args.no_tests:
        tests = attempt(lambda: run_tests(device, limit=args.seconds / 2), what="pytest -m gpu", deadline=args.deadline)
    result["tests"] = tests
    result["card"] = attempt(lambda: card(device), what="the card", deadline=args.deadline)
    for shape in shapes:
        figures = result["models"][shape] = Figures()
        with engine_module.without_cudnn_attention():  # as the engine does, also for what it is compared with
            measure_shape(shape, args, figures, keep)
        figures["derived"] = derived(figures, result["card"])
        keep()
    print(table(result))
    sys.exit(0 if tests.get("passed", True) else 1)


if __name__ == "__main__":
    main()

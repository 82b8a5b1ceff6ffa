"""Counting in compiled forwards gives what it gives in plain ones, and says so where it does not see a token."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.core.model import SILENT
from language_neurons_alignment.corpus.encode import PromptGroup
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.engines.transformers.compiled import DIGIT, DIGITS, CompiledCounter, count
from language_neurons_alignment.engines.transformers.counting import feed
from language_neurons_alignment.engines.transformers.plan import BatchRow
from language_neurons_alignment.errors import EngineError, SettingsError, SilentHookError
from tests.engines.contract import assert_same_counts, assert_tally, groups_of, some_neurons
from tests.engines.moments_contract import MomentsContract
from tests.engines.test_synchronisation import AT_THE_END, asked
from tests.tiny_models import save_tiny_model


def memory(weights: np.ndarray, neurons: int, *, more: int = 0) -> dict[str, Tensor]:
    """What the operation adds to, and weights as digits, with `more` rows behind that are not of the batch."""
    powers = DIGIT ** np.arange(DIGITS)[:, None, None]
    digits = np.pad(weights // powers % DIGIT, ((0, 0), (0, 0), (0, more)), constant_values=1)
    return {
        "digits": torch.from_numpy(digits.astype(np.float32)),
        "counts": torch.zeros(2, neurons, dtype=torch.int64),
        "tokens": torch.zeros(2, dtype=torch.int64),
        "sums": torch.zeros(2, 2, neurons, dtype=torch.float64),
    }


@pytest.mark.parametrize("largest", [1, 1023, 1024, 2**30 - 1])
def test_sums_are_exact_whatever_the_weights(largest: int) -> None:
    draw = np.random.default_rng(0)
    weights = draw.integers(0, largest + 1, (2, 20_000))
    weights[:, 0] = largest
    activation = torch.from_numpy(draw.standard_normal((20_000, 3), dtype=np.float32))
    activation[0] = torch.tensor([1.0, -0.0, float("-inf")])
    activation[1:3] = torch.tensor([0.0, 1e-45, 3.0])
    held = memory(weights, 3, more=7)
    held["sums"] = None  # pyright: ignore[reportArgumentType] - moments are not wanted
    for times in (1, 2):
        count(activation, **held)
        assert np.array_equal(held["counts"].numpy(), times * (weights @ (activation.numpy() > 0)))
        assert np.array_equal(held["tokens"].numpy(), times * weights.sum(1))


@pytest.mark.slow
def test_it_fires_inside_of_compiled_code_and_is_never_left_out() -> None:
    """Nothing uses what the operation gives, so that a compiler that looked into it would drop it."""
    seen: list[str] = []

    def look(graph: torch.fx.GraphModule, _inputs: object) -> Any:
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    act, held = nn.SiLU(), memory(np.array([[1, 2, 0], [3, 0, 5]]), 4, more=2)

    @torch.compile(backend=look, dynamic=True)
    def forward(x: Tensor) -> Tensor:
        activation = act(x)
        count(activation, **held)
        return activation * 2

    x = torch.randn(3, 4)
    for _ in range(2):
        assert torch.equal(forward(x), act(x) * 2)
    weights = torch.tensor([[1, 2, 0], [3, 0, 5]])
    assert torch.equal(held["counts"], 2 * (weights @ (x > 0).long()))
    assert torch.allclose(held["sums"][0], 2 * (weights.double() @ act(x).double()))
    assert torch.allclose(held["sums"][1], 2 * (weights.double() @ act(x).double().square()))
    assert any("lna.count" in one for one in seen)


@pytest.fixture(scope="module")
def plain(tiny_llama: Path) -> TransformersEngine:
    return TransformersEngine.load(tiny_llama, device="cpu", dtype="float32", batch_tokens=64)


def test_an_operation_that_misses_a_token_is_noticed(plain: TransformersEngine) -> None:
    """In plain forwards, which cost less: what the operation sees is the same."""
    counter = CompiledCounter(plain._network, backend="eager")
    rows = [BatchRow((5, 6, 7, 8), full=1, prefix=2, prefix_length=3), BatchRow((9, 10), full=3)]

    def run(number: int | None, *, times: int = 1) -> None:
        with torch.inference_mode(), counter.counting(moments=False):
            if number is not None:
                del counter._sites[number].module.forward
            for _ in range(times):
                feed(plain._network, counter, rows, progress=SILENT)
            if number is not None:
                counter._sites[number].module.forward = lambda x: x
            counts = counter.counts()
        assert (counts.full.total_tokens, counts.prefix.total_tokens) == (10 * times, 6 * times)

    run(None)
    assert asked(lambda: run(None)) == asked(lambda: run(None, times=3)) <= AT_THE_END
    with pytest.raises(SilentHookError, match=r"counted \[10, 6\] .* leave compiled counting out"):
        run(1)
    run(None)


@pytest.mark.parametrize(
    ("device", "experts", "says"),
    [("cpu", object(), "cannot be used with a mixture of experts"), ("mps", None, "on mps")],
)
def test_what_cannot_be_counted_so_is_refused(device: str, experts: object, says: str) -> None:
    network: Any = SimpleNamespace(device=torch.device(device), sites=(), experts=experts)
    with pytest.raises(EngineError, match=f"{says}.*leave it out"):
        CompiledCounter(network, backend="inductor")


@pytest.mark.slow
def test_a_backend_that_is_not_there(tiny_llama: Path) -> None:
    with pytest.raises(SettingsError, match=r"no backend 'indoctor': choose one of .*inductor"):
        TransformersEngine.load(tiny_llama, device="cpu", compiled="indoctor")


def load_compiled(folder: Path, *, batch_tokens: int | None = None) -> TransformersEngine:
    return TransformersEngine.load(
        folder, device="cpu", dtype="float32", batch_tokens=batch_tokens, compiled="aot_eager"
    )


@pytest.mark.slow
class TestCompiled(MomentsContract):
    """The engine contract, compiled by what needs no C++ compiler, which keeps only what the graph says it changes."""

    load = staticmethod(load_compiled)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gemma3_text", "gpt_neox"])
def test_forwards_are_compiled_once_and_count_like_plain_ones(kind: str, tmp_path: Path) -> None:
    folder = save_tiny_model(kind, tmp_path)
    one = TransformersEngine.load(folder, device="cpu", dtype="float32", batch_tokens=64)
    compiled = TransformersEngine.load(folder, device="cpu", dtype="float32", batch_tokens=64, compiled="aot_eager")
    assert compiled.provenance["compiled"] == "aot_eager"
    texts = [group for group in groups_of(one.tokenizer) if len(group.full) == 1]
    groups = [*texts, *(PromptGroup(g.prefix[:n], g.full) for g in texts for n in (1, 3))]
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for _ in range(2):
        counts = compiled.count(groups)
        assert_tally(counts, groups)
        assert_same_counts(counts, one.count(groups))
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2
    off = Intervention.zero(some_neurons(one))
    with compiled.intervene(off), one.intervene(off):
        assert_same_counts(compiled.count(groups), one.count(groups))
    assert_same_counts(compiled.count(groups), one.count(groups))


@pytest.mark.slow
def test_what_a_compiler_says_is_one_line(tiny_llama: Path) -> None:
    def fails(_graph: object, _inputs: object) -> Any:
        raise RuntimeError("no compiler here\nand a long explanation")

    torch._dynamo.register_backend(fails, name="lna_fails")
    engine = TransformersEngine.load(tiny_llama, device="cpu", dtype="float32", compiled="lna_fails")
    with pytest.raises(EngineError, match=r"\(lna_fails\) could not compile the decoder: [^\n]*no compiler here"):
        engine.count([PromptGroup((5, 6), ((5, 6, 7),))])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
class TestOnGPU:
    def test_a_cuda_graph_counts_what_it_is_fed_each_time(self) -> None:
        weights = np.array([[1, 2, 0], [3, 0, 5]])
        held = {name: one.cuda() for name, one in memory(weights, 4, more=2).items()}
        x = torch.randn(3, 4, device="cuda")
        count(x, **held)  # warmed up before it is captured
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            count(x, **held)
        expected = torch.from_numpy(weights) @ (x > 0).long().cpu()
        for _ in range(2):
            x.neg_()
            graph.replay()
            expected += torch.from_numpy(weights) @ (x > 0).long().cpu()
        assert torch.equal(held["counts"].cpu(), expected)

    def test_compiled_counts_are_the_plain_ones(self, tiny_llama: Path) -> None:
        one = TransformersEngine.load(tiny_llama, device="cuda", dtype="float32")
        compiled = TransformersEngine.load(tiny_llama, device="cuda", dtype="float32", compiled="inductor")
        groups = groups_of(one.tokenizer)
        assert_same_counts(compiled.count(groups, moments=True), one.count(groups, moments=True))

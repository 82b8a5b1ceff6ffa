"""Real vLLM on a real model and on other architectures, and how it starts and ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.core.perplexity import perplexity
from language_neurons_alignment.corpus.encode import PromptGroup, ScoredText
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.engines.vllm import VLLMEngine
from language_neurons_alignment.errors import EngineError
from tests.engines.contract import assert_tally, groups_of, some_neurons
from tests.engines.moments_contract import spans
from tests.engines.vllm_engines import needs_vllm, open_vllm
from tests.tiny_models import save_tiny_model

pytestmark = [pytest.mark.vllm, pytest.mark.slow, needs_vllm]

QUESTIONS = {
    "A farmer has 12 eggs and sells 5 of them. How many eggs are left?\n": ["12 - 5 = 7. Seven eggs are left.", "7"],
    "Un fermier a 12 œufs et en vend 5. Combien lui en reste-t-il ?\n": ["12 - 5 = 7. Il reste sept œufs."],
    "Ein Bauer hat 12 Eier und verkauft 5. Wie viele bleiben übrig?\n": ["12 - 5 = 7. Es bleiben sieben Eier."],
    "农夫有12个鸡蛋，卖掉5个，还剩几个？\n": ["12 - 5 = 7，还剩七个鸡蛋。"],
}


@pytest.fixture(scope="module")
def pair(smollm2: Path) -> Iterator[tuple[VLLMEngine, TransformersEngine]]:
    mine = open_vllm(smollm2, dtype="auto", engine_args={"max_model_len": 512})
    yield mine, TransformersEngine.load(smollm2, device="cpu")
    mine.close()


def moments_apart(pair: tuple[VLLMEngine, TransformersEngine]) -> float:
    """The largest |Δ| / |·| between the engines' moments, over all neurons together."""
    counted = [one.count(groups_of(one.tokenizer, QUESTIONS), moments=True) for one in pair]
    ratios = []
    for (_, mine), (_, theirs) in zip(*map(spans, counted), strict=True):
        for a, b in ((mine.sum, theirs.sum), (mine.sum_of_squares, theirs.sum_of_squares)):
            ratios.append(float((a - b).norm() / b.norm()))
    return max(ratios)


class TestSmolLM2:
    def test_bfloat16_counts_agree_with_the_transformers_engine(
        self, pair: tuple[VLLMEngine, TransformersEngine]
    ) -> None:
        mine, theirs = pair
        assert mine.model.dtype == theirs.model.dtype == "bfloat16"
        groups = groups_of(mine.tokenizer, QUESTIONS)
        counts, others = mine.count(groups), theirs.count(groups)
        assert_tally(counts, groups)
        assert counts.full.total_tokens == others.full.total_tokens
        assert counts.prefix.total_tokens == others.prefix.total_tokens
        apart = (counts.full.over_zero - others.full.over_zero).abs().sum() / others.full.over_zero.sum()
        assert float(apart) < 0.02, "bfloat16 rounds differently in two libraries, but not more than this"

    def test_bfloat16_perplexities_agree_also_masked(self, pair: tuple[VLLMEngine, TransformersEngine]) -> None:
        mine, theirs = pair
        texts = [ScoredText(full) for group in groups_of(mine.tokenizer, QUESTIONS) for full in group.full]
        for off in (torch.zeros(30, 1536, dtype=torch.bool), some_neurons(mine, share=0.05)):
            with mine.intervene(Intervention.zero(off)), theirs.intervene(Intervention.zero(off)):
                one = perplexity(mine.log_likelihood(texts))
                other = perplexity(theirs.log_likelihood(texts))
            assert one.tokens == other.tokens
            assert one.token == pytest.approx(other.token, rel=0.02)

    def test_bfloat16_steps_and_moments_agree(self, pair: tuple[VLLMEngine, TransformersEngine]) -> None:
        """A changed neuron's activation is computed apart from vLLM's merged act(gate) · up."""
        mine, theirs = pair
        texts = [ScoredText(full) for group in groups_of(mine.tokenizer, QUESTIONS) for full in group.full]
        chosen = some_neurons(mine, share=0.05)
        plain = perplexity(mine.log_likelihood(texts)).token
        for change in (Intervention.on(chosen, scale=-1.5), Intervention.on(chosen, scale=0.5, shift=0.25)):
            with mine.intervene(change), theirs.intervene(change):
                one = perplexity(mine.log_likelihood(texts)).token
                other = perplexity(theirs.log_likelihood(texts)).token
                changed = moments_apart(pair)
            assert one == pytest.approx(other, rel=0.02)
            assert one != pytest.approx(plain, rel=0.05), "a change that the tolerance could not hide"
            assert changed < 0.01
        assert moments_apart(pair) < 0.01


def test_close_ends_every_process_and_a_closed_engine_says_so(pair: tuple[VLLMEngine, TransformersEngine]) -> None:
    """The last test that uses the engine."""
    engine, running = pair[0], processes()
    assert running, "vLLM must run in processes of its own for this test to mean anything"
    longest = tuple(range(4, 260)) * 2
    groups = [PromptGroup(longest[:5], (longest,))]
    assert len(longest) == engine.model.max_length
    assert_tally(engine.count(groups), groups)
    with pytest.raises(EngineError, match=r"1 sequences are longer .* up to 513 tokens, at most 512"):
        engine.count([PromptGroup((1,), ((*longest, 1),))])
    engine.close()
    engine.close()
    assert not left_over(running)
    with pytest.raises(EngineError, match="closed"):
        engine.count(groups)


def test_vllm_says_nothing_on_stdout_and_its_refusals_are_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = save_tiny_model("llama-relu", tmp_path / "relu")
    with pytest.raises(EngineError, match="vLLM cannot load") as refused:
        open_vllm(folder, apart=False)
    assert len(str(refused.value).splitlines()) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "Error" in printed.err, "its own messages are where the refusal says that they are"


@pytest.mark.parametrize(
    ("config", "weight", "options", "says"),
    [
        (
            {},
            "model.layers.1.mlp.up_proj.weight",
            {},
            "filled 12288 of the 24576 numbers of model.layers.1.mlp.gate_up",
        ),
        (
            {"attention_bias": True},
            None,
            {"hf_overrides": {"attention_bias": False}},
            "left 12 weights of .*k_proj.bias",
        ),
    ],
    ids=["a matrix in part", "biases"],
)
def test_weights_that_vllm_does_not_fill_or_read_are_refused(
    config: dict[str, Any], weight: str | None, options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    """vLLM itself says nothing, and counts were of another model."""
    folder = save_tiny_model("llama", tmp_path / "model", **config)
    weights = load_file(folder / "model.safetensors")
    weights.pop(weight, None)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EngineError, match=says):
        open_vllm(folder, apart=False, engine_args=options)


def left_over(running: set[int], *, seconds: float = 30.0) -> set[int]:
    """Which of these processes still run; on busy cores a killed one takes time to end."""
    until = time.monotonic() + seconds
    while (found := processes() & running) and time.monotonic() < until:
        time.sleep(0.2)
    return found


def processes() -> set[int]:
    """This process's children and theirs that run vLLM."""
    import psutil

    found = psutil.Process().children(recursive=True)
    return {
        one.pid
        for one in found
        if one.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(one.cmdline())
    }

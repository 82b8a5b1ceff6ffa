"""Real vLLM, whatever its scheduler does: chunks, cache hits, evictions, two ranks. The counts stay the same.

Each test shows that what it is about really happened, from what the workers saw. The scheduler lives in this process
here (`apart=False`): starting engines is nearly all that these tests cost.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from language_neurons_alignment._interventions import intervene
from language_neurons_alignment._operations import Steps
from language_neurons_alignment.core.counts import LanguageCounts
from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.core.perplexity import TextLikelihood, perplexity
from language_neurons_alignment.corpus.encode import PromptGroup, ScoredText
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.engines.vllm import VLLMEngine, launch
from language_neurons_alignment.errors import SilentHookError, TallyError
from tests.engines.contract import assert_close, assert_same_counts, assert_tally, some_neurons
from tests.engines.generation_contract import prompts_of
from tests.engines.intervention_contract import GREEDY, STEPS, sets
from tests.engines.moments_contract import assert_same_moments
from tests.engines.vllm_engines import needs_vllm, open_vllm
from tests.tiny_models import save_tiny_model

pytestmark = [pytest.mark.vllm, pytest.mark.slow, needs_vllm]


def many_answers(seed: int = 0) -> list[PromptGroup]:
    """Long prompts with several answers each, one of them twice, one that leaves the prompt early."""
    draw = random.Random(seed)

    def words(n: int) -> tuple[int, ...]:
        return tuple(draw.randrange(4, 300) for _ in range(n))

    groups = []
    for _ in range(6):
        prefix = words(draw.randrange(70, 130))
        answers = [prefix + words(draw.randrange(1, 60)) for _ in range(4)]
        groups.append(PromptGroup(prefix, (*answers, answers[0], prefix[:50] + words(9))))
    return groups


GROUPS = many_answers()
TEXTS = [ScoredText(full, start=start) for group in GROUPS for full in group.full for start in (0, 40)]
FULL_TOKENS = sum(group.full_tokens for group in GROUPS)


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("mistral", tmp_path_factory.mktemp("vllm") / "tiny-mistral")


@pytest.fixture(scope="module")
def reference(mistral: Path) -> tuple[LanguageCounts, list[TextLikelihood], list[TextLikelihood]]:
    """The transformers engine's counts, likelihoods, and likelihoods with some neurons off."""
    engine = TransformersEngine.load(mistral, device="cpu", dtype="float32")
    with engine.intervene(Intervention.zero(some_neurons(engine))):
        masked = engine.log_likelihood(TEXTS)
    return engine.count(GROUPS, moments=True), engine.log_likelihood(TEXTS), masked


def assert_is_the_reference(
    engine: VLLMEngine, reference: tuple[LanguageCounts, list[TextLikelihood], list[TextLikelihood]]
) -> None:
    counts, plain, masked = reference
    counted = engine.count(GROUPS, moments=True)
    assert_tally(counted, GROUPS)
    assert_same_counts(counted, counts)
    assert_same_moments(counted, counts)
    assert_close(engine.log_likelihood(TEXTS), plain)
    with engine.intervene(Intervention.zero(some_neurons(engine))):
        assert_close(engine.log_likelihood(TEXTS), masked)
        off = engine.count(GROUPS, moments=True)
    assert not off.full.over_zero[some_neurons(engine)].any()
    assert off.moments is not None
    assert not off.moments.full.sum_of_squares[some_neurons(engine)].any()
    assert perplexity(masked).token != pytest.approx(perplexity(plain).token, rel=1e-3)


@pytest.fixture(scope="module")
def engine(mistral: Path) -> Iterator[VLLMEngine]:
    """One rank, steps that hold the whole corpus, and a worker that can do things by hand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "WORKER", "tests.engines.vllm_by_hand.WorkerByHand")
        engine = open_vllm(mistral, batch_tokens=8192, apart=False)
    yield engine
    engine.close()


class TestOneRank:
    def test_it_is_the_transformers_engine(self, engine: VLLMEngine, reference: tuple) -> None:
        assert_is_the_reference(engine, reference)

    def test_shared_prompts_come_from_the_cache_and_still_count(self, engine: VLLMEngine) -> None:
        engine.count(GROUPS)
        seen = engine.last_pass
        assert seen.cached_tokens > 6 * 3 * 60, seen
        assert seen.rows < 0.6 * FULL_TOKENS, seen

    def test_likelihoods_are_vllm_s_own_prompt_logprobs(self, engine: VLLMEngine) -> None:
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input

        vllm = engine._process.engine
        ours = engine.log_likelihood([ScoredText(group.full[0]) for group in GROUPS])
        wanted = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        for i, group in enumerate(GROUPS):
            vllm.add_request(f"theirs-{i}", tokens_input(list(group.full[0])), wanted)
        theirs: dict[str, float] = {}
        while vllm.has_unfinished_requests():
            for output in vllm.step():
                pairs = zip(output.prompt_token_ids[1:], output.prompt_logprobs[1:], strict=True)
                theirs[output.request_id] = -sum(entries[token].logprob for token, entries in pairs)
        assert [one.nll for one in ours] == pytest.approx([theirs[f"theirs-{i}"] for i in range(len(GROUPS))], rel=1e-5)

    def test_interrupted_passes_leave_nothing_behind(self, engine: VLLMEngine, reference: tuple) -> None:
        def stop(_tokens: int) -> None:
            raise KeyboardInterrupt

        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                engine.count(GROUPS, progress=stop)
        assert_same_counts(engine.count(GROUPS), reference[0])

    def test_a_cache_that_hides_tokens_is_noticed(self, engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        engine.count(GROUPS)
        monkeypatch.setattr(engine._process, "forget_prefixes", lambda: None)
        with pytest.raises(TallyError, match="never came"):
            engine.count(GROUPS)

    def test_requests_of_somebody_else_are_noticed(self, engine: VLLMEngine) -> None:
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input

        def intrude(_tokens: int) -> None:
            if not intruded:
                intruded.append(1)
                sampling = SamplingParams(max_tokens=1, detokenize=False)
                engine._process.engine.add_request("intruder", tokens_input([7, 8, 9]), sampling)
                engine._process._open.add("intruder")

        intruded: list[int] = []
        with pytest.raises(TallyError, match="1 requests were unknown"):
            engine.count(GROUPS, progress=intrude)


class TestOneRankByHand:
    @pytest.mark.parametrize("do", ["zero es", "scale:0 es + fr", "set:0 fr - en"])
    def test_zero_is_a_mask_by_hand_bit_for_bit(self, engine: VLLMEngine, do: str) -> None:
        """The mask by hand hooks the input of the down projection, not the activation module."""
        source = sets(engine)
        off = source.neurons(Steps.parse(do).steps[0].terms, engine.model)
        places = {layer: neurons.nonzero().flatten().tolist() for layer, neurons in enumerate(off)}
        plain = engine.log_likelihood(TEXTS)
        with intervene(engine, do, source):
            zeroed = engine.log_likelihood(TEXTS)
        by_hand(engine, "mask_by_hand", places)
        masked = engine.log_likelihood(TEXTS)
        by_hand(engine, "mask_by_hand", {})
        assert masked == zeroed != plain
        assert engine.log_likelihood(TEXTS) == plain

    def test_hooks_that_do_not_fire_are_an_error_of_everything_that_relies_on_them(self, engine: VLLMEngine) -> None:
        """`self_test` runs when an engine is loaded."""
        off, prompts = Intervention.zero(some_neurons(engine)), prompts_of(engine)
        counts = engine.count(GROUPS)
        by_hand(engine, "fuse", True)
        try:
            for use in (engine.self_test, lambda: engine.count(GROUPS)):
                with pytest.raises(SilentHookError, match=r"the hooks of layers \[0, 1, 2\] on rank"):
                    use()
            with (
                pytest.raises(SilentHookError, match=r"did not act in layers \[0, 2\] although"),
                engine.intervene(off),
            ):
                engine.generate(prompts, sampling=GREEDY)
        finally:
            by_hand(engine, "fuse", False)
        assert_same_counts(engine.count(GROUPS), counts, exact=True)


def by_hand(engine: VLLMEngine, method: str, argument: Any) -> None:
    """Call a method that only the tests' worker has."""
    engine._process.rpc(method, argument)


@pytest.mark.parametrize("caching", ["true", "false"])
def test_chunks_and_evictions_from_a_kv_cache_that_is_too_small(mistral: Path, reference: tuple, caching: str) -> None:
    blocks = {
        "num_gpu_blocks_override": 9,
        "max_model_len": 200,
        "enable_prefix_caching": caching,
        "long_prefill_token_threshold": 16,  # several texts run at a time, and together outgrow the cache
        "scheduler_reserve_full_isl": False,
    }
    engine = open_vllm(mistral, batch_tokens=48, engine_args=blocks, apart=False)
    try:
        assert_is_the_reference(engine, reference)
        engine.count(GROUPS)
        seen = engine.last_pass
        assert seen.preemptions > 0, seen
        assert seen.chunked >= 20, seen
        assert (seen.cached_tokens > 0) == (caching == "true"), seen
        assert seen.steps > seen.rows / 48, seen
    finally:
        engine.close()


@pytest.fixture(scope="module", params=["tensor_parallel_size", "pipeline_parallel_size"])
def two_ranks(request: pytest.FixtureRequest, mistral: Path) -> Iterator[VLLMEngine]:
    engine = open_vllm(mistral, apart=False, **{request.param: 2})
    assert engine.provenance[request.param] == 2
    yield engine
    engine.close()


def test_two_ranks_are_one_model(two_ranks: VLLMEngine, reference: tuple) -> None:
    assert_is_the_reference(two_ranks, reference)


@pytest.mark.parametrize("neurons", [[0], [47, 48], [95]])
def test_a_mask_deactivates_exactly_its_neurons_on_both_ranks(two_ranks: VLLMEngine, neurons: list[int]) -> None:
    off = torch.zeros(two_ranks.model.layers, two_ranks.model.d_mlp, dtype=torch.bool)
    off[-1, neurons] = True
    plain = two_ranks.count(GROUPS).full.over_zero
    assert (plain[off] > 0).all()
    with two_ranks.intervene(Intervention.zero(off)):
        masked = two_ranks.count(GROUPS).full.over_zero
    assert not masked[off].any()
    assert torch.equal(masked[~off], plain[~off])


@pytest.mark.parametrize("do", STEPS.values(), ids=STEPS)
def test_steps_are_done_on_both_ranks_as_on_one_model(two_ranks: VLLMEngine, mistral: Path, do: list[str]) -> None:
    one = TransformersEngine.load(mistral, device="cpu", dtype="float32")
    plain = two_ranks.log_likelihood(TEXTS)
    with intervene(one, do, sets(one)), intervene(two_ranks, do, sets(two_ranks)):
        assert_close(two_ranks.log_likelihood(TEXTS), one.log_likelihood(TEXTS))
        assert_same_counts(two_ranks.count(GROUPS), one.count(GROUPS))
        prompts = prompts_of(one)
        assert two_ranks.generate(prompts, sampling=GREEDY) == one.generate(prompts, sampling=GREEDY)
    assert two_ranks.log_likelihood(TEXTS) == plain

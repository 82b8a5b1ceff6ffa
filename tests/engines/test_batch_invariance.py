"""With `batch_invariant`, what a question gives does not depend on what else is computed: parts add up bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import add
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from language_neurons_alignment._demo import demo_corpus_path
from language_neurons_alignment.config import Sampling
from language_neurons_alignment.core.counts import LanguageCounts
from language_neurons_alignment.corpus.encode import Prompt, PromptGroup, ScoredText, Tokens, encode_groups
from language_neurons_alignment.corpus.records import read_corpus
from language_neurons_alignment.engines.base import Engine
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.errors import SettingsError
from tests.engines.vllm_engines import needs_vllm, open_vllm
from tests.tiny_models import VOCABULARY, save_tiny_model

FAMILIES = ("llama", "gemma3_text", "opt", "qwen3")


def tokens_of(random: Random, length: int) -> Tokens:
    return tuple(random.randrange(5, VOCABULARY) for _ in range(length))


def some_groups(number: int, seed: int) -> list[PromptGroup]:
    """Questions of many lengths with one to four answers, some of them equal, some that merge with the question."""
    random, groups = Random(seed), []
    for _ in range(number):
        prefix = tokens_of(random, random.randrange(1, 60))
        full = [prefix + tokens_of(random, random.randrange(1, 50)) for _ in range(random.randrange(1, 4))]
        if random.random() < 0.3:
            full.append(prefix[:-1] + tokens_of(random, random.randrange(1, 50)))
        if random.random() < 0.3:
            full.append(full[0])
        groups.append(PromptGroup(prefix, tuple(full)))
    return groups


def equal(one: LanguageCounts, other: LanguageCounts) -> bool:
    return all(
        mine.total_tokens == theirs.total_tokens and torch.equal(mine.over_zero, theirs.over_zero)
        for mine, theirs in ((one.full, other.full), (one.prefix, other.prefix))
    )


@pytest.fixture(scope="module", params=FAMILIES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = save_tiny_model(request.param, tmp_path_factory.mktemp("invariant") / "model")
    opened = TransformersEngine.load(folder, device="cpu", dtype="bfloat16", batch_invariant=True)
    yield opened
    opened.close()


GROUPS = some_groups(12, seed=1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=5, deadline=None)
@given(parts=st.lists(st.integers(0, 3), min_size=len(GROUPS), max_size=len(GROUPS)))
def test_the_counts_of_any_parts_add_up_to_those_of_the_whole(engine: Engine, parts: list[int]) -> None:
    whole = engine.count(GROUPS)
    divided = [[group for group, part in zip(GROUPS, parts, strict=True) if part == one] for one in set(parts)]
    assert equal(reduce(add, (engine.count(some) for some in divided)), whole)


def test_the_order_of_questions_changes_nothing(engine: Engine) -> None:
    mixed = list(GROUPS)
    Random(2).shuffle(mixed)
    assert equal(engine.count(mixed), engine.count(GROUPS))


def test_likelihoods_and_answers_do_not_depend_on_the_others(engine: Engine) -> None:
    texts = [ScoredText(group.full[0], start=len(group.prefix)) for group in GROUPS]
    alone = [engine.log_likelihood([text])[0] for text in texts]
    assert engine.log_likelihood(texts) == alone
    prompts, sampling = [Prompt(group.prefix) for group in GROUPS[:6]], Sampling(max_new_tokens=8)
    together = engine.generate(prompts, sampling=sampling)
    assert together == [engine.generate([prompt], sampling=sampling)[0] for prompt in prompts]
    assert sorted(engine.answer_batches(prompts, sampling=sampling)) == [[index] for index in range(6)]


def test_it_is_said_in_what_describes_the_counts(engine: Engine, tiny_llama: Path) -> None:
    assert engine.provenance["batch_invariant"] is True
    plain = TransformersEngine.load(tiny_llama, device="cpu")
    assert "batch_invariant" not in plain.provenance


def test_a_batch_size_beside_it_is_refused(tiny_llama: Path) -> None:
    with pytest.raises(SettingsError, match=r"--batch-tokens 64 would do nothing with --batch-invariant"):
        TransformersEngine.load(tiny_llama, device="cpu", batch_tokens=64, batch_invariant=True)


def in_parts(engine: Engine, groups: list[PromptGroup], parts: int) -> LanguageCounts:
    return reduce(add, (engine.count(groups[part::parts]) for part in range(parts)))


@pytest.mark.slow
def test_parts_of_a_real_corpus_add_up_on_smollm2_only_with_it(smollm2: Path) -> None:
    """SmolLM2 in its own precision, bfloat16; two languages of the demo's corpus."""
    records = [one for one in read_corpus(demo_corpus_path()).records if one.language in ("en", "es")][::6]
    same = {}
    for invariant in (False, True):
        engine = TransformersEngine.load(smollm2, device="cpu", dtype="bfloat16", batch_invariant=invariant)
        groups = list(encode_groups(records, engine.tokenizer, max_length=8192).groups)
        whole = engine.count(groups)
        same[invariant] = equal(in_parts(engine, groups, 3), whole)
    assert same == {False: False, True: True}


@pytest.mark.vllm
@needs_vllm
class TestVLLM:
    @pytest.fixture(scope="class")
    def engine(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
        folder = save_tiny_model("mistral", tmp_path_factory.mktemp("invariant") / "model")
        opened = open_vllm(folder, dtype="bfloat16", batch_invariant=True)
        yield opened
        opened.close()

    def test_parts_add_up_to_the_whole_in_any_order(self, engine: Engine) -> None:
        groups = some_groups(16, seed=3)
        whole = engine.count(groups)
        for parts in (2, 3, 16):
            assert equal(in_parts(engine, groups, parts), whole)
        assert equal(engine.count(groups[::-1]), whole)

    def test_likelihoods_and_answers_do_not_depend_on_the_others(self, engine: Engine) -> None:
        test_likelihoods_and_answers_do_not_depend_on_the_others(engine)

    def test_scheduling_beside_it_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"max.num.seqs=4 cannot be used with --batch-invariant"):
            open_vllm(tmp_path, batch_invariant=True, engine_args={"max-num-seqs": 4})

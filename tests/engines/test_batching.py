"""Which prompts are answered together, and how many tokens a GPU has room for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from language_neurons_alignment.config import Sampling
from language_neurons_alignment.core.routing import Experts
from language_neurons_alignment.corpus.encode import Prompt
from language_neurons_alignment.engines.generation import answer_batches
from language_neurons_alignment.engines.transformers import loading
from language_neurons_alignment.engines.transformers.plan import Cut

LONGEST = 40
prompts_of_any_length = st.lists(st.integers(1, LONGEST - 1).map(lambda n: Prompt((1,) * n)), max_size=30)
limits = st.tuples(st.integers(1, 20), st.integers(1, 200), st.none() | st.integers(5, 30))


@given(prompts_of_any_length, limits)
def test_every_prompt_is_in_one_batch_and_batches_stay_within_the_budget(
    prompts: list[Prompt], limit: tuple[int, int, int | None]
) -> None:
    new, budget, switch = limit
    batches = answer_batches(prompts, new=new, longest=LONGEST, budget=budget, switch=switch)
    assert sorted(index for batch in batches for index in batch) == list(range(len(prompts)))
    for batch in batches:
        lengths = [len(prompts[index].tokens) for index in batch]
        assert len(batch) == 1 or len(batch) * (max(lengths) + new) <= budget
        assert len(batch) == 1 or max(lengths) + new <= LONGEST, "a prompt with less room than `new` gets its own batch"
        if switch is not None and len(batch) > 1:
            assert max(lengths) + new <= switch or min(lengths) > switch


@given(prompts_of_any_length, limits)
def test_a_batch_by_itself_is_one_batch_again_in_the_same_order(
    prompts: list[Prompt], limit: tuple[int, int, int | None]
) -> None:
    new, budget, switch = limit
    for batch in answer_batches(prompts, new=new, longest=LONGEST, budget=budget, switch=switch):
        some = [prompts[index] for index in batch]
        again = answer_batches(some, new=new, longest=LONGEST, budget=budget, switch=switch)
        assert again == [list(range(len(batch)))]


def test_prompts_of_like_length_stand_together() -> None:
    prompts = [Prompt((1,) * n) for n in (3, 9, 4, 8)]
    assert answer_batches(prompts, new=1, longest=LONGEST, budget=20) == [[1, 3], [2, 0]]


@pytest.mark.parametrize(("mixes", "expected"), [(True, [[3, 0, 2, 4], [1]]), (False, [[3], [0, 2, 4], [1]])])
def test_prompts_of_several_lengths_are_apart_where_a_model_reads_padding(
    mixes: bool, expected: list[list[int]]
) -> None:
    prompts = [Prompt((1,) * length) for length in (3, 1, 3, 4, 3)]
    cut = Cut(64, 24, invariant=False, longest=64, vocabulary=9, switch=None, shares=True, mixes=mixes)
    assert cut.answer_batches(prompts, sampling=Sampling(max_new_tokens=2)) == expected


@pytest.mark.parametrize(("room", "tokens"), [(99999, 16384), (16384, 16384), (16383, 8192), (4095, 2048), (9, 256)])
def test_a_batch_on_a_gpu_fits_its_free_memory(room: int, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mistral-7B in bfloat16: 180,224 bytes a token in a layer, and twice 131,072 of keys and values in all layers."""
    text = SimpleNamespace(hidden_size=4096, num_attention_heads=32, num_key_value_heads=8, head_dim=128)
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text), dtype=torch.bfloat16)
    network: Any = SimpleNamespace(
        device=torch.device("cuda"), model=model, experts=None, widths=(14336,) * 32, shape=(32, 14336)
    )
    free = room * (180_224 + 2 * 131_072) / loading.ROOM + 1
    monkeypatch.setattr(loading, "free_memory", lambda _device: int(free))
    assert loading.batch_that_fits(network, 16384) == tokens
    network.experts = Experts((0,), 16, 14336, 1)
    network.sites = [SimpleNamespace(experts=SimpleNamespace(weighted=True))]
    free += room * 3 * 16 * 4096 * 2 / loading.ROOM  # a token's input for each expert, weighted, and what each gives
    assert loading.batch_that_fits(network, 16384) == tokens
    network.device = torch.device("cpu")
    assert loading.batch_that_fits(network, 2048) == 2048

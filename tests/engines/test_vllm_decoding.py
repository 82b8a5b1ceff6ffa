"""What watches vLLM while it answers: the parts that need no vLLM."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from language_neurons_alignment.engines.vllm.passes import AnswerWatch, Rewindable
from language_neurons_alignment.engines.vllm.runner import Runner


def draw(generator: torch.Generator) -> int:
    return int(torch.randint(0, 2**31, (1,), generator=generator))


def rank(generators: dict[int, torch.Generator]) -> Any:
    """A rank on a CPU with requests "a", "b", … in its batch."""
    names = [chr(97 + row) for row in range(3)]
    requests = {name: SimpleNamespace(generator=generators.get(row)) for row, name in enumerate(names)}
    batch = SimpleNamespace(generators=dict(generators), req_ids=names)
    runner = Runner(SimpleNamespace(input_batch=batch, requests=requests))
    runner.version = 1
    return SimpleNamespace(runner=runner, device=torch.device("cpu"), last=True)


def test_a_plain_generator_on_a_cpu_cannot_take_a_draw_back() -> None:
    with pytest.raises(RuntimeError, match="offset"):
        torch.Generator().get_offset()


def test_draws_of_unfinished_prefills_are_taken_back_and_the_answer_begins_with_the_first() -> None:
    plain = torch.Generator().manual_seed(7)
    here = rank({1: torch.Generator().manual_seed(7)})
    watch = AnswerWatch(here)
    for _ in range(3):  # a prompt that is read in three steps before the first token counts
        watch.before({})
        generator = here.runner.own.input_batch.generators[1]
        draw(generator)
        generator.set_offset(generator.get_offset() - 4)
    watch.before({})
    assert [draw(generator) for _ in range(3)] == [draw(plain) for _ in range(3)]
    assert here.runner.own.requests["b"].generator is generator, "an evicted request comes back with it"
    assert isinstance(generator, Rewindable)


@pytest.mark.parametrize(
    ("bad", "rows", "seen"), [(torch.nan, 2, 1), (torch.inf, 2, 1), (0.0, 2, 0), (torch.nan, 1, 0)]
)
def test_nan_and_infinity_are_seen_in_rows_and_not_in_padding(bad: float, rows: int, seen: int) -> None:
    watch = AnswerWatch(rank({}))
    watch.step(SimpleNamespace(total_num_scheduled_tokens=rows))
    watch.after(torch.tensor([[1.0, 2.0], [3.0, bad], [torch.nan, 0.0]]))
    watch.step(None)
    assert watch.report() == {"infinite": seen}

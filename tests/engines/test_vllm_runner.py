"""vLLM's two model runners, replayed: what the worker reads is the same of both. No vLLM is needed.

`vllm_steps.json` has the steps of one corpus (six texts, a KV cache that is too small for them) as both runners of
vLLM 0.32.0 took them: what the scheduler said, the order of the requests' rows, and what the model was fed.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from language_neurons_alignment.engines.vllm.gather import check_pass, gather_counts
from language_neurons_alignment.engines.vllm.messages import pack_tree
from language_neurons_alignment.engines.vllm.passes import Pass
from language_neurons_alignment.engines.vllm.rank import Rank
from language_neurons_alignment.engines.vllm.runner import Runner
from language_neurons_alignment.engines.vllm.sites import RankSite
from language_neurons_alignment.engines.vllm.tree import PrefixTree
from language_neurons_alignment.errors import TallyError

STEPS: dict[str, list[dict[str, Any]]] = json.loads(
    Path(__file__).with_name("vllm_steps.json").read_text(encoding="utf-8")
)
NEURONS, VOCABULARY = 5, 300


class Model(nn.Module):
    """Neurons that fire by their token and its position alone, and hidden states that are the activations."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.act = nn.Identity(), nn.Identity()

    def __call__(self, **inputs: Tensor) -> Tensor:
        """As in classes that vLLM could compile as a whole, where it calls no hooks."""
        return self.forward(**inputs)

    def forward(self, *, input_ids: Tensor, positions: Tensor, **_more: object) -> Tensor:
        return self.act(self.block(activations(input_ids, positions)))


def activations(tokens: Tensor, positions: Tensor) -> Tensor:
    return torch.sin(tokens[:, None] * 7.0 + positions[:, None] * 3.0 + torch.arange(NEURONS))


class Replayed:
    """What both runners have."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.model = Model()
        self.vllm_config = SimpleNamespace(compilation_config=SimpleNamespace(mode=0))
        self.model_config = SimpleNamespace(enforce_eager=True)

    def get_model(self) -> nn.Module:
        return self.model


class V1(Replayed):
    """The V1 runner: the order of the rows is on the runner, and a warm-up calls the model."""

    def execute_model(self, step: Any, intermediate_tensors: object = None) -> None:
        self.input_batch = SimpleNamespace(req_ids=step.fed["requests"])
        self._model_forward(*(torch.tensor(step.fed[one]) for one in ("input_ids", "positions")))

    def _model_forward(self, input_ids: Tensor, positions: Tensor) -> None:
        self.model(input_ids=input_ids, positions=positions, intermediate_tensors=None)

    def warm_up(self) -> None:
        self.model(input_ids=torch.zeros(8, dtype=torch.int32), positions=torch.arange(8))


class V2(Replayed):
    """The V2 runner: the order of the rows is in what `prepare_inputs` returns, and a warm-up is a step."""

    def prepare_inputs(self, step: Any) -> Any:
        return SimpleNamespace(
            req_ids=step.fed["requests"],
            input_ids=torch.tensor(step.fed["input_ids"]),
            positions=torch.tensor(step.fed["positions"]),
        )

    def execute_model(self, step: Any, intermediate_tensors: object = None, dummy_run: bool = False) -> None:
        if dummy_run:
            self.model(input_ids=torch.zeros(8, dtype=torch.int32), positions=torch.arange(8))
            return
        batch = self.prepare_inputs(step)
        self.model(input_ids=batch.input_ids, positions=batch.positions, inputs_embeds=None)

    def warm_up(self) -> None:
        self.execute_model(SimpleNamespace(num_scheduled_tokens={"_dummy_req_0": 8}), dummy_run=True)


for kind, module in ((V1, "gpu_model_runner"), (V2, "gpu.model_runner")):
    kind.__module__, kind.__qualname__ = f"vllm.v1.worker.{module}", "GPUModelRunner"


def scheduled(recorded: dict[str, Any]) -> Any:
    """A SchedulerOutput as it was recorded, and what the model was fed in the step."""
    return SimpleNamespace(
        finished_req_ids=set(recorded["finished"]),
        scheduled_new_reqs=[
            SimpleNamespace(req_id=name, prompt_token_ids=tokens, num_computed_tokens=computed)
            for name, tokens, computed in recorded["new"]
        ],
        scheduled_cached_reqs=SimpleNamespace(
            req_ids=[name for name, _ in recorded["cached"]],
            num_computed_tokens=[computed for _, computed in recorded["cached"]],
        ),
        num_scheduled_tokens=dict(map(tuple, recorded["scheduled"])),
        fed=recorded,
    )


def texts() -> list[tuple[int, ...]]:
    """The texts of the corpus, which both runners were sent."""
    return sorted({tuple(tokens) for step in STEPS["1"] for _, tokens, _ in step["new"]})


def replay(own: Any, steps: list[dict[str, Any]]) -> tuple[dict[str, Any], torch.Tensor]:
    """Count the corpus while a runner takes its steps: the report, and the counts by hand."""
    tree = PrefixTree.of(texts())
    weights = np.stack([np.arange(tree.nodes) % 3, np.arange(tree.nodes) % 2])
    site = RankSite(0, own.model.block, own.model.act, merged=False, width=NEURONS)
    rank = Rank(Runner(own), (site,), 0, 0, last=True, d_mlp=NEURONS)
    rank.observe(Pass(rank, pack_tree(tree, weights=weights)))
    own.warm_up()
    for one in steps:
        own.execute_model(scheduled(one))
    own.warm_up()
    report = rank.observer.report()
    rank.observe(None)
    expected = torch.zeros(2, NEURONS, dtype=torch.int64)
    seen: set[int] = set()
    for tokens, path in tree.paths.items():
        fired = activations(torch.tensor(tokens), torch.arange(len(tokens))) > 0
        for node, row in zip(path.tolist(), fired, strict=True):
            if node not in seen:
                expected += torch.from_numpy(weights[:, node])[:, None] * row
            seen.add(node)
    return report, expected


@pytest.mark.parametrize(("version", "kind"), [(1, V1), (2, V2)])
def test_the_steps_of_both_runners_give_the_same_counts(version: int, kind: type) -> None:
    own = kind()
    report, expected = replay(own, STEPS[str(version)])
    assert report["runner_version"] == version
    check_pass([report])
    assert report["statistics"]["preemptions"] == 2
    assert report["statistics"]["requests"] == 6
    counts = gather_counts([report], layers=1, d_mlp=NEURONS)
    assert torch.equal(torch.stack([counts.full.over_zero[0], counts.prefix.over_zero[0]]), expected)
    assert not vars(own).keys() & {"execute_model", "prepare_inputs"}
    assert "forward" not in own.model.__dict__


def test_the_runners_differ_in_what_the_adapter_is_for() -> None:
    one, two = STEPS["1"], STEPS["2"]
    assert [step["requests"] for step in one] != [step["requests"] for step in two]
    back = [{name for step in steps for name, *_ in step["new"]} for steps in (one, two)]
    evicted = {name for step in one for name in step["preempted"]}
    again = [[name for step in steps for name, *_ in step["new"] if name in evicted] for steps in (one, two)]
    assert back[0] == back[1] > evicted
    assert (len(again[0]), len(again[1])) == (2, 4), "V1 resumes evicted requests as cached ones, V2 as new ones"


def test_rows_in_another_order_than_the_runner_s_are_noticed() -> None:
    steps = [{**step, "requests": [name for name, _ in step["scheduled"]]} for step in STEPS["2"]]
    report, _ = replay(V2(), steps)
    with pytest.raises(TallyError, match="rows held another token or position"):
        check_pass([report])


def test_a_runner_that_is_neither_has_no_version() -> None:
    assert Runner(Replayed()).version is None

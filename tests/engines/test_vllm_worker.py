"""The parts of the vLLM engine that need no vLLM: rows, weights, sums, gathering, refusals."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from language_neurons_alignment.core.interventions import Intervention, LayerIntervention
from language_neurons_alignment.corpus.encode import PromptGroup
from language_neurons_alignment.engines.vllm.firing import PIECE, FiringSums, RowWeights, change_
from language_neurons_alignment.engines.vllm.gather import check_acted, check_pass, gather_counts, gather_losses
from language_neurons_alignment.engines.vllm.messages import pack_intervention, pack_tree, unpack
from language_neurons_alignment.engines.vllm.passes import Pass, Schedule, Scores
from language_neurons_alignment.engines.vllm.sites import RankSite
from language_neurons_alignment.engines.vllm.tree import PrefixTree, weighted_tree
from language_neurons_alignment.errors import EngineError, SilentHookError, TallyError

CPU = torch.device("cpu")
A, B = (1, 2, 3, 4, 5, 6), (1, 2, 3, 9, 8)


def step(
    new: dict[str, tuple[tuple[int, ...], int, int]],
    running: dict[str, tuple[int, int]] | None = None,
    done: tuple = (),
) -> Any:
    """A SchedulerOutput as vLLM makes it: new requests (prompt, computed, count), running ones (computed, count)."""
    running = running or {}
    return SimpleNamespace(
        finished_req_ids=set(done),
        scheduled_new_reqs=[
            SimpleNamespace(req_id=k, prompt_token_ids=list(p), num_computed_tokens=c) for k, (p, c, _) in new.items()
        ],
        scheduled_cached_reqs=SimpleNamespace(
            req_ids=list(running), num_computed_tokens=[c for c, _ in running.values()]
        ),
        num_scheduled_tokens={**{k: n for k, (_, _, n) in new.items()}, **{k: n for k, (_, n) in running.items()}},
    )


def run(schedule: Schedule, *steps: Any) -> list[tuple[list[int], list[bool]]]:
    out = []
    for one in steps:
        rows = schedule.rows(list(schedule.pieces(one).values()))
        out.append((rows.tolist(), schedule.first_sight(rows).tolist()))
    return out


class TestSchedule:
    def schedule(self) -> Schedule:
        return Schedule.of(pack_tree(PrefixTree.of([A, B])))

    def test_two_requests_share_their_beginning_within_a_step(self) -> None:
        schedule = self.schedule()
        ((rows, fresh),) = run(schedule, step({"a": (A, 0, 6), "b": (B, 0, 5)}))
        assert rows == [0, 1, 2, 3, 4, 5, 0, 1, 2, 6, 7]
        assert fresh == [True] * 6 + [False] * 3 + [True] * 2
        assert schedule.unseen == 0
        assert schedule.token[rows].tolist() == [*A, *B]
        assert schedule.depth[rows].tolist() == [*range(6), *range(5)]

    def test_chunks_cache_hits_evictions_sampled_tokens_and_strangers(self) -> None:
        schedule = self.schedule()
        seen = run(
            schedule,
            step({"a": (A, 0, 4)}),
            step({"b": (B, 3, 2)}, {"a": (4, 2)}),  # b's first three tokens come from the cache
            step({}, {"a": (0, 7)}),  # evicted, fed again, with one sampled token behind
            step({"x": ((7, 7), 0, 2)}, done=("a",)),
        )
        assert [fresh.count(True) for _, fresh in seen] == [4, 4, 0, 0]
        assert seen[2][0] == [0, 1, 2, 3, 4, 5, schedule.nodes]
        assert seen[3][0] == [schedule.nodes, schedule.nodes]
        s = schedule.statistics
        assert (s.chunked, s.cached_tokens, s.preemptions, s.strangers, s.requests) == (1, 3, 1, 1, 3)
        assert schedule.unseen == 0


@pytest.mark.parametrize("axes", [(), (1,), (3,)], ids=["rows", "one axis", "Qwen-VL's three axes"])
def test_rows_that_hold_another_token_or_position_are_noticed(axes: tuple[int, ...]) -> None:
    tree, weights = weighted_tree([PromptGroup(A[:3], (A,))])
    rank = SimpleNamespace(
        sites=(), d_mlp=1, device=CPU, last=False, layers=[], describe=dict, runner=SimpleNamespace(requests=["a"])
    )
    positions = torch.arange(len(A) + 2).expand(*axes, -1).clone()  # and two rows of padding
    for place, wrong in ((None, 0), (0, 1), (len(A), 0)):
        one = Pass(rank, pack_tree(tree, weights=weights))  # pyright: ignore[reportArgumentType] - all that it reads
        one.step(step({"a": (A, 0, len(A))}))
        fed = positions.clone()
        if place is not None:
            fed[..., place] += 1
        one.before({"input_ids": torch.tensor([*A, 0, 0]), "positions": fed})
        assert one.report()["wrong"] == wrong


class TestSums:
    def site(self, layer: int = 0) -> RankSite:
        return RankSite(layer, nn.Identity(), nn.Identity(), merged=False)

    @pytest.mark.parametrize("largest", [1, 1023, 1024, 10_000, 3_000_000])
    def test_sums_are_exact_whatever_the_weights(self, largest: int) -> None:
        draw = np.random.default_rng(0)
        node_weights = draw.integers(0, largest + 1, (2, 5000))
        node_weights[:, 0] = largest
        sums = FiringSums([self.site()], 7, node_weights, device=CPU)
        expected = np.zeros((2, 7), dtype=np.int64)
        for _ in range(6):
            activation = torch.from_numpy(draw.standard_normal((5000, 7), dtype=np.float32))
            weights = RowWeights.of(node_weights, planes=sums.planes, device=CPU)
            sums.add(self.site(0), activation, weights, changed=None)
            expected += node_weights @ (activation.numpy() > 0)
        assert np.array_equal(sums.total()[0].numpy(), expected)
        assert largest < 10_000 or expected.max() > 2**24, "float32 alone must not suffice"

    @pytest.mark.parametrize("weight", [513, 1023, 1023 * 1025])
    @pytest.mark.parametrize("rows", [PIECE, PIECE + 1, 40_001])
    def test_a_step_whose_firings_pass_float32_is_counted_exactly(self, rows: int, weight: int) -> None:
        node_weights = np.full((2, rows), weight)
        node_weights[1] -= np.arange(rows) % 2
        activation = torch.ones(rows, 3)
        activation[:, 1] = torch.arange(rows) % 3 - 1
        sums = FiringSums([self.site(0), self.site(1)], 3, node_weights, device=CPU)
        weights = RowWeights.of(node_weights, planes=sums.planes, device=CPU)
        for _ in range(2):
            sums.add(self.site(0), activation, weights, changed=None)
            sums.add(self.site(1), -activation, weights, changed=None)
        total = sums.total().numpy()
        assert np.array_equal(total[0], 2 * node_weights @ (activation.numpy() > 0))
        assert np.array_equal(total[1], 2 * node_weights @ (activation.numpy() < 0))

    def test_padding_rows_and_zero_activations_do_not_count(self) -> None:
        sums = FiringSums([self.site()], 3, np.ones((2, 2), np.int64), device=CPU)
        weights = RowWeights.of(np.ones((2, 2), np.int64), planes=2, device=CPU)
        sums.add(
            self.site(),
            torch.tensor([[1.0, 0.0, float("nan")], [-1.0, -0.0, 1e-45], [9.0, 9.0, 9.0]]),
            weights,
            changed=None,
        )
        assert sums.total()[0, 0].tolist() == [1, 0, 1]


class SiluAndMul(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = x.chunk(2, dim=-1)
        return nn.functional.silu(gate) * up


@pytest.mark.parametrize("merged", [True, False])
def test_an_intervention_acts_on_the_activation_before_up(merged: bool) -> None:
    module = SiluAndMul() if merged else nn.GELU()
    gate, up = torch.randn(5, 4), torch.randn(5, 4)
    inputs = torch.cat([gate, up], dim=-1) if merged else gate
    activation = nn.functional.silu(gate) if merged else nn.functional.gelu(gate)
    output = module(inputs)
    change = LayerIntervention(torch.tensor([1, 3]), torch.tensor([0.0, 2.0]), torch.tensor([0.5, -1.0]))
    expected = activation.clone()
    expected[:, 1], expected[:, 3] = 0.5, 2 * activation[:, 3] - 1
    changed = change_(RankSite(0, nn.Identity(), module, merged), inputs, output, change)
    assert torch.allclose(output, expected * up if merged else expected)
    assert torch.allclose(changed, expected[:, [1, 3]])


def test_likelihoods_of_all_children_come_from_one_row() -> None:
    schedule = Schedule.of(pack_tree(PrefixTree.of([A, B])))
    wanted = np.ones(schedule.nodes, dtype=bool)
    wanted[[0, 1]] = False  # the first token has none, and the second is not asked for
    scores = Scores(schedule, wanted, vocabulary=2**23 // 2)  # two rows at a time
    table = torch.randn(schedule.nodes + 1, 12)
    for one in (step({"a": (A, 0, 6)}), step({"b": (B, 2, 3)})):
        rows = schedule.rows(list(schedule.pieces(one).values()))
        scores.add(
            rows,
            schedule.first_sight(rows),
            torch.from_numpy(rows.astype(np.float32))[:, None],
            lambda h: table[h[:, 0].long()],
        )
    report = dict(zip(("nll", "known"), scores.result(), strict=True))
    losses = gather_losses([report], wanted=wanted & (schedule.depth[:-1] > 0))
    logp = table.log_softmax(-1)
    path = [0, 1, 2, 3, 4, 5]
    expected = {path[i]: -float(logp[path[i - 1], A[i]]) for i in range(2, 6)} | {
        6: -float(logp[2, 9]),
        7: -float(logp[6, 8]),
    }
    assert {node: float(losses[node]) for node in expected} == pytest.approx(expected, rel=1e-5)
    report["known"] = bytes(schedule.nodes)
    with pytest.raises(TallyError):
        gather_losses([report], wanted=wanted)


def ranks(pipeline: int, tensor: int, *, layers: int = 4, d_mlp: int = 6) -> tuple[list[dict[str, Any]], torch.Tensor]:
    """Reports as the ranks of a parallel vLLM would make them of known counts."""
    truth = torch.arange(2 * layers * d_mlp).reshape(2, layers, d_mlp)
    width, depth = d_mlp // tensor, layers // pipeline
    reports = []
    for p in range(pipeline):
        for t in range(tensor):
            mine = list(range(p * depth, (p + 1) * depth))
            part = truth[:, mine, t * width : (t + 1) * width].transpose(0, 1).contiguous()
            sums = torch.stack([part / 4, part.double().square()], dim=1)  # [layer, power, span, neuron]
            reports.append({
                "pipeline_rank": p, "tensor_rank": t, "last": p == pipeline - 1, "layers": mine, "neurons": width,
                "counts": part.numpy().tobytes(), "tally": [99, 55], "unseen": 0, "wrong": 0, "infinite": 0, "fed": 20,
                "layer_rows": [20] * depth, "statistics": {"strangers": 0}, "device": "cpu", "nll": None, "known": None,
                "moments": sums.double().numpy().tobytes(),
            })  # fmt: skip
    return reports, truth


class TestRanks:
    @pytest.mark.parametrize(("pipeline", "tensor"), [(1, 1), (2, 1), (1, 2), (4, 3), (2, 2)])
    def test_layers_and_neurons_land_at_their_global_place(self, pipeline: int, tensor: int) -> None:
        reports, truth = ranks(pipeline, tensor)
        check_pass(reports)
        counts = gather_counts(reports[::-1], layers=4, d_mlp=6)
        assert torch.equal(torch.stack([counts.full.over_zero, counts.prefix.over_zero]), truth)
        assert (counts.full.total_tokens, counts.prefix.total_tokens) == (99, 55)
        assert counts.moments is not None
        for span, moments in enumerate((counts.moments.full, counts.moments.prefix)):
            assert moments.total_tokens == (99, 55)[span]
            assert torch.equal(moments.sum, truth[span].double() / 4)
            assert torch.equal(moments.sum_of_squares, truth[span].double().square())

    def test_a_missing_or_doubled_rank_is_noticed(self) -> None:
        reports, _ = ranks(2, 2)
        for wrong in (reports[1:], [*reports, reports[0]]):
            with pytest.raises(TallyError, match="neurons were reported by"):
                gather_counts(wrong, layers=4, d_mlp=6)

    @pytest.mark.parametrize(
        ("key", "value", "error", "says"),
        [
            ("tally", [99, 54], TallyError, "different numbers of tokens"),
            ("unseen", 3, TallyError, "3 never came"),
            ("wrong", 1, TallyError, "1 rows held another token"),
            ("statistics", {"strangers": 2}, TallyError, "2 requests were unknown"),
            ("layer_rows", [20, 0], SilentHookError, r"layers \[1\].*--engine transformers"),
            ("infinite", 1, EngineError, "NaN or infinite"),
        ],
    )
    def test_a_rank_that_saw_something_else_is_noticed(
        self, key: str, value: Any, error: type[Exception], says: str
    ) -> None:
        reports, _ = ranks(2, 2)
        reports[1][key] = value
        with pytest.raises(error, match=says):
            check_pass(reports)

    def test_an_intervention_that_did_not_act_is_noticed(self) -> None:
        check_acted([{"forwards": 3, "acted": [[0, 3], [2, 3]]}, {"forwards": 3, "acted": []}], touched=True)
        for silent in ([{"forwards": 3, "acted": [[0, 3], [2, 1]]}], [{"forwards": 3, "acted": []}]):
            with pytest.raises(SilentHookError):
                check_acted(silent, touched=True)


def test_the_tree_counts_a_group_through_the_whole_worker_path() -> None:
    group = PromptGroup(A[:3], (A, B, A))
    tree, weights = weighted_tree([group])
    schedule = Schedule.of(pack_tree(tree, weights=weights))
    ((rows, fresh),) = run(schedule, step({"b": (B, 0, 5), "a": (A, 0, 6)}))
    new = np.array(rows)[np.array(fresh)]
    assert weights[0, new].sum() == group.full_tokens
    assert weights[1, new].sum() == group.prefix_tokens


def test_identity_interventions_send_nothing() -> None:
    assert unpack(pack_intervention(Intervention.identity(2, 3)), "neurons", np.int32).size == 0

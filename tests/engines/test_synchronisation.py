"""In a counting pass the host waits for the device once, at the end: not in a layer, not in a batch.

Without a GPU, what would wait is seen where it is asked for: `bool(tensor)`, `.item()`, `.cpu()` and their like, and
tensors made of Python's numbers on the device. On a GPU (`pytest -m gpu`), CUDA itself tells.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode

from language_neurons_alignment.corpus.encode import PromptGroup
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.engines.transformers.interventions import hooked
from tests.tiny_models import LAYERS, save_tiny_model

KINDS = (
    "llama",
    "llama-odd",
    "mistral",
    "mistral-window",
    "qwen3",
    "gemma3_text",
    "gemma3",
    "phi3",
    "gpt_neox",
    "olmo2",
)
"""Layouts that differ for the counting. Some other models' own code waits in each forward, whoever calls it: it looks
at OPT's mask, or at a longrope's last position, or sends the zeros of an eager mask."""

ASKING = ("__bool__", "__int__", "__float__", "__index__", "item", "tolist", "cpu", "numpy", "nonzero", "masked_select")

AT_THE_END = 4
"""Whether all was finite; the counts of full and prefix; the sums of the activations, if moments are wanted."""


class Asked(TorchFunctionMode):
    """Counts the calls for which a host would have to wait for its device."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name, result = getattr(function, "__name__", ""), function(*args, **(kwargs or {}))
        sent = name == "tensor" and (kwargs or {}).get("device") is not None and result.numel()
        self.calls[name] += bool(name in ASKING or sent)
        return result


def asked(run: Callable[[], object]) -> int:
    """How often `run` would wait for a device."""
    with Asked() as mode:
        run()
    return sum(mode.calls.values())


def waits(run: Callable[[], object]) -> int:
    """How often the host waits for CUDA in `run`, as CUDA tells it."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(one.message) for one in seen)


def some_groups(many: int) -> list[PromptGroup]:
    """Prompts of one answer and of several, of many lengths: jobs of one row, and of rows that continue a first one."""
    groups = []
    for number in range(many):
        prefix = (1, *range(10 + number, 20 + 2 * number))
        answers = 1 + 2 * (number % 2)
        groups.append(PromptGroup(prefix, tuple((*prefix, 50 + number, *range(60, 63 + n)) for n in range(answers))))
    return groups


def forwards(engine: TransformersEngine, groups: list[PromptGroup]) -> int:
    """How many times the model runs to count these."""
    ran: list[None] = []
    handle = engine._network.decoder.register_forward_pre_hook(lambda *_: ran.append(None))
    engine.count(groups)
    handle.remove()
    return len(ran)


def open_engine(kind: str, folder: Path, device: str) -> TransformersEngine:
    return TransformersEngine.load(save_tiny_model(kind, folder), device=device, dtype="float32", batch_tokens=64)


def check_that_only_the_end_waits(engine: TransformersEngine, how_often: Callable[[Callable[[], object]], int]) -> None:
    few, many = some_groups(4), some_groups(12)
    assert forwards(engine, many) > forwards(engine, few) + 4
    for moments in (False, True):
        engine.count(many, moments=moments)  # a first run may have to set up something
        once = how_often(lambda moments=moments: engine.count(few, moments=moments))
        assert 0 < once <= AT_THE_END
        assert how_often(lambda moments=moments: engine.count(many, moments=moments)) == once


def check_that_a_hook_that_waits_is_seen(
    engine: TransformersEngine, how_often: Callable[[Callable[[], object]], int]
) -> None:
    groups = some_groups(4)
    runs, alone = forwards(engine, groups), how_often(lambda: engine.count(groups))

    def wait(_module, _inputs, output):
        output.sum().cpu()

    with hooked([(site.module, wait) for site in engine._network.sites]):
        assert how_often(lambda: engine.count(groups)) >= alone + runs * LAYERS


@pytest.mark.parametrize("kind", KINDS)
def test_a_counting_pass_asks_its_device_at_the_end_alone(kind: str, tmp_path: Path) -> None:
    check_that_only_the_end_waits(open_engine(kind, tmp_path, "cpu"), asked)


def test_a_hook_that_asks_in_every_layer_would_be_seen(tmp_path: Path) -> None:
    check_that_a_hook_that_waits_is_seen(open_engine("llama", tmp_path, "cpu"), asked)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
class TestOnGPU:
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_counting_pass_waits_for_the_gpu_at_its_end_alone(self, kind: str, tmp_path: Path) -> None:
        check_that_only_the_end_waits(open_engine(kind, tmp_path, "cuda"), waits)

    def test_a_hook_that_waits_in_every_layer_would_be_seen(self, tmp_path: Path) -> None:
        check_that_a_hook_that_waits_is_seen(open_engine("llama", tmp_path, "cuda"), waits)

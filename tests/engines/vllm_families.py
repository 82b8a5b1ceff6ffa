"""Families on vLLM, one after another in one process: is each computed as the transformers engine computes it?

    python -m tests.engines.vllm_families FOLDER [KIND …]

makes the tiny models in FOLDER, and prints one JSON object a line: `model_type`; `vllm`, which is "equal", "different"
or "refused"; `reason` where it is not equal; `needs`, a package that vLLM needs besides. Counts, moments, likelihoods
and deactivations are compared in float32, by the rules of the engine contract, and greedy answers token for token.
Without KIND it tries all of `KINDS`.

A process of its own, because vLLM changes classes of the transformers library when it runs inside. Its imports are what
takes the time: a family more costs seconds. The transformers engine is therefore asked first.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from traceback import extract_tb
from typing import Any

import pytest
from transformers.utils import IMAGE_PROCESSOR_NAME

from language_neurons_alignment.config import Sampling
from language_neurons_alignment.core.counts import LanguageCounts
from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.core.perplexity import TextLikelihood
from language_neurons_alignment.corpus.encode import GeneratedAnswer
from language_neurons_alignment.engines.base import Engine
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.errors import EngineError
from tests.engines.contract import (
    SHORT,
    assert_close,
    assert_same_counts,
    assert_tally,
    groups_of,
    scored_texts,
    some_neurons,
)
from tests.engines.generation_contract import SOME, prompts_of
from tests.engines.moments_contract import assert_same_moments
from tests.engines.vllm_engines import open_vllm
from tests.tiny_models import CONFIGS, save_tiny_model, tiny_config

KINDS = tuple(CONFIGS)

_MLA = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 64, "v_head_dim": 64, "head_dim": 64}

_LLAMA4 = {
    "num_experts_per_tok": 1,  # vLLM's kernel for CPUs knows no other where the router weights the experts' inputs
    "num_hidden_layers": 4,
    "moe_layers": None,  # of which vLLM knows nothing
    "interleave_moe_layer_step": 2,
    "attention_chunk_size": 32,  # a multiple of the size of its blocks
}

CHANGES: dict[str, dict[str, Any]] = {
    "afmoe": {
        "score_func": "sigmoid",
        "route_norm": True,
        "route_scale": 1.0,
        "n_group": 1,
        "topk_group": 1,
    },  # in published configs, as those below
    "hy_v3": {"expert_hidden_dim": 40, "route_norm": True, "qk_norm": True},
    "llama4_text": _LLAMA4,
    "llama4": {"text_config": {**CONFIGS["llama4_text"], **_LLAMA4}},
    "lfm2": {"conv_dim": 128, "block_dim": 128, "block_ff_dim": 144, "block_norm_eps": 1e-5},
    "lfm2_moe": {"conv_dim": 128},
    "minimax_m2": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        "rotary_dim": 16,
        "scoring_func": "sigmoid",
        "use_routing_bias": True,
    },
    "cohere2_moe": {"sliding_window": 512},
    "cohere2": {"sliding_window": 512},  # vLLM's window is one token longer, so the engine reads no longer texts
    "gemma2": {"attn_logit_softcapping": 50.0},  # as Gemma 2's own; at 1, vLLM's kernel for CPUs gives NaN
    "deepseek_v2": _MLA,  # the one size that vLLM's kernel for CPUs knows
    "deepseek_v3": {**_MLA, "topk_method": "noaux_tc"},  # as in its published config
    "glm4_moe_lite": _MLA,
    "glm4_moe": {"routed_scaling_factor": 2.0},  # which vLLM applies to the experts' sum, not to the router's weights
    "aya_vision": {"text_config": {**CONFIGS["aya_vision"]["text_config"], "sliding_window": 512, "logit_scale": 1.0}},
    "falcon": {"ffn_hidden_size": 512, "intermediate_size": 512},  # vLLM knows no other than 4 × the hidden size
}
"""What a tiny model must have besides, so that vLLM can load it."""

PROCESSORS = {"aya_vision": {"image_processor_type": "GotOcr2ImageProcessor", "processor_class": "AyaVisionProcessor"}}
"""Of models that vLLM reads by the transformers library's code, which wants to know how they read images."""


@dataclass(frozen=True)
class Seen:
    """What an engine gives: counts, likelihoods and greedy answers, and the same with some neurons off."""

    counts: LanguageCounts
    likelihoods: list[TextLikelihood]
    answers: list[GeneratedAnswer]
    masked_counts: LanguageCounts
    masked_likelihoods: list[TextLikelihood]
    masked_answers: list[GeneratedAnswer]

    @classmethod
    def of(cls, engine: Engine) -> Seen:
        groups = groups_of(engine.tokenizer, SHORT)
        texts = scored_texts(engine.tokenizer, SHORT)
        counts, likelihoods = engine.count(groups, moments=True), engine.log_likelihood(texts)
        assert_tally(counts, groups)
        answer = partial(engine.generate, prompts_of(engine, SOME), sampling=Sampling(max_new_tokens=8))
        plain = answer()
        with engine.intervene(Intervention.zero(some_neurons(engine))):
            return cls(counts, likelihoods, plain, engine.count(groups), engine.log_likelihood(texts), answer())

    def assert_same(self, other: Seen) -> None:
        assert_same_counts(self.counts, other.counts)
        assert_same_moments(self.counts, other.counts)
        assert_close(self.likelihoods, other.likelihoods)
        assert_same_counts(self.masked_counts, other.masked_counts)
        assert_close(self.masked_likelihoods, other.masked_likelihoods)
        for mine, theirs in zip(self.answers + self.masked_answers, other.answers + other.masked_answers, strict=True):
            assert mine.tokens == theirs.tokens, f"an answer is {mine.tokens}, expected {theirs.tokens}"
            assert mine == theirs


@contextmanager
def inside(folder: Path, **options: Any) -> Iterator[Engine]:
    """vLLM in this process, its workers too."""
    from vllm.distributed import cleanup_dist_env_and_memory

    engine: Engine | None = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", lambda *_: 0)  # also when it ends, see `open_vllm`
        try:
            patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
            engine = open_vllm(folder, distributed_executor_backend="uni", **options)
            yield engine
        finally:
            if engine is not None:
                engine.close()
            cleanup_dist_env_and_memory()  # also what a model that did not load left behind


def compared(kind: str, folder: Path) -> dict[str, str]:
    """The result of one family."""
    try:
        save_tiny_model(kind, folder, **CHANGES.get(kind, {}))
        if kind in PROCESSORS:
            (folder / IMAGE_PROCESSOR_NAME).write_text(json.dumps(PROCESSORS[kind]), encoding="utf-8")
        theirs = Seen.of(TransformersEngine.load(folder, device="cpu", dtype="float32"))
        with inside(folder) as engine:
            Seen.of(engine).assert_same(theirs)
    except EngineError as error:
        return {"model_type": kind, "vllm": "refused", "reason": str(error).replace(f"{folder}", kind)}
    except AssertionError as error:
        said = " ".join(str(error).split()) or str(extract_tb(error.__traceback__)[-1].line)
        return {"model_type": kind, "vllm": "different", "reason": said[:300]}
    config = tiny_config(kind)
    needs = {} if config.get_text_config() is config else {"needs": "torchvision"}
    return {"model_type": kind, "vllm": "equal", **needs}


def tell(folder: Path, kinds: Iterable[str]) -> int:
    """Print the result of each family when it is there; 0, the exit code."""
    for name in kinds:
        print(json.dumps(compared(name, folder / name), ensure_ascii=False), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(tell(Path(sys.argv[1]), sys.argv[2:] or KINDS))

"""The transformers engine: counts and likelihoods from a Hugging Face model (SPEC 2 and 6)."""

from __future__ import annotations

import gc
import platform
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

from ...config import Sampling
from ...core.counts import LanguageCounts
from ...core.interventions import Intervention
from ...core.model import ModelInfo
from ...core.perplexity import TextLikelihood
from ...corpus.encode import GeneratedAnswer, Prompt, PromptGroup, ScoredText, Tokenizer, Tokens
from ...errors import EngineError, SettingsError
from .. import checkpoint
from ..base import Progress
from ..generation import answer_batches, batches, check_prompts, crosses, start_drafts
from . import loading
from .counting import FiringCounter, feed, feed_jobs
from .generating import generate_batch
from .guards import check_sequences, out_of_memory
from .network import Network, hooked, score
from .plan import Batch, Row, plan, trunk_batches

BATCH_TOKENS = {"cpu": 2048, "cuda": 16384, "mps": 4096}
"""Padded tokens per forward, by device, where the caller names none."""

ANSWER_TOKENS = {"cpu": 8192, "cuda": 16384, "mps": 8192}
"""Tokens of prompts and answers in the KV cache at a time, by device, where the caller names none."""


def ignore(_tokens: int) -> None:
    """Progress that nobody looks at."""


class TransformersEngine:
    """A model of the Hugging Face library that counts and scores; the `Engine` protocol says what it promises.

    Attributes:
        model: what was loaded.
        tokenizer: the model's own.
        provenance: engine, versions, device: plain values.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: Tokenizer, *, info: ModelInfo, batch_tokens: int | None = None
    ) -> None:
        """Take over a loaded model; `load` is the usual way.

        Raises:
            UnknownArchitectureError: the model is not built as its architecture's name promises.
        """
        self.model = info
        self.tokenizer = tokenizer
        self._loaded: Network | None = Network.of(model)
        device = self._loaded.device
        self._budget = batch_tokens or BATCH_TOKENS.get(device.type, 4096)
        self._answering = batch_tokens or ANSWER_TOKENS.get(device.type, 8192)
        self.provenance: dict[str, str | int | float | bool] = {
            "engine": "transformers",
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "device": _device_name(device),
            "dtype": info.dtype,
            "batch_tokens": self._budget,
        }

    @classmethod
    def load(
        cls,
        model_path: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        batch_tokens: int | None = None,
        revision: str | None = None,
    ) -> TransformersEngine:
        """Load a model folder or a hub id.

        Args:
            model_path: a folder with config, tokenizer and weights, or a hub id.
            device: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:1", "mps".
            dtype: "auto" (the model's own), "float32", "bfloat16", "float16".
            batch_tokens: padded tokens per forward; by default what suits the device.
            revision: of a hub id.

        Raises:
            SettingsError: no such device or precision, or a batch of no tokens.
            UnknownArchitectureError: the model's neuron sites are not known.
            EngineError: the model cannot be loaded.
        """
        if batch_tokens is not None and batch_tokens < 1:
            raise SettingsError(f"--batch-tokens {batch_tokens}: a batch needs at least 1 token")
        where, precision = loading.pick_device(device), loading.pick_dtype(dtype)
        path = str(Path(model_path).expanduser()) if checkpoint.looks_local(str(model_path)) else str(model_path)
        config = checkpoint.load_config(path, revision)
        tokenizer = checkpoint.load_tokenizer(path, revision)
        model = loading.load_weights(path, config=config, dtype=precision, revision=revision)
        ends = checkpoint.load_end_tokens(path, config=config, tokenizer=tokenizer, revision=revision)
        info = loading.describe(model, path=str(model_path), tokenizer=tokenizer, ends=ends)
        return cls(loading.move(model, where), tokenizer, info=info, batch_tokens=batch_tokens)

    def count(
        self, groups: Sequence[PromptGroup], *, progress: Progress = ignore, moments: bool = False
    ) -> LanguageCounts:
        """Count firings over the full and the prefix sequences of `groups`, each token exactly once, in one pass.

        The decoder runs alone, without its lm_head. `progress` adds up to the tokens of the full sequences.

        Raises:
            EngineError: a sequence is too long, memory runs out, or the model computes NaN.
            SilentHookError: a hook did not fire.
        """
        network = self._network
        self._check([tokens for group in groups for tokens in (group.prefix, *group.full)])
        jobs = [job for group in groups for job in plan(group, switch=network.switch)]
        alone, shared = [job.trunk for job in jobs if not job.branches], [job for job in jobs if job.branches]
        counter = FiringCounter(*network.shape, network.device, moments=moments)
        hooks = [(site.module, counter.hook(site.layer)) for site in network.sites]
        with out_of_memory(self._budget), torch.inference_mode(), hooked(hooks):
            for rows in batches(alone, length=_row_length, budget=self._budget, switch=network.switch):
                feed(network, counter, rows, progress=progress)
            for some in trunk_batches(shared, budget=self._budget):
                feed_jobs(network, counter, some, budget=self._budget, progress=progress)
            return counter.counts()

    def log_likelihood(self, texts: Sequence[ScoredText], *, progress: Progress = ignore) -> list[TextLikelihood]:
        """The negative log-likelihood of each text's actual tokens, from its `start` on, never of its first token.

        `progress` adds up to the tokens of the texts that have something to score.

        Raises:
            EngineError: a sequence is too long, memory runs out, or the model computes NaN.
        """
        network = self._network
        self._check([text.tokens for text in texts])
        results = [TextLikelihood(0.0, 0)] * len(texts)
        wanted = [index for index, text in enumerate(texts) if text.scored_tokens]
        with out_of_memory(self._budget), torch.inference_mode():
            for some in batches(
                wanted, length=lambda index: len(texts[index].tokens), budget=self._budget, switch=network.switch
            ):
                batch = Batch.of([Row(texts[index].tokens, full=1) for index in some], network.device)
                hidden = network.run(batch.tokens).last_hidden_state
                for index, likelihood in zip(
                    some, score([texts[index] for index in some], hidden, network.head), strict=True
                ):
                    results[index] = likelihood
                progress(batch.full_tokens)
        return results

    def generate(
        self, prompts: Sequence[Prompt], *, sampling: Sampling, progress: Progress = ignore
    ) -> list[GeneratedAnswer]:
        """The model's own answers, in the order of the prompts, by `sampling` and nothing else.

        Raises:
            EngineError: a prompt leaves no room for an answer, memory runs out, or the model computes NaN.
        """
        network, model = self._network, self.model
        check_prompts(prompts, longest=model.max_length)
        self._check([prompt.tokens for prompt in prompts])
        answers: dict[int, GeneratedAnswer] = {}
        with out_of_memory(self._answering), torch.inference_mode():
            for batch in self.answer_batches(prompts, sampling=sampling):
                some = [prompts[index] for index in batch]
                drafts = start_drafts(some, sampling=sampling, model=model, tokenizer=self.tokenizer)
                cache = not any(crosses(one, new=sampling.max_new_tokens, switch=network.switch) for one in some)
                given = generate_batch(network.model, some, drafts, sampling=sampling, progress=progress, cache=cache)
                answers.update(zip(batch, given, strict=True))
        return [answers[index] for index in range(len(prompts))]

    def answer_batches(self, prompts: Sequence[Prompt], *, sampling: Sampling) -> list[list[int]]:
        """The batches in which `generate` answers these prompts."""
        return answer_batches(
            prompts,
            new=sampling.max_new_tokens,
            longest=self.model.max_length,
            budget=self._answering,
            switch=self._network.switch,
        )

    def intervene(self, intervention: Intervention) -> AbstractContextManager[None]:
        """While the context is open, the model runs under `intervention`; after it, also by exception, as before.

        Contexts nest: the inner one acts on what the outer one left, both in one map.

        Raises:
            IncompatibleError: the intervention is made for a model of another shape.
            SilentHookError: when the context closes, if the model ran and the intervention never took hold.
        """
        return self._network.interventions.on_top(intervention)

    def close(self) -> None:
        """Give back the model's memory; the engine cannot be used afterwards."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            on_cuda = loaded.device.type == "cuda"
            del loaded
            gc.collect()
            if on_cuda:
                torch.cuda.empty_cache()

    def _check(self, sequences: Sequence[Tokens]) -> None:
        check_sequences(sequences, longest=self.model.max_length, vocabulary=self._network.vocabulary)

    @property
    def _network(self) -> Network:
        if self._loaded is None:
            raise EngineError("the engine is closed: load the model again")
        return self._loaded


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} ({platform.machine()})"


def _row_length(row: Row) -> int:
    return len(row.tokens)

"""The vLLM engine: counts and likelihoods from a model that runs in vLLM's workers (SPEC 2 and 6)."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...config import Sampling
from ...core.counts import LanguageCounts
from ...core.interventions import Intervention
from ...core.model import ModelInfo
from ...core.perplexity import TextLikelihood
from ...corpus.encode import GeneratedAnswer, Prompt, PromptGroup, ScoredText, Tokenizer
from ...errors import EngineError, IncompatibleError, SettingsError, SilentHookError
from ..base import Progress
from ..describe import longest_sequence
from ..generation import answer_batches, check_prompts, start_drafts
from ..sites import class_name
from .assembly import PassStatistics, assemble, check_acted, check_pass, node_losses, statistics
from .launch import (
    Launch,
    check_installed,
    check_lengths,
    check_model,
    check_options,
    max_model_len,
    neurons_per_layer,
    not_finite,
    start,
)
from .process import Process
from .tree import Message, TokenTree, WeightedTree, pack_intervention, pack_tree, shards

SHARD = 2_000_000
"""Tokens of a corpus that are one tree; a longer corpus is counted shard by shard."""

ANSWER_TOKENS = {"cpu": 2**13, "cuda": 2**18}
"""Tokens of prompts and answers that are with vLLM at a time: enough to keep it busy, few enough to lose to a kill."""


class VLLMEngine:
    """A model in vLLM that counts and scores; the `Engine` protocol says what it promises.

    Attributes:
        model: what was loaded.
        tokenizer: the model's own.
        provenance: engine, versions, parallel sizes: plain values.
        last_pass: what the scheduler did in the last `count` or `log_likelihood`.
    """

    def __init__(
        self,
        process: Process,
        tokenizer: Tokenizer,
        *,
        info: ModelInfo,
        provenance: Mapping[str, str | int | float | bool],
    ) -> None:
        """Take over a running vLLM; `load` is the usual way."""
        self.model = info
        self.tokenizer = tokenizer
        self.provenance = dict(provenance)
        self.last_pass = PassStatistics()
        self._process = process
        self._current = Intervention.identity(info.layers, info.d_mlp)

    @classmethod
    def load(
        cls,
        model_path: str,
        *,
        dtype: str = "auto",
        tensor_parallel_size: int = 1,
        pipeline_parallel_size: int = 1,
        distributed_executor_backend: str | None = None,
        batch_tokens: int | None = None,
        engine_args: Mapping[str, Any] | None = None,
        revision: str | None = None,
    ) -> VLLMEngine:
        """Start vLLM on a model, and try the hooks on every rank before anything else.

        Raises:
            MissingEngineError: vLLM is not installed.
            UnknownArchitectureError: the model's neuron sites in vLLM are not known.
            SilentHookError: the hooks do not fire.
            EngineError: vLLM cannot run it as asked.
        """
        pass

        process, tokenizer, info, provenance = load(
            Launch(
                model_path, dtype, tensor_parallel_size, pipeline_parallel_size,
                distributed_executor_backend, batch_tokens, engine_args or {},
            ),
            revision=revision,
        )  # fmt: skip
        engine = cls(process, tokenizer, info=info, provenance=provenance)
        try:
            engine.self_test()
        except BaseException:
            engine.close()
            raise
        return engine

    def count(self, groups: Sequence[PromptGroup], *, progress: Progress, moments: bool = False) -> LanguageCounts:
        """Count firings over the full and the prefix sequences of `groups`, each token exactly once, in one pass."""
        answered = [group for group in groups if group.full]
        sequences = (tokens for group in answered for tokens in (group.prefix, *group.full))
        check_lengths(sequences, longest=self.model.max_length)
        total, done = LanguageCounts.zero(self.model.layers, self.model.d_mlp, moments=moments), PassStatistics()
        for shard in shards(answered, tokens=SHARD):
            weighted = WeightedTree.of(shard)
            if not weighted.tree.nodes:
                continue
            weights = np.stack([weighted.full, weighted.prefix])
            message = pack_tree(weighted.tree, weights=weights, moments=moments)
            reports = self._run(weighted.tree, message, weights=weighted.full, progress=progress)
            total += assemble(reports, layers=self.model.layers, d_mlp=self.model.d_mlp)
            done += statistics(reports)
        self.last_pass = done
        return total

    def log_likelihood(self, texts: Sequence[ScoredText], *, progress: Progress) -> list[TextLikelihood]:
        """The negative log-likelihood of each text's actual tokens, from its `start` on, never of its first token."""
        check_lengths((text.tokens for text in texts), longest=self.model.max_length)
        tree = TokenTree.of(text.tokens for text in texts)
        if not tree.nodes:
            return [TextLikelihood(0.0, 0) for _ in texts]
        wanted = np.zeros(tree.nodes, dtype=bool)
        for text in texts:
            wanted[_scored(tree, text)] = True
        times = tree.weights((text.tokens, 1) for text in texts)
        reports = self._run(tree, pack_tree(tree, scored=wanted), weights=times, progress=progress)
        self.last_pass = statistics(reports)
        losses = node_losses(reports, wanted=wanted).astype(np.float64)
        if not np.isfinite(losses[wanted]).all():
            raise EngineError(not_finite("logits"))
        return [TextLikelihood(float(losses[_scored(tree, text)].sum()), text.scored_tokens) for text in texts]

    def generate(self, prompts: Sequence[Prompt], *, sampling: Sampling, progress: Progress) -> list[GeneratedAnswer]:
        """The model's own answers, in the order of the prompts, by `sampling` and nothing else."""
        model = self.model
        check_prompts(prompts, longest=model.max_length)
        drafts = start_drafts(prompts, sampling=sampling, model=model, tokenizer=self.tokenizer)
        for batch in self.answer_batches(prompts, sampling=sampling):
            some = [(prompts[index], drafts[index]) for index in batch]
            with self._observed("lna_watch", "lna_watched") as infinite:
                self._process.answer(some, sampling=sampling, ends=model.end_tokens, progress=progress)
            if any(infinite):
                raise EngineError(not_finite("hidden states"))
        return [draft.answer() for draft in drafts]

    def answer_batches(self, prompts: Sequence[Prompt], *, sampling: Sampling) -> list[list[int]]:
        """The batches in which `generate` answers these prompts: large, for vLLM makes its own out of them."""
        budget = ANSWER_TOKENS["cpu" if self.provenance.get("device") == "cpu" else "cuda"]
        return answer_batches(prompts, new=sampling.max_new_tokens, longest=self.model.max_length, budget=budget)

    @contextmanager
    def intervene(self, intervention: Intervention) -> Iterator[None]:
        """While the context is open, the model runs under `intervention`, on top of what is in force already."""
        if intervention.scale.shape != self._current.scale.shape:
            raise IncompatibleError(
                f"the intervention is for a model of shape {tuple(intervention.scale.shape)} (layers, d_mlp), "
                f"this one has {tuple(self._current.scale.shape)}: take the mask that was made for this model"
            )
        before = self._current
        try:
            self._switch(before.then(intervention))
            yield
        except BaseException:
            with suppress(EngineError):  # what went wrong matters more than a vLLM that may be gone
                self._switch(before, check=False)
            raise
        self._switch(before)

    def self_test(self) -> None:
        """One small request, counted, scored and under an intervention: every hook on every rank must fire for it.

        Raises:
            SilentHookError: one did not.
            TallyError: tokens were missed.
        """
        tokens = tuple(range(1, 1 + min(8, self.model.max_length)))
        group = PromptGroup(tokens[:3], (tokens,))
        self.count([group], progress=lambda _: None)
        everything = Intervention.identity(self.model.layers, self.model.d_mlp)
        everything = Intervention(everything.scale * 0, everything.shift)
        with self.intervene(everything):
            silenced = self.count([group], progress=lambda _: None)
        if silenced.full.over_zero.any():
            raise EngineError(
                "deactivating every neuron left some firing: this vLLM does not run the model as expected"
            )
        self.log_likelihood([ScoredText(tokens)], progress=lambda _: None)
        self.last_pass = PassStatistics()

    def close(self) -> None:
        """End vLLM's processes and give back their memory."""
        self._process.close()

    def _run(self, tree: TokenTree, message: Message, *, weights: np.ndarray, progress: Progress) -> list[Message]:
        with self._observed("lna_begin", "lna_end", message) as reports:
            self._process.feed(tree, weights=weights, progress=progress)
        check_pass(reports)
        return reports

    @contextmanager
    def _observed(self, begin: str, end: str, *message: Message) -> Iterator[list[Any]]:
        """While the context is open, the workers look on; what they report is in the list when it is closed.

        It begins with an empty prefix cache: what another pass left there would never be fed, so never be seen, and
        may have been computed under another intervention.
        """
        reports: list[Any] = []
        self._process.forget_prefixes()
        self._process.rpc(begin, *message)
        try:
            yield reports
        except BaseException:
            self._process.abandon()
            with suppress(EngineError):  # what went wrong matters more
                self._process.rpc(end)
            raise
        reports += self._process.rpc(end)

    def _switch(self, intervention: Intervention, *, check: bool = True) -> None:
        """Put an intervention in force in every worker; each pass begins with an empty prefix cache anyway."""
        was_touched = bool(self._current.touched.any())
        message = pack_intervention(intervention) if bool(intervention.touched.any()) else None
        reports = self._process.rpc("lna_intervene", message)
        self._current = intervention
        if check:
            check_acted(reports, touched=was_touched)


def _scored(tree: TokenTree, text: ScoredText) -> np.ndarray:
    """The nodes whose likelihood a text's is made of."""
    return tree.paths[text.tokens][max(text.start, 1) :] if text.scored_tokens else np.zeros(0, dtype=np.int32)


# ── From a path to a running vLLM whose workers are attached, everything checked on the way.

DTYPES = ("float32", "bfloat16", "float16")

Json = dict[str, str | int | float | bool]


def load(launch: Launch, *, revision: str | None) -> tuple[Process, Tokenizer, ModelInfo, Json]:
    """Check, start, attach."""
    version = check_installed()
    options = check_options(launch.extra)
    from ..checkpoint import load_config, load_end_tokens, load_tokenizer, looks_local

    if looks_local(launch.path):
        launch = replace(launch, path=str(Path(launch.path).expanduser()))
    config = load_config(launch.path, revision)
    check_model(config, launch)
    tokenizer = load_tokenizer(launch.path, revision)
    launch = _with_dtype(launch, config)
    limit = max_model_len(config, longest_sequence(config, tokenizer), options)
    if revision is not None:
        options["revision"] = revision
    process = Process(start(launch, limit=limit, options=options))
    try:
        ranks = process.rpc("lna_attach", config.model_type, neurons_per_layer(config))
        check_ranks(ranks, launch)
    except BaseException:
        process.close()
        raise
    ends = load_end_tokens(launch.path, config=config, tokenizer=tokenizer, revision=revision)
    info = _describe(config, launch, longest=limit - 1, ends=ends)
    return process, tokenizer, info, _provenance(version, launch, ranks)


def _with_dtype(launch: Launch, config: Any) -> Launch:
    """The model's own precision where the caller names none (vLLM would take float16 for float32)."""
    dtype = (
        launch.dtype
        if launch.dtype != "auto"
        else str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    )
    if dtype not in DTYPES:
        raise SettingsError(f"--dtype {dtype!r} is not known: use auto, {', '.join(DTYPES)}")
    return replace(launch, dtype=dtype)


def check_ranks(ranks: Sequence[Message], launch: Launch) -> None:
    """Refuse a vLLM in which hooks would not fire, before anything is counted.

    Raises:
        EngineError: fewer ranks than asked for, or another model runner.
        SilentHookError: compiled forwards.
    """
    if len(ranks) != launch.tensor * launch.pipeline:
        raise EngineError(f"vLLM runs {len(ranks)} ranks, {launch.tensor} × {launch.pipeline} were asked for")
    for rank in ranks:
        if not rank["v1_runner"]:
            raise EngineError(
                f"vLLM runs the model runner {rank['runner']}, but the counting worker reads the steps "
                "of the V1 model runner: "
                "unset VLLM_USE_V2_MODEL_RUNNER"
            )
        if not rank["eager"]:
            raise SilentHookError(
                "vLLM compiled the model, and compiled forwards do not call hooks: leave enforce_eager alone"
            )


def _describe(config: Any, launch: Launch, *, longest: int, ends: tuple[int, ...]) -> ModelInfo:
    return ModelInfo(
        path=launch.path,
        architecture=class_name(config) or config.model_type,
        layers=config.num_hidden_layers,
        d_mlp=neurons_per_layer(config),
        max_length=longest,
        dtype=launch.dtype,
        end_tokens=ends,
    )


def _provenance(version: str, launch: Launch, ranks: Sequence[Message]) -> Json:
    import torch

    return {
        "engine": "vllm",
        "vllm": version,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": ranks[0]["device"],
        "tensor_parallel_size": launch.tensor,
        "pipeline_parallel_size": launch.pipeline,
    }

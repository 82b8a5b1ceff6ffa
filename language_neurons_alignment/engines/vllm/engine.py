"""The vLLM engine: counts, likelihoods and answers from a model that runs in vLLM's workers."""

from __future__ import annotations

import logging
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._gguf import is_gguf
from ...config import Sampling
from ...core.counts import LanguageCounts
from ...core.interventions import Intervention
from ...core.model import SILENT, ModelInfo, Progress
from ...core.perplexity import TextLikelihood
from ...corpus.encode import GeneratedAnswer, Prompt, PromptGroup, ScoredText, Tokenizer, Tokens
from ...errors import EngineError, SilentHookError, UnknownArchitectureError
from .. import checkpoint
from ..adapter import open_adapter, put_onto
from ..base import check_shape, no_lens, not_finite
from ..families import class_name, family_of, neurons_per_layer
from ..folder import check_weight_files
from ..generation import Follow, PartialAnswer, check_prompts
from ..quantization import describe_quantization, method_of
from ..transformers.loading import load_weights, with_a_place
from .gather import check_acted, check_loaded, check_pass, gather_counts, gather_experts, gather_losses
from .launch import (
    Launch,
    check_backend,
    check_installed,
    check_invariant,
    check_model,
    check_options,
    explained,
    lora_options,
    max_model_len,
    start,
)
from .messages import Message, PassStatistics, pack_intervention, pack_tree
from .process import Process
from .runner import COMPARED
from .tree import Cut, PrefixTree, shards, weighted_tree
from .watch import Guard

_log = logging.getLogger(__name__)

SHARD = 2_000_000
"""Tokens of a corpus in one prefix tree; a longer corpus is counted tree by tree."""

_ROUNDING = 0.05
"""The share of firings that may differ where the same text is computed beside other rows."""

ANSWER_TOKENS = {"cpu": 2**13, "cuda": 2**18}
"""Tokens of prompts and answers inside vLLM at a time: enough to keep it busy, few enough to lose when interrupted."""


class VLLMEngine:
    """A model in vLLM; `engines.base.Engine` describes what its methods promise.

    `last_pass` tells what the scheduler did in the last `count` or `log_likelihood`.
    """

    at_once = 1

    def __init__(
        self,
        process: Process,
        tokenizer: Tokenizer,
        *,
        info: ModelInfo,
        provenance: Mapping[str, str | int | float | bool],
        batch_invariant: bool = False,
    ) -> None:
        """Take over a running vLLM; `load` is the usual way."""
        self.model = info
        self.tokenizer = tokenizer
        self.provenance = dict(provenance)
        self.last_pass = PassStatistics()
        self.batching = Cut(
            answering=ANSWER_TOKENS["cpu" if self.provenance.get("device") == "cpu" else "cuda"],
            invariant=batch_invariant,
            longest=info.max_length,
        )
        self._process = process
        self._current = Intervention.identity(info.layers, info.d_mlp)

    @classmethod
    def load(
        cls,
        model_path: str,
        *,
        dtype: str = "auto",  # the model's own
        tensor_parallel_size: int = 1,  # how many ranks share each layer
        pipeline_parallel_size: int = 1,  # how many ranks share the layers
        distributed_executor_backend: str | None = None,  # "mp" or "ray"; None: vLLM's own choice
        batch_tokens: int | None = None,  # the most tokens of one step
        batch_invariant: bool = False,  # no result depends on what else is computed
        engine_args: Mapping[str, Any] | None = None,  # other options of vLLM
        adapter: str | None = None,  # a LoRA adapter of this model: folder or hub id
        adapter_live: bool = False,  # computed by vLLM beside the weights; else merged into a temporary model folder
        revision: str | None = None,
    ) -> VLLMEngine:
        """Start vLLM on a model, and test the hooks on every rank first."""
        launch = Launch(
            model_path, dtype, tensor_parallel_size, pipeline_parallel_size,
            distributed_executor_backend, batch_tokens, engine_args or {}, batch_invariant,
            open_adapter(adapter, base=model_path, live=adapter_live),
        )  # fmt: skip
        process, tokenizer, info, provenance = _load(launch, revision=revision)
        engine = cls(process, tokenizer, info=info, provenance=provenance, batch_invariant=batch_invariant)
        try:
            engine.self_test()
        except BaseException:
            engine.close()
            raise
        return engine

    def count(
        self, groups: Sequence[PromptGroup], *, progress: Progress = SILENT, moments: bool = False
    ) -> LanguageCounts:
        """Count firings over the full and the prefix sequences of `groups` in one pass, each token exactly once."""
        answered = [group for group in groups if group.full]
        self.batching.check(tokens for group in answered for tokens in (group.prefix, *group.full))
        trees = shards(answered, tokens=1 if self.batching.invariant else SHARD)  # 1: each group has its own tree
        return self.count_batches(trees, progress=progress, moments=moments)

    def count_batches(
        self, batches: Iterable[Sequence[PromptGroup]], *, progress: Progress = SILENT, moments: bool = False
    ) -> LanguageCounts:
        """Count groups, those of each batch as one prefix tree."""
        model, done = self.model, PassStatistics()
        total = LanguageCounts.zero(model.layers, model.d_mlp, moments=moments, experts=model.experts)
        for shard in batches:
            tree, weights = weighted_tree(shard)
            if not tree.nodes:
                continue
            message = pack_tree(tree, weights=weights, moments=moments)
            reports = self._run(tree, message, weights=weights[0], progress=progress)
            total += gather_counts(reports, layers=model.layers, d_mlp=model.d_mlp, experts=model.experts)
            done += PassStatistics(**reports[0]["statistics"])
        self.last_pass = done
        return total

    def log_likelihood(self, texts: Sequence[ScoredText], *, progress: Progress = SILENT) -> list[TextLikelihood]:
        """The negative log-likelihood of each text's tokens from its `start` on; a first token has none."""
        if self.batching.invariant and len(texts) > 1:
            return [one for text in texts for one in self.log_likelihood([text], progress=progress)]
        self.batching.check(text.tokens for text in texts)
        tree = PrefixTree.of(text.tokens for text in texts)
        if not tree.nodes:
            return [TextLikelihood(0.0, 0) for _ in texts]
        wanted = np.zeros(tree.nodes, dtype=bool)
        for text in texts:
            wanted[_scored(tree, text)] = True
        times = tree.weights((text.tokens, 1) for text in texts)
        reports = self._run(tree, pack_tree(tree, scored=wanted), weights=times, progress=progress)
        self.last_pass = PassStatistics(**reports[0]["statistics"])
        losses = gather_losses(reports, wanted=wanted).astype(np.float64)
        if not np.isfinite(losses[wanted]).all():
            raise not_finite("logits")
        return [TextLikelihood(float(losses[_scored(tree, text)].sum()), text.scored_tokens) for text in texts]

    def lens(self, *_texts: Any, **_choices: Any) -> list[Tensor]:
        """Refuse: vLLM keeps what layers give to itself."""
        raise no_lens()

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        sampling: Sampling,
        progress: Progress = SILENT,
        follow: Follow | None = None,
    ) -> list[GeneratedAnswer]:
        """The model's own answers, in the order of the prompts."""
        model = self.model
        check_prompts(prompts, longest=model.max_length)
        partial = PartialAnswer.each(prompts, follow, sampling=sampling, model=model, tokenizer=self.tokenizer)
        for batch in self.answer_batches(prompts, sampling=sampling):
            asked = [(prompts[index], partial[index]) for index in batch]
            with self._observed(None) as reports:
                self._process.answer(
                    asked, sampling=sampling, ends=model.end_tokens, progress=progress, each=follow is not None
                )
            if any(report["infinite"] for report in reports):
                raise not_finite("hidden states")
        return [one.answer() for one in partial]

    def answer_batches(self, prompts: Sequence[Prompt], *, sampling: Sampling) -> list[list[int]]:
        """The batches, by position, in which `generate` answers these prompts; vLLM schedules inside a batch."""
        return self.batching.answer_batches(prompts, sampling=sampling)

    @contextmanager
    def intervene(self, intervention: Intervention) -> Iterator[None]:
        """While the context is open, the model runs under `intervention`, on top of those already in force."""
        check_shape(intervention, self.model.layer_widths)
        before = self._current
        try:
            self._switch(before.then(intervention))
            yield
        except BaseException:
            with suppress(EngineError):  # the first error matters more, and vLLM may be gone
                self._switch(before, check=False)
            raise
        self._switch(before)

    def reuse(self, interventions: Sequence[Intervention], *, tokens: int) -> AbstractContextManager[None]:
        """Nothing: vLLM's workers keep no states of single layers."""
        return nullcontext()

    def self_test(self) -> None:
        """Count and score one short sequence, also with every neuron off: every hook on every rank must act.

        The sequence's beginning is counted alone, too: a text must fire the same neurons whatever stands behind it.
        """
        tokens = tuple(range(1, 1 + min(8, self.model.max_length)))
        group = PromptGroup(tokens[:3], (tokens,))
        counted = self.count([group])
        alone = self.count([PromptGroup(tokens[:1], (group.prefix,))]).full.over_zero
        if int((counted.prefix.over_zero - alone).abs().sum()) > _ROUNDING * int(alone.sum()):
            raise UnknownArchitectureError(
                f"{self.model.architecture} in vLLM is not causal: other neurons fire on a text alone than on the same "
                "text with more behind it; only decoders are supported"
            )
        nothing = Intervention.identity(self.model.layers, self.model.d_mlp)
        with self.intervene(Intervention(nothing.scale * 0, nothing.shift)):
            silenced = self.count([group])
            reports = _trace(self._process, self.model.architecture, tokens, end="lna_end")
        if silenced.full.over_zero.any():
            raise EngineError(
                "deactivating every neuron left some firing: this vLLM does not run the model as expected"
            )
        for report in reports:
            if report["reached"]:
                raise UnknownArchitectureError(
                    f"{self.model.architecture} in vLLM: setting the activations to zero does not reach the down "
                    f"projections of layers {report['reached'][:4]}, so interventions would do nothing; "
                    "try --engine transformers"
                )
        for report in _trace(self._process, self.model.architecture, tokens, end="lna_end"):
            if report["unused"]:
                raise UnknownArchitectureError(
                    f"{self.model.architecture} in vLLM: layers {report['unused'][:4]} give the same whatever their "
                    "down projections give, so these are not their neurons; try --engine transformers"
                )
        self.log_likelihood([ScoredText(tokens)])
        self.last_pass = PassStatistics()

    def close(self) -> None:
        """End vLLM's processes and give back their memory; the engine cannot be used afterwards."""
        self._process.close()

    def _run(self, tree: PrefixTree, message: Message, *, weights: np.ndarray, progress: Progress) -> list[Message]:
        """Run a tree's leaves under observation, and check the workers' reports."""
        with self._observed(message) as reports:
            self._process.feed(tree, weights=weights, progress=progress)
        check_pass(reports)
        return reports

    @contextmanager
    def _observed(self, message: Message | None) -> Iterator[list[Message]]:
        """While the context is open, the workers observe what the model runs; then the list holds their reports.

        The prefix cache is emptied first: what an earlier pass left there would not be computed, so the workers would
        not see it, and it may belong to another intervention.
        """
        reports: list[Message] = []
        self._process.forget_prefixes()
        self._process.rpc("lna_begin", message)
        try:
            yield reports
        except BaseException:
            self._process.abandon()
            with suppress(EngineError):  # the first error matters more
                self._process.rpc("lna_end")
            raise
        reports += self._process.rpc("lna_end")

    def _switch(self, intervention: Intervention, *, check: bool = True) -> None:
        """Put an intervention in force in every worker, and check that the one before it acted."""
        touched = bool(self._current.touched.any())
        message = pack_intervention(intervention) if bool(intervention.touched.any()) else None
        reports = self._process.rpc("lna_intervene", message)
        self._current = intervention
        if check:
            check_acted(reports, touched=touched)


def _scored(tree: PrefixTree, text: ScoredText) -> np.ndarray:
    """The nodes of a text's scored tokens."""
    return tree.paths[text.tokens][max(text.start, 1) :] if text.scored_tokens else np.zeros(0, dtype=np.int32)


def _trace(process: Process, name: str, tokens: Tokens, *, end: str) -> list[Message]:
    """Follow a text through the model's layers, and end that with this method of the workers."""
    tree = PrefixTree.of([tokens])
    process.forget_prefixes()
    process.rpc("lna_trace")
    what = f"vLLM does not run {name} on a few tokens, so its neurons cannot be proved (try --engine transformers)"
    process.feed(tree, weights=np.ones(tree.nodes, dtype=np.int64), progress=SILENT, what=what)
    return process.rpc(end)


def _find(process: Process, name: str, tokens: Tokens) -> list[Message]:
    """What the ranks found while they followed a text."""
    ranks = _trace(process, name, tokens, end="lna_find")
    while any(rank.get("again") for rank in ranks):  # each time another module was corrected
        ranks = _trace(process, name, tokens, end="lna_find")
    if corrected := {what for rank in ranks for what in rank.get("corrected", ())}:
        _log.warning(
            "on this device, vLLM computes the %s of %s differently from the model's equation: "
            "the equation is computed instead",
            " and the ".join(sorted(corrected)),
            name,
        )
    return ranks


def _load(
    launch: Launch, *, revision: str | None
) -> tuple[Process, Tokenizer, ModelInfo, dict[str, str | int | float | bool]]:
    """Check the options and the model, start vLLM, and attach its workers to the neurons."""
    version = check_installed()
    check_backend(launch, version=version)
    check_invariant(launch)
    options = check_options(launch.extra)
    checkpoint.check_dtype(launch.dtype)
    path = checkpoint.expand(launch.path)
    if is_gguf(path):
        raise EngineError(
            f"{path} is a GGUF file, in which neurons are counted with transformers alone: use --engine transformers, "
            "or give vLLM the model folder that the file was made from"
        )
    config: Any = checkpoint.load_config(path, revision)
    check_model(config, launch)
    added = launch.adapter
    options |= lora_options(added)
    check_weight_files(path)
    tokenizer = checkpoint.load_tokenizer(added.tokenizer_folder(path) if added else path, revision)
    checkpoint.warn_of_files_beside(path, config=config, tokenizer=tokenizer)
    own = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")  # vLLM would use float16 for float32
    launch = replace(launch, path=path, dtype=own if launch.dtype == "auto" else launch.dtype)
    checkpoint.check_dtype(launch.dtype)
    text = config.get_text_config()
    if text is not config:  # a model that reads more than text: only the part for text is loaded
        options.setdefault("language_model_only", True)
        # some of these classes (vLLM's for any model of the transformers library) build its processor anyway
        options |= {"skip_tokenizer_init": False, "tokenizer": path}
    limit = max_model_len(text, checkpoint.longest_sequence(text, tokenizer), options)
    family = family_of(config)
    if family.longest_in_vllm and (same := family.longest_in_vllm(text)):
        limit = min(limit, same + 1)
    if (tuned := getattr(text, "attn_temperature_tuning", None)) is not None:  # Llama 4; vLLM goes by its length limit
        given = options.get("override_generation_config") or {}
        options["override_generation_config"] = {**given, "attn_temperature_tuning": tuned}
    if family.for_vllm and text is config:
        options["hf_overrides"] = {**family.for_vllm(config), **options.get("hf_overrides", {})}
    if revision is not None:
        options["revision"] = revision
    d_mlp, architecture = neurons_per_layer(config), class_name(config) or config.model_type
    ends = checkpoint.load_end_tokens(path, config=config, tokenizer=tokenizer, revision=revision)
    guard = Guard()
    try:
        with _model_folder(launch, config=config, revision=revision) as folder:
            running = start(replace(launch, path=folder), limit=limit, options=options, guard=guard)
        process = Process(running, guard, adapter=str(added.folder) if added and added.live else None)
    except BaseException:
        guard.close()
        raise
    try:
        check_ranks(attached := process.rpc("lna_attach", d_mlp), launch)
        named = partial(with_a_place, path, config=config, revision=revision)
        check_loaded(attached, path=path, method=method_of(config), text_only=text is config, places=named)
        ranks = _find(process, architecture, _probe(text.vocab_size, limit - 1))
        check_sites(ranks, layers=text.num_hidden_layers)
        experts, d_mlp = gather_experts(ranks), max(rank["neurons"] for rank in ranks) * launch.tensor
    except BaseException:
        process.close()
        raise
    info = ModelInfo(
        path=path,
        architecture=architecture,
        layers=text.num_hidden_layers,
        d_mlp=d_mlp,
        max_length=limit - 1,
        dtype=launch.dtype,
        end_tokens=ends,
        experts=experts,
    )
    provenance: dict[str, str | int | float | bool] = {
        "engine": "vllm",
        "vllm": version,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": ranks[0]["device"],
        "tensor_parallel_size": launch.tensor,
        "pipeline_parallel_size": launch.pipeline,
        **({"batch_invariant": True} if launch.invariant else {}),
        **describe_quantization(config),
        **(added.provenance if added else {}),
    }
    return process, tokenizer, info, provenance


def _probe(vocabulary: int, longest: int) -> Tokens:
    """Tokens spread over the vocabulary, no more than a model can read."""
    return tuple(place * vocabulary // 8 for place in range(1, 1 + min(7, longest)))


def check_sites(ranks: Sequence[Message], *, layers: int) -> None:
    """Refuse a model in which a rank could not prove the neurons of its layers, or has other layers than the config."""
    for rank in ranks:
        if "refused" in rank:
            raise UnknownArchitectureError(rank["refused"])
    found = sorted({layer for rank in ranks for layer in rank["layers"]})
    if found != list(range(layers)):
        raise UnknownArchitectureError(
            f"neurons were found in {len(found)} decoder layers of vLLM's model, its config names {layers}: "
            "its numbers could be silently wrong, so it is refused; try --engine transformers"
        )


@contextmanager
def _model_folder(launch: Launch, *, config: Any, revision: str | None) -> Iterator[str]:
    """What vLLM loads: the model as it is, or, until it has loaded it, the model with an adapter merged."""
    added = launch.adapter
    if added is None or added.live:
        yield launch.path
        return
    if (method := method_of(config)) is not None:
        raise EngineError(
            f"the adapter {added.path} cannot be merged into quantized weights ({method}) without rounding them anew: "
            "give --adapter-live too"
        )
    dtype = checkpoint.DTYPES[launch.dtype]
    with tempfile.TemporaryDirectory(prefix="lna-merged-") as folder:
        model = put_onto(load_weights(launch.path, config=config, dtype=dtype, revision=revision), added)
        with explained(f"cannot save the model with the adapter merged in {folder} (TMPDIR chooses another place)"):
            model.save_pretrained(folder)
            for file in checkpoint.processor_files(launch.path, revision):
                shutil.copy(file, folder)
        del model
        yield folder


def check_ranks(ranks: Sequence[Message], launch: Launch) -> None:
    """Refuse a vLLM in which hooks would not fire, before anything is counted."""
    if len(ranks) != launch.tensor * launch.pipeline:
        raise EngineError(f"vLLM runs {len(ranks)} ranks, {launch.tensor} × {launch.pipeline} were asked for")
    for rank in ranks:
        if rank["runner_version"] not in COMPARED:
            raise EngineError(
                f"vLLM runs the model runner {rank['runner']}, under which no counts were ever compared with another "
                "engine's; the V1 runner is expected: unset VLLM_USE_V2_MODEL_RUNNER, and leave out --engine-arg "
                "options that need the V2 runner"
            )
        if not rank["eager"]:
            raise SilentHookError(
                "vLLM compiled the model, and compiled forwards do not call hooks: leave enforce_eager alone"
            )

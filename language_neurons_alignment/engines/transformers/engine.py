"""The transformers engine: counts, likelihoods and answers from a model of the Hugging Face library."""

from __future__ import annotations

import gc
import platform
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from jaxtyping import Float64, Int64
from torch import Tensor

from ..._gguf import is_gguf
from ...config import Sampling
from ...core.counts import LanguageCounts
from ...core.interventions import Intervention
from ...core.model import SILENT, ModelInfo, Progress
from ...core.perplexity import TextLikelihood
from ...core.readings import LanguageReadings, Readout
from ...corpus.encode import GeneratedAnswer, Prompt, PromptGroup, ScoredText, Tokenizer
from ...errors import EngineError, LNAWarning, SettingsError, UnknownArchitectureError
from .. import checkpoint, gguf
from ..adapter import open_adapter, put_onto
from ..base import CLOSED, check_batch_choices
from ..folder import check_weight_files
from ..generation import Follow, PartialAnswer, check_prompts, crosses
from ..quantization import check_quantization, describe_quantization, method_of, no_talk
from . import ablating, guest, loading, reading, writing
from .compiled import CompiledCounter, check_backend
from .counting import FiringCounter, feed, feed_jobs
from .folding import fold
from .generating import generate_batch
from .interventions import hooked
from .lens import LensHead, read_batch
from .network import Network, score
from .plan import Batch, BatchRow, Cut, Job
from .reuse import LayerReuse
from .sites import NeuronSite

BATCH_TOKENS = {"cpu": 2048, "cuda": 16384, "mps": 4096}
"""Padded tokens per forward, by device, where the caller sets none."""

TOGETHER = 2048
"""Padded tokens per forward of one question's answers under `batch_invariant`, on every device."""

KEPT = 0.25
"""The share of a device's free memory that kept states may take (`reuse`)."""

GRAPH = 4
"""How many times fewer tokens a forward has whose activations all stay for a backward pass."""

ANSWER_TOKENS = {"cpu": 8192, "cuda": 16384, "mps": 8192}
"""Tokens of prompts and answers in the KV cache at a time, by device, where the caller sets none."""


class TransformersEngine:
    """A model of the Hugging Face library; `engines.base.Engine` describes what its methods promise."""

    at_once = 1

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        *,
        info: ModelInfo,
        batch_tokens: int | None = None,
        batch_invariant: bool = False,
        compiled: str | None = None,
        weights: Mapping[str, str] | None = None,  # what results say of an adapter and of quantised weights
        guest: bool = False,  # the model is its caller's, and is left as it is
    ) -> None:
        """Take over a loaded model; `load` is the usual way."""
        self.model = info
        self.tokenizer = tokenizer
        self._loaded: Network | None = network
        self._reused: LayerReuse | None = None
        self._guest = guest
        device = self._loaded.device
        on_cuda = device.type == "cuda"
        fit = partial(loading.batch_that_fits, network)
        self.batching = Cut(
            budget=TOGETHER if batch_invariant else batch_tokens or fit(BATCH_TOKENS.get(device.type, 4096)),
            answering=batch_tokens or fit(ANSWER_TOKENS.get(device.type, 8192)),
            invariant=batch_invariant,
            longest=info.max_length,
            vocabulary=network.vocabulary,
            switch=network.switch,
            shares=network.shares,
            padded=checkpoint.unpadded_above(network.model.config.get_text_config()),
            mixes=network.mixes,
        )
        self._compiled = None if compiled is None else CompiledCounter(network, backend=compiled)
        self.provenance: dict[str, str | int | float | bool] = {
            "engine": "transformers",
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name(device) if on_cuda else f"{device} ({platform.machine()})",
            "dtype": info.dtype,
            "batch_tokens": self.batching.budget,
            **({"batch_invariant": True} if batch_invariant else {}),
            **({"compiled": compiled} if compiled is not None else {}),
            **(weights or {}),
        }

    @classmethod
    def load(
        cls,
        model_path: str | Path,
        *,
        device: str = "auto",  # CUDA, else MPS, else the CPU
        dtype: str = "auto",  # the model's own
        batch_tokens: int | None = None,  # padded tokens per forward; None: a number that suits the device
        batch_invariant: bool = False,  # no result depends on what else is computed
        adapter: str | None = None,  # a LoRA adapter of this model: folder or hub id
        adapter_live: bool = False,  # computed beside the weights; else merged into them
        quantization: str | None = None,  # one of `engines.quantization.QUANTIZATIONS`
        compiled: str | None = None,  # torch.compile's backend ("inductor") for counting; None: not compiled
        revision: str | None = None,
    ) -> TransformersEngine:
        """Load a model folder, a GGUF file or a hub id."""
        if batch_tokens is not None and batch_tokens < 1:
            raise SettingsError(f"--batch-tokens {batch_tokens}: a batch needs at least 1 token")
        check_batch_choices(batch_tokens, batch_invariant)
        if compiled is not None:
            check_backend(compiled)
        where = loading.pick_device(device)
        checkpoint.check_dtype(dtype)
        path = checkpoint.expand(model_path)
        config = checkpoint.load_config(path, revision)
        check_quantization(path, config, quantization)
        check_weight_files(path)
        added = open_adapter(adapter, base=path, live=adapter_live)
        stored = copy(config)  # loading changes what it says of quantised weights
        tokenizer = checkpoint.load_tokenizer(added.tokenizer_folder(path) if added else path, revision)
        checkpoint.warn_of_files_beside(path, config=config, tokenizer=tokenizer)
        model = loading.load_weights(
            path,
            config=config,
            dtype=checkpoint.DTYPES.get(dtype, dtype),
            revision=revision,
            device=where,
            quantization=quantization,
        )
        weights: dict[str, str] = describe_quantization(stored, model.config)
        if added is not None:
            if method_of(model.config) is not None and not adapter_live:
                raise EngineError(
                    f"the adapter {adapter} cannot be merged into quantized weights ({weights['quantization']}) "
                    "without rounding them anew: give --adapter-live too"
                )
            model, weights = put_onto(model, added), {**weights, **added.provenance}
        ends = checkpoint.load_end_tokens(path, config=config, tokenizer=tokenizer, revision=revision)
        try:
            with no_talk(method_of(stored)):  # kernels that are compiled in the first forward
                network = Network.of(loading.move(model, where))
        except UnknownArchitectureError as error:
            if method_of(stored) is None or dtype == "auto":
                raise
            raise UnknownArchitectureError(
                f"{error} (its weights are quantized, {weights['quantization']}, and may compute in one precision "
                f"only: leave --dtype {dtype} out)"
            ) from error
        info = loading.describe(network, path=str(model_path), tokenizer=tokenizer, ends=ends)
        if network.experts is not None and method_of(model.config) == "bitsandbytes":
            weights["quantization"] += f" (experts in {info.dtype})"
            warnings.warn(
                f"bitsandbytes quantizes linear maps alone: the experts of {path} stay in {info.dtype}, and take as "
                "much memory as without quantization",
                LNAWarning,
                stacklevel=2,
            )
        if is_gguf(path):
            weights = {**weights, "gguf": gguf.stored_as(path)}
        return cls(
            network,
            tokenizer,
            info=info,
            batch_tokens=batch_tokens,
            batch_invariant=batch_invariant,
            compiled=compiled,
            weights=weights,
        )

    @classmethod
    def of(cls, model: Any, tokenizer: Any, *, batch_tokens: int | None = None) -> TransformersEngine:
        """Run a model that its caller has loaded, and leave it as it is: on its device, in its precision and mode.

        Args:
            model: of the transformers library, or a LoRA model of peft.
            tokenizer: the model's own, or where it lies.
            batch_tokens: padded tokens per forward; None: a number that suits the device.

        Raises:
            SettingsError: it is no such model, or there is no tokenizer.
            UnknownArchitectureError: its neurons cannot be proved.
        """
        model, tokenizer = guest.checked(model, tokenizer)
        with guest.left_alone(model):
            network = Network.of(model)
        ends = checkpoint.end_tokens(model.config.get_text_config(), model.generation_config, tokenizer)
        info = loading.describe(network, path=guest.name_of(model), tokenizer=tokenizer, ends=ends)
        weights = describe_quantization(model.config, model.config)
        return cls(network, tokenizer, info=info, batch_tokens=batch_tokens, weights=weights, guest=True)

    @property
    def weights_hash(self) -> str:
        """A digest of the weights as they are now; "" for a model that was loaded from files, which have their own."""
        return guest.weights_hash(self._network.model) if self._guest else ""

    @contextmanager
    def _at_work(self, batch_tokens: int) -> Iterator[None]:
        """The model computes for us: without gradients, and a caller's model as it is left behind afterwards."""
        working = guest.at_work(self._network) if self._guest else torch.inference_mode()
        with _out_of_memory(batch_tokens), without_cudnn_attention(), working:
            yield

    def count(
        self, groups: Sequence[PromptGroup], *, progress: Progress = SILENT, moments: bool = False
    ) -> LanguageCounts:
        """Count firings over the full and the prefix sequences of `groups` in one pass, each token exactly once.

        The decoder runs alone, without its lm_head. With `compiled`, forwards that need no KV cache are compiled where
        no intervention is in force.
        """
        self.batching.check([tokens for group in groups for tokens in (group.prefix, *group.full)])
        return self.count_batches(self.batching.count_batches(groups), progress=progress, moments=moments)

    def count_batches(
        self, batches: Iterable[Sequence[Job]], *, progress: Progress = SILENT, moments: bool = False
    ) -> LanguageCounts:
        """Count batches that `batching` cut."""
        budget = self.batching.budget
        with self._at_work(budget), self._counting(moments=moments) as counter:
            whole = counter.network if isinstance(counter, CompiledCounter) else self._network
            for jobs in batches:
                if jobs[0].rest:
                    feed_jobs(self._network, counter, jobs, budget=budget, progress=progress)
                else:
                    feed(whole, counter, [job.first for job in jobs], progress=progress)
            with torch.inference_mode(False):  # counts are the caller's, who may change them in place
                return counter.counts()

    @contextmanager
    def _counting(self, *, moments: bool) -> Iterator[FiringCounter | CompiledCounter]:
        """While the context is open, the model's firings are counted."""
        network = self._network
        if self._compiled is not None and not bool(network.interventions.current.touched.any()):
            with self._compiled.counting(moments=moments) as counter:
                yield counter
            return
        with torch.inference_mode(False):  # what it gives out is no inference tensor
            counter = FiringCounter(network.sites, network.device, moments=moments)
        with hooked(counter.hooks()):
            yield counter

    def log_likelihood(self, texts: Sequence[ScoredText], *, progress: Progress = SILENT) -> list[TextLikelihood]:
        """The negative log-likelihood of each text's tokens from its `start` on; a first token has none.

        `progress` adds up to the tokens of the texts that have something to score.
        """
        network = self._network
        self.batching.check([text.tokens for text in texts])
        results = [TextLikelihood(0.0, 0)] * len(texts)
        with self._at_work(self.batching.budget):
            for indices in self.batching.score_batches(texts):
                some = [texts[index] for index in indices]
                batch = Batch.of([BatchRow(text.tokens, full=1) for text in some], network.device)
                if self._reused is None:
                    hidden = network.run(batch.tokens).last_hidden_state
                else:
                    hidden = self._reused.run([text.tokens for text in some], batch.tokens)
                for index, likelihood in zip(indices, score(some, hidden, network.head), strict=True):
                    results[index] = likelihood
                progress(batch.full_tokens)
        return results

    def lens(
        self,
        texts: Sequence[ScoredText],
        read: Sequence[Sequence[int]],
        group: Int64[Tensor, " token"],
        *,
        groups: int,
        progress: Progress = SILENT,
    ) -> list[Float64[Tensor, "layer measure"]]:
        """What the logit lens reads behind each layer, summed over some places of each text."""
        network = self._network
        self.batching.check([text.tokens for text in texts])
        results = [torch.zeros(0, dtype=torch.float64)] * len(texts)
        with self._at_work(self.batching.budget):
            readout = LensHead.of(network)
            members = torch.zeros(network.head.vocabulary, groups, device=network.device)
            members[:, groups - 1] = 1.0  # rows of the matrix behind the tokenizer's last token
            known = group[: len(members)]
            members[: len(known)] = torch.nn.functional.one_hot(known, groups).to(members)
            for indices in self.batching.score_batches(texts, every=True):
                some = [texts[index] for index in indices]
                batch = Batch.of([BatchRow(text.tokens, full=1) for text in some], network.device)
                places = [read[index] for index in indices]
                found = read_batch(network, readout, batch.tokens, some, places, members)
                for index, sums in zip(indices, found, strict=True):
                    results[index] = sums.clone()
                progress(batch.full_tokens)
        return results

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        sampling: Sampling,
        progress: Progress = SILENT,
        follow: Follow | None = None,
    ) -> list[GeneratedAnswer]:
        """The model's own answers, in the order of the prompts."""
        network, model = self._network, self.model
        check_prompts(prompts, longest=model.max_length)
        self.batching.check([prompt.tokens for prompt in prompts])
        answers: dict[int, GeneratedAnswer] = {}
        begun = PartialAnswer.each(prompts, follow, sampling=sampling, model=model, tokenizer=self.tokenizer)
        with self._at_work(self.batching.answering):
            for batch in self.answer_batches(prompts, sampling=sampling):
                some = [prompts[index] for index in batch]
                partial = [begun[index] for index in batch]
                crossing = any(crosses(one, new=sampling.max_new_tokens, switch=network.switch) for one in some)
                cache = network.pads and not crossing
                given = generate_batch(network.model, some, partial, sampling=sampling, progress=progress, cache=cache)
                answers.update(zip(batch, given, strict=True))
        return [answers[index] for index in range(len(prompts))]

    def answer_batches(self, prompts: Sequence[Prompt], *, sampling: Sampling) -> list[list[int]]:
        """The batches, by position, in which `generate` answers these prompts."""
        return self.batching.answer_batches(prompts, sampling=sampling)

    def intervene(self, intervention: Intervention) -> AbstractContextManager[None]:
        """While the context is open, the model runs under `intervention`, on top of those already in force."""
        if self._guest:
            return guest.changed(self._network, intervention)
        return self._network.interventions.on_top(intervention)

    @contextmanager
    def reuse(self, interventions: Sequence[Intervention], *, tokens: int) -> Iterator[None]:
        """While the context is open, `log_likelihood` keeps what the first layers give for a batch (`reuse`).

        States take at most `KEPT` of the device's memory that is free now; batches beyond that are computed whole.
        """
        network, before = self._network, self._reused
        memory = int(KEPT * loading.free_memory(network.device))
        with self._at_work(self.batching.budget):
            self._reused = LayerReuse(network, interventions, tokens=tokens, memory=memory)
        try:
            yield
        finally:
            self._reused = before

    def fold(self, intervention: Intervention, files: Mapping[str, Path]) -> Iterator[tuple[str, Tensor]]:
        """Yield the stored tensors that take an intervention in (`folding.fold`)."""
        return fold(self._network, intervention, files)

    @property
    def sites(self) -> tuple[NeuronSite, ...]:
        """Where the loaded model keeps its neurons, layer by layer, as was proved when it was loaded."""
        return self._network.sites

    def read(
        self,
        groups: Sequence[PromptGroup],
        neurons: Int64[Tensor, "neuron 2"],
        *,
        keep: int,
        window: int,
        seed: int = 0,
        kinds: Int64[Tensor, " token"] | None = None,
        partners: Int64[Tensor, "neuron partner"] | None = None,
        progress: Progress = SILENT,
    ) -> LanguageReadings:
        """What chosen neurons do on the answers' tokens of one language (`core.readings`).

        Args:
            groups: instructions and their answers, as tokens.
            neurons: (layer, flat index), each once, in ascending order.
            keep: K, strongest tokens of each neuron.
            window: w, activations on each side of them.
            seed: decides between equally strong tokens.
            kinds: of each token of the vocabulary, what its firings are counted by; below 0: by nothing.
            partners: of each neuron, others, as rows of `neurons`, whose firings together with it are counted.
            progress: adds up to the tokens of the full sequences.
        """
        self.batching.check([tokens for group in groups for tokens in group.full])
        with self._at_work(self.batching.budget):
            found = reading.read(
                self._network,
                groups,
                neurons,
                keep=keep,
                window=window,
                seed=seed,
                budget=self.batching.of_a_batch,
                kinds=kinds,
                partners=partners,
                progress=progress,
            )
        return found

    def readout(
        self, neurons: Int64[Tensor, "neuron 2"], *, most: int, languages: Sequence[Int64[Tensor, " token"]] = ()
    ) -> Readout:
        """What these neurons write, as the unembedding reads it; `languages` are sets of tokens (`writing`)."""
        with self._at_work(self.batching.budget):
            return writing.readout(self._network, neurons, most=most, languages=languages)

    def ablate_each(
        self, texts: Sequence[ScoredText], neurons: Int64[Tensor, "neuron 2"], *, progress: Progress = SILENT
    ) -> Float64[Tensor, "neuron text"]:
        """The change of each text's negative log-likelihood with each neuron alone off, many neurons to a forward.

        `neurons` as for `read`; `progress` adds up to neurons × the texts' tokens.
        """
        self.batching.check([text.tokens for text in texts])
        with self._at_work(self.batching.budget):
            return ablating.ablate_each(
                self._network, texts, neurons, budget=self.batching.of_a_batch, progress=progress
            )

    def first_order(
        self, texts: Sequence[ScoredText], *, progress: Progress = SILENT
    ) -> Float64[Tensor, "layer neuron"]:
        """The same change in all texts together, to first order, for every neuron in one backward pass."""
        self.batching.check([text.tokens for text in texts])
        network, budget = self._network, max(1, self.batching.budget // GRAPH)
        working = guest.at_work(network) if self._guest else nullcontext()
        with _out_of_memory(budget), without_cudnn_attention(), working:
            return ablating.first_order(network, texts, budget=budget, progress=progress)

    def close(self) -> None:
        """Give back the model's memory; the engine cannot be used afterwards."""
        self._loaded = self._compiled = None
        gc.collect()
        torch.cuda.empty_cache()  # does nothing where CUDA was not used

    @property
    def _network(self) -> Network:
        if self._loaded is None:
            raise EngineError(CLOSED)
        return self._loaded


@contextmanager
def without_cudnn_attention() -> Iterator[None]:
    """While the context is open, PyTorch never takes cuDNN's attention.

    cuDNN plans anew for each new shape, and nearly every forward of an answer, and every batch of a corpus, has one.
    On an H200 answers took 1.5 to 3.9 times as long with it, and counting 2 to 4 % longer (benchmarks/README.md).
    """
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


@contextmanager
def _out_of_memory(batch_tokens: int) -> Iterator[None]:
    """Turn an error of the device's memory into one that says what to do."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        mps = "MPS backend out of memory" in str(error)
        if not mps and not isinstance(error, torch.OutOfMemoryError):
            raise
        raise EngineError(
            f"{'MPS' if mps else 'CUDA'} ran out of memory with batch_tokens {batch_tokens}: "
            f"try --batch-tokens {max(1, batch_tokens // 2)}, or a smaller --dtype"
        ) from error

"""What a run needs before anyone rents a machine: tokens, memory of each device, disk and time.

All of it comes from a model's config.json, the corpus and a throughput. No weights are read unless the throughput is to
be measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._gguf import is_gguf
from ._model import COUNT_BYTES, in_gib, parameters_of
from .activation import count_file_bytes
from .config import ANSWERS, DEFAULT_MAP, TEXT, MapSettings, check_choice
from .corpus.encode import PromptGroup, Tokenizer, encode_groups, encode_texts
from .corpus.records import Corpus, has_answers, read_corpus, texts_as_answers
from .engines import ENGINES, EngineSettings, EngineSource
from .engines.checkpoint import DTYPES, check_dtype, expand, load_config, load_tokenizer, longest_sequence
from .engines.families import check_vllm, class_name, experts_in, neurons_of_layers, neurons_per_layer
from .engines.quantization import method_of
from .engines.transformers.engine import ANSWER_TOKENS, BATCH_TOKENS
from .engines.transformers.loading import ROOM, batch_bytes, cache_bytes, halved_to_fit
from .engines.transformers.network import LOGITS
from .engines.transformers.plan import fed_tokens
from .engines.transformers.plan import plan as jobs_of
from .engines.vllm.launch import STEP_TOKENS, tensor_parallel_sizes
from .errors import EngineError, SettingsError, UnknownArchitectureError
from .languages import DEFAULT_LANGUAGES

CARDS = (24, 48, 80)
"""GiB of the devices that a plan is made for, where none are named."""
TENSOR_PARALLEL = (1, 2, 4, 8)
"""Ranks that may share each layer, where no number is given."""
USABLE = 0.9
"""The share of a device's memory that a run may take: the rest is the driver's, the libraries' and attention's."""
UNTOKENIZED = 2.0
"""Bytes of UTF-8 text that are taken for a token where there is no tokenizer.

On the demo's corpus of ten languages SmolLM2's tokenizer takes 1.9 bytes a token, and that of Gemma 3 4.2.
"""
_UNLIMITED = 2**62
MEASURED = 400
"""Tokens after which a measurement of the throughput ends."""


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes that a run takes on one of `tensor_parallel_size` devices that share each layer.

        weights = parameters · bytes / devices
        counts  = 2 · 8 · neurons / devices                                 full and prefix counts, whole numbers
        batch   = tokens · (4 · d_mlp / devices + 8 · hidden) · bytes        of one layer (`batch_bytes`)
        cache   = tokens · 2 · layers · ⌈kv_heads / devices⌉ · head_dim · bytes
        logits  = tokens · vocabulary · (bytes + 4)                         as the head gives them, and in float32

    `bytes` are those of a number in the run's precision. How many tokens there are in a batch, in the cache and among
    the logits at a time is the engine's to decide (`plan`). The parts are not all in use at the same time, so `total`
    is somewhat more than the peak.
    """

    tensor_parallel_size: int
    weights: int
    counts: int
    batch: int
    cache: int
    logits: int

    @property
    def total(self) -> int:
        """All parts together."""
        return self.weights + self.counts + self.batch + self.cache + self.logits


@dataclass(frozen=True)
class Fit:
    """How a model fits devices of `gib` GiB each.

    Attributes:
        tensor_parallel_size: how many of them must share each layer; None: those that were tried are too few.
        batch_tokens: the size of its batches then.
        total: bytes on each.
    """

    gib: float
    tensor_parallel_size: int | None
    batch_tokens: int
    total: int


@dataclass(frozen=True)
class CorpusTokens:
    """Tokens of a corpus, with the special ones.

    Attributes:
        languages: how many there are.
        full, prefix: of all texts and of their questions, each question once for every answer, as they are counted.
        fed: positions that counting computes; what several answers share is computed once.
        scored: of the texts that one condition of a map scores.
        questions, prompts: how many questions there are, and their tokens.
        shared: answers share questions, whose keys and values are kept for them.
    """

    languages: int
    full: int
    prefix: int
    fed: int
    scored: int
    questions: int = 0
    prompts: int = 0
    shared: bool = False


@dataclass(frozen=True)
class StepWork:
    """What one step computes.

    Attributes:
        name: the command that does it alone.
        read: tokens that pass the model as texts.
        written: tokens of answers at most, which the model writes one after the other.
        seconds: on one replica; None where no throughput is known.
    """

    name: str
    read: int
    written: int
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    """What `plan` finds.

    Attributes:
        path, family, dtype, engine, device: the model, and how it would run.
        layers, neurons, parameters: by the config; `neurons` of all layers together.
        batch_tokens: the size of a batch, or of a step of vLLM, where memory does not make it smaller.
        memory: by the number of devices that share each layer.
        fits: by the size of a device.
        corpus: its tokens; None where neither a corpus nor a number of tokens is given.
        steps: of `lna run`.
        tokens_per_second: of one replica, as given or measured.
        weight_bytes, count_bytes: on disk; the counts of all languages.
        assumed: what the numbers rest on, a sentence each.
    """

    path: str
    family: str
    dtype: str
    engine: str
    device: str
    layers: int
    neurons: int
    parameters: int
    batch_tokens: int
    memory: tuple[DeviceMemory, ...]
    fits: tuple[Fit, ...]
    corpus: CorpusTokens | None
    steps: tuple[StepWork, ...]
    tokens_per_second: float | None
    weight_bytes: int
    count_bytes: int
    assumed: tuple[str, ...]


def plan(
    model_path: str,
    corpus: Corpus | Path | None = None,
    *,
    tokens: int | None = None,
    languages: Sequence[str] = (),
    engine: str = "auto",
    dtype: str = "auto",
    device: str = "cuda",
    batch_tokens: int | None = None,
    tensor_parallel_size: int | None = None,
    longest: int | None = None,
    usable: float = USABLE,
    cards: Sequence[float] = CARDS,
    count: str = ANSWERS,
    blocks: int | None = None,
    moments: bool = False,
    map_settings: MapSettings = DEFAULT_MAP,
    max_new_tokens: int | None = None,
    tokens_per_second: float | None = None,
    answer_tokens_per_second: float | None = None,
    measure: bool = False,
) -> Plan:
    """Compute what a run of a model on a corpus needs.

        activation   tokens that counting computes
        ppl          tokens scored · (1 + languages · (1 + controls))       one condition each
        generate     tokens of the questions, and questions · max_new_tokens
        seconds      tokens read / throughput + tokens written / throughput of answers

    Memory is that of `DeviceMemory`. Tokens of a batch: `batch_tokens`, else what the engine takes on the device; those
    of the cache: vLLM, one text of the longest length, without which it does not start; transformers, the answers that
    it writes at a time and twice a batch of shared questions. Logits: a batch of them, as far as the engine has them in
    memory at a time.

    >>> found = plan("model", tokens=1_000_000, device="cpu", engine="transformers", tokens_per_second=500)
    >>> found.parameters * 4 == found.memory[0].weights
    True
    >>> found.steps[0].name, found.steps[0].seconds
    ('activation', 2000.0)

    Args:
        model_path: folder (a config.json is enough), GGUF file or hub id.
        corpus: what is counted; its tokens are counted by the model's tokenizer, if there is one.
        tokens: the tokens of all texts, in place of a corpus.
        languages: those of the run; by default those of the corpus, else the paper's ten.
        engine: "transformers", "vllm", or "auto": vLLM where it serves the model.
        dtype: precision; "auto" is the model's own.
        device: kind of device: "cuda", "cpu" or "mps".
        batch_tokens: size of a batch; None: the engine's.
        tensor_parallel_size: devices that share each layer; None: 1, 2, 4 and 8 are tried.
        longest: vLLM's `max_model_len`; None: the longest sequence of the model.
        usable: the share of a device's memory that the run may take.
        cards: memory of a device in GiB; the plan says for each how the model fits.
        count: "answers", or "text" for the texts of a corpus without answers.
        blocks: blocks whose counts are kept too.
        moments: mean activations are kept too.
        map_settings: which texts a map scores, and its controls.
        max_new_tokens: the longest answer, where the model answers first.
        tokens_per_second: what one replica counts.
        answer_tokens_per_second: what one replica writes.
        measure: load the model here, and measure `tokens_per_second` on some texts of the corpus.

    Raises:
        SettingsError: settings that contradict each other.
        EngineError: there is no such model, or nothing can be told of it from its config.
    """
    _check_corpus(corpus, tokens, measure=measure, given=tokens_per_second, max_new_tokens=max_new_tokens)
    check_choice(engine, ("auto", *ENGINES), "--engine")
    device = device.partition(":")[0]
    check_choice(device, tuple(BATCH_TOKENS), "--device")
    check_dtype(dtype)
    numbers = {"batch-tokens": batch_tokens, "tokens-per-second": tokens_per_second}
    for flag, number in {**numbers, "answer-tokens-per-second": answer_tokens_per_second}.items():
        if number is not None and not 0 < number < math.inf:
            raise SettingsError(f"--{flag} must be a number above 0, got {number!r}: give for example 2048")
    path = expand(model_path)
    config = load_config(path, None)
    assumed: list[str] = []
    kind = _precision(config, dtype, path, assumed)
    model = _Sizes.of(config)
    chosen = _engine(engine, config, path, assumed)
    parameters = parameters_of(config)
    if (method := method_of(config)) is not None:
        assumed.append(f"the checkpoint is quantized ({method}); its weights are planned in {kind}, and take less")
    budget = batch_tokens or {"vllm": STEP_TOKENS, "transformers": BATCH_TOKENS}[chosen].get(device, 4096)
    read = _corpus(corpus, languages, count)
    found = _tokens(read, tokens, path, languages, map_settings=map_settings, assumed=assumed)
    if measure and read is not None:
        tokens_per_second = measured_throughput(
            EngineSettings(model_path, engine, dtype, {"batch_tokens": batch_tokens} if batch_tokens else {}), read
        )
        assumed.append("the throughput is that of this machine, on a few texts of the corpus")

    cached = longest or longest_sequence(config.get_text_config(), None)
    if chosen == "transformers":
        cached = max(
            ANSWER_TOKENS.get(device, 8192) if max_new_tokens else 0, 2 * budget if found and found.shared else 0
        )
    sizes = _ranks(tensor_parallel_size, config, chosen)
    itemsize = DTYPES[kind].itemsize

    def memory(devices: int, batch: int) -> DeviceMemory:
        return _device_memory(
            model, devices, parameters=parameters, batch=batch, cached=cached, device=device, itemsize=itemsize
        )

    def fit(gib: float) -> Fit:
        room = int(usable * gib * 2**30)
        for devices in sizes:
            batch = budget
            if batch_tokens is None and chosen == "transformers" and device == "cuda":  # the engine halves its batches
                token = batch_bytes(model.active, model.hidden, itemsize=itemsize) + 2 * model.cache * itemsize
                batch = halved_to_fit(budget, room=int(ROOM * (room - memory(devices, 0).weights)), token=token)
            if (total := memory(devices, batch).total) <= room:
                return Fit(gib, devices, batch, total)
        return Fit(gib, None, budget, memory(sizes[-1], budget).total)

    _note_cache(chosen, cached, device, model.cache * itemsize, assumed)
    assumed.append(f"{usable:.0%} of a device's memory can be used")
    if sizes[-1] > 1:
        assumed.append("devices that share each layer hold equal parts of all weights")
    works = _steps(found, map_settings, max_new_tokens, (tokens_per_second, answer_tokens_per_second), assumed)
    number = found.languages if found else len(languages) or len(DEFAULT_LANGUAGES)
    return Plan(
        model_path,
        str(config.model_type),
        kind,
        chosen,
        device,
        model.layers,
        model.neurons,
        parameters,
        budget,
        tuple(memory(devices, budget) for devices in sizes),
        tuple(map(fit, cards)),
        found,
        works,
        tokens_per_second,
        parameters * itemsize,
        number * count_file_bytes(model.neurons, blocks=blocks, moments=moments),
        tuple(assumed),
    )


def measured_throughput(settings: EngineSettings, corpus: Corpus) -> float:
    """Load a model here and return how many tokens it counts in a second, on the first texts of each language.

    The first texts are computed once before the clock runs.
    """
    with EngineSource(settings) as source:
        engine = source()
        groups: list[PromptGroup] = []
        for language in corpus.languages:
            records = [one for one in corpus.of_language(language) if one.answers][:4]
            groups += encode_groups(
                records, engine.tokenizer, max_length=engine.model.max_length, overlong="truncate"
            ).groups
        some: list[PromptGroup] = []
        while groups and sum(one.full_tokens for one in some) < MEASURED:
            some.append(groups.pop(0))
        engine.count(some[:1])
        start = time.perf_counter()
        engine.count(some)
        return _fed(some) / (time.perf_counter() - start)


@dataclass(frozen=True)
class _Sizes:
    """A decoder's sizes, by its config.

    Attributes:
        active: neurons of a layer that are computed for one token.
        cache: numbers that the keys and values of one token are, in all layers.
    """

    layers: int
    neurons: int
    active: int
    hidden: int
    vocabulary: int
    heads: int
    cache: int

    @classmethod
    def of(cls, config: Any) -> _Sizes:
        text = config.get_text_config()
        try:
            layers, heads = int(text.num_hidden_layers), int(text.num_attention_heads)
            kept = cache_bytes(text, layers, itemsize=1)
            hidden, vocabulary = int(text.hidden_size), int(text.vocab_size)
        except (AttributeError, TypeError, ValueError, ZeroDivisionError) as error:
            raise UnknownArchitectureError(
                f"the config of {class_name(config) or config.model_type} does not tell the sizes of its layers "
                f"({error}): only decoders with attention and MLPs can be planned"
            ) from error
        experts = experts_in(config)
        active = neurons_per_layer(config) if experts is None else experts.top_k * experts.width
        heads = int(getattr(text, "num_key_value_heads", None) or heads)
        return cls(layers, sum(neurons_of_layers(config, layers)), active, hidden, vocabulary, heads, kept)


def _device_memory(
    model: _Sizes, devices: int, *, parameters: int, batch: int, cached: int, device: str, itemsize: int
) -> DeviceMemory:
    at_once = max(1, min(batch, LOGITS.get(device, 2**25) // model.vocabulary)) if batch else 0
    kept = model.cache // model.heads * -(-model.heads // devices)  # fewer heads than devices: each has a copy
    return DeviceMemory(
        devices,
        parameters * itemsize // devices,
        COUNT_BYTES * model.neurons // devices,
        batch * batch_bytes(model.active // devices, model.hidden, itemsize=itemsize),
        cached * kept * itemsize,
        at_once * model.vocabulary * (itemsize + 4),
    )


def _check_corpus(
    corpus: Corpus | Path | None,
    tokens: int | None,
    *,
    measure: bool,
    given: float | None,
    max_new_tokens: int | None,
) -> None:
    """Refuse settings that contradict each other."""
    if corpus is not None and tokens is not None:
        raise SettingsError("a corpus and --tokens are given: give one of the two")
    if tokens is not None and tokens < 1:
        raise SettingsError(f"--tokens must be at least 1, got {tokens}: give the tokens of all texts")
    if measure and (corpus is None or given is not None):
        raise SettingsError("--measure counts some texts of a corpus: give -d, and leave --tokens-per-second out")
    if max_new_tokens is not None and (corpus is None or max_new_tokens < 1):
        raise SettingsError("--max-new-tokens plans answers to the questions of a corpus: give -d, and at least 1")


def _precision(config: Any, dtype: str, path: str, assumed: list[str]) -> str:
    """The precision of the run: the one asked for, else the model's own."""
    if dtype != "auto":
        return dtype
    own = "float32" if is_gguf(path) else str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    if own not in DTYPES:
        raise EngineError(f"the config of {path} names the precision {own!r}: give --dtype {', '.join(DTYPES)}")
    if getattr(config, "dtype", None) is None and not is_gguf(path):
        assumed.append("the config names no precision: float32")
    return own


def _engine(engine: str, config: Any, path: str, assumed: list[str]) -> str:
    """The engine of the run; "auto": vLLM, which auto takes on a GPU where it is installed, if it serves the model."""
    if engine == "vllm":
        check_vllm(config)
        if is_gguf(path):
            raise EngineError(f"{path} is a GGUF file, which vLLM does not count in: give --engine transformers")
    if engine != "auto":
        return engine
    try:
        check_vllm(config)
        chosen = "transformers" if is_gguf(path) else "vllm"
    except UnknownArchitectureError:
        chosen = "transformers"
    assumed.append(
        "vLLM is installed there, and runs the model (--engine transformers plans the other)"
        if chosen == "vllm"
        else "transformers runs the model, which vLLM does not serve"
    )
    return chosen


def _ranks(given: int | None, config: Any, engine: str) -> tuple[int, ...]:
    """How many devices may share each layer."""
    if engine == "transformers":
        if given not in (None, 1):
            raise SettingsError(f"--tensor-parallel-size {given}: transformers runs on one device; give --engine vllm")
        return (1,)
    possible = tensor_parallel_sizes(config)
    if given is not None and given not in possible:
        raise SettingsError(
            f"--tensor-parallel-size {given} does not divide the model's heads and neurons, or its experts are counted "
            f"on one rank: take one of {', '.join(map(str, possible[:8]))}"
        )
    return (given,) if given else tuple(one for one in TENSOR_PARALLEL if one in possible)


def _note_cache(engine: str, cached: int, device: str, token: int, assumed: list[str]) -> None:
    if engine == "vllm":
        assumed.append(
            f"vLLM keeps room for one text of {cached:,} tokens ({in_gib(cached * token)} on one device); "
            "--engine-arg max_model_len=N makes it shorter"
        )
    elif not cached:
        assumed.append("each question has one answer, so no keys and values are kept")
    if device == "cpu" and engine == "vllm":
        assumed.append("on CPUs vLLM takes half of the main memory by itself (gpu_memory_utilization)")


def _corpus(corpus: Corpus | Path | None, languages: Sequence[str], count: str) -> Corpus | None:
    """The corpus in these languages; with `count` "text", of its texts as answers."""
    if corpus is None:
        return None
    read = corpus if isinstance(corpus, Corpus) else read_corpus(corpus)
    if languages:
        records = [one for language in languages for one in read.of_language(language)]
        read = Corpus(read.path, tuple(records))
    return texts_as_answers(read) if count == TEXT else read


def _tokens(
    corpus: Corpus | None,
    tokens: int | None,
    path: str,
    languages: Sequence[str],
    *,
    map_settings: MapSettings,
    assumed: list[str],
) -> CorpusTokens | None:
    """The tokens of the corpus, or those that were given."""
    if corpus is None:
        if tokens is None:
            return None
        assumed.append(f"{tokens:,} tokens of texts, and as many that a condition of the map scores")
        return CorpusTokens(len(languages) or len(DEFAULT_LANGUAGES), tokens, 0, tokens, tokens)
    tokenizer: Tokenizer
    try:
        tokenizer = load_tokenizer(path, None)
        assumed.append("tokens are counted by the model's tokenizer")
    except EngineError:
        tokenizer = _Bytes()
        assumed.append(f"there is no tokenizer in {path}: {UNTOKENIZED:g} bytes of text are taken for a token")
    return corpus_tokens(corpus, tokenizer, map_settings=map_settings)


class _Bytes:
    """A tokenizer for where there is none: so many bytes, a token."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Numbers that say where each token begins; a longer text begins with the tokens of its beginning."""
        return list(range(round(len(text.encode(errors="surrogatepass")) / UNTOKENIZED)))

    def decode(self, token_ids: list[int], **_: Any) -> str:
        """Nothing: what has no tokens has no text either."""
        return ""

    def __len__(self) -> int:
        return 0


def corpus_tokens(corpus: Corpus, tokenizer: Tokenizer, *, map_settings: MapSettings = DEFAULT_MAP) -> CorpusTokens:
    """Count the tokens of a corpus as the steps do.

    >>> from language_neurons_alignment.corpus.records import Record
    >>> class Letters:
    ...     def encode(self, text, add_special_tokens=True):
    ...         return [*map(ord, text)]
    >>> texts = Corpus(Path("sums.json"), (Record("en", "1 + 1?", (" 2", " two")),))
    >>> corpus_tokens(texts, Letters())
    CorpusTokens(languages=1, full=18, prefix=12, fed=12, scored=6, questions=1, prompts=6, shared=True)
    """
    groups: list[PromptGroup] = []
    scored = prompts = 0
    for language in corpus.languages:
        records = corpus.of_language(language)
        if has_answers(records):
            groups += encode_groups(records, tokenizer, max_length=_UNLIMITED).groups
        questions = encode_texts(records, tokenizer, text="instruction", max_length=_UNLIMITED)
        prompts += sum(len(one.tokens) for one in questions)
        if map_settings.text == "instruction":
            scored += sum(len(one.tokens) for one in questions)
    if map_settings.text != "instruction":
        scored = sum(one.full_tokens for one in groups)
    return CorpusTokens(
        len(corpus.languages),
        sum(one.full_tokens for one in groups),
        sum(one.prefix_tokens for one in groups),
        _fed(groups),
        scored,
        len(corpus.records),
        prompts,
        any(len(set(one.full)) > 1 or one.boundary_cases for one in groups),
    )


def _fed(groups: Sequence[PromptGroup]) -> int:
    """Positions that counting computes."""
    return sum(fed_tokens(jobs_of(group)) for group in groups)


def _steps(
    corpus: CorpusTokens | None,
    map_settings: MapSettings,
    max_new_tokens: int | None,
    throughput: tuple[float | None, float | None],
    assumed: list[str],
) -> tuple[StepWork, ...]:
    """The steps of a run, and their time."""
    if corpus is None:
        return ()
    reads, writes = throughput
    fed, scored, steps = corpus.fed, corpus.scored, []

    def step(name: str, read: int, written: int = 0) -> None:
        known = reads is not None and (not written or writes is not None)
        steps.append(StepWork(name, read, written, read / reads + written / (writes or 1) if known and reads else None))

    if max_new_tokens:
        written = corpus.questions * max_new_tokens
        step("generate", corpus.prompts, written)
        assumed.append(f"one answer to each of {corpus.questions:,} questions, each of {max_new_tokens} tokens")
        if not fed:  # the answers are what is counted
            fed = corpus.prompts + written
            scored = scored or fed
    step("activation", fed)
    conditions = 1 + corpus.languages * (1 + map_settings.controls)
    step("ppl", conditions * scored)
    assumed.append(
        f"a map of {conditions} conditions: none, and for each of {corpus.languages} languages its neurons and "
        f"{map_settings.controls} controls; no layers are shared between them"
    )
    if reads is not None:
        assumed.append("texts are scored as fast as they are counted, and N replicas take 1/N of the time")
    return tuple(steps)

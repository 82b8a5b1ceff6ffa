"""A loaded model, with texts in and results out: count, find neurons, switch them off, generate, score.

`lna.load` gives one. Nothing here reads or writes results: sessions do, for runs that keep them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from torch import Tensor

from ._interventions import NeuronSource, intervene
from ._operations import Steps
from .activation import count_checked
from .config import Sampling
from .core.interventions import Intervention
from .core.model import ModelInfo, StartProgress, silent
from .core.perplexity import Perplexity, perplexity
from .corpus.encode import Framing, Prompt, encode_groups, encode_texts
from .corpus.records import NO_LANGUAGE, Corpus, Record, Text, Texts, corpus_of, records_of
from .engines import Engine, EngineSettings, load_engine
from .errors import IncompatibleError, SettingsError
from .store.checkpoint import Checkpoint, fetch_config, read_checkpoint
from .store.counts import AnswerCounts
from .store.masks import Mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Model:
    """A model that counts, generates and scores texts, as it is or with neurons changed. `lna.load` loads one.

    >>> import language_neurons_alignment as lna
    >>> with lna.load("model", device="cpu") as model:
    ...     print(model)
    Model(LlamaForCausalLM, 3 × 96 neurons, float32, transformers)

    Attributes:
        engine: what runs it: token ids in, results out.
    """

    def __init__(self, engine: Engine, checkpoint: Checkpoint | None = None) -> None:
        """Take over an engine; `checkpoint` is what its files tell, None for a model that is not of files."""
        self.engine = engine
        self._checkpoint = checkpoint

    @property
    def info(self) -> ModelInfo:
        """What is known of the model: its size, its longest sequence, …."""
        return self.engine.model

    @property
    def checkpoint(self) -> Checkpoint:
        """Digests that tell this model from others; of a model in memory, of its weights as they are now."""
        return self._checkpoint or Checkpoint("", getattr(self.engine, "weights_hash", ""))

    def count(
        self, texts: Texts, *, moments: bool = False, overlong: str = "error", start: StartProgress = silent
    ) -> AnswerCounts:
        """Count, for each language, on how many answer tokens each neuron fires.

        A plain text is counted whole; of a prompt with its answer, the answer.

        >>> import language_neurons_alignment as lna
        >>> model = lna.load("model", device="cpu")
        >>> model.count({"en": ["Two doors, two keys."], "fr": [("Une porte ?", " Une clé.")]})
        AnswerCounts(3 × 96 neurons; tokens: en 20, fr 9)

        Args:
            texts: by language, strings, (prompt, answer) pairs or records; or a corpus, or the path of its file.
            moments: also collect mean activations, which `mean`, `add`, `replace` and `diffmean` need.
            overlong: what to do with sequences longer than the model allows: "error", "truncate" or "skip".
            start: gives the progress bar.

        Raises:
            CorpusError: no texts, a text that is empty or none, a language without any token, or sequences that are too
                long.
            SettingsError: no such language.
        """
        corpus, choices = corpus_of(texts), {"max_length": self.info.max_length, "overlong": overlong}
        encoded = {
            language: encode_groups(corpus.of_language(language), self.engine.tokenizer, **choices)
            for language in corpus.languages
        }
        counted = {
            language: count_checked(self.engine, some, progress=start(language, some.full_tokens), moments=moments)
            for language, some in encoded.items()
        }
        return AnswerCounts.of(counted, model=self.checkpoint, widths=self.info.widths)

    def ablate(self, neurons: Mask | Tensor) -> AbstractContextManager[None]:
        """Switch neurons off while the context is open: a ← 0. Contexts nest, and undo themselves after exceptions too.

        >>> import language_neurons_alignment as lna
        >>> model = lna.load("model", device="cpu")
        >>> counts = model.count({"en": ["Two doors."], "es": ["Dos puertas."], "sw": ["Milango miwili."]})
        >>> neurons = counts.find_neurons(lna.config.Selection(top_rate=0.1, bar=0.8))
        >>> before = float(model.perplexity("Dos llaves."))
        >>> with model.ablate(neurons["es"]):
        ...     off = float(model.perplexity("Dos llaves."))
        >>> off != before, float(model.perplexity("Dos llaves.")) == before
        (True, True)

        Args:
            neurons: a mask, of several languages the neurons of any; or booleans [layer, neuron].

        Raises:
            SettingsError: there are none.
            IncompatibleError: they are another model's.
        """
        off = self._neurons(neurons)
        if not off.any():
            named = f" ({neurons!r})" if isinstance(neurons, Mask) else ""
            raise SettingsError(f"there is no neuron to switch off{named}: give others, or leave this out")
        return self.engine.intervene(Intervention.zero(off))

    def intervene(self, do: str | Sequence[str], neurons: Mask | None = None) -> AbstractContextManager[None]:
        """Change neurons while the context is open, in the steps of `--do`, on the neurons of these languages.

        >>> import language_neurons_alignment as lna
        >>> model = lna.load("model", device="cpu")
        >>> texts = {"en": ["Two doors."], "es": ["Dos puertas."], "sw": ["Milango miwili."]}
        >>> neurons = model.count(texts, moments=True).find_neurons(lna.config.Selection(top_rate=0.1, bar=0.8))
        >>> with model.intervene(["zero sw", "mean:es es"], neurons):
        ...     answer = model.generate("Dos", max_new_tokens=4)

        Args:
            do: a step, or several that apply in this order.
            neurons: whose languages the steps name; None for steps that name files or experts alone.

        Raises:
            SettingsError: a step that cannot be read, or that would change nothing.
            IncompatibleError: the neurons are another model's.
            MissingArtifactError: means or general neurons, and the counts are not in memory or have none.
        """
        if neurons is not None:
            self.check(neurons)
        source = NeuronSource.open(None, Steps.parse(do), mask=neurons, checkpoint=self.checkpoint)
        return intervene(self.engine, do, source)

    @overload
    def generate(self, prompts: str, **sampling: Any) -> str: ...  # pyright: ignore[reportOverlappingOverload]
    @overload
    def generate(self, prompts: Sequence[str], **sampling: Any) -> list[str]: ...
    @overload
    def generate(self, prompts: Sequence[int], **sampling: Any) -> list[int]: ...
    @overload
    def generate(self, prompts: Sequence[Sequence[int]], **sampling: Any) -> list[list[int]]: ...

    def generate(self, prompts: Any, **sampling: Any) -> Any:
        """Continue texts, or tokens; an answer is of the kind of its prompt, and without the prompt.

        >>> import language_neurons_alignment as lna
        >>> model = lna.load("model", device="cpu")
        >>> tokens = model.generate([1, 70, 71], max_new_tokens=3)
        >>> len(tokens), model.generate(["One", "Two"], max_new_tokens=3) == [
        ...     model.generate(one, max_new_tokens=3) for one in ("One", "Two")
        ... ]
        (3, True)

        Args:
            prompts: a text or texts, which get the tokenizer's BOS; or the token ids of a prompt or of several, which
                get nothing.
            sampling: fields of `config.Sampling`: max_new_tokens (256), temperature (0: greedy), top_p, stop, seed.

        Raises:
            SettingsError: a prompt that is neither, or a choice out of range.
            EngineError: a prompt that is empty or leaves no room for an answer.
        """
        one, listed, as_text = _prompts(prompts)
        if as_text:
            framing = Framing.of(self.engine.tokenizer)
            encoded = [framing.encode(Record(NO_LANGUAGE, text, ())) for text in listed]
        else:
            encoded = [tuple(map(int, tokens)) for tokens in listed]
        try:
            chosen = Sampling(**sampling)
        except TypeError as error:
            known = ", ".join(Sampling.__dataclass_fields__)
            raise SettingsError(f"generate: {str(error).rpartition(' got ')[2]}: choose from {known}") from error
        if isinstance(chosen.stop, str):
            chosen = Sampling(**{**sampling, "stop": (chosen.stop,)})
        answers = self.engine.generate([Prompt(tokens) for tokens in encoded], sampling=chosen)
        given = [answer.text if as_text else list(answer.tokens) for answer in answers]
        return given[0] if one else given

    @overload
    def perplexity(
        self,
        texts: Corpus | Path | Mapping[str, str | Iterable[Text]],
        *,
        text: str = "answer",
        overlong: str = "error",
    ) -> dict[str, Perplexity]: ...
    @overload
    def perplexity(
        self, texts: str | Iterable[Text], *, text: str = "answer", overlong: str = "error"
    ) -> Perplexity: ...

    def perplexity(
        self, texts: Any, *, text: str = "answer", overlong: str = "error"
    ) -> Perplexity | dict[str, Perplexity]:
        """Measure the perplexity of texts, in both of the usual averages; of texts by language, that of each.

            token   exp(Σ nll / Σ tokens)      text   exp(mean over texts of nll / tokens)

        A plain text is scored whole, without its first token where nothing stands in front of it.

        >>> import language_neurons_alignment as lna
        >>> model = lna.load("model", device="cpu")
        >>> found = model.perplexity(["Two doors.", "Two keys."])
        >>> found.tokens, found.texts
        (19, 2)
        >>> sorted(model.perplexity({"en": ["Two doors."], "fr": ["Deux portes."]}))
        ['en', 'fr']

        Args:
            texts: strings, (prompt, answer) pairs or records; or, as for `count`, by language.
            text: of pairs and records: "instruction", "answer" (after its instruction) or "full".
            overlong: what to do with sequences longer than the model allows.

        Raises:
            CorpusError: no token to score, a text that is none, or sequences that are too long.
        """
        choices = {"text": text, "max_length": self.info.max_length, "overlong": overlong}

        def of(records: Sequence[Record]) -> Perplexity:
            return perplexity(self.engine.log_likelihood(encode_texts(records, self.engine.tokenizer, **choices)))

        if isinstance(texts, Corpus | Path | Mapping):
            corpus = corpus_of(texts)
            return {language: of(corpus.of_language(language)) for language in corpus.languages}
        return of(records_of(texts, NO_LANGUAGE))

    def check(self, neurons: Mask) -> Mask:
        """Return a mask over this model's neurons.

        Raises:
            IncompatibleError: it is another model's, by its size or by the digest of the weights.
        """
        neurons.check_model(self.checkpoint)
        return neurons.over(self.info)

    def _neurons(self, neurons: Mask | Tensor) -> Tensor:
        """Neurons of this model as booleans [layer, neuron]."""
        if isinstance(neurons, Mask):
            return self.check(neurons).tensor.any(dim=-1)
        shape = (self.info.layers, self.info.d_mlp)
        if not isinstance(neurons, Tensor) or tuple(neurons.shape) != shape or neurons.is_floating_point():
            seen = f"a tensor {list(neurons.shape)}" if isinstance(neurons, Tensor) else type(neurons).__name__
            raise IncompatibleError(
                f"neurons are a mask, or booleans [layer, neuron] of {list(shape)}; got {seen}: give for example "
                "neurons['fr']"
            )
        return neurons.bool().cpu()

    def close(self) -> None:
        """Give back memory and processes; the model cannot be used afterwards. A caller's own model stays his."""
        self.engine.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Model({', '.join(self._facts().values())})"

    def _repr_html_(self) -> str:
        from .core.frames import html_table

        return html_table({name: [value] for name, value in self._facts().items()}, caption=Path(self.info.path).name)

    def _facts(self) -> dict[str, str]:
        engine = str(self.engine.provenance["engine"])
        size = f"{self.info.size} neurons"
        return {"architecture": self.info.architecture, "size": size, "precision": self.info.dtype, "engine": engine}


def load(
    model: str | Path | PreTrainedModel,
    *,
    tokenizer: Any = None,
    engine: str = "auto",
    dtype: str = "auto",
    **options: Any,
) -> Model:
    """Load a model, or take one that is in memory.

    A model in memory stays its caller's: on its device, in its precision and mode, with its hooks, and its outputs are
    bit for bit the same before and afterwards. While `ablate` or `intervene` is open, they are those of the changed
    model, whoever calls it.

    >>> import language_neurons_alignment as lna
    >>> lna.load("model", device="cpu").perplexity("Two doors.").tokens
    10
    >>> from transformers import AutoModelForCausalLM, AutoTokenizer
    >>> mine, tokenizer = (kind.from_pretrained("model") for kind in (AutoModelForCausalLM, AutoTokenizer))
    >>> lna.load(mine, tokenizer=tokenizer)
    Model(LlamaForCausalLM, 3 × 96 neurons, float32, transformers)

    Args:
        model: folder, GGUF file or hub id; or a model of the transformers library.
        tokenizer: of a model in memory, or where it lies; files bring their own.
        engine: "transformers", "vllm", or "auto": vLLM where it is installed and there is a GPU.
        dtype: precision; "auto" is the model's own.
        options: other options of the engine (device, batch_tokens, adapter, quantization, …).

    Raises:
        SettingsError: a model in memory without a tokenizer, files with one, or an option that does nothing here.
        EngineError: the model cannot be loaded; `errors` has the kinds.
    """
    if isinstance(model, str | Path):
        if tokenizer is not None:
            raise SettingsError(
                f"{model} has its own tokenizer: leave tokenizer= out, or load the model with transformers and give "
                "both"
            )
        path = str(model)
        fetch_config(path)
        named = {"adapter": options.get("adapter"), "quantization": options.get("quantization")}
        running = load_engine(EngineSettings(path, engine, dtype, options))
        return Model(running, read_checkpoint(path, **named))
    others = {"engine": engine, "dtype": dtype}
    wrong = [f"{name}={value!r}" for name, value in others.items() if value not in ("auto", "transformers")]
    wrong += [f"{name}={value!r}" for name, value in options.items() if name != "batch_tokens"]
    if wrong:
        raise SettingsError(
            f"a model in memory is used as it is, with transformers: leave {', '.join(wrong)} out, or give its path"
        )
    from .engines.transformers import TransformersEngine

    return Model(TransformersEngine.of(model, tokenizer, **options))


def _prompts(prompts: Any) -> tuple[bool, list[Any], bool]:
    """Whether it is one prompt, the prompts, and whether they are texts."""
    if isinstance(prompts, str):
        return True, [prompts], True
    listed = prompts.tolist() if isinstance(prompts, Tensor) else list(prompts) if _listed(prompts) else [prompts]
    if listed and all(isinstance(one, str) for one in listed):
        return False, listed, True
    if listed and all(type(one) is int for one in listed):
        return True, [listed], False
    if listed and all(_listed(one) and one and all(type(token) is int for token in one) for one in listed):
        return False, listed, False
    raise SettingsError(
        f"generate continues a text, texts, or token ids; got {type(prompts).__name__} "
        f"{repr(prompts)[:60]}: give for example 'Once upon a time'"
    )


def _listed(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)

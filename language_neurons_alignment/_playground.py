"""Talk to a model with language neurons turned up or down: what a visitor chose, the steps that it means, two answers.

`lna playground` shows it as a page; nothing here knows of one. A slider's value v is, on a language's neurons,

    v = 0      zero                  a ← 0
    v = 1      nothing               a ← a
    v > 1      scale:v               a ← v · a          or, where sliders lead to the mean, with w = v − 1 of at most 1:
               scale:1-w, add:k:w    a ← (1 − w) a + w μ_k

and a value between 0 and 1 scales. So everything on the page is a line of `--do`.
"""

from __future__ import annotations

import queue
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from threading import Event, Lock
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode

from ._interventions import NeuronSource
from ._loaded import Model
from ._operations import CLASSES, MASK_CLASSES, Steps, in_order
from .config import Sampling
from .core.perplexity import perplexity
from .corpus.encode import GeneratedAnswer, Prompt, ScoredText, encode_prompts
from .corpus.language_id import Verdict, identify_languages
from .corpus.records import NO_LANGUAGE, Record
from .corpus.templates import PLAIN, ChatTokenizer, chat_template
from .errors import ArtifactError, IncompatibleError, MissingArtifactError, SettingsError

MOST_TOKENS = 512
"""Tokens that an answer may have: the others wait for it."""
MOST = 2.0
"""The largest value of a slider."""
DOUBLED, MEAN = "doubled", "mean"
"""What a slider does at its upper end: twice the activations, or the language's mean activation."""
UPPER = (DOUBLED, MEAN)
_USUAL = Sampling(max_new_tokens=64)
_DIGITS = 4
"""Decimals of a slider's value: 1 − (v − 1) has more."""
_WAIT = 0.2
"""Seconds between two looks at whether a visitor has gone."""


@dataclass(frozen=True)
class Choice:
    """What a visitor chose.

    >>> choice = Choice("Two doors.", sliders={"fr": 0.0, "es": 1.5}, layers=(1, 2))
    >>> choice.query()
    'prompt=Two+doors.&fr=0&es=1.5&layers=1-2'
    >>> Choice.of_query(choice.query()) == choice
    True

    Attributes:
        prompt: what the model is asked.
        sliders: language → value in [0, `MOST`]; a language without one is as it is, 1.
        upper: what the upper end of a slider is, one of `UPPER`.
        classes: classes of the neurons that are changed.
        layers: the first and the last layer in which they are; None: all.
        template: "chat" puts the prompt into the model's own chat template, "plain" leaves it as it is.
        sampling: how both answers are decoded.

    Raises:
        SettingsError: a value that cannot be.
    """

    prompt: str = ""
    sliders: Mapping[str, float] = field(default_factory=dict)
    upper: str = DOUBLED
    classes: tuple[str, ...] = MASK_CLASSES
    layers: tuple[int, int] | None = None
    template: str = "plain"
    sampling: Sampling = _USUAL

    def __post_init__(self) -> None:
        for language, value in self.sliders.items():
            if not 0 <= value <= MOST:
                raise SettingsError(f"the slider of {language} must be from 0 to {MOST:g}, got {value!r}")
        if self.upper not in UPPER:
            raise SettingsError(f"the upper end must be one of {', '.join(UPPER)}; got {self.upper!r}")
        if self.template not in ("plain", "chat"):
            raise SettingsError(f"the template must be plain or chat; got {self.template!r}")
        if self.sampling.max_new_tokens > MOST_TOKENS:
            raise SettingsError(
                f"an answer may have {MOST_TOKENS} tokens here, got {self.sampling.max_new_tokens}: give fewer"
            )
        if self.layers is not None and not 0 <= self.layers[0] <= self.layers[1]:
            raise SettingsError(f"the layers {self.layers[0]} to {self.layers[1]} are none: give the first one first")
        moved = {one: round(float(value), _DIGITS) for one, value in self.sliders.items() if value != 1}
        object.__setattr__(self, "sliders", moved)
        object.__setattr__(self, "classes", in_order(self.classes))

    def query(self) -> str:
        """The choice as the query string of a link; what is as usual is left out."""
        usual = Choice()
        given: dict[str, Any] = {"prompt": self.prompt} if self.prompt else {}
        given |= {language: f"{value:g}" for language, value in self.sliders.items()}
        given |= {"upper": self.upper} if self.upper != usual.upper else {}
        given |= {"classes": ",".join(self.classes)} if self.classes != usual.classes else {}
        given |= {} if self.layers is None else {"layers": "{}-{}".format(*self.layers)}
        given |= {"template": self.template} if self.template != usual.template else {}
        for name, read in _SAMPLED.items():
            value = getattr(self.sampling, name)
            given |= {} if value == getattr(usual.sampling, name) else {name: f"{read(value)}"}
        return urlencode(given)

    @classmethod
    def of_query(cls, query: str) -> Choice:
        """Read it back; a name that is none of the fields is a language.

        Raises:
            SettingsError: a value that cannot be read.
        """
        given = dict(parse_qsl(query, keep_blank_values=True))
        known = {one.name for one in fields(cls)} - {"sliders", "sampling"}
        try:
            sampling = {name: read(given[name]) for name, read in _SAMPLED.items() if name in given}
            sliders = {name: float(given[name]) for name in given if name not in known and name not in _SAMPLED}
            named: dict[str, Any] = {name: given[name] for name in known if name in given}
            if "classes" in named:
                named["classes"] = tuple(named["classes"].split(","))
            if "layers" in named:
                first, last = named["layers"].split("-")
                named["layers"] = (int(first), int(last))
        except ValueError as error:
            raise SettingsError(f"the link cannot be read ({error}): take it from the playground again") from error
        return cls(sliders=sliders, sampling=replace(cls.sampling, **sampling), **named)

    def steps(self, languages: Sequence[str], layers: int) -> Steps:
        """The steps that the sliders mean, for a mask of these languages and a model of so many layers.

        >>> choice = Choice(sliders={"es": 1.25, "fr": 0}, upper="mean", layers=(3, 9), classes=("specific",))
        >>> for text in choice.steps(("fr", "es"), 12).texts:
        ...     print(text)
        zero fr:specific - layers:0-2 - layers:10-11
        scale:0.75 es:specific - layers:0-2 - layers:10-11
        add:es:0.25 es:specific - layers:0-2 - layers:10-11

        Raises:
            SettingsError: a language or a layer that there is not.
        """
        unknown = [one for one in self.sliders if one not in languages]
        if unknown:
            raise SettingsError(f"the mask has no neurons of {unknown[0]}: choose from {', '.join(languages)}")
        first, last = self.layers or (0, layers - 1)
        if last >= layers:
            raise SettingsError(f"there is no layer {last}: the model has layers 0..{layers - 1}")
        classes = "" if self.classes == MASK_CLASSES else f":{','.join(self.classes)}"
        below = f" - layers:0-{first - 1}" if first else ""
        above = f" - layers:{last + 1}-{layers - 1}" if last < layers - 1 else ""
        moved = [language for language in languages if language in self.sliders]
        return Steps.parse(
            [
                f"{operation} {language}{classes}{below}{above}"
                for language in moved
                for operation in self._operations(language)
            ]
        )

    def _operations(self, language: str) -> list[str]:
        """What a moved slider does."""
        value = self.sliders[language]
        if value == 0:
            return ["zero"]
        if value < 1 or self.upper == DOUBLED:
            return [f"scale:{value:g}"]
        weight = round(value - 1, _DIGITS)
        if weight == 1:
            return [f"mean:{language}"]
        return [f"scale:{round(1 - weight, _DIGITS):g}", f"add:{language}:{weight:g}"]


_SAMPLED = {"max_new_tokens": int, "temperature": float, "seed": int}
"""Fields of `Sampling` that a link holds."""


@dataclass(frozen=True)
class Answer:
    """One of the two answers, finished or not.

    Attributes:
        text: so far.
        tokens: how many they are; 0 until it is finished.
        finish: how it ended, as in `GeneratedAnswer`; None while it grows.
        language: the language it is in; None where that is unknown, as for a few letters.
        perplexity: exp(Σ nll / tokens) of its tokens after the prompt, under the undisturbed model; None without any.
    """

    text: str = ""
    tokens: int = 0
    finish: str | None = None
    language: Verdict | None = None
    perplexity: float | None = None


@dataclass(frozen=True)
class Answers:
    """What a visitor sees.

    Attributes:
        undisturbed, changed: the answers.
        ahead: visitors whose answers come first; 0 once it is this one's turn.
    """

    undisturbed: Answer = Answer()
    changed: Answer = Answer()
    ahead: int = 0


class Playground:
    """A loaded model and a mask, for any number of visitors, who get their answers one after the other.

    One thread computes everything, because a model can be under one intervention at a time. What a visitor asks is
    known to that visitor's call of `answers` alone.

    >>> import language_neurons_alignment as lna
    >>> model = lna.load("model", device="cpu")
    >>> texts = {"en": ["Two doors."], "es": ["Dos puertas."], "sw": ["Milango miwili."]}
    >>> neurons = model.count(texts).find_neurons(lna.config.Selection(top_rate=0.1, bar=0.8))
    >>> playground = Playground(model, NeuronSource.open(None, mask=neurons))
    >>> choice = Choice("Dos", sliders={"es": 0.0}, sampling=lna.config.Sampling(max_new_tokens=3))
    >>> playground.line(choice)
    "--do 'zero es'"
    >>> for seen in playground.answers(choice):
    ...     pass
    >>> seen.undisturbed.finish
    'length'
    >>> playground.close()

    Attributes:
        languages: the mask's.
        means: those whose mean activations are at hand.
        classes: the classes of neurons that can be chosen.
        chat: whether the model has a chat template.
        notes: why there is less to choose than there could be.
    """

    def __init__(self, model: Model, source: NeuronSource) -> None:
        """Take over a loaded model, and read what a visitor may choose: means, general neurons.

        Raises:
            SettingsError: there is no mask.
            IncompatibleError: it is another model's.
        """
        if source.mask is None:
            raise SettingsError("the playground needs a mask: its languages are the sliders; pass its λ with -l")
        model.check(source.mask)
        self.languages = source.mask.languages
        notes: list[str] = []

        def have(step: str) -> bool:
            """Whether a step can be done; then its means and neurons are read."""
            nonlocal source
            try:
                source = source.opened(Steps.parse(step))
            except MissingArtifactError as error:
                notes[:] = notes or [f"there is less to choose: {error}"]  # one of its kind tells enough
                return False
            except (ArtifactError, IncompatibleError) as error:
                notes.append(str(error))
                return False
            return True

        self.classes = CLASSES if have(f"zero {self.languages[0]}:general") else MASK_CLASSES
        self.means = tuple(one for one in self.languages if have(f"mean:{one} {one}"))
        self.notes = tuple(notes)
        self.chat = bool(getattr(model.engine.tokenizer, "chat_template", None))
        self.model = model
        self._source = source
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lna-playground")
        self._lock = Lock()
        self._asking: list[Event] = []

    def steps(self, choice: Choice) -> Steps:
        """The steps that a choice means on this model.

        Raises:
            SettingsError: a language, a layer or a class that there is not, or a mean that is not at hand.
        """
        steps = choice.steps(self.languages, self.model.info.layers)
        missing = [one for one in steps.means if one not in self.means]
        if missing:
            raise SettingsError(
                f"the mean activations of {', '.join(missing)} are not at hand: collect them with "
                "`lna activation --moments`, or let the slider end at doubled"
            )
        if steps.steps and not set(choice.classes) <= set(self.classes):
            raise SettingsError("the general neurons are not at hand: choose other classes")
        return steps

    def line(self, choice: Choice) -> str:
        """The options that do the same in `lna ppl`, `evaluate` and `export-model`; "" where nothing is changed."""
        return " ".join(f"--do {shlex.quote(text)}" for text in self.steps(choice).texts)

    def answers(self, choice: Choice, stop: Event | None = None) -> Iterator[Answers]:
        """Answer a prompt, undisturbed and changed, and give out how far that is whenever there is more.

        Where no slider is moved, both are the same answer, computed once. Leaving the iterator stops the work.

        Args:
            choice: what the visitor chose.
            stop: ends both answers as they are, once it is set.

        Raises:
            SettingsError: a choice that cannot be done, an empty prompt or one that leaves no room for an answer.
            EngineError: memory runs out, or the model computes NaN.
        """
        stop = stop or Event()
        steps = self.steps(choice)
        if not choice.prompt.strip():
            raise SettingsError("there is no prompt: write one")
        said: queue.Queue[Answers | None] = queue.Queue()
        with self._lock:
            job = self._worker.submit(self._answer, choice, steps, stop, said.put)
            self._asking.append(stop)
        seen = None
        try:
            while (given := self._next(said, job, stop)) is not None:
                if given != seen:
                    yield given
                seen = given
            if not job.cancelled():
                job.result()  # raises what went wrong
        finally:
            stop.set()
            job.cancel()
            with self._lock:
                self._asking.remove(stop)

    def _next(self, said: queue.Queue[Answers | None], job: Future[None], stop: Event) -> Answers | None:
        """The latest that was said, or how many are ahead where nothing was yet; None at the end."""
        while True:
            try:
                given = said.get(timeout=_WAIT)
                while given is not None and said.queue and said.queue[0] is not None:
                    given = said.get_nowait()
                return given
            except queue.Empty:
                if stop.is_set() and job.cancel():
                    said.put(None)
                    return _CANCELLED
                if not job.running():
                    with self._lock:
                        return Answers(ahead=self._asking.index(stop))

    def _answer(self, choice: Choice, steps: Steps, stop: Event, say: Callable[[Answers | None], None]) -> None:
        """Compute both answers, in the one thread that does; say None at the end, whatever happens."""
        try:
            if stop.is_set():
                say(_CANCELLED)
                return
            engine = self.model.engine
            prompt = self._prompt(choice)
            change = self._source.intervention(steps, self.model.info) if steps.steps else None
            given = self._generate(prompt, choice.sampling, stop, lambda text: say(Answers(Answer(text))))
            first = self._measured(prompt, given)
            if change is None:
                say(Answers(first, first))
                return
            say(Answers(first))
            if stop.is_set():
                say(Answers(first, _CANCELLED.changed))
                return
            with engine.intervene(change):
                given = self._generate(prompt, choice.sampling, stop, lambda text: say(Answers(first, Answer(text))))
            say(Answers(first, self._measured(prompt, given)))
        finally:
            say(None)

    def _generate(self, prompt: Prompt, sampling: Sampling, stop: Event, say: Callable[[str], None]) -> GeneratedAnswer:
        """One answer of the model as it is now."""

        def follow(_position: int, text: str) -> bool:
            say(text)
            return not stop.is_set()

        (given,) = self.model.engine.generate([prompt], sampling=sampling, follow=follow)
        return given

    def _measured(self, prompt: Prompt, given: GeneratedAnswer) -> Answer:
        """A finished answer with its language and its perplexity; the model must be undisturbed."""
        found = None
        if given.tokens:
            text = ScoredText(prompt.tokens + given.tokens, start=len(prompt.tokens))
            found = float(perplexity(self.model.engine.log_likelihood([text])))
        (language,) = identify_languages([given.text], self.languages)
        return Answer(given.text, len(given.tokens), given.finish, language, found)

    def _prompt(self, choice: Choice) -> Prompt:
        """The prompt as tokens."""
        engine, path = self.model.engine, self.model.info.path
        template = PLAIN if choice.template == "plain" else chat_template(cast(ChatTokenizer, engine.tokenizer), path)
        record = template.apply(Record(NO_LANGUAGE, choice.prompt, ()))
        (prompt,) = encode_prompts([record], [(0, 0)], engine.tokenizer, ends=self.model.info.end_tokens)
        length, longest = len(prompt.tokens), self.model.info.max_length
        if length >= longest:
            raise SettingsError(
                f"the prompt has {length} tokens, and the model allows {longest} for prompt and answer together: "
                "write a shorter one"
            )
        return prompt

    def close(self) -> None:
        """End all answers as they are, and give back the model."""
        with self._lock:
            for stop in self._asking:
                stop.set()
        self._worker.shutdown(cancel_futures=True)
        self.model.close()


_CANCELLED = Answers(Answer(finish="cancelled"), Answer(finish="cancelled"))
"""What a visitor sees who stopped before the first token."""

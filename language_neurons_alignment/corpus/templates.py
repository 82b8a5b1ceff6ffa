"""Templates: from a bare question to the instruction that a model gets.

`plain` is the question as it is, `instruct` is Alpaca's prompt with the language's name, a file of the user's own holds
{question} and perhaps {language}, and `chat` is the model's own chat template. `Template.apply` makes a record's
instruction and keeps the bare question beside it.
"""

from __future__ import annotations

import hashlib
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from ..errors import CorpusError, LNAWarning, SettingsError
from ..languages import language_name
from .encode import Framing, Tokenizer, Tokens, common_length, named
from .records import Record, read_text

_SECONDS = 5.0
"""Of computing that a chat template may take for one prompt; real ones take milliseconds."""
_MEMORY = 2**30
"""Bytes that it may take."""
_LONGEST = 10**6
"""Characters that it may write around a question."""

_PLACEHOLDER = re.compile(r"\{(question|language)\}")


@dataclass(frozen=True)
class Template:
    """How an instruction is made from a question.

    Attributes:
        name: as `--template` takes it.
        about: one line for people.
        text: the text with {question} and {language}, if the template is one; None for the model's own.
        make: record with the bare question → instruction, and whether the tokenizer adds its special tokens to it.
        joint: what stands between the instruction and a gold answer.
    """

    name: str
    about: str
    text: str | None
    make: Callable[[Record], tuple[str, bool]]
    joint: str = ""

    def apply(self, record: Record) -> Record:
        """The record with its instruction made from its bare question, which is kept beside it if the two differ."""
        instruction, special = self.make(record)
        answers = tuple(self.joint + answer for answer in record.answers)
        question = None if instruction == record.instruction else record.instruction
        return replace(record, instruction=instruction, answers=answers, question=question, add_special_tokens=special)

    def render(self, question: str, language: str) -> str:
        """The instruction of a question."""
        return self.make(Record(language, question, ()))[0]


def text_template(name: str, text: str, *, about: str, joint: str = "") -> Template:
    r"""A template from a text with the placeholders {question} and, if wanted, {language} (its English name).

    >>> made = text_template("mine", "In {language}: {question}\nA:", about="", joint=" ").apply(
    ...     Record("fr", "1 + 1 ?", ("2",))
    ... )
    >>> made.instruction, made.answers, made.question
    ('In French: 1 + 1 ?\nA:', (' 2',), '1 + 1 ?')
    """
    if "{question}" not in text:
        raise SettingsError(
            f"the template {name} has no {{question}} in it: write {{question}} where the question is to stand "
            "(and {language} where the language's name is)"
        )

    def make(record: Record) -> tuple[str, bool]:
        values = {"question": record.instruction, "language": language_name(record.language)}
        filled = _PLACEHOLDER.sub(
            lambda found: values[found[1]], text
        )  # one pass: braces in a question stay as they are
        return filled, record.add_special_tokens

    return Template(name, about, text, make, joint)


PLAIN = text_template("plain", "{question}", about="the question as it is", joint="\n")
INSTRUCT = text_template(
    "instruct",
    "Below is an instruction that describes a task. Write a response that appropriately completes the request in "
    "{language}. Please answer in {language}.\n\n### Instruction:\n{question}\n\n### Response:",
    about="Alpaca's instruction, as MathOctopus and MAPO use it",
    joint=" ",
)
"""The prompt that MathOctopus and MAPO were trained with: Alpaca's, with the language by name."""
_CHAT = "the model's own chat template, up to where the assistant begins; needs --model-path"
TEMPLATES = {
    "plain": PLAIN,
    "instruct": INSTRUCT,
    "chat": Template("chat", _CHAT, None, lambda record: (record.instruction, True)),
}
"""The templates by name; "chat" is only described here: `chat_template` makes it from a tokenizer."""


def file_template(path: Path) -> Template:
    """A template from a file; the line break that editors leave at a file's end is not part of it."""
    text = read_text(path, what="the template", advice="give a text file in UTF-8, or plain, instruct, chat")
    return text_template(str(path), re.sub(r"\r?\n\Z", "", text), about="your own file")


class ChatTokenizer(Tokenizer, Protocol):
    """What the model's own chat template needs: a Hugging Face tokenizer will do."""

    chat_template: Any

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any:
        """The prompt as text or as token ids."""
        ...


def chat_template(tokenizer: ChatTokenizer, model_path: str) -> Template:
    """The model's own chat template: the question as the user's message, up to where the assistant begins.

    An instruction is text that is tokenized later. Its tokens are exactly those of the model's own recipe,

        apply_chat_template(messages, tokenize=True, add_generation_prompt=True)

    If the tokenizer puts BOS in front of every text and the template writes BOS too, BOS is left out of the text. If it
    does and the template does not, the record says that no special tokens are to be added.

    Raises:
        SettingsError: there is no template, or it fails, or its prompt begins with BOS twice or ends with EOS, or no
            text has its tokens.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise SettingsError(
            f"the model at {model_path} has no chat template: use the template plain, instruct, or a file of your own"
        )
    prompts = {str(_recipe(tokenizer, one, model_path, tokenize=False)) for one in ("one question", "another")}
    if len(prompts) == 1 and any(prompts):
        raise SettingsError(
            f"the chat template of {model_path} leaves the question out, so every prompt would be the same: use the "
            "template plain, instruct, or a file of your own"
        )
    framing = Framing.of(tokenizer)
    opening = framing.text(framing.opening)

    def spellings(question: str) -> Iterator[Record]:
        """The instructions that may have the recipe's tokens; the simplest first."""
        text = _recipe(tokenizer, question, model_path, tokenize=False)
        plain = Record("", text, (), question=question)
        yield plain
        if opening and text.lstrip().startswith(opening):
            yield replace(plain, instruction=text.lstrip()[len(opening) :])
        yield replace(plain, add_special_tokens=False)

    def make(record: Record) -> tuple[str, bool]:
        wanted = tuple(_recipe(tokenizer, record.instruction, model_path, tokenize=True))
        if framing.second_opening(wanted) is not None:
            raise SettingsError(
                f"the chat template of {model_path} gives {named(record)} a prompt that begins twice with "
                f"{_shown(framing, wanted, 0)}, and a model expects one: correct the template, or use a template file "
                "of your own"
            )
        made, tokens = record, Tokens()
        for made in spellings(record.instruction):
            with suppress(CorpusError):  # BOS twice
                tokens = framing.encode(made)
                if tokens == wanted:
                    break
        else:
            at = common_length(tokens, wanted)
            raise SettingsError(
                f"the prompt of {named(record)} cannot have the tokens of the chat template of {model_path}: at "
                f"position {at} its text has {_shown(framing, tokens, at)}, the template {_shown(framing, wanted, at)}"
                "; use a template file of your own"
            )
        if not wanted or wanted[-1] == getattr(tokenizer, "eos_token_id", None):
            raise SettingsError(
                f"the chat template of {model_path} ends its prompt with {_shown(framing, wanted, len(wanted) - 1)}, "
                "not where the assistant begins, so the model would begin another text: use a template "
                "file of your own"
            )
        return made.instruction, made.add_special_tokens

    return Template("chat", _CHAT, None, make)


def template_digest(tokenizer: Any) -> str | None:
    """A digest of a tokenizer's chat template; None where it has none."""
    template = getattr(tokenizer, "chat_template", None)
    text = str(template or "").encode(errors="surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest() if text else None


def warn_of_other_recipes(records: Sequence[Record], tokenizer: Any) -> None:
    """Warn of prompts made by a chat template whose tokens are not what the model that answers would make of them.

    That is so under another model, and where the tokenizer's files were changed since. A template that writes the day
    gives other tokens tomorrow, so those of one are not compared.
    """
    own, framing = template_digest(tokenizer), Framing.of(tokenizer)
    for record in records:
        built = (record.source or {}).get("built")
        made = built.get("template") if isinstance(built, dict) else None
        if not isinstance(made, dict) or made.get("name") != "chat":
            continue
        model = str(made.get("model"))
        where = f"the prompt of {named(record)}, and perhaps others, was made by the chat template of {model}"
        if made.get("digest") != own:
            warnings.warn(
                f"{where}, and the model that answers has {'another' if own else 'none'}: build the corpus with its "
                "own template, unless both models should get the same prompts",
                LNAWarning,
                stacklevel=3,
            )
            return
        if "strftime_now" in str(tokenizer.chat_template):
            return
        tokens = framing.encode(record)
        wanted = tuple(_recipe(tokenizer, record.question or record.instruction, model, tokenize=True))
        if tokens != wanted:
            at = common_length(tokens, wanted)
            warnings.warn(
                f"{where}, which now gives other tokens: at position {at} the prompt has "
                f"{_shown(framing, tokens, at)}, the template "
                f"{_shown(framing, wanted, at)}; build the corpus again with `lna dataset build`",
                LNAWarning,
                stacklevel=3,
            )
            return


class _EndlessError(BaseException):
    """A template computes for too long; no `except Exception` of the template engine's holds it up."""


def _recipe(tokenizer: ChatTokenizer, question: str, model_path: str, *, tokenize: bool) -> Any:
    """The model's own prompt, as text or as tokens."""
    messages = [{"role": "user", "content": question}]
    try:
        with _deadline(_SECONDS):
            with _memory_limit(_MEMORY):
                text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            if len(text) > _LONGEST + 100 * len(question):
                raise ValueError(f"it writes {len(text)} characters for one question")
            if not tokenize:
                return text
            return tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
    except (Exception, _EndlessError) as error:  # a template is a program: it raises what it likes
        said = "".join(one if one.isprintable() else " " for one in str(error)) or type(error).__name__
        if isinstance(error, _EndlessError):
            said, kind = f"it computes for more than {_SECONDS:g} seconds", "perhaps a loop without end"
        elif isinstance(error, MemoryError):
            said, kind = f"it takes more than {_MEMORY >> 30} GiB of memory", "MemoryError"
        else:
            kind = type(error).__name__
        line = getattr(error, "lineno", None)
        where = f" (its line {line})" if isinstance(line, int) else ""
        asked = " ".join(question.split())
        raise SettingsError(
            f"the chat template of {model_path} fails{where}: {' '.join(said.split())[:300]} "
            f"({kind}, for the question {asked[:40]!r}); use the template plain, instruct, or a file of your own"
        ) from error


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise _EndlessError if this block computes for longer than this; waiting for a disk does not count.

    In the main thread a timer of the system does it, which reaches into long operations such as 10 ** 10 ** 10. Other
    threads, and a process that uses this timer itself, look at the clock at each line that runs.
    """
    timer, alarm = getattr(signal, "ITIMER_VIRTUAL", None), getattr(signal, "SIGVTALRM", None)
    in_main = threading.current_thread() is threading.main_thread()
    if timer is not None and alarm is not None and in_main and signal.getsignal(alarm) == signal.SIG_DFL:

        def ring(_signal: int, _frame: FrameType | None) -> None:
            raise _EndlessError

        signal.signal(alarm, ring)
        signal.setitimer(timer, seconds, 1.0)  # again each second, should something hold the first one up
        try:
            yield
        finally:
            signal.setitimer(timer, 0)
            signal.signal(alarm, signal.SIG_DFL)
        return
    end, before = time.thread_time() + seconds, sys.gettrace()

    def look(_frame: FrameType, _event: str, _argument: Any) -> Any:
        if time.thread_time() > end:
            raise _EndlessError
        return look

    sys.settrace(look)
    try:
        yield
    finally:
        sys.settrace(before)


@contextmanager
def _memory_limit(more: int) -> Iterator[None]:
    """Let this process take only this many more bytes in this block, then raise MemoryError; Linux only."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError, ValueError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = taken + more
    if soft != resource.RLIM_INFINITY:
        wanted = min(wanted, soft)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _shown(framing: Framing, tokens: Sequence[int], at: int) -> str:
    """A token, for people."""
    return f"{framing.text(tokens[at : at + 1])!r} (token {tokens[at]})" if 0 <= at < len(tokens) else "no token"

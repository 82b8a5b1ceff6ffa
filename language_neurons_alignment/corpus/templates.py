"""Templates: from a bare question to the instruction that a model gets.

`plain` is the question as it is, `instruct` is Alpaca's prompt with the language's name, a file of the user's own holds
{question} and perhaps {language}, and `chat` is the model's own chat template. `Template.apply` makes a record's
instruction and keeps the bare question beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ..errors import SettingsError
from ..languages import language_name
from .records import Record, read_text

_PLACEHOLDER = re.compile(r"\{(question|language)\}")


@dataclass(frozen=True)
class Template:
    """How an instruction is made from a question.

    Attributes:
        name: as `--template` takes it.
        about: one line for people.
        text: the text with {question} and {language}, if the template is one; None for the model's own.
        render: (question, language code) → instruction.
        joint: what stands between the instruction and a gold answer.
    """

    name: str
    about: str
    text: str | None
    render: Callable[[str, str], str]
    joint: str = ""

    def apply(self, record: Record) -> Record:
        """The record with its instruction made from its bare question, which is kept beside it if the two differ."""
        instruction = self.render(record.instruction, record.language)
        answers = tuple(self.joint + answer for answer in record.answers)
        question = None if instruction == record.instruction else record.instruction
        return replace(record, instruction=instruction, answers=answers, question=question)


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

    def render(question: str, language: str) -> str:
        values = {"question": question, "language": language_name(language)}
        return _PLACEHOLDER.sub(lambda found: values[found[1]], text)  # one pass: braces in a question stay as they are

    return Template(name, about, text, render, joint)


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
    "chat": Template("chat", _CHAT, None, lambda question, language: question),
}
"""The templates by name; "chat" is only described here: `chat_template` makes it from a tokenizer."""


def file_template(path: Path) -> Template:
    """A template from a file; the line break that editors leave at a file's end is not part of it."""
    text = read_text(path, what="the template", advice="give a text file in UTF-8, or plain, instruct, chat")
    return text_template(str(path), re.sub(r"\r?\n\Z", "", text), about="your own file")


class ChatTokenizer(Protocol):
    """What the model's own chat template needs: a Hugging Face tokenizer will do."""

    bos_token: Any
    bos_token_id: Any
    chat_template: Any

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids."""
        ...

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any:
        """The prompt as text."""
        ...


def chat_template(tokenizer: ChatTokenizer, model_path: str) -> Template:
    """The model's own chat template: the question as the user's message, up to where the assistant begins.

    The instruction is text, and is tokenized with the tokenizer's own special tokens later. If those begin with BOS and
    the template's text does too, BOS is left out of the text, so that a prompt begins with it once.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise SettingsError(
            f"the model at {model_path} has no chat template: use the template plain, instruct, or a file of your own"
        )

    def render(question: str, language: str) -> str:
        text, bos = _chat_text(tokenizer, question), tokenizer.bos_token
        twice = bool(bos) and text.startswith(bos) and tokenizer.encode("a")[:1] == [tokenizer.bos_token_id]
        return text[len(bos) :] if twice else text

    return Template("chat", _CHAT, None, render)


def changed_prompts(records: list[Record], tokenizer: ChatTokenizer) -> int:
    """How many instructions do not have the chat template's own tokens once they are tokenized as text."""
    return sum(
        tokenizer.encode(record.instruction)
        != tokenizer.encode(_chat_text(tokenizer, record.question or record.instruction), add_special_tokens=False)
        for record in records
    )


def _chat_text(tokenizer: ChatTokenizer, question: str) -> str:
    messages = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

"""Templates: from a bare question to the instruction that a model is given."""

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

INSTRUCT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request in "
    "{language}. Please answer in {language}.\n\n### Instruction:\n{question}\n\n### Response:"
)
"""The prompt that MathOctopus and MAPO were trained with: Alpaca's, and the language by name."""


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


@dataclass(frozen=True)
class Template:
    """How an instruction is made from a question.

    Attributes:
        name: as `--template` takes it.
        about: one line for people.
        text: what it looks like, where it is a text with {question} and {language}; None for the model's own.
        render: (question, language code) → instruction.
        joint: what stands between the instruction and a gold answer.
    """

    name: str
    about: str
    text: str | None
    render: Callable[[str, str], str]
    joint: str = ""

    def apply(self, record: Record) -> Record:
        """The record with its instruction made from its bare question, which is kept beside it where it differs."""
        instruction = self.render(record.instruction, record.language)
        answers = tuple(self.joint + answer for answer in record.answers)
        question = None if instruction == record.instruction else record.instruction
        return replace(record, instruction=instruction, answers=answers, question=question)


def text_template(name: str, text: str, *, about: str, joint: str = "") -> Template:
    """A template from a text with the placeholders {question} and, if wanted, {language} (its English name).

    Raises:
        SettingsError: there is no {question} in it.
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


def file_template(path: Path) -> Template:
    """A template from a file; the line break that editors leave at a file's end is not part of it.

    Raises:
        CorpusError: the file cannot be read.
        SettingsError: there is no {question} in it.
    """
    text = read_text(path, what="the template", advice="give a text file in UTF-8, or plain, instruct, chat")
    return text_template(str(path), re.sub(r"\r?\n\Z", "", text), about="your own file")


def chat_template(tokenizer: ChatTokenizer, model_path: str) -> Template:
    """The model's own chat template: the question as the user's turn, up to where the assistant begins.

    The instruction is text, and is tokenized with the tokenizer's own special tokens later (SPEC 1). Where those begin
    with BOS and so does the template's text, BOS is left out of the text: a prompt begins with it once.

    Raises:
        SettingsError: the model has no chat template.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise SettingsError(
            f"the model at {model_path} has no chat template: use --template plain, instruct, or a file of your own"
        )

    def render(question: str, language: str) -> str:
        turns = [{"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return text[len(tokenizer.bos_token) :] if _begins_twice(text, tokenizer) else text

    return Template("chat", _CHAT, None, render)


def _begins_twice(text: str, tokenizer: ChatTokenizer) -> bool:
    bos = tokenizer.bos_token
    return bool(bos) and text.startswith(bos) and tokenizer.encode("a")[:1] == [tokenizer.bos_token_id]


def changed_prompts(records: list[Record], tokenizer: ChatTokenizer) -> int:
    """How many instructions are not the chat template's own tokens, once they are tokenized as text (SPEC 1)."""
    return sum(_changed(record, tokenizer) for record in records)


def _changed(record: Record, tokenizer: ChatTokenizer) -> bool:
    turns = [{"role": "user", "content": record.question or record.instruction}]
    own = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(record.instruction) != tokenizer.encode(own, add_special_tokens=False)


_CHAT = "the model's own chat template, up to where the assistant begins; needs --model-path"
PLAIN = text_template("plain", "{question}", about="the question as it is", joint="\n")
TEMPLATES = {
    "plain": PLAIN,
    "instruct": text_template(
        "instruct", INSTRUCT, about="Alpaca's instruction, as MathOctopus and MAPO use it", joint=" "
    ),
    "chat": Template("chat", _CHAT, None, lambda question, language: question),
}
"""The templates by name; "chat" is only described here: `chat_template` makes it from a tokenizer."""

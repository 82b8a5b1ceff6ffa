"""Templates: from a bare question to an instruction."""

from __future__ import annotations

import json
import re
import signal
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors
from transformers import AddedToken, PreTrainedTokenizerFast

from language_neurons_alignment.corpus import templates
from language_neurons_alignment.corpus.encode import encode_groups, encode_prompts, encode_texts
from language_neurons_alignment.corpus.records import Record, read_corpus
from language_neurons_alignment.corpus.templates import (
    PLAIN,
    TEMPLATES,
    chat_template,
    file_template,
    text_template,
)
from language_neurons_alignment.errors import CorpusError, LNAWarning, SettingsError
from tests.tiny_models import SPECIALS, tiny_tokenizer

RECORD = Record("te", "ఎన్ని?", ("రెండు.",), id="1", target="2")
WIDE = {"lstrip": True, "rstrip": True}


def test_plain_changes_nothing_but_sets_a_gold_answer_on_a_line_of_its_own() -> None:
    made = PLAIN.apply(RECORD)
    assert (made.instruction, made.answers, made.question) == (RECORD.instruction, ("\nరెండు.",), None)
    assert (made.language, made.id, made.target) == ("te", "1", "2")


def test_instruct_is_the_prompt_that_mathoctopus_was_trained_with_and_keeps_the_bare_question() -> None:
    made = TEMPLATES["instruct"].apply(RECORD)
    assert made.instruction == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request in "
        "Telugu. Please answer in Telugu.\n\n### Instruction:\nఎన్ని?\n\n### Response:"
    )
    assert (made.question, made.answers) == ("ఎన్ని?", (" రెండు.",))


@settings(max_examples=30)
@given(st.text())
def test_a_question_is_never_read_as_a_template(question: str) -> None:
    made = text_template("t", "<{question}|{language}>", about="").apply(Record("en", question, ()))
    assert made.instruction == f"<{question}|English>"


def test_braces_and_placeholders_in_a_question_stay_as_they_are() -> None:
    made = text_template("t", "{question} {other} {0} {language}", about="")
    assert made.render("{language} {question} \\1", "en") == "{language} {question} \\1 {other} {0} English"


@pytest.mark.parametrize("content", ["Q: {question}\nA:\n", "Q: {question}\r\nA:\r\n", "\ufeffQ: {question}\nA:"])
def test_a_file_is_a_template_without_the_line_break_at_its_end(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(content.encode())
    assert file_template(path).render("Why?", "en").replace("\r\n", "\n") == "Q: Why?\nA:"


def test_a_file_without_a_question_in_it_or_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("Answer this: {Question}")
    with pytest.raises(SettingsError, match=r"mine\.txt has no \{question\} in it"):
        file_template(path)
    path.write_bytes(b"{question}\xff")
    with pytest.raises(CorpusError, match=r"mine\.txt: not UTF-8 at byte 10, line 1"):
        file_template(path)


BOS, EOS = "<s>", "</s>"
USER = "{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}[assistant]"
TOKENIZERS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "as Llama: BOS by both": ("<s> $A", "{{ bos_token }}" + USER, {}),
    "BOS by the tokenizer alone": ("<s> $A", USER, {}),
    "BOS by the template alone": ("$A", "{{ bos_token }}" + USER, {}),
    "no BOS at all": ("$A", USER, {}),
    "BOS written out in the template": ("<s> $A", "<s>" + USER, {}),
    "bos_token null, BOS by both": ("<s> $A", "<s>" + USER, {"bos_token": None}),
    "bos_token null, BOS by the tokenizer alone": ("<s> $A", USER, {"bos_token": None}),
    "spaces before BOS": ("<s> $A", "\n {{ bos_token }}" + USER, {}),
    "EOS appended": ("<s> $A </s>", "{{ bos_token }}" + USER, {}),
    "EOS appended, no BOS": ("$A </s>", USER, {}),
    "EOS appended, eos_token null": ("$A </s>", USER, {"eos_token": None}),
    "two tokens in front, three behind": ("<s> <unk> $A </s> </s> <pad>", "<s><unk>" + USER, {}),
    "BOS that swallows the spaces around it": ("<s> $A", " <s> " + USER, {"bos_token": AddedToken("<s>", **WIDE)}),
    "one token for BOS and EOS": ("<s> $A <s>", "<s>" + USER, {"eos_token": "<s>"}),
    "BOS of id 0, by both": ("<pad> $A", "{{ bos_token }}" + USER, {"bos_token": "<pad>"}),
    "BOS of id 0, by the tokenizer alone": ("<pad> $A", USER, {"bos_token": "<pad>"}),
    "BOS of id 0, by the template alone": ("$A", "{{ bos_token }}" + USER, {"bos_token": "<pad>"}),
    "BOS of id 0, EOS appended": ("<pad> $A </s>", "{{ bos_token }}" + USER, {"bos_token": "<pad>"}),
    "a question first": ("<s> $A", "{{ messages[0].content }}[assistant]", {}),
    "the settings say otherwise": ("<s> $A", USER, {"add_bos_token": False, "add_eos_token": True}),
}
"""What tokenizers do, and say of themselves: the post-processor, the chat template, the settings."""
QUESTIONS = ("ఎన్ని?", "abc the", " 1 + 1?\n", "<s>[INST] of </s> it", "</s>", "\n")


def tokenizer_of(post: str, template: str | None = None, **settings: Any) -> Any:
    """A real tokenizer that puts these tokens around a text."""
    backend = tiny_tokenizer().backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single=post, special_tokens=list(zip(SPECIALS, range(4), strict=True))
    )
    usual = {"bos_token": BOS, "eos_token": EOS, "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=backend, **{**usual, **settings})
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_chat_prompt_has_exactly_the_tokens_of_the_model_s_own_recipe(name: str, question: str) -> None:
    post, template, settings = TOKENIZERS[name]
    tokenizer = tokenizer_of(post, template, **settings)
    messages = [{"role": "user", "content": question}]
    recipe = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    made = chat_template(tokenizer, "m").apply(Record("te", question, ("రెండు.",), id="1"))
    record = read_again(made)
    assert prompt_of(record, tokenizer) == tuple(recipe)
    assert (record.question, record.answers, record.id) == (question, ("రెండు.",), "1")


@pytest.mark.parametrize(
    ("name", "raw", "chat"),
    [
        ("as Llama: BOS by both", 1, 1),
        ("BOS by the tokenizer alone", 1, 0),
        ("BOS by the template alone", 0, 1),
        ("no BOS at all", 0, 0),
        ("EOS appended", 1, 1),
        ("EOS appended, no BOS", 0, 0),
        ("BOS of id 0, by both", 1, 1),
        ("BOS of id 0, by the tokenizer alone", 1, 0),
        ("BOS of id 0, by the template alone", 0, 1),
        ("BOS of id 0, EOS appended", 1, 1),
    ],
)
def test_a_sequence_has_the_one_bos_that_its_model_expects_in_front(name: str, raw: int, chat: int) -> None:
    """A raw text has what the tokenizer puts in front, a chat prompt what the model's own recipe has; never twice."""
    post, template, settings = TOKENIZERS[name]
    tokenizer = tokenizer_of(post, template, **settings)
    bos = tokenizer.bos_token_id
    for record, wanted in ((Record("te", "abc the", ("ab",)), raw), (None, chat)):
        record = record or chat_template(tokenizer, "m").apply(Record("te", "abc the", ("ab",)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LNAWarning)
            group = encode_groups([record], tokenizer, max_length=999).groups[0]
            scored = encode_texts([record], tokenizer, text="full", max_length=999)[0].tokens
        for tokens in (prompt_of(record, tokenizer), group.prefix, *group.full, scored):
            assert tokens.count(bos) == wanted
            assert (tokens[0] == bos) == bool(wanted)


@pytest.mark.filterwarnings("ignore::language_neurons_alignment.errors.LNAWarning")
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_counted_text_begins_with_its_prompt_whatever_the_tokenizer_appends(name: str) -> None:
    post, template, settings = TOKENIZERS[name]
    tokenizer = tokenizer_of(post, template, **settings)
    for record in (Record("te", "ఎన్ని?", ("రెండు.",)), chat_template(tokenizer, "m").apply(RECORD)):
        group = encode_groups([record], tokenizer, max_length=999).groups[0]
        answer = tuple(tokenizer.encode(record.answers[0], add_special_tokens=False))
        assert group.prefix == prompt_of(record, tokenizer)
        assert group.full == (group.prefix + answer,)


def read_again(record: Record) -> Record:
    """The record as the next command reads it from a file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "c.json"
        path.write_text(json.dumps([record.as_item()], ensure_ascii=False), encoding="utf-8")
        return read_corpus(path).records[0]


def prompt_of(record: Record, tokenizer: Any) -> tuple[int, ...]:
    """The tokens that an engine gets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LNAWarning)
        return encode_prompts([record], [(0, 0)], tokenizer, ends=())[0].tokens


class Own:
    """A tokenizer whose recipe is no tokenization of its text."""

    chat_template = "own"

    def __init__(self, tokens: list[int]) -> None:
        self._tokens, self._tokenizer = tokens, tokenizer_of("<s> $A")
        self.encode, self.decode = self._tokenizer.encode, self._tokenizer.decode

    def apply_chat_template(self, conversation: Any, *, tokenize: bool, **options: Any) -> Any:
        return self._tokens if tokenize else "ab" + conversation[0]["content"]


def test_a_recipe_that_no_text_has_is_refused_with_the_position_and_both_tokens() -> None:
    with pytest.raises(SettingsError) as refused:
        chat_template(Own([266, 5]), "m").apply(Record("te", "abc", (), id="7"))
    assert str(refused.value) == (
        "the prompt of the record id 7 in 'te' cannot have the tokens of the chat template of m: at position 0 its "
        "text has 'ab' (token 260), the template 'é' (token 266); use a template file of your own"
    )


@pytest.mark.parametrize(
    "template",
    [
        "User: {% for m in messages %}{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}"
        "{% endfor %}{% endfor %} Assistant:",
        "Hello",
    ],
)
def test_a_chat_template_that_leaves_the_question_out_is_refused(template: str) -> None:
    with pytest.raises(SettingsError, match="the chat template of here leaves the question out"):
        chat_template(tokenizer_of("<s> $A", template), "here")


@pytest.mark.parametrize("post", ["<s> $A", "$A", "$A </s>"])
@pytest.mark.parametrize("template", ["<s><s>" + USER, "<s>\n{{ bos_token }}" + USER, "<s>{{ messages[0].content }}"])
def test_a_chat_prompt_that_would_begin_with_bos_twice_is_refused(post: str, template: str) -> None:
    chat = chat_template(tokenizer_of(post, template), "here")
    with pytest.raises(SettingsError) as refused:
        chat.apply(Record("te", "<s>[INST] it", (), id="7"))
    assert str(refused.value) == (
        "the chat template of here gives the record id 7 in 'te' a prompt that begins twice with '<s>' (token 1), and "
        "a model expects one: correct the template, or use a template file of your own"
    )


@pytest.mark.parametrize("template", ["{{ messages[0].content }}{{ eos_token }}", ""])
def test_a_chat_template_whose_prompt_ends_with_eos_or_is_empty_is_refused(template: str) -> None:
    tokenizer = tokenizer_of("<s> $A", template or "{% if false %}{% endif %}")
    with pytest.raises(SettingsError, match=r"ends its prompt with .*use a template file of your own"):
        chat_template(tokenizer, "m").apply(RECORD)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('Conversation roles must\nalternate \x1b[31m') }}", "Conversation roles must alternate"),
        ("a\n{% for %}", r"fails \(its line 2\): Expected an expression"),
        ("{{ messages.__class__.__mro__ }}", "access to attribute '__class__' of 'list' object is unsafe"),
        ("{% for i in range(10 ** 9) %}a{% endfor %}", "Range too big"),
        ("{{ messages[3].content }}", "list object has no element 3"),
        ("{{ messages[0].content.nothing() }}", "has no attribute 'nothing'"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "recursion"),
        ("{% include 'secret.txt' %}", "no loader"),
        ("{{ 'a' | nothing }}", "No filter named 'nothing'"),
        ({"tool_use": "x"}, "multiple chat templates with no default"),
    ],
)
def test_a_chat_template_that_fails_gives_its_own_message_in_one_line(template: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        chat_template(tokenizer_of("<s> $A", template), "here").apply(RECORD)
    assert str(refused.value).startswith("the chat template of here fails")
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 600


BOMBS = {
    "two long loops": ("{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}", "seconds"),
    "loops that write nothing": (
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}a",
        "seconds",
    ),
    "macros that call each other twice": (
        "{% macro a(n) %}{% if n %}{{ a(n - 1) }}{{ a(n - 1) }}{% endif %}{% endmacro %}{{ a(60) }}",
        "seconds",
    ),
    "text without end": ("{{ 'a' * 10 ** 10 }}", "GiB of memory"),
    "text without end at last": ("{% set n = messages | length * 10 ** 10 %}{{ 'a' * n }}", "GiB of memory"),
    "a long list": ("{{ [messages] * 10 ** 10 }}", "GiB of memory"),
    "a long filter": ("{{ 'a' | center(10 ** 10) }}", "GiB of memory"),
    "a long text": ("{{ 'a' * 10 ** 8 }}", "writes 100000000 characters"),
}
IN_THE_MAIN_THREAD = {"a huge number": ("{{ (10 ** (10 ** 10)) % 7 }}", "(seconds|GiB of memory)")}


def rendered_by(template: str, seconds: float = 1.0) -> str:
    """What is said of a template that gets so many seconds."""
    with mock.patch.object(templates, "_SECONDS", seconds), pytest.raises(SettingsError) as refused:
        chat_template(tokenizer_of("<s> $A", template), "here").apply(RECORD)
    return str(refused.value)


@pytest.mark.timeout(60)
@pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
@pytest.mark.parametrize(("template", "said"), [*BOMBS.values(), *IN_THE_MAIN_THREAD.values()])
def test_a_chat_template_without_end_is_an_error_within_seconds_and_leaves_nothing_behind(
    template: str, said: str
) -> None:
    import resource

    handler, limit = signal.getsignal(signal.SIGVTALRM), resource.getrlimit(resource.RLIMIT_AS)
    told = rendered_by(template)
    assert re.search(said, told), told
    assert told.isprintable()
    assert signal.getsignal(signal.SIGVTALRM) == handler
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert resource.getrlimit(resource.RLIMIT_AS) == limit


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
def test_so_it_is_in_another_thread(name: str) -> None:
    template, said = BOMBS[name]
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(rendered_by, template).result()
        assert pool.submit(sys.gettrace).result() is None
    assert re.search(said, told), told


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_a_process_that_uses_the_timer_itself_keeps_it() -> None:
    def own(_signal: int, _frame: object) -> None: ...

    signal.signal(signal.SIGVTALRM, own)
    try:
        assert "seconds" in rendered_by(BOMBS["two long loops"][0])
        assert signal.getsignal(signal.SIGVTALRM) is own
    finally:
        signal.signal(signal.SIGVTALRM, signal.SIG_DFL)


def test_a_model_without_a_chat_template_is_refused_with_what_there_is_instead() -> None:
    with pytest.raises(SettingsError, match=r"model at here has no chat template: use the template plain"):
        chat_template(tiny_tokenizer(), "here")

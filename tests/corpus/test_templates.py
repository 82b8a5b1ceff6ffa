"""Templates: from a bare question to an instruction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from language_neurons_alignment.corpus.records import Record
from language_neurons_alignment.corpus.templates import (
    PLAIN,
    TEMPLATES,
    changed_prompts,
    chat_template,
    file_template,
    text_template,
)
from language_neurons_alignment.errors import CorpusError, SettingsError
from tests.tiny_models import tiny_tokenizer

RECORD = Record("te", "ఎన్ని?", ("రెండు.",), id="1", target="2")
CHAT = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}[assistant]"


def chat_tokenizer(*, template: str = CHAT, adds_bos: bool = True) -> Any:
    """A real tokenizer with a chat template; `tiny_tokenizer` puts BOS in front of every text."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    if not adds_bos:
        tokenizer.backend_tokenizer.post_processor = None
        assert tokenizer.encode("a")[:1] != [tokenizer.bos_token_id]
    return tokenizer


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


@pytest.mark.parametrize("adds_bos", [True, False])
@pytest.mark.parametrize("template", [CHAT, CHAT.replace("{{ bos_token }}", "")], ids=["BOS in it", "no BOS in it"])
def test_a_chat_prompt_tokenized_as_text_has_at_most_one_bos(template: str, adds_bos: bool) -> None:
    tokenizer = chat_tokenizer(template=template, adds_bos=adds_bos)
    made = chat_template(tokenizer, "m").apply(RECORD)
    tokens = tokenizer.encode(made.instruction)
    assert tokens.count(tokenizer.bos_token_id) == (adds_bos or "bos_token" in template)
    assert tokenizer.bos_token_id not in tokens[1:]


@pytest.mark.parametrize("adds_bos", [True, False])
def test_a_chat_prompt_s_tokens_are_the_chat_template_s_own(adds_bos: bool) -> None:
    tokenizer = chat_tokenizer(adds_bos=adds_bos)
    made = chat_template(tokenizer, "m").apply(RECORD)
    own = tokenizer.apply_chat_template([{"role": "user", "content": "ఎన్ని?"}], add_generation_prompt=True)
    assert tokenizer.encode(made.instruction) == own["input_ids"]
    assert (made.question, made.answers) == ("ఎన్ని?", ("రెండు.",))
    assert changed_prompts([made], tokenizer) == 0


def test_a_prompt_whose_tokens_are_not_the_chat_template_s_own_is_counted() -> None:
    tokenizer = chat_tokenizer(template=CHAT.replace("{{ bos_token }}", ""))  # … and BOS is added to its text
    made = chat_template(tokenizer, "m").apply(RECORD)
    assert changed_prompts([made, made], tokenizer) == 2


def test_a_model_without_a_chat_template_is_refused_with_what_there_is_instead() -> None:
    with pytest.raises(SettingsError, match=r"model at here has no chat template: use the template plain"):
        chat_template(tiny_tokenizer(), "here")

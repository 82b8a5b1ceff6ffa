"""Every `lna` command that a reader can copy from README and the documentation, against the program itself.

Most of them need a GPU, hours or a network, so each is parsed, by the program itself: commands, flags, the types of
their values and required arguments. `test_your_own_text` and `test_notebooks` run theirs.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from language_neurons_alignment.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "concepts").glob("*.md"))]
PROGRAM = get_command(app)
START = r"(?:lna|python -m language_neurons_alignment(?:\.cli)?)"


def commands(text: str) -> list[str]:
    """The commands of a page's blocks, and those in its sentences; a line of several commands is taken apart."""
    blocks = re.findall(r"^```(?:bash|sh|console|shell)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    blocks += re.findall(r"(?:^    \S.*\n)+", text, re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [part.strip() for line in lines for part in re.split(r";|\|\s|(?<!-)\bdo\b", line)]
    found += re.findall(rf"`({START} [a-z][^`]* -[^`]*)`", text)
    return [one for one in found if re.match(rf"{START} [a-z]", one) and "…" not in one]


def parse(command: str) -> None:
    """Let the program read a command without running it; a wrong one raises.

    A sentence may leave out which model, as in `lna run --hi 0.2`: then the command and its flags must exist.
    """
    words = shlex.split(re.sub(rf"^{START}", "", command).replace("$LAM", "0.1"), comments=True)
    at: Any = PROGRAM
    while hasattr(at, "commands"):
        name = words.pop(0)
        if name not in at.commands:
            raise LookupError(f"no such command: {name}")
        at = at.commands[name]
    if words and all(word.startswith("-") or re.fullmatch(r"[\d.K/N]+", word) for word in words):
        known = {flag for parameter in at.params for flag in parameter.opts}
        if unknown := {word for word in words if word.startswith("-")} - known:
            raise LookupError(f"no such flag: {sorted(unknown)}")
        return
    at.make_context("lna", words)


def examples() -> list[tuple[str, str]]:
    return [(page.name, one) for page in PAGES for one in commands(page.read_text(encoding="utf-8"))]


def write_run_file(folder: Path) -> None:
    """The run file that the page of the command line shows."""
    (text,) = re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / "docs" / "cli.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    (folder / "run.yaml").write_text(text, encoding="utf-8")


def test_every_command_of_the_seeds_readme_is_still_read_to_the_letter() -> None:
    seed = ROOT.parent / "shared" / "design" / "seed-readme.md"
    if not seed.is_file():
        pytest.skip(f"the seed's README is not at hand: {seed} is not there")
    text = re.sub(r"<lambda[^>]*>", "0.1", seed.read_text(encoding="utf-8"))
    found = [one for one in commands(text) if " -" in one]
    assert len(found) >= 7
    for command in found:
        parse(command)


def test_every_command_of_readme_and_documentation_is_one_that_the_program_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run_file(tmp_path)
    found = examples()
    assert len(found) > 100
    assert {"README.md", "recipes.md", "paper.md", "workflow.md", "perplexity.md"} <= {page for page, _ in found}
    wrong = []
    for page, command in found:
        try:
            parse(command)
        except Exception as error:  # typer brings a click of its own
            wrong.append(f"{page}: {command}: {getattr(error, 'message', error)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "wrong", ["lna rum -s x", "lna ppl --modelpath x", "lna ppl --exactly 3", "lna ppl -s x --controls few", "lna ppl"]
)
def test_a_wrong_command_would_be_found(wrong: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|valid integer|missing"):
        parse(wrong)


def test_every_message_that_is_explained_is_one_that_the_program_has() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(messages) > 5
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "language_neurons_alignment").rglob("*.py"))
    texts = re.sub(r"[\"']\s*\n\s*f?[\"']", "", "\n".join(sources))  # a text over several lines, as one
    assert [message for message in messages if message not in texts] == []

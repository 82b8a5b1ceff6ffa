"""The commands of README and of the recipes, run as they stand on a tiny model and small corpora, in this process.

`tests/test_docs_commands.py` checks that all commands of the documentation can be read; `test_processes` and
`tests/test_your_own_text.py` follow the workflow of README and a whole page in a shell.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.adapters import save_adapter
from tests.cli.conftest import Lna
from tests.test_docs_commands import ROOT, START, commands, write_run_file
from tests.workspace import SAYINGS, small_records, write_corpus

LANGUAGES = ("en", "zh", "fr", "de")

NOT_HERE = {
    "--engine vllm": "needs vLLM and several GPUs",
    "dataset build flores": "reads the hub; the corpus that it would write is made below",
    "lna report": "draws a hundred pictures in five seconds: tests/cli/test_report.py and others do so",
    "-l $L": "README's workflow: test_processes follows it in a shell",
    "-l $LAM": "the same",
}
"""Part of a command → why it is not run here."""

SMALL = {
    "run": "-r 0.1 -b 0.8 --controls 0",
    "compare": "-r 0.1",
    "stability": "-r 0.1 --draws 20 --splits 4",
    "generate": "-r 0.1 --max-new-tokens 4",
    "dataset check": "--no-language-id",
}
"""Flags that suit a model of 288 neurons and take little time, behind every command."""

APART = ("An 8B model on a 24 GB card", "A cluster")
"""Recipes that count the same corpus in another way, so their results lie elsewhere."""


def recipes() -> dict[str, list[str]]:
    """Heading → the commands under it."""
    parts = re.split(r"^## (.*)\n", (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {heading: commands(text) for heading, text in zip(parts[1::2], parts[2::2], strict=True)}
    whole = [one for one in commands((ROOT / "README.md").read_text(encoding="utf-8")) if "--model-path" in one]
    return {"README": whole, **found}


def prepare(folder: Path, model: Path) -> None:
    """What a reader of the recipes has: models, corpora, texts and a run file."""
    (folder / "MODEL").symlink_to(model)
    save_adapter(model, folder / "ALIGNED")
    records = small_records(LANGUAGES, questions=4)
    write_corpus(folder / "datasets" / "mgsm.json", records)
    write_corpus(folder / "datasets" / "mine.json", small_records(("en", "fr"), questions=10))
    write_corpus(folder / "datasets" / "questions.json", [{**one, "answers": []} for one in records[::4]])
    texts = [{"lang": code, "instruction": SAYINGS[code][0], "answers": []} for code in ("en", "fr", "de")]
    write_corpus(folder / "datasets" / "flores.json", texts)
    (folder / "my-text").mkdir()
    for code in ("en", "fr"):
        (folder / "my-text" / f"{code}.txt").write_text(SAYINGS[code][0] + "\n", encoding="utf-8")
    write_run_file(folder)
    text = (folder / "run.yaml").read_text(encoding="utf-8")
    text = text.replace("./Mistral-7B-v0.1", "MODEL").replace("[en, es, no]", "[en, fr, de, zh]")
    (folder / "run.yaml").write_text(text, encoding="utf-8")


def small(command: str) -> list[list[str]]:
    """The words of a command, for each shard where it counts one."""
    words = shlex.split(re.sub(f"^{START}", "", command.replace("/ABS/PATH/TO/MODEL", "MODEL")), comments=True)
    name = next(name for name in (" ".join(words[:2]), words[0], "") if name in SMALL or not name)
    words += shlex.split(SMALL.get(name, ""))
    return [[f"{k}/4" if word == "3/4" else word for word in words] for k in range(1, 5 if "3/4" in words else 2)]


def test_the_commands_of_readme_and_recipes_do_what_they_say(
    lna: Lna, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, ran = recipes(), 0
    for heading in (*APART, *(one for one in found if one not in APART)):
        folder = tmp_path / (heading if heading in APART else "together")
        if not folder.exists():
            folder.mkdir()
            prepare(folder, tiny / "tiny-llama")
        monkeypatch.chdir(folder)
        for command in found[heading]:
            if any(part in command for part in NOT_HERE):
                continue
            for words in small(command):
                done = lna(*words)
                assert done.code == 0, f"{heading}: lna {shlex.join(words)}\n{done.err}"
                assert done.out
                ran += 1
    assert ran >= 20
    every = " ".join(command for listed in found.values() for command in listed)
    assert all(part in every for part in NOT_HERE), "no exception that nothing needs"
    together = tmp_path / "together"
    for made in ("comparisons/mgsm", "stability/mine", "ppl_maps/flores", "ppl_maps/thirty"):
        assert any((together / made).rglob("*.*")), made

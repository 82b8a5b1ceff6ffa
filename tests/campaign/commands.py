"""A small model, a corpus of three languages, and every command of the program on them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.tiny_models import save_tiny_model
from tests.workspace import small_records

from .processes import Child, lna

LANGUAGES = ("en", "es", "sw")
ON = "--model-path tiny -s small --root out"
OTHER = "--model-path moved -s small --root out"
CPU = "-d corpus.json --device cpu"
FOUND = "-r 0.1 -b 0.8 --hi 2 --langs en,es,sw"
MASK = "-r 0.1 -l 0.0"
FEW = "--max-new-tokens 3 --batch-tokens 60"


@dataclass(frozen=True)
class Command:
    """A command line, the commands whose results it needs, and whether a second one is refused."""

    line: str
    after: tuple[str, ...] = ()
    once: bool = False

    @property
    def argv(self) -> list[str]:
        """The arguments of the program."""
        return [one.replace("~", " ") for one in self.line.split()]


COUNTED = tuple(f"activation {one}" for one in LANGUAGES)
MADE = (*COUNTED, "identify")
COMMANDS = {
    **{
        f"activation {one}": Command(f"activation {ON} {CPU} -l {one} --blocks 2 --moments --batch-tokens 60")
        for one in LANGUAGES
    },
    **{
        f"shard {one} {k}": Command(f"activation {ON} {CPU} -l {one} --shard {k}/2 --moments")
        for one in LANGUAGES
        for k in (1, 2)
    },
    **{f"activation moved {one}": Command(f"activation {OTHER} {CPU} -l {one}") for one in LANGUAGES},
    "merge": Command(f"merge {ON}", tuple(f"shard {one} {k}" for one in LANGUAGES for k in (1, 2))),
    "autosweep": Command(f"autosweep {ON} {FOUND}", COUNTED),
    "identify": Command(f"identify {ON} {MASK} -b 0.8 --langs en,es,sw", COUNTED),
    "identify random": Command(f"identify {ON} {MASK} -b 0.8 --langs en,es,sw --method random --mask-seed 3", COUNTED),
    "import-mask": Command("import-mask public.pth --model-path tiny -s public --root out -r 0.1 --langs en,es,sw"),
    "generate": Command(
        f"generate --model-path tiny -d questions.json -o out/answers.json -n 2 --temperature 0.7 --device cpu {FEW}"
    ),
    "ppl": Command(f"ppl {ON} {CPU} {MASK} --controls 2 --batch-tokens 200", MADE),
    "ppl do": Command(f"ppl {ON} {CPU} {MASK} --controls 0 --do mean:es~each --text answer", MADE),
    "evaluate": Command(f"evaluate {ON} {CPU} {MASK} --langs en,es --controls 2 {FEW}", MADE),
    "force": Command(f"force {ON} {CPU} {MASK} --langs en --targets es,sw --controls 2 {FEW}", MADE),
    "methods": Command(f"methods {ON} {CPU} {FOUND} -l 0.0 --neurons 5 --mask-seed 3", MADE),
    "analyze": Command(f"analyze {ON} {FOUND} -l 0.0", MADE),
    "stability": Command(f"stability {ON} {FOUND} -l 0.0 --draws 8 --splits 2", MADE),
    "compare": Command(
        f"compare tiny moved -s small --root out {MASK} -b 0.8 --langs en,es,sw",
        (*MADE, *(f"activation moved {one}" for one in LANGUAGES)),
    ),
    "report": Command(f"report {ON} {MASK} -b 0.8 --langs en,es,sw", (*MADE, "ppl")),
    "neurons": Command(f"neurons {ON} {CPU} {MASK} --langs en,es,sw --effects --controls 2 --top 2 -k 2", MADE),
    "neuron": Command(f"neuron 1.3 {ON} {CPU} {MASK} --langs en,es", MADE),
    "lens": Command(f"lens {ON} {CPU} {MASK} --do zero~sw", MADE),
    "plan": Command("plan tiny -d corpus.json --tokens-per-second 100"),
    "shards": Command(f"shards {ON} {CPU} --parts 2 --shell"),
    "export-model": Command(f"export-model {ON} {MASK} --do zero~sw -o out/without-sw", MADE, once=True),
    "push": Command(f"push me/neurons {ON}", (*MADE, "ppl")),
    "pull": Command("pull me/neurons --root out/theirs", (*MADE, "push")),
    "dataset build": Command("dataset build table.csv -o out/built.json --lang-column lang --target-column target"),
    "run": Command(
        f"run {ON} -d questions.json --device cpu -r 0.1 -b 0.8 -l 0.0 --langs en,es,sw --controls 2 "
        f"--blocks 2 --moments {FEW}"
    ),
}
"""By name; "~" stands for a space within an argument."""

NEVER_OVERWRITING = (
    *("autosweep", "analyze", "stability", "compare", "report", "neurons", "neuron", "lens", "plan"),
    *("export-model", "push"),
)
OVERWRITING = tuple(name for name in COMMANDS if name not in NEVER_OVERWRITING)
"""The commands that take --force."""


def records(*, questions: int = 3, answered: bool = True) -> list[dict[str, object]]:
    """A corpus whose questions have ids and known answers."""
    return [
        {**one, "id": str(number % questions), "target": str(number % questions + 2)}
        | ({} if answered else {"answers": []})
        for number, one in enumerate(small_records(LANGUAGES, questions=questions))
    ]


def make_inputs(folder: Path) -> None:
    """Models, corpora, a published mask and a table: what commands only read."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    save_tiny_model("llama", folder / "tiny", hidden_size=32, intermediate_size=24)
    save_tiny_model("llama", folder / "moved", seed=1, hidden_size=32, intermediate_size=24)
    for name, answered in (("corpus.json", True), ("questions.json", False)):
        text = json.dumps(records(answered=answered), ensure_ascii=False)
        (folder / name).write_text(text, encoding="utf-8")
    torch.save([[torch.tensor([i, i + 3 * j + 1]) for j in range(3)] for i in range(3)], folder / "public.pth")
    rows = "".join(f'{one["lang"]},{one["id"]},"{one["instruction"]}",{one["target"]}\n' for one in records())
    (folder / "table.csv").write_text(f"lang,id,instruction,target\n{rows}", encoding="utf-8")


INPUTS = ("tiny", "moved", "corpus.json", "questions.json", "public.pth", "table.csv")


def workspace(inputs: Path, folder: Path, results: Path | None = None) -> Path:
    """A folder in which commands can run: the inputs, linked, and a copy of earlier results."""
    folder.mkdir(parents=True)
    for name in INPUTS:
        (folder / name).symlink_to(inputs / name)
    if results is not None and results.exists():
        shutil.copytree(results, folder / "out")
    return folder


class Results:
    """The results of commands, each made once by an uninterrupted run."""

    def __init__(self, folder: Path) -> None:
        self.inputs = folder / "inputs"
        self._folder = folder / "results"
        if not self.inputs.exists():
            make_inputs(self.inputs)

    def after(self, *names: str) -> Path:
        """The results of these commands, run in this order; a folder `out`, which may not be there."""
        key = "+".join(one.replace(" ", "_") for one in names) or "nothing"
        folder = self._folder / _short(key)
        if not folder.exists():
            earlier = self.after(*names[:-1]) if names else None
            workspace(self.inputs, folder, earlier)
            if names:
                self._run(COMMANDS[names[-1]], folder)
        return folder / "out"

    def _run(self, command: Command, folder: Path) -> None:
        ended = Child(lambda: lna(*command.argv), folder).wait(limit=120)
        if ended.code:
            raise RuntimeError(f"lna {command.line}: exit {ended.code}\n{ended.err}")


def _short(key: str) -> str:
    import hashlib

    return hashlib.blake2b(key.encode(), digest_size=8).hexdigest()

"""Makes this folder: what version 0.1.0, at commit dc3d973, writes, and what it says of it.

    git worktree add --detach /somewhere/base dc3d973
    cd tests/data/results_0_1
    PYTHONPATH=/somewhere/base:<this repository> MPLBACKEND=Agg OMP_NUM_THREADS=1 python make.py

`PYTHONPATH` decides whose results these are: it has to be run by the code of that commit, and refuses any other.

    models/       two tiny models, the second one "aligned"; planted_small.py makes them
    corpus.json   questions with answers; questions.json: without
    finished/     results of every command, under the family's name
    named/        results under --model-name Qwen2.5-Tiny
    sharded/      counts of two shards that nobody has merged
    counting/     counts that a kill cut off in the third of four languages
    half/         what kills leave of perplexity maps, evaluations, forcings, answers and a run; without counts and
                  masks, which are those of finished/
    told.json     each command as it was typed, and its --json output; of half/ also where the kill came

Pictures are left out.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import language_neurons_alignment
from language_neurons_alignment import cli

HERE = Path(__file__).resolve().parent
COMMIT = "dc3d973"
ROOTS = ("finished", "named", "sharded", "counting", "half")
LANGS = ("en", "es", "fr", "de")

ON = "--model-path models/planted-v0.1 -s words"
ALIGNED = "--model-path models/aligned-v0.1 -s words"
CPU = "-d corpus.json --device cpu"
FOUR = "--langs en,es,fr,de"
FOUND = f"-r 0.35 -b 0.8 --hi 1 {FOUR}"
MASK = "-r 0.35 -l {lam}"
FEW = "--controls 2 --max-new-tokens 9 --batch-tokens 90"
OWN = f"--model-path models/planted-v0.1 -d questions.json --device cpu -s own {FOUND} --controls 2 --max-new-tokens 9"

FINISHED = {
    **{f"activation {code}": f"activation {ON} {CPU} -l {code} --blocks 8 --moments" for code in LANGS},
    **{f"activation aligned {code}": f"activation {ALIGNED} {CPU} -l {code}" for code in LANGS},
    "autosweep": f"autosweep {ON} {FOUND}",
    "autosweep exact": f"autosweep {ON} {FOUND} --exact",
    "autosweep by another name": f"autosweep {ON} {FOUND} --model-name Mistral",
    "autosweep aligned": f"autosweep {ALIGNED} {FOUND}",
    "identify": f"identify {ON} {MASK} -b 0.8 {FOUR}",
    "identify another λ": f"identify {ON} -r 0.35 -l 0.25 -b 0.8 {FOUR}",
    "identify lape": f"identify {ON} -r 0.35 -b 0.8 {FOUR} --method lape",
    "identify equal-n": f"identify {ON} -b 0.8 {FOUR} --method equal-n --neurons 5",
    "identify mean-difference": f"identify {ON} -r 0.35 -b 0.8 {FOUR} --method mean-difference",
    "identify random": f"identify {ON} {MASK} -b 0.8 {FOUR} --method random --mask-seed 3",
    "identify aligned": f"identify {ALIGNED} {MASK} -b 0.8 {FOUR}",
    "ppl": f"ppl {ON} {CPU} {MASK} {FOUR} --controls 2",
    "ppl specific": f"ppl {ON} {CPU} {MASK} {FOUR} --controls 2 --classes specific",
    "ppl answer": f"ppl {ON} {CPU} {MASK} {FOUR} --controls 2 --text answer",
    "ppl mean": f"ppl {ON} {CPU} {MASK} {FOUR} --controls 0 --do 'mean:fr each'",
    "ppl lape": f"ppl {ON} {CPU} -r 0.35 {FOUR} --controls 0 --method lape",
    "evaluate": f"evaluate {ON} {CPU} {MASK} --langs en,es {FEW}",
    "evaluate number": f"evaluate {ON} {CPU} {MASK} --langs en,es {FEW} --show number",
    "evaluate do": f"evaluate {ON} {CPU} {MASK} --langs en --controls 0 --max-new-tokens 9 --do 'scale:2 en'",
    "evaluate specific": f"evaluate {ON} {CPU} {MASK} --langs en {FEW} --classes specific",
    "force": f"force {ON} {CPU} {MASK} --langs en,fr --targets es,fr {FEW}",
    "force specific": f"force {ON} {CPU} {MASK} --langs en --targets es {FEW} --classes specific",
    "methods": f"methods {ON} {CPU} {FOUND} -l {{lam}} --neurons 5 --mask-seed 3",
    "analyze": f"analyze {ON} {FOUND} -l {{lam}}",
    "analyze aligned": f"analyze {ALIGNED} {FOUND}",
    "compare": f"compare models/planted-v0.1 models/aligned-v0.1 -s words {MASK} -b 0.8 {FOUR} --trained fr,de",
    "import-mask": f"import-mask public.neuron.pth --model-path models/planted-v0.1 -s public -r 0.35 {FOUR}",
    "analyze imported": "analyze --model-path models/planted-v0.1 -s public -r 0.35 --mask-only",
    "generate": "generate --model-path models/planted-v0.1 -d questions.json -o {root}/answers.json -n 2 "
    "--temperature 0.7 --max-new-tokens 9 --batch-tokens 90 --device cpu",
    "generate steered": f"generate {ON} -d questions.json -o {{root}}/steered.json {MASK} --do 'zero fr' --langs fr,de "
    "--max-new-tokens 9 --batch-tokens 90 --device cpu",
    "run": f"run {OWN} --blocks 4 --moments --batch-tokens 300",
    "stability": f"stability {ON} {FOUND} --draws 30 --splits 6",
    "stability with": f"stability {ON} {FOUND} --draws 30 --splits 6 --with own",
}
NAMED = {
    name: f"{FINISHED[name]} --model-name Qwen2.5-Tiny"
    for name in (*(f"activation {code}" for code in LANGS), "autosweep", "identify", "ppl", "analyze", "stability")
}
SHARDED = {
    f"activation {code} {k}": f"activation {ON} {CPU} -l {code} --moments --shard {k}/2"
    for code in LANGS
    for k in (1, 2)
}
COUNTING = tuple(f"activation {code}" for code in LANGS)
HALF = {
    "ppl": ("cell", 9),
    "ppl answer": ("cell", 20 + 13),
    "evaluate": ("batch", 12),
    "evaluate specific": ("spent", 3),
    "force": ("batch", 11),
    "force specific": ("spent", 2),
    "generate": ("torn", 5),
    "generate steered": ("batch", 2),
    "run": ("torn", 2),
}
"""The command, and at which call the process is killed."""

CALLS = {
    "file": ("store.atomic.os", "replace"),
    "cell": ("store.ppl_file", "PerplexityFile.add"),
    "batch": ("store.journal", "Journal.append"),
    "torn": ("store.journal", "Journal.append"),
    "spent": ("store.journal", "Journal.remove"),
}
"""What is counted until the kill: files renamed, cells put on disk, batches of answers, journals removed."""


def main() -> None:
    """Make everything anew."""
    os.chdir(HERE)
    for name in (*ROOTS, "models"):
        shutil.rmtree(name, ignore_errors=True)
    from planted_small import save_model, write_corpora

    save_model(Path("models/planted-v0.1"), seed=0)
    save_model(Path("models/aligned-v0.1"), seed=0, moved={0: ("en", "fr"), 7: ("es", "fr"), 14: ("fr",), 18: ("de",)})
    write_corpora(Path())
    told: dict[str, Any] = {"commit": COMMIT}
    told["finished"] = tell_all(FINISHED, "finished")
    lam = told["finished"]["autosweep"]["told"]["lambda"]
    told["named"] = tell_all(NAMED, "named", lam)
    told["sharded"] = tell_all(SHARDED, "sharded")
    told["counting"] = {name: {"argv": argv(FINISHED[name], "counting", lam)} for name in COUNTING}
    for name, place in {"activation en": None, "activation es": None, "activation fr": ("file", 6)}.items():
        killed(told["counting"][name]["argv"], place)
    for part in ("activations", "activation_masks"):
        shutil.copytree(f"finished/{part}/words", f"half/{part}/words")
    told["half"] = {}
    for name, place in HALF.items():
        told["half"][name] = {"argv": argv(FINISHED[name], "half", lam), "killed": list(place)}
        killed(told["half"][name]["argv"], place)
    for part in ("activations", "activation_masks"):
        shutil.rmtree(f"half/{part}/words")
    tidy()
    lines = [f"{json.dumps(root)}: {lines_of(commands)}" for root, commands in told.items()]
    Path("told.json").write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")


def tell_all(commands: dict[str, str], root: str, lam: float | None = None) -> dict[str, Any]:
    """Run commands in one process; λ is what `autosweep` finds."""
    told: dict[str, Any] = {}
    for name, command in commands.items():
        if name == "import-mask":
            shutil.copy(told["identify"]["told"]["mask"], "public.neuron.pth")
        words = argv(command, root, lam)
        told[name] = {"argv": words, "told": told_by(words)}
        if name == "autosweep":
            lam = told[name]["told"]["lambda"]
    return told


def argv(command: str, root: str, lam: float | None) -> list[str]:
    """A command's words, under a root."""
    words = shlex.split(command.replace("{lam}", repr(lam)).replace("{root}", root))
    return [*words, "--root", root, "--json"]


def told_by(words: list[str]) -> Any:
    """What a command prints."""
    print("$ lna", *words, file=sys.stderr, flush=True)
    import time

    print("@", time.time(), file=sys.stderr)
    out = io.StringIO()
    sys.argv = ["lna", *words]
    with contextlib.redirect_stdout(out):
        try:
            cli.main()
        except SystemExit as ended:
            if ended.code:
                raise
    return json.loads(out.getvalue())


def lines_of(commands: Any) -> str:
    """JSON with each command in a line of its own."""
    if isinstance(commands, str):
        return json.dumps(commands)
    return (
        "{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in commands.items()) + "}"
    )


def killed(words: list[str], place: tuple[str, int] | None) -> None:
    """Run a command in a process of its own, which SIGKILL ends at a place."""
    at = [] if place is None else ["--kill", place[0], str(place[1])]
    done = subprocess.run([sys.executable, str(HERE / "make.py"), *at, "--", *words], check=False)
    wanted = 0 if place is None else -signal.SIGKILL
    if done.returncode != wanted:
        raise SystemExit(f"{words} ended with {done.returncode}, not {wanted}: choose an earlier place")


def run_until(words: list[str], kind: str | None, number: int) -> None:
    """Run a command in this process, and kill it right after (a rename, a removal: before) the call of that number."""
    if kind is not None:
        module, name = CALLS[kind]
        holder = importlib.import_module(f"language_neurons_alignment.{module.removesuffix('.os')}")
        for part in [*(["os"] if module.endswith(".os") else []), *name.split(".")[:-1]]:
            holder = getattr(holder, part)
        last = name.split(".")[-1]
        call, calls = getattr(holder, last), []

        def counted(*arguments: Any, **named: Any) -> Any:
            calls.append(1)
            if len(calls) == number and kind in ("file", "spent"):
                os.kill(os.getpid(), signal.SIGKILL)
            done = call(*arguments, **named)
            if len(calls) == number:
                if kind == "torn":
                    with arguments[0].path.open("rb+") as file:
                        file.truncate(arguments[0].path.stat().st_size - 20)
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        setattr(holder, last, counted)
    sys.argv = ["lna", *words]
    cli.main()


def tidy() -> None:
    """Drop pictures, locks and empty folders; unfinished files (.part) stay as the kill left them."""
    shutil.rmtree("__pycache__", ignore_errors=True)
    for path in [path for name in ROOTS for path in sorted(Path(name).rglob("*"), reverse=True)]:
        if path.is_file() and path.suffix in (".png", ".lock"):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


if __name__ == "__main__":
    found = Path(language_neurons_alignment.__file__).resolve().parents[1]
    head = subprocess.run(["git", "-C", str(found), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    changes = subprocess.run(
        ["git", "-C", str(found), "status", "--porcelain"], capture_output=True, text=True, check=True
    )
    if not head.stdout.startswith(COMMIT) or changes.stdout:
        raise SystemExit(f"{found} is at {head.stdout.strip()} or changed, not {COMMIT}: see this file's docstring")
    if "--" in sys.argv:
        own, words = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
        run_until(words, *((own[1], int(own[2])) if own else (None, 0)))
    else:
        main()

"""The program as its own process: the seed's workflow verbatim, what is imported, signals, terminals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from language_neurons_alignment.store.layout import Layout
from tests.cli.conftest import Lna
from tests.forked import forked_commands
from tests.tiny_models import save_tiny_model
from tests.workspace import TEN, leftovers, store_counts, write_corpus

REPOSITORY = Path(__file__).resolve().parents[2]
SEED = REPOSITORY.parent / "shared" / "design" / "seed-readme.md"
MODULE = (sys.executable, "-m", "language_neurons_alignment.cli")


def environment(**more: str) -> dict[str, str]:
    """This process's, with this repository's package, this Python first in the path, and one thread."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    python_path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PATH": path, "PYTHONPATH": python_path, "OMP_NUM_THREADS": "1", **more}


def process(*arguments: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=cwd, env=environment(**more), capture_output=True, text=True, encoding="utf-8", check=False
    )


def loaded_by(code: str, cwd: Path) -> set[str]:
    """The top-level packages that some code loads, in a process of its own."""
    done = process(sys.executable, "-c", f"{code}\nimport sys; print('loaded', *sys.modules)", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()[1:]}


HEAVY = {"torch", "transformers", "vllm", "matplotlib", "seaborn", "numpy", "jaxtyping"}


def calling(*arguments: str) -> str:
    """Code that calls the program in its own process and goes on after it."""
    return (
        f"import sys; sys.argv = {['lna', *arguments]!r}\n"
        "from language_neurons_alignment.cli import main\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    assert not ended.code, ended.code\n"
    )


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    code = "import language_neurons_alignment as lna; lna.__version__; dir(lna); lna.config.SweepRange"
    loaded = loaded_by(code, tmp_path)
    assert "language_neurons_alignment" in loaded
    assert not loaded & HEAVY


def test_help_and_commands_that_read_no_tensor_load_nothing_heavy(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.json")
    commands = (
        *(("--help",), ("run", "--help"), ("--version",), ("dataset", "templates")),
        ("dataset", "check", str(corpus), "--no-language-id"),
        ("dataset", "build", str(corpus), "-o", "built.json", "--lang-column", "lang"),
    )
    loaded = loaded_by("".join(calling(*arguments) for arguments in commands), tmp_path)
    assert (tmp_path / "built.json").is_file()
    assert "typer" in loaded
    assert not loaded & HEAVY


def test_sweeping_and_identifying_load_no_engine_and_no_plots(tmp_path: Path) -> None:
    store_counts(Layout(tmp_path, "mgsm", "Mistral-MODEL"))
    flags = ("--model-path", "/ABS/PATH/TO/MODEL", "-s", "mgsm", "-r", "0.1")
    loaded = loaded_by(calling("autosweep", *flags) + calling("identify", "-l", "0.0", *flags), tmp_path)
    assert "torch" in loaded
    assert not loaded & {"transformers", "tokenizers", "vllm", "matplotlib", "seaborn", "huggingface_hub"}
    assert not loaded & {"scipy", "langcodes"}, "statistics and the registry of languages, which nothing here needs"


def test_a_report_without_a_map_loads_no_statistics_and_no_registry_of_languages(tmp_path: Path) -> None:
    store_counts(Layout(tmp_path, "mgsm", "Mistral-MODEL"))
    flags = ("--model-path", "/ABS/PATH/TO/MODEL", "-s", "mgsm", "-r", "0.1", "-l", "0.0")
    loaded = loaded_by(calling("report", *flags), tmp_path)
    assert {"matplotlib", "plotly"} <= loaded
    assert not loaded & {"scipy", "langcodes", "transformers"}


def workflow() -> str:
    """The bash block *Full Workflow* of the seed's README."""
    if not SEED.is_file():
        pytest.skip(f"the seed's README is not at hand: {SEED} is not there")
    (block,) = re.findall(r"Full Workflow.*?```\n(.*?)```", SEED.read_text(encoding="utf-8"), re.DOTALL)
    assert block.count("/ABS/PATH/TO/MODEL") == 4
    return block


@pytest.mark.slow
def test_the_seeds_full_workflow_runs_verbatim_with_only_the_model_path_changed(tmp_path: Path) -> None:
    """Its `python -` and `identify` are new Pythons, the others are forked."""
    script = workflow()
    model = save_tiny_model("mistral", tmp_path / "my-model-v0.1")
    write_corpus(tmp_path / "datasets" / "mgsm.json")
    script = script.replace("/ABS/PATH/TO/MODEL", str(model)) + '\nprintf "LAM=<%s>\\n" "$LAM"\n'
    with forked_commands(apart="identify") as commands:
        path = f"{commands}{os.pathsep}{os.environ['PATH']}"
        done = process("bash", "-e", "-u", "-o", "pipefail", "-c", script, cwd=tmp_path, PATH=path)
    assert done.returncode == 0, done.stderr[-3000:]
    caught = re.search(r"^LAM=<(.*)>$", done.stdout, re.MULTILINE)
    assert caught, "LAM is one line"
    lam = float(caught[1])
    assert 0.0 <= lam <= 0.2
    name, rates = "Mistral-my-model-v0.1", f"0.01-{lam!r}"
    promised = [
        *(f"activations/mgsm/{p}activation.{code}.{name}.pt" for code in TEN for p in ("", "prefix.")),
        f"activation_masks/mgsm/{rates}/mask.{name}",
        f"activation_masks/mgsm/{rates}/mask.{name}.json",
        *(f"ppl_maps/mgsm/{rates}/ppl.{name}.{ending}" for ending in ("png", "json", "csv")),
    ]
    assert [path for path in promised if not (tmp_path / path).is_file()] == []
    assert leftovers(tmp_path) == []


def test_a_terminal_without_greek_letters_gets_an_escape_and_no_traceback(tmp_path: Path) -> None:
    store_counts(Layout(tmp_path, "mgsm", "Mistral-MODEL"))
    flags = ("autosweep", "--model-path", "/ABS/PATH/TO/MODEL", "-s", "mgsm", "-r", "0.1")
    done = process(*MODULE, *flags, cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"best \\u03bb = [0-9.]+\n", done.stdout)


def test_an_error_of_a_real_process_is_one_line_on_stderr_and_with_debug_a_traceback(tmp_path: Path) -> None:
    flags = ("autosweep", "--model-path", "/ABS/PATH/TO/MODEL", "-s", "mgsm")
    done = process(*MODULE, *flags, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"lna: activations/mgsm/activation\.en\.Mistral-MODEL\.pt is not there: .*\n", done.stderr)
    done = process(*MODULE, "dataset", "check", "nothing.json", "--debug", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
@pytest.mark.parametrize(("name", "code", "said"), [("INT", 130, "interrupted"), ("TERM", 143, "terminated")])
def test_a_signal_in_the_middle_of_a_run_is_told_in_one_line_and_leaves_no_half_file(
    lna: Lna, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, code: int, said: str
) -> None:
    """A signal while the perplexity map grows: what is done stays, and the same command goes on from there."""
    model = save_tiny_model("llama", tmp_path / "tiny-llama")
    write_corpus(tmp_path / "corpus.json")
    patched = (
        "import signal, os\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job comes with it ignored
        "from language_neurons_alignment.engines import EngineSource\n"
        "from language_neurons_alignment.store import files, grid\n"
        "append, done = grid.GridFile.append, []\n"
        "def slow(self, *a, **k):\n"
        "    append(self, *a, **k); done.append(1)\n"
        "    if len(done) == 4:\n"
        "        with files.atomic_file(self.path.with_name('half')) as file:\n"
        f"            os.kill(os.getpid(), signal.SIG{name})\n"
        "grid.GridFile.append = slow\n"
        "close = EngineSource.__exit__\n"
        "def told(self, *a):\n"
        "    close(self, *a); print('closed', file=sys.stderr)\n"
        "EngineSource.__exit__ = told\n"
        "import sys; sys.argv = ['lna', *sys.argv[1:]]\n"
        "from language_neurons_alignment.cli import main\n"
        "main()\n"
    )
    flags = ("run", "--model-path", str(model), "-d", "corpus.json", "-s", "small", "--langs", "en,es", "-r", "0.1",
             "-l", "0.0", "-b", "0.8")  # fmt: skip
    done = process(sys.executable, "-c", patched, *flags, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    closed, last = done.stderr.rstrip().splitlines()[-2:]
    assert closed == "closed", "the model's memory and processes are given back"
    assert re.fullmatch(rf"lna: {said}.*; what was finished is stored, the same command goes on from there", last)
    assert done.stdout == ""
    assert leftovers(tmp_path) == []
    assert not list(tmp_path.rglob("half"))
    if name == "TERM":  # what another signal left is the same
        monkeypatch.chdir(tmp_path)
        again = lna(*flags, "--json")
        assert again.code == 0, again.err
        assert '"computed": 2' in again.out


SIGNALLED = """
import os, signal, sys, time
from language_neurons_alignment import cli

def slow(*_, **__):
    try:
        os.kill(os.getpid(), signal.SIGHUP)
        print("still here", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)

import language_neurons_alignment.autosweep
language_neurons_alignment.autosweep.autosweep = slow
sys.argv = ["lna", "autosweep", "--model-path", "/ABS/PATH/TO/MODEL", "-s", "mgsm", "-r", "0.1"]
cli.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_nohup_keeps_a_command_alive_and_a_second_signal_kills_at_once(tmp_path: Path) -> None:
    store_counts(Layout(tmp_path, "mgsm", "Mistral-MODEL"))
    done = process("nohup", sys.executable, "-c", SIGNALLED, cwd=tmp_path)
    assert done.returncode == -signal.SIGTERM
    assert "still here" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_a_terminal_that_is_closed_ends_a_command_in_one_line(tmp_path: Path) -> None:
    store_counts(Layout(tmp_path, "mgsm", "Mistral-MODEL"))
    alone = SIGNALLED.replace(
        "    finally:\n        os.kill(os.getpid(), signal.SIGTERM)\n        time.sleep(20)\n",
        "    finally:\n        pass\n",
    )
    assert "time.sleep" not in alone
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n" + alone
    done = process(sys.executable, "-c", code, cwd=tmp_path)
    assert done.returncode == 129, done.stderr
    assert "still here" not in done.stderr
    assert re.fullmatch(r"lna: the terminal.*\n", done.stderr.splitlines(keepends=True)[-1])


AUTOSWEEP = "autosweep --model-path /ABS/PATH/TO/MODEL -r 0.1 -s mgsm"
CHECK = "dataset check --no-language-id"
"""A command that reads no tensor starts in a fifth of the time, and its streams are the same."""
FULL = r"(.*\n)*lna: cannot print to stdout \(No space left on device\); what was computed is stored\n"
CLOSED = r"(.*\n)*lna: cannot print to stdout \(it is closed\); what was computed is stored\n"
QUIET = r"(?!.*(Traceback|ignored))(.*\n)*"
STREAMS = {
    f"{AUTOSWEEP} > /dev/full": (1, "", FULL),
    f"{CHECK} corpus.json > /dev/full": (1, "", FULL),
    f"{CHECK} corpus.json >&-": (1, "", CLOSED),
    f"{AUTOSWEEP} 2>&-": (0, r"best λ = .*\n", ""),
    f"{CHECK} corpus.json 2> /dev/full": (0, r"(.*\n)*0 errors, 0 warnings\n", ""),
    f"{AUTOSWEEP} <&-": (0, r"best λ = .*\n", r"(.*\n)*"),
    f"{AUTOSWEEP} <&- 2>&- >&-": (1, "", ""),
    f"{CHECK} corpus.json 2>&- > /dev/full": (1, "", ""),
    f"{CHECK} nothing.json 2>&-": (1, "", ""),
    f"{CHECK} nothing.json 2> /dev/full": (1, "", ""),
    f"{CHECK} nothing.json > /dev/full": (1, "", r"lna: cannot read the corpus .*\n"),
    f"{CHECK} corpus.json | true; exit ${{PIPESTATUS[0]}}": (141, "", QUIET),
    f"{CHECK} corpus.json --json | head -c 1; exit ${{PIPESTATUS[0]}}": (0, "{", QUIET),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full as Linux has it")
def test_a_stream_that_is_closed_or_full_is_one_line_where_possible_and_never_a_traceback(tmp_path: Path) -> None:
    store_counts(Layout(tmp_path, "mgsm", "Mistral-MODEL"))
    write_corpus(tmp_path / "corpus.json")
    for command, (code, out, err) in STREAMS.items():
        done = process("bash", "-c", f"python -m language_neurons_alignment.cli {command}", cwd=tmp_path)
        if "head" not in command:  # what fits into the pipe before the reader has gone is printed
            assert done.returncode == code, (command, done.returncode, done.stderr)
        assert done.returncode in (code, 141), (command, done.stderr)
        assert re.fullmatch(out, done.stdout), (command, done.stdout)
        assert re.fullmatch(err, done.stderr), (command, done.stderr)
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full as Linux has it")
def test_results_are_stored_whatever_the_streams_are(tmp_path: Path) -> None:
    model = save_tiny_model("llama", tmp_path / "tiny-llama")
    write_corpus(tmp_path / "corpus.json")
    command = (
        f"python -m language_neurons_alignment.cli run --model-path {model} -d corpus.json -s small --langs en,es "
        f"-r 0.1 -l 0.0 -b 0.8 --controls 0 >/dev/full 2>&-"
    )
    done = process("bash", "-c", command, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    (ppl,) = tmp_path.rglob("ppl.*.csv")
    assert len(ppl.read_text().splitlines()) == 1 + 3 * 2
    assert list(tmp_path.rglob("ppl.*.png"))

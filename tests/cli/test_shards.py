"""`lna shards`: its scripts, run by bash with a Slurm that does everything at once, and jobs that submitit runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from language_neurons_alignment import _shards
from language_neurons_alignment.store.counts import load_counts
from language_neurons_alignment.store.layout import Layout
from tests.cli.conftest import Lna

MODEL = ("--model-path", "tiny-llama", "-s", "mgsm")
CORPUS = (*MODEL, "-d", "datasets/mgsm.json", "--device", "cpu")
EXACT = (*CORPUS, "--batch-invariant", "--langs", "en,fr")

SBATCH = """#!/usr/bin/env bash
# Runs each task of the array at once; the body comes from standard input, or is the last argument's.
set -euo pipefail
printf '%s\\n' "sbatch $*" >> "$PLACE/sbatch.log"
body=$(cat)
tasks=0
for option in "$@"; do case "$option" in --array=*) tasks=${option#--array=} ;; esac; done
for task in ${tasks//,/ }; do SLURM_ARRAY_TASK_ID=$task bash -c "$body"; done
echo "41;cluster"
"""
"""A Slurm for one machine."""
LNA = """#!/usr/bin/env bash
printf '%s\\0' "$@" >> "$PLACE/lna.log"; printf '\\n' >> "$PLACE/lna.log"
"""
"""An `lna` that writes down what it was asked; the test then does it in this process."""


def tool(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A folder with `sbatch` and `lna`, and what they were asked."""
    place = tmp_path / "cluster"
    place.mkdir()
    tool(place, "sbatch", SBATCH)
    tool(place, "lna", LNA)
    return place


def run_script(script: str, cluster: Path) -> list[list[str]]:
    """Let bash run a script, and return what `lna` was asked."""
    for log in cluster.glob("*.log"):
        log.unlink()
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    environment = {**os.environ, "PATH": f"{cluster}:{os.environ['PATH']}", "PLACE": str(cluster)}
    subprocess.run(["bash"], input=script, text=True, check=True, env=environment, stdout=subprocess.DEVNULL)
    return [line.split("\0")[:-1] for line in (cluster / "lna.log").read_text().splitlines()]


def in_this_process(lna: Lna, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Let the jobs of submitit's executor for debugging call the program here; what they called."""
    ran: list[list[str]] = []

    def run(command: list[str], *, check: bool) -> None:
        for one in command[-1].split(" && "):
            ran.append(shlex.split(one)[len(_shards.PROGRAM) :])
            call = lna(*ran[-1])
            assert check
            assert call.code == 0, call.err

    monkeypatch.setattr(_shards, "subprocess", SimpleNamespace(run=run, SubprocessError=subprocess.SubprocessError))
    return ran


def test_shards_are_counted_merged_and_where_they_are_not_whole_counted_again(
    here: Path, lna: Lna, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    command = ("shards", "--parts", 2, *EXACT)
    made = lna(*command)
    assert made.code == 0
    assert "note: 2 of 2 shards to count, then the merge" in made.err
    calls = run_script(made.out, cluster)
    assert [call[:5] for call in calls[:2]] == [["activation", "--shard", f"{k}/2", "--lang", "en,fr"] for k in (1, 2)]
    assert calls[2] == ["merge", "--model-path", "tiny-llama", "--dataset", "mgsm"]
    assert run_script(lna(*command, "--shell").out, cluster) == calls

    with monkeypatch.context() as patch:
        ran = in_this_process(lna, patch)
        work = [_shards.ShardWork(part, 2, ("en", "fr")) for part in (1, 2)]
        flags, given = [*CORPUS, "--batch-invariant"], _shards.Resources(0)
        done = _shards.submit("debug", "mgsm", work, flags, MODEL, given, logs=here / "logs")
        assert [one[0] for one in ran] == ["activation", "activation", "merge"]
        assert (done.done, list(done.shards)) == (True, [1, 2])
    several = lna("activation", *CORPUS, "--batch-invariant", "-l", "en,fr", "--root", "whole", "--json").json
    assert list(several["languages"]) == ["en", "fr"]
    check_merged(here)

    folder = here / "activations" / "mgsm.shard-2-of-2"
    (folder / "activation.fr.Llama-tiny-llama.pt").unlink()
    cut = folder / "activation.en.Llama-tiny-llama.pt"
    cut.write_bytes(cut.read_bytes()[:-1000])
    again = lna(*command)
    assert "1 of 2 shards to count" in again.err
    assert "counts that are cut off or damaged are counted again: en" in again.err
    calls = run_script(again.out, cluster)
    assert [call[2:5] for call in calls[:-1]] == [["2/2", "--lang", "fr"], ["2/2", "--lang", "en"]]
    assert [call[-1] == "--force" for call in calls] == [False, True, False]
    assert [lna(*call).code for call in calls] == [0, 0, 0]
    check_merged(here)

    done_before = lna(*command)
    assert "all shards are counted: the merge" in done_before.err
    assert [call[0] for call in run_script(done_before.out, cluster)] == ["merge"]


def check_merged(here: Path) -> None:
    """The merged counts are those of the corpus counted at once, bit for bit."""
    for language in ("en", "fr"):
        (merged, meta), (counts, _) = (
            load_counts(Layout(root, "mgsm", "Llama-tiny-llama"), language) for root in (here, here / "whole")
        )
        assert meta["shards"] == 2
        assert torch.equal(merged.full.over_zero, counts.full.over_zero)
        assert torch.equal(merged.prefix.over_zero, counts.prefix.over_zero)


def test_the_array_and_the_merge_are_submitted_with_their_resources(here: Path, lna: Lna, cluster: Path) -> None:
    flags = ("--tokens-per-second", 1, "--sbatch", "partition=gpu", "--sbatch", "account=my lab")
    ranks = ("--engine", "vllm", "--tensor-parallel-size", 2, "--dtype", "bfloat16", "--engine-arg", "seed=3")
    where = (*MODEL, "-d", "datasets/mgsm.json")
    shown = lna("shards", "--parts", 2, *where, *flags, *ranks, "--json").json
    assert shown["resources"]["gpus"] == 2
    assert shown["resources"]["minutes"] > 15
    calls = run_script(shown["script"], cluster)
    array, merge = (cluster / "sbatch.log").read_text().splitlines()
    assert "--array=1,2 --gpus-per-node=2 --mem=8193M" in array
    assert f"--time={shown['resources']['minutes']} --partition=gpu --account=my lab" in array
    assert "gpus" not in merge
    wide = lna("shards", "--parts", 2, *where, *flags, "--replicas", 3, "--json").json
    assert wide["resources"]["gpus"] == 3
    assert 15 < wide["resources"]["minutes"] < shown["resources"]["minutes"]
    assert wide["script"].count("--replicas 3") == 2
    assert "--partition=gpu --account=my lab --dependency=afterok:41 --kill-on-invalid-dep=yes" in merge
    assert calls[0][-8:] == [*("--engine", "vllm", "--dtype", "bfloat16"), *map(str, ranks[2:4]), *ranks[6:]]
    assert calls[2] == ["merge", *("--model-path", "tiny-llama", "--dataset", "mgsm")]


@pytest.mark.slow  # submitit asks every second or two whether a process has ended
def test_processes_of_this_machine_do_the_jobs_and_a_failed_one_is_named(
    here: Path, lna: Lna, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PLACE", str(cluster))
    monkeypatch.setattr(_shards, "PROGRAM", (str(cluster / "lna"),))
    shown = lna("shards", "--parts", 1, *EXACT, "--submit", "local", "--time", 1, "--json").json
    assert (list(shown["jobs"]["shards"]), shown["jobs"]["done"]) == (["1"], True)
    calls = [line.split("\0") for line in (cluster / "lna.log").read_text().splitlines()]
    assert [call[0] for call in calls] == ["activation", "merge"]
    tool(cluster, "lna", "#!/usr/bin/env bash\nexit 3\n")
    failed = lna("shards", "--parts", 1, *EXACT, "--submit", "local", "--time", 1)
    assert failed.code == 1
    said = r"lna: 1 of 1 jobs failed, whose logs tell why: shard 1/1 \(.*\.err\); the same command does only .*"
    assert re.fullmatch(said, failed.err.splitlines()[-1])


def test_submitit_hands_an_array_and_a_merge_that_waits_to_slurm(
    here: Path, lna: Lna, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    tool(cluster, "sbatch", '#!/usr/bin/env bash\ncat "$1" >> "$PLACE/sbatch.log"\necho Submitted batch job 41\n')
    tool(cluster, "srun", "#!/usr/bin/env bash\n")
    monkeypatch.setenv("PATH", f"{cluster}:{os.environ['PATH']}")
    monkeypatch.setenv("PLACE", str(cluster))
    shown = lna(
        "shards", "--parts", 2, *EXACT, "--submit", "slurm", "--time", 60, "--sbatch", "partition=gpu", "--json"
    ).json
    assert shown["jobs"]["shards"] == {"1": "41_0", "2": "41_1"}
    assert (shown["jobs"]["merge"], shown["jobs"]["done"]) == ("41", False)
    array, merge = (cluster / "sbatch.log").read_text().split("#!/bin/bash")[1:]
    assert "#SBATCH --array=0-1%2" in array
    assert "#SBATCH --time=60\n" in array
    assert "#SBATCH --partition=gpu" in array
    assert "#SBATCH --dependency=afterok:41" in merge
    assert "#SBATCH --kill-on-invalid-dep=yes" in merge


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--parts", 0), 2, "--parts must be at least 1, got 0"),
        (("--parts", 3), 1, "the 2 records with answers in 'en' leave some of 3 shards empty: give a smaller --parts"),
        (("--parts", 2, "--shell", "--submit", "local"), 2, "--shell prints a script and --submit submits jobs"),
        (("--parts", 2, "--submit", "pbs"), 2, "--submit must be one of slurm, local; got 'pbs'"),
        (("--parts", 2, "--sbatch", "gpu"), 2, "--sbatch must be K=V, got 'gpu'"),
        (("--parts", 2, "--sbatch", "mem=4G"), 2, "--sbatch mem=4G: the script itself decides that; give --memory"),
        (
            ("--parts", 2, "--sbatch", "dependency=after:1"),
            2,
            "--sbatch dependency=after:1: the script itself decides that;",
        ),
        (("--parts", 2, "--gpus", -1), 2, "--gpus must be at least 0, got -1"),
        (("--parts", 2, "--time", 0), 2, "--time must be at least 1, got 0"),
        (("--parts", 2, "--submit", "slurm"), 2, "--submit slurm needs a time for each job"),
    ],
)
def test_shards_that_cannot_be(here: Path, lna: Lna, flags: tuple[object, ...], code: int, said: str) -> None:
    call = lna("shards", *flags, *CORPUS, "--memory", 2)
    assert (call.code, call.out) == (code, "")
    assert call.err.splitlines()[-1].startswith(f"lna: {said}")


def test_without_submitit_one_line_says_what_to_install(here: Path, lna: Lna, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_shards, "find_spec", lambda _name: None)
    call = lna("shards", "--parts", 2, *CORPUS, "--submit", "local", "--memory", 2)
    assert call.code == 1
    assert call.err.splitlines()[-1] == (
        "lna: --submit needs the package submitit, which is not installed: "
        "pip install 'language_neurons_alignment[slurm]'"
    )


def test_counts_of_another_setting_are_refused_and_replaced_with_force(here: Path, lna: Lna, cluster: Path) -> None:
    assert lna("activation", "--shard", "1/2", "-l", "en", *CORPUS).code == 0
    refused = lna("shards", "--parts", 2, *EXACT)
    assert refused.code == 1
    assert "batch_invariant None" in refused.err
    calls = run_script(lna("shards", "--parts", 2, *EXACT, "--force").out, cluster)
    assert [call[-1] for call in calls] == ["--force"] * 3

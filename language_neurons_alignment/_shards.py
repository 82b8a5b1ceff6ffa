"""Jobs for the parts of a corpus: which shards are still to be counted, the script that counts them, and submitting it.

    shard 1   lna activation --shard 1/N ┐
    …                                    ├ lna merge, which waits for all
    shard N   lna activation --shard N/N ┘

Counts that are there and whole are left out, so the same call after an interruption makes jobs for what is missing.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ._model import in_gib
from ._plan import Plan
from ._session import Session
from .activation import counted_before, shard_session
from .errors import ArtifactError, ConflictError, CorpusError, MissingPackageError, SettingsError, ShardError

LIBRARIES = 8 * 2**30
"""Bytes of main memory that a job is given beside the weights: for Python, the libraries, the counts and the corpus."""
START = 15 * 60
"""Seconds that a job is given to load a model."""
SLACK = 1.5
"""How many times the planned time a job is given."""
MERGE = 30
"""Minutes that the merge is given."""
CLUSTERS = SLURM, LOCAL = ("slurm", "local")


@dataclass(frozen=True)
class ShardWork:
    """What is to be counted of one shard.

    Attributes:
        part: from 1.
        missing: languages that have no counts yet.
        damaged: languages whose counts are cut off or cannot be read, which are counted again.
    """

    part: int
    parts: int
    missing: tuple[str, ...]
    damaged: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.damaged)

    def commands(self, flags: Sequence[str], *, overwrite: bool = False) -> list[list[str]]:
        """The arguments of `lna` that count it, with `flags` behind them.

        >>> ShardWork(2, 4, ("en", "fr")).commands(["--dtype", "bfloat16"])
        [['activation', '--shard', '2/4', '--lang', 'en,fr', '--dtype', 'bfloat16']]
        """
        some = [(self.missing, overwrite), (self.damaged, True)]
        return [
            ["activation", "--shard", f"{self.part}/{self.parts}", "--lang", ",".join(languages), *flags]
            + ["--force"] * again
            for languages, again in some
            if languages
        ]


@dataclass(frozen=True)
class Resources:
    """What a job that counts a shard is given.

    Attributes:
        gpus: of one job, on one machine.
        memory: bytes of main memory; None: the cluster's default.
        minutes: None: the cluster's default.
        slurm: further options of `sbatch`, without their dashes.
    """

    gpus: int = 1
    memory: int | None = None
    minutes: int | None = None
    slurm: tuple[tuple[str, str], ...] = ()

    def sbatch(self) -> list[str]:
        """The options of `sbatch`.

        >>> Resources(2, 20 * 2**30, 90, (("account", "lab"),)).sbatch()
        ['--gpus-per-node=2', '--mem=20480M', '--time=90', '--account=lab']
        """
        given = {
            "gpus-per-node": self.gpus or None,
            "mem": None if self.memory is None else f"{-(-self.memory // 2**20)}M",
            "time": self.minutes,
            **dict(self.slurm),
        }
        return [f"--{key}={value}" for key, value in given.items() if value is not None]

    def of_merge(self) -> Resources:
        """What the job that merges is given: no GPU, and a short time."""
        return Resources(0, LIBRARIES, MERGE, self.slurm)


def shards_to_count(
    session: Session,
    parts: int,
    languages: Sequence[str],
    *,
    overlong: str = "error",
    blocks: int | None = None,
    moments: bool = False,
    overwrite: bool = False,
) -> list[ShardWork]:
    """Find what is to be counted of each shard of a corpus; nothing of those whose counts are there and whole.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "corpus.json", "toy") as session:
    ...     shards_to_count(session, 2, ("en", "fr"))
    [ShardWork(part=1, parts=2, missing=('en', 'fr'), damaged=()), ShardWork(part=2, parts=2, missing=('en', 'fr'), \
damaged=())]

    Args:
        session: model, corpus and place; its model is not loaded.
        parts: how many shards there are.
        languages: codes of those to count.
        overlong: as for `collect_activations`.
        blocks: as for `collect_activations`.
        moments: as for `collect_activations`.
        overwrite: everything is counted again.

    Raises:
        CorpusError: a shard would have no answer in a language.
        ConflictError: there are counts of another model, corpus or setting, and not `overwrite`.
    """
    if parts < 1:
        raise SettingsError(f"--parts must be at least 1, got {parts}: give for example 4")
    for language in languages:
        answered = [index % parts for index, one in enumerate(session.corpus.of_language(language)) if one.answers]
        if len(set(answered)) < parts:
            raise CorpusError(
                f"the {len(answered)} records with answers in {language!r} leave some of {parts} shards empty: give a "
                "smaller --parts, or answer the questions first (`lna generate`)"
            )
    work = []
    for part in range(1, parts + 1):
        shard = shard_session(session, part, parts)
        missing, damaged = [], []
        for language in languages:
            try:
                chosen: dict[str, Any] = {"overlong": overlong, "blocks": blocks, "moments": moments}
                if overwrite or counted_before(shard, language, shard=True, **chosen) is None:
                    missing.append(language)
            except ConflictError:
                raise
            except ArtifactError:
                damaged.append(language)
        work.append(ShardWork(part, parts, tuple(missing), tuple(damaged)))
    return work


def resources(
    found: Plan | None,
    parts: int,
    *,
    gpus: int = 1,
    replicas: int = 1,
    memory_gib: float | None = None,
    minutes: int | None = None,
    slurm: Sequence[tuple[str, str]] = (),
) -> Resources:
    """What each job is given: what is named, else what the plan of the whole corpus says.

    memory   weights + 8 GiB
    minutes  15 + 1.5 · seconds of `activation` / parts / 60; none where the plan has no throughput
    """
    for flag, number, least in (("gpus", gpus, 0), ("memory", memory_gib, 0.1), ("time", minutes, 1)):
        if number is not None and not least <= number < 2**31:
            raise SettingsError(f"--{flag} must be at least {least}, got {number!r}: give what one job needs")
    memory = None if memory_gib is None else int(memory_gib * 2**30)
    if found is not None and memory is None:
        memory = replicas * found.weight_bytes + LIBRARIES
    if found is not None and minutes is None:
        seconds = next((one.seconds for one in found.steps if one.name == "activation"), None)
        minutes = None if seconds is None else -(-int(START + SLACK * seconds / parts / replicas) // 60)
    return Resources(gpus, memory, minutes, tuple(slurm))


def slurm_script(
    name: str, work: Sequence[ShardWork], flags: Sequence[str], merge: Sequence[str], given: Resources, *, again: bool
) -> str:
    """The shell script that submits one array job for the shards, and a merge that waits until all of it succeeded.

    Args:
        name: of the jobs.
        work: all shards; those with nothing to count are left out.
        flags: behind each `lna activation`.
        merge: behind `lna merge`.
        given: what each job is given.
        again: everything is counted again.
    """
    lines, waits = [*_heading(work), "", f"cd {shlex.quote(str(Path.cwd()))}"], []
    if any(work):
        numbers = ",".join(str(one.part) for one in work if one)
        options = [f"--job-name=lna-{name}", f"--array={numbers}", *given.sbatch()]
        lines += ["", f"counting=$(sbatch --parsable {shlex.join(options)} <<'JOB'", *_BASH]
        lines.append('case "$SLURM_ARRAY_TASK_ID" in')
        for one in filter(None, work):
            lines += [f"{one.part})", *(f"  {_shown(line)}" for line in one.commands(flags, overwrite=again)), "  ;;"]
        lines += ["esac", "JOB", ")"]
        waits = ['--dependency="afterok:${counting%%;*}"', "--kill-on-invalid-dep=yes"]
    options = shlex.join([f"--job-name=lna-{name}-merge", *given.of_merge().sbatch()])
    lines += ["", " ".join(["sbatch", options, *waits, "<<'JOB'"]), *_BASH, _shown(_merge(merge, again)), "JOB"]
    return "\n".join(lines)


def shell_script(work: Sequence[ShardWork], flags: Sequence[str], merge: Sequence[str], *, again: bool) -> str:
    """A shell script that counts the shards one after the other and merges them.

    Each of its lines may as well run on a machine of its own that sees the same folder; the last one comes last.
    """
    lines = [*_heading(work), "", f"cd {shlex.quote(str(Path.cwd()))}"]
    lines += [_shown(line) for one in work for line in one.commands(flags, overwrite=again)]
    return "\n".join([*lines, _shown(_merge(merge, again))])


_BASH = ("#!/usr/bin/env bash", "set -euo pipefail")


def _heading(work: Sequence[ShardWork]) -> list[str]:
    todo = sum(map(bool, work))
    return [_BASH[0], f"# {todo} of {len(work)} shards are to be counted, then all of them are merged.", _BASH[1]]


def _merge(flags: Sequence[str], again: bool) -> list[str]:
    return ["merge", *flags, *["--force"] * again]


def _shown(arguments: Sequence[str]) -> str:
    return shlex.join(["lna", *arguments])


@dataclass(frozen=True)
class Submitted:
    """Jobs that were handed over.

    Attributes:
        shards: part → the id of its job.
        merge: the id of the job that merges.
        logs: the folder of their scripts and logs.
        done: they have run; on a cluster they wait.
    """

    shards: dict[int, str]
    merge: str
    logs: Path
    done: bool


def submit(
    cluster: str,
    name: str,
    work: Sequence[ShardWork],
    flags: Sequence[str],
    merge: Sequence[str],
    given: Resources,
    *,
    logs: Path,
    again: bool = False,
) -> Submitted:
    """Hand the jobs over with submitit: to Slurm, or to processes of this machine, and wait for these.

    Args:
        cluster: "slurm" or "local".
        name: of the jobs.
        work: all shards; those with nothing to count are left out.
        flags: behind each `lna activation`.
        merge: behind `lna merge`.
        given: what each job is given.
        logs: folder for what submitit writes.
        again: everything is counted again.

    Raises:
        MissingPackageError: submitit is not installed.
        SettingsError: no time is given for Slurm's jobs.
        ShardError: the jobs cannot be submitted, or one that ran here failed.
    """
    if find_spec("submitit") is None:
        raise MissingPackageError.of("submitit", purpose="--submit", extra="slurm")
    if cluster == SLURM and given.minutes is None:
        raise SettingsError("--submit slurm needs a time for each job: give --time, or --tokens-per-second")
    import submitit

    todo = [one for one in work if one]
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
        executor.update_parameters(**_parameters(name, given))
        jobs: list[Any] = []
        if todo:
            with executor.batch():
                jobs += [_job(executor, one.commands(flags, overwrite=again)) for one in todo]
        waits = {}
        if cluster != SLURM:
            _wait(jobs, [f"shard {one.part}/{one.parts}" for one in todo])
        elif jobs:
            waits = {"dependency": f"afterok:{jobs[0].job_id.split('_')[0]}", "kill-on-invalid-dep": "yes"}
        executor.update_parameters(**_parameters(f"{name}-merge", given.of_merge(), waits))
        last = _job(executor, [_merge(merge, again)])
    except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise ShardError(f"submitit cannot submit the jobs to {cluster}: {said}; print the script instead") from error
    if cluster != SLURM:
        _wait([last], ["the merge"])
    ids = {one.part: job.job_id for one, job in zip(todo, jobs, strict=True)}
    return Submitted(ids, last.job_id, logs, done=cluster != SLURM)


PROGRAM = (sys.executable, "-m", "language_neurons_alignment")
"""What a submitted job runs: `lna`, by the Python that submits it."""


def _job(executor: Any, commands: Sequence[Sequence[str]]) -> Any:
    """A job that runs `lna` with each of these arguments, and stops at the first that fails.

    It calls the standard library, so submitit's own process loads no torch beside that of `lna`.
    """
    script = " && ".join(shlex.join([*PROGRAM, *arguments]) for arguments in commands)
    return executor.submit(subprocess.run, ["bash", "-c", script], check=True)


def _wait(jobs: Sequence[Any], names: Sequence[str]) -> None:
    """Wait for jobs of this machine; ShardError where some failed, once all have ended."""
    failed = []
    for job, name in zip(jobs, names, strict=True):
        try:
            error = job.exception()
        except RuntimeError as killed:  # it ended without a result
            error = killed
        if error is not None:
            failed.append(f"{name} ({job.paths.stderr})")
    if failed:
        raise ShardError(
            f"{len(failed)} of {len(jobs)} jobs failed, whose logs tell why: {', '.join(failed)}; the same command "
            "does only what is missing"
        )


def _parameters(name: str, given: Resources, waits: dict[str, str] | None = None) -> dict[str, Any]:
    """What submitit calls the resources of a job."""
    named: dict[str, Any] = {"name": f"lna-{name}", "gpus_per_node": given.gpus}
    if given.minutes is not None:
        named["timeout_min"] = given.minutes
    if given.memory is not None:
        named["mem_gb"] = given.memory / 2**30
    return {**named, "slurm_additional_parameters": {**dict(given.slurm), **(waits or {})}}


def told(work: Sequence[ShardWork], given: Resources) -> list[str]:
    """What is to be done, for a person.

    >>> told([ShardWork(1, 2, ("en",)), ShardWork(2, 2, ())], Resources(1, 10 * 2**30))
    ['1 of 2 shards to count, then the merge', 'each job: 1 GPU, 10 GiB of main memory, the default time']
    """
    todo, damaged = sum(map(bool, work)), sorted({code for one in work for code in one.damaged})
    lines = [f"{todo} of {len(work)} shards to count, then the merge" if todo else "all shards are counted: the merge"]
    if damaged:
        lines.append(f"counts that are cut off or damaged are counted again: {', '.join(damaged)}")
    memory = "the default main memory" if given.memory is None else f"{in_gib(given.memory)} of main memory"
    minutes = "the default time" if given.minutes is None else f"{given.minutes} minutes"
    gpus = f"{given.gpus or 'no'} GPU{'s' if given.gpus != 1 else ''}"
    return [*lines, f"each job: {gpus}, {memory}, {minutes}"]

"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import pickle
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as safetensors_bytes

from language_neurons_alignment._file_kinds import file_kind
from language_neurons_alignment.errors import ArtifactError, ConflictError
from language_neurons_alignment.store import files
from language_neurons_alignment.store.counts import save_counts
from language_neurons_alignment.store.files import (
    atomic_file,
    atomic_files,
    atomic_folder,
    check_writable,
    is_held,
    load_tensors,
    locked,
    remove_leftovers,
    write_text,
)
from language_neurons_alignment.store.layout import Layout
from tests.workspace import META, contents, full_disk, leftovers, made_up_counts

OLD, NEW = b"the old file", b"the new file, which is longer"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "results" / "file.bin"
    place.parent.mkdir()
    place.write_bytes(OLD)
    return place


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = sys.platform == "linux" and os.geteuid() == 0
    if mounted:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, check=False
        )
        mounted = done.returncode == 0
    if not mounted:
        pytest.skip("mounting a small file system needs root on Linux")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_what_is_written_is_there_afterwards_with_the_permissions_of_an_ordinary_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folders" / "made.txt"
    write_text(path, "λ\u2028\n")
    assert path.read_bytes() == "λ\u2028\n".encode()
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("failure", [RuntimeError("broken"), KeyboardInterrupt(), SystemExit(3)])
def test_whatever_ends_the_writing_early_the_old_file_stays_and_nothing_else_does(
    path: Path, failure: BaseException
) -> None:
    with pytest.raises(type(failure)), atomic_file(path) as file:  # noqa: PT012 - the block is what is interrupted
        file.write(NEW)
        raise failure
    assert contents(path.parent) == {"file.bin": OLD}


def test_before_the_block_ends_a_reader_sees_the_old_file_and_after_it_the_new_one(path: Path) -> None:
    with atomic_file(path) as file:
        file.write(NEW)
        file.flush()
        assert path.read_bytes() == OLD
    assert contents(path.parent) == {"file.bin": NEW}


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_is_told_in_one_line_and_leaves_the_old_file(path: Path, function: str) -> None:
    with full_disk(function), pytest.raises(ArtifactError, match=r"file\.bin: the disk is full: free some space"):
        write_text(path, "new")
    assert contents(path.parent) == {"file.bin": OLD}


def test_a_full_disk_that_shows_while_writing_is_told_in_one_line(path: Path) -> None:
    with pytest.raises(ArtifactError, match="the disk is full") as caught, atomic_file(path):
        raise OSError(errno.ENOSPC, "No space left on device")  # as file.write does
    assert "\n" not in str(caught.value)
    assert contents(path.parent) == {"file.bin": OLD}


def test_on_a_disk_that_is_really_full_a_new_file_does_not_harm_the_old_one(tiny_disk: Path) -> None:
    place = tiny_disk / "file.bin"
    write_text(place, "old")
    with pytest.raises(ArtifactError, match="the disk is full"):
        write_text(place, "x" * 200_000)
    assert contents(tiny_disk) == {"file.bin": b"old"}
    write_text(place, "the space is free again")
    assert place.read_text() == "the space is free again"


def test_counts_on_a_disk_that_is_really_full_are_an_error_of_ours_and_no_file(tiny_disk: Path) -> None:
    layout = Layout(tiny_disk, "mgsm", "Llama-tiny")
    with pytest.raises(ArtifactError, match="the disk is full"):
        save_counts(layout, "en", made_up_counts((8, 800)), META)
    assert contents(tiny_disk) == {}


def test_of_two_files_that_belong_together_none_appears_when_the_second_fails(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with pytest.raises(KeyboardInterrupt), atomic_files(one, two) as (first, second):  # noqa: PT012 - likewise
        first.write(b"1")
        second.write(b"2")
        raise KeyboardInterrupt
    assert contents(tmp_path) == {}
    with full_disk("fsync"), pytest.raises(ArtifactError), atomic_files(one, two) as (first, second):
        first.write(b"1")
    assert contents(tmp_path) == {}


def test_a_folder_that_may_not_be_written_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files, "open", refuse, raising=False)  # root may write everywhere, so it is played
    with pytest.raises(ArtifactError, match="no permission: choose another place"):
        write_text(tmp_path / "file", "new")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write into any folder")
def test_a_folder_that_really_may_not_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ArtifactError, match="no permission"):
            write_text(tmp_path / "file", "new")
    finally:
        tmp_path.chmod(0o700)


def test_a_file_where_a_folder_is_needed_is_told_in_one_line(path: Path) -> None:
    with pytest.raises(ArtifactError, match="choose another place"):
        write_text(path / "below" / "file", "new")
    assert path.read_bytes() == OLD


def test_of_many_writers_at_once_one_stands_and_its_file_is_whole(tmp_path: Path) -> None:
    path, texts = tmp_path / "file", [str(n) * 100_000 for n in range(8)]
    writers = [threading.Thread(target=write_text, args=(path, text)) for text in texts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_text() in texts
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_decides_who_may_read_a_file_and_is_never_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", lambda _mask: pytest.fail("other threads would write under this umask"))
            write_text(tmp_path / "file", "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


class Thing:
    """An object that only running code can make."""


def written(write: Any, *content: Any) -> bytes:
    """What a library writes to a file."""
    file = io.BytesIO()
    write(file, *content)
    return file.getvalue()


def zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "content")
    return file.getvalue()


FOREIGN = {
    "a NumPy array (.npy)": written(np.save, np.zeros(3)),
    "NumPy arrays (.npz)": written(np.savez, np.zeros(3)),
    "a pickle of Python": pickle.dumps([1, 2]),
    "a pickle of Python, and": pickle.dumps(Thing(), protocol=2),
    "a safetensors file": safetensors_bytes({"x": torch.zeros(9)}),
    "a GGUF model": b"GGUF\x03\0\0\0",
    "a pointer of git-lfs, not the file itself: fetch it with `git lfs pull`": b"version https://git-lfs.github.com\n",
    "a web page (HTML)": b"\xef\xbb\xbf\n<!DOCTYPE html><p>Log in</p>",
    "a zip archive that torch did not write": zipped("a.txt"),
    "JSON": b'[{"layer": 0}]',
    "text": "γειά σου\n".encode() * 2000,
    "gzip-compressed": b"\x1f\x8b\x08\0",
    "a folder": b"",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_of_another_kind_is_told_what_it_is_and_never_to_be_deleted(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mask"
    path.mkdir() if kind == "a folder" else path.write_bytes(FOREIGN[kind])
    with pytest.raises(ArtifactError) as refused:
        load_tensors(path, remedy="make it with `lna identify`")
    said = str(refused.value)
    assert said.startswith(f"{path} cannot be read (it is {kind}")
    assert said.endswith(
        "expected plain tensors that torch.save wrote): name another file, or move it away and make it with "
        "`lna identify`"
    )
    assert not {"delete", "weights_only", "trust"} & set(said.replace("`", " ").split())
    assert "\n" not in said


@pytest.mark.parametrize("legacy", [False, True])
def test_objects_of_python_in_a_file_of_torch_are_named_without_torch_s_advice(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "mask"
    torch.save({"a": Thing()}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ArtifactError) as refused:
        load_tensors(path, remedy="make it again")
    assert "it is a file with tests.store.test_files.Thing in it, expected plain tensors" in str(refused.value)
    assert "delete" not in str(refused.value)
    assert "only if you" not in str(refused.value)
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=not legacy)
    assert load_tensors(path, remedy="")["a"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("length", range(0x0201, 0x0600, 0x55))
def test_a_safetensors_file_is_known_whatever_its_first_bytes(tmp_path: Path, length: int) -> None:
    path = tmp_path / "w"
    for first in (length, 0x0280, 0x0480, 0x8B1F, 0x5A42):
        path.write_bytes(first.to_bytes(8, "little") + b'{"a":1}' + b" " * 9)
        assert file_kind(path) == "a safetensors file"


# What killed processes leave

WRITING = """
import os, signal, sys
from pathlib import Path
from language_neurons_alignment.store.files import atomic_file
with atomic_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("written", flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_the_next_writer_deletes_what_a_killed_one_left_and_not_what_a_living_one_writes(path: Path) -> None:
    root = Path(__file__).parents[2]
    python_path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(root)]))
    with subprocess.Popen(
        [sys.executable, "-c", WRITING, str(path.with_name("other"))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": python_path},
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"written\n"
        write_text(path, "new")
        assert len(leftovers(path.parent)) == 1, "it is being written"
        other.stdin.write(b"\n")
        other.stdin.close()
        other.wait()
    assert len(leftovers(path.parent)) == 1, "it was killed"
    for name in (".notes.part", ".a.12345678.part.txt", "x.12345678.part", ".a.1234567g.part"):
        path.with_name(name).write_text("somebody's")
    write_text(path, "newer")
    kept = (".a.1234567g.part", ".notes.part", "x.12345678.part")
    assert sorted(leftovers(path.parent)) == [str(path.with_name(name)) for name in kept]
    assert path.with_name(".a.12345678.part.txt").exists()


def test_a_file_that_is_taken_for_a_leftover_before_it_is_locked_is_made_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, taken = files.flock, []

    def late(file: object, operation: int) -> None:
        if not taken:
            taken.extend(remove_leftovers_of(path.parent))
        lock(file, operation)  # type: ignore[arg-type]

    def remove_leftovers_of(folder: Path) -> list[Path]:
        with monkeypatch.context() as patch:
            patch.setattr(files, "flock", lock)
            return remove_leftovers(folder)

    monkeypatch.setattr(files, "flock", late)
    write_text(path, "new")
    assert len(taken) == 1
    assert path.read_text() == "new"


def test_a_folder_is_there_whole_or_not_at_all_and_what_a_killed_process_left_of_it_is_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "model"
    left = folder.with_name(".model.0a1b2c3d.part")
    (left / "sub").mkdir(parents=True)
    with pytest.raises(ArtifactError, match=r"cannot write .*model"), atomic_folder(folder) as part:
        os.mkdir(part / "no such" / "folder")
    assert [*folder.parent.iterdir()] == []
    with atomic_folder(folder) as part:
        write_text(part / "sub" / "config.json", "{}")
        assert remove_leftovers(folder.parent) == [], "a living process has locked it"
        assert is_held(part)
        assert not folder.exists()
    assert [*contents(folder.parent)] == ["model/sub/config.json"]


# Before the work begins


def refusing(number: int) -> object:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize(
    ("place", "error", "said"),
    [
        ("os.fsync", errno.EDQUOT, "quota is used up"),
        ("os.fsync", errno.ENOSPC, "the disk is full"),
        ("flock", errno.ENOLCK, "has no file locks.*choose a place on another disk"),
        ("flock", errno.EOPNOTSUPP, "has no file locks"),
        ("flock", errno.ENOSYS, "has no file locks"),
        ("os.mkdir", errno.EACCES, "no permission"),
        ("os.mkdir", errno.EROFS, "read-only"),
    ],
)
def test_what_will_hinder_writing_is_found_before_the_work_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: int, said: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(f"language_neurons_alignment.store.files.{place}", refusing(error))
        with pytest.raises(ArtifactError, match=said):
            check_writable(tmp_path / "out" / "result")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "broken link", "link in a circle", "folder of its name"])
def test_something_else_in_the_way_is_found_before_the_work_begins(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "out"
    match kind:
        case "file":
            root.write_text("a file")
        case "broken link":
            root.symlink_to(tmp_path / "nowhere")
        case "link in a circle":
            root.symlink_to(root)
        case _:
            (root / "a" / "result").mkdir(parents=True)
    with pytest.raises(ArtifactError, match=r"cannot write .*result: .*choose another place"):
        check_writable(root / "a" / "result")


def test_a_read_only_disk_is_found_before_the_work_begins(tiny_disk: Path) -> None:
    done = subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("it cannot be remounted")
    with pytest.raises(ArtifactError, match="read-only"):
        check_writable(tiny_disk / "out" / "result")


def test_a_disk_without_room_is_found_before_the_work_begins(tiny_disk: Path) -> None:
    check_writable(tiny_disk / "result", needed=10_000)
    with pytest.raises(ArtifactError, match=r"needs 7\.3 GB for the results, and its disk has 1 MB left: free some"):
        check_writable(tiny_disk / "result", needed=7_340_032_000)
    assert contents(tiny_disk) == {}


def test_a_lock_that_another_process_keeps_is_waited_for_and_then_told(path: Path) -> None:
    keeping = locked(path, busy="unused")
    with keeping, pytest.raises(ConflictError, match="it is busy"), locked(path, busy="it is busy", patience=0.2):
        pass
    with locked(path, busy="it is busy", patience=0.2):
        pass

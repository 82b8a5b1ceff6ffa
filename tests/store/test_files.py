"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from language_neurons_alignment.errors import ArtifactError
from language_neurons_alignment.store import files
from language_neurons_alignment.store.counts import save_counts
from language_neurons_alignment.store.files import atomic_file, atomic_files, write_text
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
    with pytest.raises(ArtifactError, match="no permission: choose another --root"):
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
    with pytest.raises(ArtifactError, match="choose another --root"):
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

"""The finished cells of a grid, condition × text, in a file that only grows.

Perplexity maps, evaluations and forcing tables are all grids: under each condition (nothing changed, each language's
neurons changed, random controls) the model works on the texts of each language. `<path>.cells.jsonl` gets each cell as
soon as it is finished, as one line of JSON, so that a killed run loses the cell at work and no other, and a grid of n
cells writes n lines:

    {"id": "5f1c…", "made_from": {"mask": …}, "engine": {…}}       what cells were made from, once
    {"cell": ["fr~1", "en"], "made_from": "5f1c…", "token": …}     a finished cell, with whatever its step measured
    {"cell": ["fr~1", "es"], "made_                                a line that a kill cut off: it does not count

Several processes may append to one file. With `overwrite`, cells go to `<path>.cells.new.jsonl`, which takes the place
of the old file when all are finished; until then the old result stays, and a run that was killed goes on where it
stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from ..errors import ArtifactError, ConflictError
from .files import Json, digest_of, sync_folder, unwritable, write_text
from .layout import with_ending

Key = tuple[str, str]
"""A cell: the name of its condition, and the language of its texts."""


class Lines:
    """A file of JSON lines that only grows; each entry is on disk when `append` returns.

    A last line without an end was cut off by a kill: it is not read, and the next `append` removes it.
    """

    def __init__(self, path: Path, *, remedy: str = "delete the file and run the command again") -> None:
        """Name the file, and say what to do where a line of it is damaged."""
        self.path = path
        self._remedy = remedy

    def read(self) -> list[Json]:
        """Return all entries; none where there is no file."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ArtifactError(f"cannot read {self.path} ({error}): {self._remedy}") from error
        return self.parse(content)[0]

    def parse(self, content: bytes, *, first: int = 1) -> tuple[list[Json], int]:
        """Parse whole lines, counted from `first`; return the entries and the bytes that they take."""
        whole = content.rfind(b"\n") + 1
        lines = content[:whole].split(b"\n")[:-1]
        return [self._entry(line, number) for number, line in enumerate(lines, start=first)], whole

    def append(self, *entries: Json) -> None:
        """Put entries on disk: all of them or none."""
        try:
            with self.path.open("ab+", buffering=0) as file:
                end = _cut_torn_line(file)
                try:
                    rest = memoryview("".join(map(line_of, entries)).encode())
                    while rest:
                        rest = rest[file.write(rest) :]
                    os.fsync(file.fileno())
                except BaseException:
                    file.truncate(end)
                    raise
        except OSError as error:
            raise unwritable(self.path, error) from error

    def damaged(self, number: int, error: object) -> ArtifactError:
        """Return the error for a line that is not what it should be."""
        return ArtifactError(f"{self.path}, line {number} is damaged ({error}): {self._remedy}")

    def _entry(self, line: bytes, number: int) -> Json:
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise self.damaged(number, error) from error
        if not isinstance(entry, dict):
            raise self.damaged(number, f"a {type(entry).__name__}, not an object")
        return entry


def line_of(entry: Json) -> str:
    """Write an object as one line."""
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _cut_torn_line(file: Any) -> int:
    """Remove what follows the last line end, and return the size of the file."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return 0
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return size
    file.seek(0)
    whole = file.read().rfind(b"\n") + 1
    file.truncate(whole)
    return whole


class Difference(NamedTuple):
    """A value that two descriptions do not share; `names` leads to it from the outermost object inwards."""

    names: tuple[str, ...]
    seen: Any
    wanted: Any


def every(seen: Json, wanted: Json) -> Iterable[str]:
    """Compare all values of both."""
    return (*seen, *(key for key in wanted if key not in seen))


def asked_for(_seen: Json, wanted: Json) -> Iterable[str]:
    """Compare what is wanted; what was noted beyond that does not matter."""
    return wanted


def shared(seen: Json, wanted: Json) -> Iterable[str]:
    """Compare what both have a value for."""
    return (key for key in wanted if None not in (seen.get(key), wanted[key]))


def differences(
    seen: Mapping[str, Any], wanted: Mapping[str, Any], keys: Callable[[Any, Any], Iterable[str]] = every
) -> list[Difference]:
    """List where two descriptions differ, in the keys that `keys` chooses.

    >>> differences({"mask": "m", "corpus": {"en": 1}}, {"mask": "m", "corpus": {"en": 2, "es": 3}}, shared)
    [Difference(names=('corpus', 'en'), seen=1, wanted=2)]
    """
    found: list[Difference] = []
    for key in keys(seen, wanted):
        one, other = seen.get(key), wanted.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += [inner._replace(names=(key, *inner.names)) for inner in differences(one, other, keys)]
        elif one != other:
            found.append(Difference((key,), one, other))
    return found


def said(found: Iterable[Difference]) -> str:
    """Say what differs, with both values where they are short."""
    return ", ".join(_said(*one) for one in found)


def _said(names: tuple[str, ...], seen: Any, wanted: Any) -> str:
    values = f" ({seen!r}, not {wanted!r})" if len(repr((seen, wanted))) < 80 else ""
    return names[-1].replace("_", " ") + values


def merged(descriptions: Iterable[Json]) -> Json:
    """Merge what cells were made from: objects key by key; of two values the later one that is not None stays.

    >>> merged([{"text": "full", "corpus": {"en": "1"}}, {"text": "full", "corpus": {"es": "2"}}])
    {'text': 'full', 'corpus': {'en': '1', 'es': '2'}}
    """
    whole: Json = {}
    for one in descriptions:
        for key, value in one.items():
            if isinstance(value, dict) and isinstance(whole.get(key), dict):
                whole[key] = merged([whole[key], value])
            elif value is not None or key not in whole:
                whole[key] = value
    return whole


def precision_of(engine: Json) -> Json:
    """Return what all cells of one grid share of their engine."""
    return {key: engine[key] for key in ("engine", "dtype") if key in engine}


@dataclass(frozen=True)
class Stored:
    """A finished cell.

    Attributes:
        content: what its step measured.
        made_from: what decides that, besides the engine.
        engine: what computed it.
        file: where it was read.
    """

    content: Json
    made_from: Json
    engine: Json
    file: Path


Cells = dict[Key, Stored]
Older = Callable[[], Cells]
"""Reads the cells of a file that version 0.1 wrote: the JSON of a whole result."""


class _Reader:
    """Reads a file of cells, and later what was appended to it since."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cells: Cells = {}
        self.ids: set[str] = set()
        self._lines = Lines(path, remedy="delete that line and run the command again")
        self._forget()

    def _forget(self) -> None:
        self.cells, self.ids = {}, set()
        self._made: dict[str, tuple[Json, Json]] = {}
        self._end = self._number = 0
        self._inode: int | None = None

    def sync(self) -> bool:
        """Read what is new; return whether the file is there."""
        try:
            with self.path.open("rb") as file:
                state = os.fstat(file.fileno())
                if state.st_ino != self._inode or state.st_size < self._end:
                    self._forget()
                    self._inode = state.st_ino
                file.seek(self._end)
                entries, size = self._lines.parse(file.read(), first=self._number + 1)
        except FileNotFoundError:
            self._forget()
            return False
        except OSError as error:
            raise ArtifactError(f"cannot read {self.path} ({error}): delete it and run the command again") from error
        for entry in entries:
            self._number += 1
            try:
                self._take(entry)
            except (KeyError, TypeError, ValueError) as error:
                raise self._lines.damaged(self._number, repr(error)) from error
        self._end += size
        return True

    def append(self, *entries: Json) -> None:
        self._lines.append(*entries)

    def _take(self, entry: Json) -> None:
        if "id" in entry:
            made_from, engine = entry["made_from"], entry["engine"]
            if not (isinstance(made_from, dict) and isinstance(engine, dict)):
                raise ValueError("not what cells are made from")
            self._made[entry["id"]] = made_from, engine
            self.ids.add(entry["id"])
            return
        condition, text = entry["cell"]
        content = {key: value for key, value in entry.items() if key not in ("cell", "made_from")}
        self.cells[str(condition), str(text)] = Stored(content, *self._made[entry["made_from"]], self.path)


def read_cells(path: Path, older: Older) -> Cells:
    """Read all finished cells of a grid, whatever they were made from. `path` has no ending."""
    reader = _Reader(cells_path(path))
    return reader.cells if reader.sync() else older()


def cells_path(path: Path) -> Path:
    """Return where the cells of a grid lie."""
    return with_ending(path, ".cells.jsonl")


Tell = Callable[[Key, list[Difference]], str]
"""Says of what else a cell was made, and what to do: the error's text after "<file> holds "."""


class GridFile:
    """The cells that a run wants of a grid: which are finished, and where new ones go.

    A finished cell counts if it was made from the same as it is wanted. If it was made from something else, the run is
    refused, unless it overwrites. The other cells under the same conditions (of other languages) must not contradict
    what is wanted, and all must be of one engine and precision.
    """

    def __init__(
        self, path: Path, wanted: Mapping[Key, Json], *, older: Older, tell: Tell, overwrite: bool = False
    ) -> None:
        """Name the file."""
        plain = {id(one): json.loads(json.dumps(one)) for one in wanted.values()}  # as it is read back
        self.wanted = {key: plain[id(one)] for key, one in wanted.items()}
        self.path = cells_path(path)
        self._new = _Reader(with_ending(path, ".cells.new.jsonl"))
        self._finished = _Reader(self.path)
        self._older = older
        self._tell = tell
        self._overwrite = overwrite
        self._replacing = False
        self._lock = FileLock(str(path.with_name(f".{path.name}.lock")))
        self._agreed: dict[Key, Stored] = {}
        self._engine: Json = {}
        self._of_condition: dict[str, Json] = {}
        for (condition, _), one in self.wanted.items():
            self._of_condition[condition] = merged([self._of_condition.get(condition, {}), one])

    @property
    def replacing(self) -> bool:
        """Whether new cells go to a file that takes the place of the old one at the end."""
        return self._replacing

    def read(self, *, engine: Json | None = None) -> dict[Key, Json]:
        """Return the wanted cells that are finished."""
        cells = self._current(engine or {})
        return {key: cells[key].content for key in self.wanted if key in cells}

    def cells(self) -> Cells:
        """Return all finished cells, those that this run does not want among them, in the order of the file."""
        return dict(self._current(self._engine))

    def begin(self, *, engine: Json) -> None:
        """Make the file ready for new cells: take over older results, or begin the file that will replace them."""
        with self._locked():
            self._ready(engine)

    def append(self, cells: Mapping[Key, Json], *, engine: Json) -> None:
        """Put finished cells on disk; one that another process has appended meanwhile is not written again."""
        with self._locked():
            there = self._ready(engine)
            made = {key: Stored(one, self._of_condition[key[0]], engine, self.path) for key, one in cells.items()}
            target = self._new if self._replacing else self._finished
            target.append(*entries_of({key: one for key, one in made.items() if key not in there}, known=target.ids))

    def finish(self) -> bool:
        """Let the new file take the place of the old one, if this run overwrites; return whether there is a file.

        There is none where all wanted cells are in a result of version 0.1, which then stays as it is.
        """
        if self._replacing:
            with self._locked():
                self._current(self._engine)
                if self._replacing and self._new.sync():
                    self._replace()
        return self.path.exists()

    def _replace(self) -> None:
        """Put the new file in the place of the old one."""
        try:
            os.replace(self._new.path, self.path)
        except OSError as error:
            raise unwritable(self.path, error) from error
        sync_folder(self.path.parent)
        self._replacing = self._overwrite = False

    def _ready(self, engine: Json) -> Cells:
        cells = self._current(precision_of(engine))
        if self._replacing:
            given_up = bool(self._new.cells) and not cells  # an unfinished replacement, made from something else
            if given_up or not self._new.sync():
                self._begin_anew()
        elif not self._finished.sync():
            write_text(self.path, "".join(map(line_of, entries_of(cells))))
            self._finished.sync()
        return cells

    def _begin_anew(self) -> None:
        """Begin the file that will replace the old one."""
        write_text(self._new.path, "")
        self._new.sync()

    def _current(self, engine: Json) -> Cells:
        """Return the cells to go on from; see `read`."""
        if engine != self._engine:
            self._engine, self._agreed = engine, {}
        begun = self._replacing and bool(self._new.cells)
        if self._new.sync():
            fits = self._conflict(self._new.cells) is None
            if fits or self._overwrite:
                self._replacing = True
                return self._new.cells if fits else {}
        elif begun:  # another process has finished the same replacement
            self._overwrite = False
        elif self._overwrite:
            self._replacing = True
            return {}
        self._replacing = False
        cells = self._finished.cells if self._finished.sync() else self._older()
        if (conflict := self._conflict(cells)) is not None:
            raise conflict
        return cells

    def _conflict(self, cells: Cells) -> ConflictError | None:
        """Return the error for the first cell that was not made as it is wanted."""
        engine: Json | None = None
        for key, one in cells.items():
            if key[0] not in self._of_condition:
                continue
            engine = engine or {**precision_of(one.engine), **self._engine}
            if self._agreed.get(key) is one:
                continue
            if key in self.wanted:
                found = differences(one.made_from, self.wanted[key], asked_for)
            else:
                found = differences(one.made_from, self._of_condition[key[0]], shared)
            found += differences(one.engine, engine, asked_for)
            if found:
                return ConflictError(f"{one.file} holds {self._tell(key, found)}")
            self._agreed[key] = one
        return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            yield
        finally:
            self._lock.release()


def entries_of(cells: Cells, *, known: Iterable[str] = ()) -> list[Json]:
    """List the lines of cells, each after what it was made from, unless that is known."""
    entries: list[Json] = []
    written = set(known)
    digests: dict[tuple[int, int], str] = {}
    for key, one in cells.items():
        same = id(one.made_from), id(one.engine)
        if same not in digests:
            made = json.dumps([one.made_from, one.engine], sort_keys=True)
            digests[same] = digest_of(made)[:16]
        if digests[same] not in written:
            entries.append({"id": digests[same], "made_from": one.made_from, "engine": one.engine})
            written.add(digests[same])
        entries.append({"cell": list(key), "made_from": digests[same], **one.content})
    return entries

"""The finished cells of a grid, condition × text, in a file that only grows.

Perplexity maps, evaluations and forcing tables are all grids: under each condition (nothing changed, each language's
neurons changed, random controls) the model works on the texts of each language. `<path>.cells.jsonl` gets each cell as
soon as it is finished, as one line of JSON, so that a killed run loses the cell at work and no other, and a grid of n
cells writes n lines:

    {"id": "5f1c…", "made_from": {"mask": …}, "engine": {…}}       what cells were made from, once
    {"cell": ["fr~1", "en"], "made_from": "5f1c…", "token": …}     a finished cell, with whatever its step measured
    {"cell": ["fr~1", "es"], "made_                                a line that a kill cut off: it does not count

Several processes may append to one file. With `overwrite`, cells go to `<path>.cells.new.jsonl`, whose first line says
what the run wants:

    {"replacing": {"fr~1": {"mask": …}}}

When all are finished, `finish` puts them in the place of the old cells, and when the tables and figures are written
too, `end` deletes the new file. Until then the old result stays, and a run that was killed goes on where it stopped,
with or without `overwrite`; after that, `overwrite` begins anew. Version 0.1 kept the cells in the JSON of a whole
result, which `older_map`, `older_evaluation` and `older_forcing` read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ArtifactError, ConflictError
from .files import Json, check_writable, digest_of, locked, read_json, unwritable, write_text
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
            return self.parse(self.path.read_bytes())[0]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ArtifactError(f"cannot read {self.path} ({error}): {self._remedy}") from error

    def parse(self, content: bytes, *, first: int = 1) -> tuple[list[Json], int]:
        """Parse whole lines, counted from `first`; return the entries and the bytes that they take."""
        whole = content.rfind(b"\n") + 1
        entries: list[Json] = []
        for number, line in enumerate(content[:whole].split(b"\n")[:-1], start=first):
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise self.damaged(number, error) from error
            if not isinstance(entry, dict):
                raise self.damaged(number, f"a {type(entry).__name__}, not an object")
            entries.append(entry)
        return entries, whole

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


def line_of(entry: Json) -> str:
    """Write an object as one line."""
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _cut_torn_line(file: Any) -> int:
    """Remove what follows the last line end, and return the size of the file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    if file.read(1) in (b"", b"\n"):
        return size
    file.seek(0)
    return file.truncate(file.read().rfind(b"\n") + 1)


class Difference(NamedTuple):
    """A value that two descriptions do not share; `names` leads to it from the outermost object inwards."""

    names: tuple[str, ...]
    seen: Any
    wanted: Any


def every(seen: Json, wanted: Json) -> Iterable[str]:
    """Compare all values of both."""
    return {**seen, **wanted}


def asked_for(seen: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterable[str]:
    """Compare what is wanted; what was noted beyond that does not matter.

    A tokenizer is compared where both tell: earlier versions did not note it.
    """
    return (key for key in wanted if key != "tokenizer_hash" or key in seen)


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
    return ", ".join(
        names[-1].replace("_", " ") + (f" ({seen!r}, not {wanted!r})" if len(repr((seen, wanted))) < 80 else "")
        for names, seen, wanted in found
    )


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


class Stored(NamedTuple):
    """A finished cell: what its step measured, what decides that besides the engine, the engine, and its file."""

    content: Json
    made_from: Json
    engine: Json
    file: Path


Cells = dict[Key, Stored]
Older = Callable[[Path], Cells]
"""Reads the cells of a result that version 0.1 wrote; its path has no ending."""
Check = Callable[[Stored], object]
"""Raises ValueError, KeyError or TypeError where a cell is not what its step writes."""


_DAMAGED = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""What reading a damaged cell raises."""


class _CellLines(Lines):
    """A file of cells, which is read once, and later what was appended to it since."""

    def __init__(self, path: Path, check: Check) -> None:
        super().__init__(path, remedy="delete that line and run the command again")
        self._check = check
        self._forget()

    def _forget(self) -> None:
        self.cells: Cells = {}
        self.origins: dict[str, tuple[Json, Json]] = {}
        self.replacing: Json = {}
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
                entries, size = self.parse(file.read(), first=self._number + 1)
        except FileNotFoundError:
            self._forget()
            return False
        except OSError as error:
            raise ArtifactError(f"cannot read {self.path} ({error}): delete it and run the command again") from error
        for entry in entries:
            self._number += 1
            try:
                self._take(entry)
            except _DAMAGED as error:
                raise self.damaged(self._number, repr(error)) from error
        self._end += size
        return True

    def _take(self, entry: Json) -> None:
        match entry:
            case {"id": str() as name, "made_from": dict() as made_from, "engine": dict() as engine}:
                self.origins[name] = made_from, engine
            case {"replacing": dict() as wanted}:
                self.replacing = wanted
            case {"cell": [str() as condition, str() as text], "made_from": str() as name, **content}:
                stored = Stored(content, *self.origins[name], self.path)
                self._check(stored)
                self.cells[condition, text] = stored
            case _:
                raise ValueError("neither a cell nor what cells are made from")


def read_cells(path: Path, older: Older, check: Check = lambda _: None) -> Cells:
    """Read all finished cells of a grid, whatever they were made from. `path` has no ending."""
    lines = _CellLines(cells_path(path), check)
    return lines.cells if lines.sync() else _checked(older(path), check)


def _checked(cells: Cells, check: Check) -> Cells:
    """Return the cells that version 0.1 wrote, each of them checked."""
    for (condition, text), one in cells.items():
        try:
            if not (isinstance(condition, str) and isinstance(text, str)):
                raise TypeError("its names are not strings")
            check(one)
        except _DAMAGED as error:
            raise ArtifactError(
                f"{one.file} cannot be read (the cell {condition!r}, {text!r}: {error!r}): delete it and run the "
                "command again"
            ) from error
    return cells


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

    Attributes:
        path: of the finished cells.
        wanted: cell → what it has to be made from.
        replacing: whether new cells go to a file that takes the place of the old one at the end.
    """

    def __init__(
        self,
        path: Path,
        wanted: Mapping[Key, Json],
        *,
        older: Older,
        tell: Tell,
        check: Check = lambda _: None,
        overwrite: bool = False,
    ) -> None:
        """Name the file, without ending.

        Where an object in what a cell is made from has an entry for each language or condition ("corpus"), `wanted`
        has the cell's own entry only. What is stored is this of all cells of a condition, so it is one line for many
        cells, and tells which languages the run was about. The results of version 0.1 that `older` reads go to the
        new file with the first new cell.
        """
        self.wanted = {key: json.loads(json.dumps(one)) for key, one in wanted.items()}  # as it is read back
        self.path = cells_path(path)
        self.replacing = False
        self._new = _CellLines(with_ending(path, ".cells.new.jsonl"), check)
        self._finished = _CellLines(self.path, check)
        self._older = lambda: _checked(older(path), check)
        self._tell = tell
        self._overwrite = overwrite
        self._at = path
        self._goes_on = False
        self._moved: Cells = {}
        self._agreed: Cells = {}
        self._engine: Json = {}
        self._of_condition: dict[str, Json] = {}
        for (condition, _), one in self.wanted.items():
            self._of_condition[condition] = merged([self._of_condition.get(condition, {}), one])

    def read(self, *, engine: Json | None = None) -> dict[Key, Json]:
        """Return the wanted cells that are finished; they must come from this engine and dtype, where they are named.

        Raises:
            ConflictError: a cell was made from something else, and nothing is to be overwritten.
            ArtifactError: the file cannot be read.
        """
        cells = self._current(engine or {})
        return {key: cells[key].content for key in self.wanted if key in cells}

    def cells(self) -> Cells:
        """Return all finished cells, those that this run does not want among them, in the order of the file."""
        return dict(self._current(self._engine))

    def begin(self, *, engine: Json) -> Cells:
        """Make the file ready for new cells: take over older results, or begin the file that will replace them."""
        with self._locked():
            return self._ready(engine)

    def prepare(self, *, needed: int = 0) -> None:
        """Check that results can be written, and begin to replace old ones if this run overwrites.

        Call it before the model is loaded. From then on a killed run goes on where it stopped, whether it is asked to
        overwrite again or not.

        Args:
            needed: bytes that the results take, as far as they are known.

        Raises:
            ArtifactError: the folder cannot be written, or its disk has no room.
        """
        check_writable(self.path, needed=needed)
        if self._overwrite and (self._finished.sync() or self._older()):
            with self._locked():
                self._current(self._engine)
                if self.replacing and not self._goes_on:
                    self._begin_anew()

    def append(self, cells: Mapping[Key, Json], *, engine: Json) -> None:
        """Put finished cells on disk; one that another process has appended meanwhile is not written again."""
        with self._locked():
            there = self._ready(engine)
            made = {key: Stored(one, self._of_condition[key[0]], engine, self.path) for key, one in cells.items()}
            new = {key: one for key, one in made.items() if key not in there}
            target = self._new if self.replacing else self._finished
            target.append(*_entries(new, known=target.origins))

    def finish(self) -> bool:
        """Put the new cells in the place of the old ones, if this run overwrites; return whether there is a file.

        There is none where all wanted cells are in a result of version 0.1, which then stays as it is.
        """
        if self.replacing:
            with self._locked():
                self._current(self._engine)
                if self.replacing and self._new.sync():
                    self._replace()
        return self.path.exists()

    def end(self) -> None:
        """Forget that this run overwrites: everything that is made of the cells is written."""
        if self.replacing:
            with self._locked():
                if self._new.sync() and self._new.cells == self._moved:  # else another process replaces more
                    self._drop_new()
            self.replacing = self._overwrite = False

    def _drop_new(self) -> None:
        self._new.path.unlink(missing_ok=True)

    def _replace(self) -> None:
        """Put the new cells in the place of the old ones. A run that is killed before `end` does this again."""
        write_text(self.path, "".join(map(line_of, _entries(self._new.cells))))
        self._moved = dict(self._new.cells)

    def _ready(self, engine: Json) -> Cells:
        cells = self._current(precision_of(engine))
        if self.replacing:
            if not self._goes_on:
                self._begin_anew()
        elif not self._finished.sync():
            write_text(self.path, "".join(map(line_of, _entries(cells))))
            self._finished.sync()
        return cells

    def _begin_anew(self) -> None:
        """Begin the file that will replace the old one."""
        write_text(self._new.path, line_of({"replacing": self._of_condition}))
        self._goes_on = self._new.sync()

    def _current(self, engine: Json) -> Cells:
        """Return the cells to go on from; see `read`."""
        if engine != self._engine:
            self._engine, self._agreed = engine, {}
        begun, self._goes_on = self.replacing and self._goes_on, False
        if self._new.sync():
            self._goes_on = self._conflict(self._new.cells) is None and not self._means_else(self._new.replacing)
            if self._goes_on or self._overwrite:
                self.replacing = True
                return self._new.cells if self._goes_on else {}
        elif begun:  # another process has finished the same replacement
            self._overwrite = False
        elif self._overwrite:
            self.replacing = True
            return {}
        self.replacing = False
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
            wanted, keys = (self.wanted[key], asked_for) if key in self.wanted else (self._of_condition[key[0]], shared)
            found = differences(one.made_from, wanted, keys) + differences(one.engine, engine, asked_for)
            if found:
                return ConflictError(f"{one.file} holds {self._tell(key, found)}")
            self._agreed[key] = one
        return None

    def _means_else(self, replacing: Json) -> bool:
        """Return whether an unfinished replacement wants cells that contradict those wanted here."""
        named = replacing.keys() & self._of_condition.keys()
        return any(differences(replacing[one], self._of_condition[one], shared) for one in named)

    def _locked(self) -> AbstractContextManager[None]:
        return locked(
            self._at,
            busy=f"another process has kept {self.path} locked for minutes: end it (it may be suspended), and run the "
            "same command again",
        )


def _entries(cells: Cells, *, known: Iterable[str] = ()) -> list[Json]:
    """List the lines of cells, each after what it was made from, unless that is known."""
    entries: list[Json] = []
    written = set(known)
    for key, (content, made_from, engine, _) in cells.items():
        name = digest_of(json.dumps([made_from, engine], sort_keys=True))[:16]
        if name not in written:
            entries.append({"id": name, "made_from": made_from, "engine": engine})
            written.add(name)
        entries.append({"cell": list(key), "made_from": name, **content})
    return entries


_Found = Iterator[tuple[Key, Json, Json, Json]]
"""Cells: their content, what they were made from, and their engine."""


def older_map(path: Path) -> Cells:
    """Read the cells of a map and its controls that version 0.1 wrote; of a summary, the sums."""

    def cells_of(content: Any) -> _Found:
        made_from, engine = content["provenance"], content.get("engine") or {}
        _check({"provenance": dict, "engine": dict}, {**content, "engine": engine})
        _check({"corpus": dict}, made_from)
        for cell in _check({"cells": list}, content)["cells"]:
            numbers = dict(cell)
            yield (numbers.pop("deactivated"), numbers.pop("text_language")), numbers, made_from, engine

    whole = _older(with_ending(path, ".json"), cells_of, command="lna ppl")
    return whole | _older(with_ending(path, ".controls.json"), cells_of, command="lna ppl")


def older_evaluation(path: Path) -> Cells:
    """Read the cells of an evaluation that version 0.1 wrote."""

    def cells_of(content: Any) -> _Found:
        _check({"provenance": dict, "engine": dict, "asked": dict, "cells": list}, content)
        undrawn = {**content["provenance"], "controls": None}
        for cell in content["cells"]:
            row, text = cell["row"], cell["language"]
            made_from = content["provenance"] if "~" in row else undrawn
            found = {"outcomes": cell["outcomes"], "questions": content["asked"][text]}
            yield (row, text), found, made_from, content["engine"]

    return _older(with_ending(path, ".json"), cells_of, command="lna evaluate")


def older_forcing(path: Path) -> Cells:
    """Read the cells of a forcing table that version 0.1 wrote."""

    def cells_of(content: Any) -> _Found:
        for name, cell in content["cells"].items():
            _check({"made_from": dict, "engine": dict, "languages": list}, cell)
            text, _, condition = name.partition(".to.")
            found = {"languages": cell["languages"]}
            yield (condition or "none", text), found, {name: cell["made_from"]}, cell["engine"]

    return _older(with_ending(path, ".json"), cells_of, command="lna force")


def _check(parts: Mapping[str, type], content: Any) -> Any:
    """Return the object, or raise where one of these parts is of another type."""
    if wrong := [name for name, kind in parts.items() if not isinstance(content[name], kind)]:
        raise ValueError(f"its {wrong[0]} is none")
    return content


def _older(file: Path, cells_of: Callable[[Any], _Found], *, command: str) -> Cells:
    """Read the cells in the JSON of a whole result; none where there is no file."""
    cells: Cells = {}

    def is_whole(content: Any) -> bool:
        cells.update(
            {key: Stored(found, made_from, engine, file) for key, found, made_from, engine in cells_of(content)}
        )
        return True

    read_json(file, is_whole, command=command)
    return cells

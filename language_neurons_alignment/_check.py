"""Check a folder of results: is every file complete, do files that belong together match, and is anything out of date?

`check_root` reads all results under a root with the same readers as the steps, so whatever a step would refuse is
found here, without a model. Only leftovers of interrupted runs are ever removed, and only on request.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .core.model import StartProgress, silent
from .core.perplexity import perplexity
from .corpus.records import read_corpus
from .errors import ArtifactError, LNAError, SettingsError
from .store.answers import LETTERS, Journal, forcing_name
from .store.counts import counts_hash, has_moments, load_blocks, load_counts, model_of, with_moments
from .store.files import DIGESTS, Json, differing_files, is_held, is_part, load_tensors, read_json
from .store.grid import Cells, Lines, Older, older_evaluation, older_forcing, older_map, read_cells
from .store.lambdas import found_lambdas
from .store.layout import Layout, with_ending
from .store.maps import perplexities
from .store.masks import Mask

_T = TypeVar("_T")

DAMAGED, STALE, ORPHANED, UNFINISHED = "damaged", "stale", "orphaned", "unfinished"
UNVERIFIED, LEFTOVER = "unverified", "leftover"
KINDS = {
    DAMAGED: "unreadable, or contradicting itself",
    STALE: "made from counts or a mask that have been replaced since",
    ORPHANED: "without the files that it belongs to",
    UNFINISHED: "part of an interrupted run; the same command continues it",
    UNVERIFIED: "written by an earlier version without the digests of its tables, so a change of these goes unnoticed",
    LEFTOVER: "temporary and no longer needed; --clean removes it",
}
"""What can be wrong with a file, in the order of a report."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with one file.

    Attributes:
        kind: one of `KINDS`.
        what: one line: what was seen, and what to do.
    """

    kind: str
    path: Path
    what: str


@dataclass(frozen=True)
class RootCheck:
    """What a check found.

    Attributes:
        checked: kind of result → how many of them were read.
        findings: in the order of `KINDS`, then by path.
        removed: the leftovers that were deleted.
    """

    root: Path
    checked: dict[str, int]
    findings: tuple[Finding, ...]
    removed: tuple[Path, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged, stale or orphaned; the other kinds do no harm."""
        return not any(one.kind in (DAMAGED, STALE, ORPHANED) for one in self.findings)


def check_root(root: Path, *, clean: bool = False, start: StartProgress = silent) -> RootCheck:
    """Read every result under a root and report what is wrong.

    Args:
        root: the folder that commands get as --root.
        clean: delete the leftovers of interrupted runs that no running process holds.
        start: starts a progress bar over folders of results.

    Raises:
        SettingsError: no such folder.
        ArtifactError: a leftover cannot be deleted.
    """
    if not root.is_dir():
        raise SettingsError(f"{root} is not a folder: give the folder that other commands take as --root")
    check = _Check(root)
    folders = [folder for kind in _READERS for folder in _folders(root / kind)]
    progress = start("checking", len(folders))
    for kind, read in _READERS.items():
        for folder in _folders(root / kind):
            read(check, folder)
            progress(1)
    removed = check.leftovers(clean=clean)
    order = list(KINDS)
    findings = sorted(check.findings, key=lambda one: (order.index(one.kind), one.path))
    return RootCheck(root, dict(check.checked), tuple(findings), tuple(removed))


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


@dataclass
class _Check:
    """A check at work: what it has read so far, and what it found."""

    root: Path
    checked: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, set[tuple[str, str]]] = field(default_factory=dict)  # dataset → (language, digest)
    masks: dict[str, set[str]] = field(default_factory=dict)  # dataset → digests of its masks

    def find(self, kind: str, path: Path, what: str) -> None:
        """Note that something is wrong."""
        self.findings.append(Finding(kind, path, what))

    def read(self, path: Path, reader: Callable[..., _T], *inputs: Any, **choices: Any) -> _T | None:
        """Return what a reader returns for these inputs, or None where it refuses, which is a finding."""
        try:
            return reader(*inputs, **choices)
        except LNAError as error:
            self.find(DAMAGED, path, str(error))
            return None

    def made_from_counts(self, path: Path, dataset: str, digests: Json) -> None:
        """Check that something was made from the counts that are there now."""
        known = self.counts.get(dataset, set())
        there = {language for language, _ in known}
        if missing := [language for language in digests if language not in there]:
            self.find(
                ORPHANED,
                path,
                f"the counts of {', '.join(missing)} that it was made from are not there: count again, or delete it",
            )
        elif changed := [language for language, digest in digests.items() if (language, digest) not in known]:
            self.find(STALE, path, f"the counts of {', '.join(changed)} have changed since: make it again with --force")

    # One reader for each folder under the root; `folder` is that of one dataset.

    def read_counts(self, folder: Path) -> None:
        """Counts with their moments and blocks."""
        dataset, known = folder.name, self.counts.setdefault(folder.name, set())
        models: dict[str, tuple[str, Json]] = {}
        for (language, model), kinds in sorted(_counted(folder).items()):
            layout = Layout(self.root, dataset, model)
            path = layout.activation(language)
            if "activation" not in kinds:
                first = sorted(kinds.values())[0]
                what = f"{path.name}, to which it belongs, is not there: `lna activation -l {language}` writes all anew"
                self.find(ORPHANED, first, what)
                continue
            self.checked["counts"] += 1
            if (read := self.read(path, load_counts, layout, language)) is None:
                continue
            counts, meta = read
            digest = counts_hash(counts)
            known.add((language, digest))
            first, origin = models.setdefault(model, (language, meta))
            if differs := model_of(meta).difference(origin, unknown_differs=True):
                what = f"it was counted on a model with other {differs} than the counts of {first}: count one again"
                self.find(STALE, path, what)
            if has_moments(layout, language):
                self.checked["moments"] += 1
                self.read(layout.moments(language), with_moments, layout, language, counts)
            if layout.blocks(language).exists():
                self.checked["blocks"] += 1
                self.read(layout.blocks(language), load_blocks, layout, language, counted=digest)
        for path in sorted(folder.glob("autosweep.*.json")):
            self.checked["sweeps"] += 1
            model = path.name.removeprefix("autosweep.").removesuffix(".json")
            self.read(path, found_lambdas, Layout(self.root, dataset, model))
        self.read_replacing(folder)

    def read_answers(self, folder: Path) -> None:
        """A model's own answers, and journals of runs that are still answering."""
        for path in sorted(folder.glob("answers.*.json")):
            self.checked["answers"] += 1
            self.read(path, read_corpus, path)
        self.read_journals(folder)

    def read_journals(self, folder: Path) -> None:
        """Answers of interrupted runs."""
        for path in sorted(folder.rglob("*.partial.jsonl")):
            journal = Journal(path.with_name(path.name.removesuffix(".partial.jsonl")))
            entries = self.read(path, journal.read)
            if entries is not None:
                self.find(UNFINISHED, path, f"{max(len(entries) - 1, 0)} finished batches of answers are in it")

    def read_replacing(self, folder: Path) -> None:
        """Runs with --force that were interrupted between two results."""
        for path in sorted(folder.glob("*.replacing.json")):
            self.find(UNFINISHED, path, "a run with --force was interrupted while it replaced these results")

    def read_masks(self, folder: Path) -> None:
        """Masks and their descriptions."""
        known = self.masks.setdefault(folder.name, set())
        for rates in _folders(folder):
            for path in sorted(rates.glob("mask.*")):
                if path.suffix == ".json" and not path.with_suffix("").exists():
                    self.find(ORPHANED, path, "the mask that it describes is not there: run `lna identify` again")
                if path.suffix == ".json":
                    continue
                self.checked["masks"] += 1
                mask = self.read(path, Mask.load, path)
                if mask is not None:
                    if mask.description is None or not mask.description.mask_hash:
                        what = "nothing beside it holds a digest of its neurons, so a change of them goes unnoticed"
                        self.find(UNVERIFIED, path, what)
                    known.update(mask.digest_of([name]) for name in ("specific", "general"))
                    if mask.description is not None:
                        self.made_from_counts(path, folder.name, mask.description.counts)

    def read_maps(self, folder: Path) -> None:
        """Perplexity maps: every cell follows from its texts, and a language's cells share their texts."""
        for path, cells in self.grids(folder, "ppl", older_map, "maps"):
            lengths: dict[tuple[str, str], tuple[int, ...]] = {}
            for key, cell in (self.read(path, perplexities, cells) or {}).items():
                if not cell.likelihoods:
                    continue
                if perplexity(cell.likelihoods) != cell:
                    self.find(DAMAGED, path, f"cell {key} is not what its texts come to: run `lna ppl --force`")
                made_from = cells[key].made_from
                choices = json.dumps([made_from.get(name) for name in ("corpus", "text", "overlong_policy")])
                tokens = tuple(one.tokens for one in cell.likelihoods)
                if lengths.setdefault((key[1], choices), tokens) != tokens:
                    self.find(DAMAGED, path, f"cell {key} is of other texts than those above it: run `lna ppl --force`")
            summary = self.read(with_ending(path, ".json"), older_map, path) or {}
            for key, one in summary.items():
                if key not in cells or any(cells[key].content.get(name) != one.content.get(name) for name in _SUMS):
                    what = f"its cell {key} is not the one among the finished cells: run `lna ppl` again"
                    self.find(DAMAGED, one.file, what)

    def read_evaluations(self, folder: Path) -> None:
        """Evaluations: one known letter for each question, and one answer beside it."""
        letters = set(LETTERS.values())
        for path, cells in self.grids(folder, "evaluate", older_evaluation, "evaluations"):
            for key, one in cells.items():
                outcomes, questions = one.content.get("outcomes"), one.content.get("questions")
                if not isinstance(outcomes, str) or not set(outcomes) <= letters or not isinstance(questions, list):
                    self.find(DAMAGED, path, f"cell {key} has no outcomes: run `lna evaluate --force`")
                elif len(outcomes) != len(questions):
                    what = f"cell {key} has {len(outcomes)} outcomes of {len(questions)} questions"
                    self.find(DAMAGED, path, f"{what}: run `lna evaluate --force`")
            expected = {key: len(one.content.get("outcomes") or "") for key, one in cells.items()}
            self.answers_beside(path, {(key[0], key[1]): number for key, number in expected.items()})

    def read_forcings(self, folder: Path) -> None:
        """Forcing tables: one answer beside each language found."""
        for path, cells in self.grids(folder, "force", older_forcing, "forcings"):
            expected = {}
            for key, one in cells.items():
                found = one.content.get("languages")
                if not isinstance(found, list) or not all(code is None or isinstance(code, str) for code in found):
                    self.find(DAMAGED, path, f"cell {key} has no languages: run `lna force --force`")
                    continue
                expected[forcing_name(key), key[1]] = len(found)
            self.answers_beside(path, expected)

    def grids(self, folder: Path, kind: str, older: Older, name: str) -> Iterator[tuple[Path, Cells]]:
        """The grids of a dataset, without ending, and their cells."""
        for rates in _folders(folder):
            for path in _without_endings(rates, f"{kind}.", (".cells.jsonl", ".json")):
                cells = self.read(path, read_cells, path, older)
                if cells is None:
                    continue
                self.checked[name] += 1
                used = {digest for cell in cells.values() for digest in _mask_digests(cell.made_from)}
                masks = self.masks.get(folder.name, set())
                if used and not masks:
                    self.find(
                        ORPHANED,
                        path,
                        "the mask that it was made from is not there: identify the neurons again, or delete it",
                    )
                elif used - masks:
                    self.find(STALE, path, "its mask has changed since: make it again with --force")
                if with_ending(path, ".json").exists():
                    self.summary(with_ending(path, ".json"), f"lna {kind}")
                elif cells:
                    self.find(UNFINISHED, path, f"{len(cells)} finished cells are in it")
                yield path, cells
            for path in _without_endings(rates, f"{kind}.", (".cells.new.jsonl",)):
                new = with_ending(path, ".cells.new.jsonl")
                lines = self.read(new, Lines(new).read)
                if lines is not None:
                    found = sum("cell" in one for one in lines)
                    self.find(UNFINISHED, new, f"{found} cells that will replace the old ones are in it")
            self.read_journals(rates)
            self.whole(rates)

    def whole(self, folder: Path) -> None:
        """Check that no table or picture in a folder is cut off, whether a digest of it is held or not."""
        for path in sorted(folder.iterdir()):
            if path.is_file() and (fault := _cut_off(path)):
                self.find(DAMAGED, path, f"{fault}: write it again with the command that wrote it")

    def answers_beside(self, path: Path, expected: dict[tuple[str, str], int]) -> None:
        """Check that the folder of a grid's answers holds as many as its cells, (name, language) → number, were of."""
        folder = with_ending(path, ".answers")
        if not folder.is_dir():
            if expected:
                self.find(ORPHANED, path, f"{folder.name}, the folder of its answers, is not there")
            return
        for name in dict.fromkeys(name for name, _ in expected):
            file = folder / f"{name}.jsonl"
            lines = self.read(file, Lines(file).read)
            if lines is None:
                continue
            there = Counter(one.get("lang") for one in lines)
            wrong = [text for (of, text), number in expected.items() if of == name and there[text] != number]
            if wrong:
                seen, wanted = there[wrong[0]], expected[name, wrong[0]]
                what = f"it holds {seen} answers to questions in {wrong[0]}, the cell is of {wanted}"
                self.find(DAMAGED, file, f"{what}: make the table again with --force")

    def read_tables(self, folder: Path) -> None:
        """Analyses, comparisons, stability, methods, lenses: JSON that says what it was made from, and tables."""
        kind = folder.parent.name
        for rates in _folders(folder):
            self.read_replacing(rates)
            self.whole(rates)
            for path in sorted(rates.glob("*.json")):
                if path.name.endswith(".replacing.json"):
                    continue
                self.checked[kind] += 1
                content = self.summary(path, f"lna {_COMMANDS[kind]}")
                for digests in _count_digests(content):
                    self.made_from_counts(path, folder.name, digests)
                tensors = path.with_suffix(".pt")
                if kind in _WITH_TENSORS and content is not None:
                    self.read(tensors, load_tensors, tensors, remedy=f"run `lna {_COMMANDS[kind]}` again")
            for path in sorted(rates.glob("*.csv")):
                if not path.with_suffix("").with_suffix(".json").exists():
                    self.find(ORPHANED, path, "the JSON file that it belongs to is not there")

    def read_reports(self, folder: Path) -> None:
        """Reports: a whole page for each folder of pictures."""
        for rates in _folders(folder):
            for path in sorted(rates.glob("report.*.html")):
                self.checked["reports"] += 1
                if not path.read_bytes().rstrip().endswith(b"</html>"):
                    self.find(DAMAGED, path, "the page is cut off: run `lna report` again")
            for pictures in _folders(rates):
                self.whole(pictures)
                if not with_ending(pictures, ".html").exists():
                    self.find(ORPHANED, pictures, "the page of these pictures is not there: run `lna report` again")

    def read_neurons(self, folder: Path) -> None:
        """Pages of neurons: whole, and each with its JSON."""
        for rates in _folders(folder):
            for path in sorted(rates.glob("neurons.*.html")):
                self.checked["neurons"] += 1
                if not path.read_bytes().rstrip().endswith(b"</html>"):
                    self.find(DAMAGED, path, "the page is cut off: run `lna neurons` again")
                data = path.with_name(f"{path.name.removesuffix('.html')}.json")
                if not data.exists():
                    self.find(ORPHANED, path, "the JSON file of its neurons is not there: run `lna neurons` again")
                else:
                    self.read(data, read_json, data, lambda content: "neurons" in content, command="lna neurons")

    def summary(self, path: Path, command: str) -> Json | None:
        """The content of the JSON file of a result; the tables written with it must be as they were written."""
        content = self.read(path, read_json, path, lambda content: isinstance(content, dict), command=command)
        if content is None:
            return None
        for other in self.read(path, differing_files, path) or []:
            self.find(DAMAGED, other, f"not of the run that wrote {path.name}: run `{command}` again")
        if DIGESTS not in content:
            what = (
                "it holds no digests of its tables, so nothing shows whether they are as written; made again, it does"
            )
            self.find(UNVERIFIED, path, what)
        return content

    def leftovers(self, *, clean: bool) -> list[Path]:
        """Find what interrupted runs left behind and no process holds; delete it if asked to."""
        removed = []
        for path, what in _leftovers(self.root):
            if not clean:
                self.find(LEFTOVER, path, what)
                continue
            try:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            except OSError as error:
                raise ArtifactError(f"cannot delete {path} ({error.strerror}): delete it by hand") from error
            removed.append(path)
        return removed


_READERS: dict[str, Callable[[_Check, Path], None]] = {
    "activations": _Check.read_counts,
    "answers": _Check.read_answers,
    "activation_masks": _Check.read_masks,
    "ppl_maps": _Check.read_maps,
    "evaluations": _Check.read_evaluations,
    "forcings": _Check.read_forcings,
    "analysis": _Check.read_tables,
    "comparisons": _Check.read_tables,
    "stability": _Check.read_tables,
    "methods": _Check.read_tables,
    "lenses": _Check.read_tables,
    "reports": _Check.read_reports,
    "neurons": _Check.read_neurons,
}
"""Folder under the root → what reads it. What others are made from comes first."""

_SUMS = ("token", "text", "nll", "tokens", "texts")
"""What the summary of a map says of a cell."""
_COMMANDS = {
    "analysis": "analyze", "comparisons": "compare", "stability": "stability", "methods": "methods", "lenses": "lens",
}  # fmt: skip
_WITH_TENSORS = ("stability", "lenses")
"""Results whose JSON file has a file of tensors beside it."""
_COUNTED = re.compile(
    r"(?P<prefix>prefix\.)?(?P<kind>activation|moments|blocks)\.(?P<language>[^.]+)\.(?P<model>.+)\.pt"
)


def _counted(folder: Path) -> dict[tuple[str, str], dict[str, Path]]:
    """(language, model) → the files that counting wrote, by kind ("activation", "prefix.blocks")."""
    there: dict[tuple[str, str], dict[str, Path]] = {}
    for path in folder.iterdir():
        if found := _COUNTED.fullmatch(path.name):
            kinds = there.setdefault((found["language"], found["model"]), {})
            kinds[(found["prefix"] or "") + found["kind"]] = path
    return there


def _without_endings(folder: Path, start: str, endings: Iterable[str]) -> list[Path]:
    """The results in a folder, without ending; `.json` is not the ending of a summary of controls."""
    found = {}
    for path in sorted(folder.iterdir()):
        for ending in endings:
            name = path.name.removesuffix(ending)
            if path.name.startswith(start) and name != path.name and not name.endswith(".controls"):
                found[path.with_name(name)] = None
    return list(found)


def _mask_digests(made_from: Json) -> set[str]:
    """The digests of masks in what a cell was made from; sets that come from files of the user's own begin with @."""
    found = {made_from["mask"]} if isinstance(made_from.get("mask"), str) else set()
    for name, value in made_from.items():
        if name == "neurons" and isinstance(value, dict):
            found |= {digest for term, digest in value.items() if not term.startswith("@")}
        elif isinstance(value, dict):
            found |= _mask_digests(value)
    return found


def _count_digests(content: Any) -> Iterator[Json]:
    """Every `"counts": {language: digest}` in a JSON value."""
    if isinstance(content, dict):
        counts = content.get("counts")
        if isinstance(counts, dict) and all(isinstance(one, str) for one in counts.values()):
            yield counts
        for value in content.values():
            yield from _count_digests(value)
    elif isinstance(content, list):
        for value in content:
            yield from _count_digests(value)


def _leftovers(root: Path) -> Iterator[tuple[Path, str]]:
    """Temporary files that nobody is writing, and locks and folders whose result is gone."""
    for path in sorted(root.rglob(".*.part")):
        if is_part(path.name) and not is_held(path):
            yield path, "an interrupted run left it"
    for path in sorted(root.rglob(".*.lock")):
        name = path.name[1:].removesuffix(".lock")
        if not any(path.parent.glob(f"{_escaped(name)}*")) and not is_held(path):
            yield path, f"the lock of {name}, which does not exist"
    for path in sorted(root.rglob("*.answers.new")):
        if not with_ending(path.with_name(path.name.removesuffix(".answers.new")), ".cells.new.jsonl").exists():
            yield path, "answers of a replacement that was not begun"


def _cut_off(path: Path) -> str | None:
    """What shows that a table or picture is not whole; None where nothing does."""
    if path.suffix == ".png":
        with path.open("rb") as file:
            ends = file.read(len(_PNG)) == _PNG and file.seek(max(path.stat().st_size - len(_PNG_END), 0)) >= 0
            return None if ends and file.read() == _PNG_END else "it is no whole PNG picture"
    if path.suffix != ".csv":
        return None
    try:
        text = path.read_text(encoding="utf-8")
        widths = {len(row) for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row}
    except (OSError, ValueError, csv.Error) as error:
        return f"it is no table ({error})"
    if not text.endswith("\n"):
        return "its last line does not end"
    return (
        None if len(widths) == 1 else f"its rows have from {min(widths, default=0)} to {max(widths, default=0)} cells"
    )


_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)

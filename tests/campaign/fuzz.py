"""Fuzzing of every reader, every parser and the command line.

A *target* makes one mutated input in a folder from a random generator, and returns what reads it. The reader may return
a result or raise an LNAError with a line that can be printed; any other exception, five seconds without an end, or
half a gigabyte more memory is a failure. Everything follows from (seed, target, number), which repeats an input.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import signal
import sys
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

import torch

from language_neurons_alignment._session import open_session
from language_neurons_alignment.config import EvaluationSettings, ForcingSettings, MapSettings, Sampling, Selection
from language_neurons_alignment.errors import LNAError
from language_neurons_alignment.store.layout import Layout
from tests.workspace import ForbiddenSource

from .commands import COMMANDS, LANGUAGES, MADE, Results, records, workspace
from .mutate import (
    NUMBERS,
    STRINGS,
    json_bytes,
    lines_bytes,
    mutate_bytes,
    mutate_text,
    tensor_bytes,
)
from .processes import peak_memory

SLOWEST = 15.0
"""Seconds that an input may take; four times as many where a whole command, or the language detector, is loaded."""

MOST_MEMORY = 512
"""MB more than before that an input may take."""

Read = Callable[[], object]
Target = Callable[[Random, "Place"], Read]

TARGETS: dict[str, Target] = {}


def target(make: Target) -> Target:
    """Add it under its name."""
    TARGETS[make.__name__.replace("_", " ")] = make
    return make


class Hang(BaseException):
    """An input takes too long."""


class ModelWanted(AssertionError):
    """The results do not suffice, so the model would be asked: that is a valid end."""


class Place:
    """A folder with results of every command, of which a target changes one; `restore` undoes that.

    Attributes:
        folder: the current folder while targets read.
        marker: a file that code hidden in an input would make.
    """

    def __init__(self, results: Results, folder: Path) -> None:
        self.folder = folder
        self.pristine = results.after(*EVERYTHING)
        workspace(results.inputs, folder, self.pristine)
        for name in ("tiny",):
            (folder / "model").mkdir()
            for file in (results.inputs / name).iterdir():
                shutil.copy(file, folder / "model" / file.name)
        self.marker = folder / "code-was-run"
        self.layout = Layout(folder / "out", "small", "Llama-tiny")
        self._changed: dict[Path, bytes | None] = {}
        self._cache: dict[Path, Any] = {}

    def put(self, path: Path, data: bytes) -> Path:
        """Write a file in place of what is there."""
        if path not in self._changed:
            self._changed[path] = path.read_bytes() if path.exists() else None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def signature(self) -> list[tuple[str, int, int]]:
        """What tells whether a command wrote anything."""
        state = ((str(one), one.lstat()) for one in sorted((self.folder / "out").rglob("*")))
        return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in state]

    def hide(self, path: Path) -> None:
        """Take a file away."""
        if path not in self._changed:
            self._changed[path] = path.read_bytes() if path.exists() else None
        path.unlink(missing_ok=True)

    def restore(self) -> None:
        """Put everything back."""
        for path, data in self._changed.items():
            if data is None:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            else:
                if path.is_symlink():
                    path.unlink()
                path.write_bytes(data)
        self._changed.clear()

    def changed(self) -> list[Path]:
        """The files that differ from the valid ones at the moment."""
        return [path for path in self._changed if path.is_file()]

    def json(self, path: Path) -> Any:
        """A valid JSON file."""
        if path not in self._cache:
            self._cache[path] = json.loads(path.read_text(encoding="utf-8"))
        return self._cache[path]

    def lines(self, path: Path) -> list[Any]:
        """A valid file of JSON lines."""
        if path not in self._cache:
            self._cache[path] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return self._cache[path]

    def tensors(self, path: Path) -> Any:
        """A valid file of tensors."""
        if path not in self._cache:
            self._cache[path] = torch.load(path, weights_only=True)
        return self._cache[path]

    def session(self) -> Any:
        """A session whose model must not be loaded."""
        from dataclasses import replace

        opened = open_session("tiny", self.folder / "corpus.json", "small", root=self.folder / "out", device="cpu")
        return replace(opened, source=ForbiddenSource())


EVERYTHING = (
    *MADE,
    *(f"activation moved {one}" for one in LANGUAGES),
    "ppl",
    "ppl do",
    "evaluate",
    "force",
    *(f"shard {one} {k}" for one in LANGUAGES for k in (1, 2)),
)

TOP, LAM = 0.1, 0.0

# ── Files of tensors ──────────────────────────────────────────────────────────────────────────────────────────────


def _one_language(rng: Random) -> tuple[str, bool]:
    return rng.choice(LANGUAGES), rng.random() < 0.5


@target
def counts(rng: Random, place: Place) -> Read:
    """Counts of a language: read beside the others, and neurons found."""
    from language_neurons_alignment.store.counts import load_answer_counts, load_origin

    language, prefix = _one_language(rng)
    path = place.layout.activation(language, prefix=prefix)
    place.put(path, tensor_bytes(rng, place.tensors(path)))

    def read() -> object:
        load_origin(path)
        return load_answer_counts(place.layout, LANGUAGES).statistics(bar=0.8).general

    return read


@target
def blocks(rng: Random, place: Place) -> Read:
    """Counts in blocks."""
    from language_neurons_alignment.store.counts import load_blocks

    language, prefix = _one_language(rng)
    path = place.layout.blocks(language, prefix=prefix)
    place.put(path, tensor_bytes(rng, place.tensors(path)))
    return lambda: load_blocks(place.layout, language)


@target
def moments(rng: Random, place: Place) -> Read:
    """Moments of a language."""
    from language_neurons_alignment.store.counts import answer_moments

    language, prefix = _one_language(rng)
    path = place.layout.moments(language, prefix=prefix)
    place.put(path, tensor_bytes(rng, place.tensors(path)))
    return lambda: answer_moments(place.layout, language)


@target
def shards(rng: Random, place: Place) -> Read:
    """Counts of one shard, merged with the others."""
    from language_neurons_alignment.activation import find_shards, merge_counts

    parts = find_shards(place.layout)
    language, prefix = _one_language(rng)
    part = rng.choice(parts)
    path = rng.choice((part.activation, part.moments))(language, prefix=prefix)
    place.put(path, tensor_bytes(rng, place.tensors(path)))
    for kind in (place.layout.activation, place.layout.moments, place.layout.blocks):
        for code in LANGUAGES:
            for one in (True, False):
                place.hide(kind(code, prefix=one))
    return lambda: merge_counts(place.layout, parts)


@target
def mask(rng: Random, place: Place) -> Read:
    """A mask, with its description, without, or with languages named."""
    from language_neurons_alignment.store.masks import Mask

    path = place.layout.mask(TOP, LAM)
    place.put(path, tensor_bytes(rng, place.tensors(path)))
    if rng.random() < 0.4:
        place.hide(path.with_name(path.name + ".json"))
    languages = rng.choice((None, None, LANGUAGES, ["en"]))

    def read() -> object:
        found = Mask.load(path, langs=languages)
        return found.digest_of(("specific", "related")), found.neurons_of(found.languages[0], ["specific"])

    return read


@target
def description(rng: Random, place: Place) -> Read:
    """The description beside a mask, read by everything that reads it."""
    from language_neurons_alignment._report import compose, gather
    from language_neurons_alignment.store.masks import check_replaceable, load_description, open_mask

    path = place.layout.mask(TOP, LAM)
    described = path.with_name(path.name + ".json")
    sound = load_description(path)
    place.put(described, json_bytes(rng, place.json(described)))
    mask_only = rng.random() < 0.5

    def read() -> object:
        session = place.session()
        check_replaceable(path, sound)
        opened = open_mask(place.layout, top_rate=TOP, lam=LAM, checkpoint=session.checkpoint)
        opened.digest_of(("specific", "related", "general"))
        return compose(gather([place.layout], Selection(TOP, LAM, 0.8), mask_only=mask_only))

    return read


# ── Grids of results ──────────────────────────────────────────────────────────────────────────────────────────────


@target
def map_cells(rng: Random, place: Place) -> Read:
    """The cells of a perplexity map: read, written as a table, and drawn for the report."""
    from language_neurons_alignment._report import compose, gather
    from language_neurons_alignment.store.maps import load_map, save_csv

    path = place.layout.perplexity(TOP, LAM)
    cells = path.with_name(path.name + ".cells.jsonl")
    place.put(cells, lines_bytes(rng, place.lines(cells)))
    whole = rng.random() < 0.2

    def read() -> object:
        found, _ = load_map(path)
        if len(found.cells) == len(found.rows) * len(found.languages):
            save_csv(path, found)
        return compose(gather([place.layout], Selection(TOP, LAM, 0.8))) if whole else None

    return read


@target
def older_map(rng: Random, place: Place) -> Read:
    """A perplexity map as version 0.1 wrote it."""
    from language_neurons_alignment._report import compose, gather
    from language_neurons_alignment.store.maps import load_map

    path = place.layout.perplexity(TOP, LAM)
    place.hide(path.with_name(path.name + ".cells.jsonl"))
    summary = path.with_name(path.name + rng.choice((".json", ".controls.json")))
    place.put(summary, json_bytes(rng, place.json(summary)))
    whole = rng.random() < 0.2

    def read() -> object:
        load_map(path)
        return compose(gather([place.layout], Selection(TOP, LAM, 0.8))) if whole else None

    return read


@target
def map_of_a_session(rng: Random, place: Place) -> Read:
    """`ppl` over cells or summaries that were changed."""
    from language_neurons_alignment.ppl import perplexity_map

    path = place.layout.perplexity(TOP, LAM)
    cells, summary = (path.with_name(path.name + ending) for ending in (".cells.jsonl", ".json"))
    if rng.random() < 0.7:
        place.put(cells, lines_bytes(rng, place.lines(cells)))
    else:
        place.hide(cells)
        place.put(summary, json_bytes(rng, place.json(summary)))
    return lambda: perplexity_map(place.session(), top_rate=TOP, lam=LAM, settings=MapSettings(controls=2))


ASKING = {"sampling": Sampling(max_new_tokens=3), "controls": 2}


def _changed_grid(rng: Random, place: Place, path: Path) -> None:
    """Change the cells, the journal or the answers of a grid of answers, or leave only its summary."""
    cells, summary = (path.with_name(path.name + ending) for ending in (".cells.jsonl", ".json"))
    answers = sorted(path.with_name(path.name + ".answers").glob("*.jsonl"))
    kind = rng.randrange(5)
    if kind <= 1:
        place.put(cells, lines_bytes(rng, place.lines(cells)))
    elif kind == 2:
        place.hide(cells)
        place.put(summary, json_bytes(rng, place.json(summary)))
    elif kind == 3:
        one = rng.choice(answers)
        journal = one.with_name(one.stem + ".partial.jsonl")
        header = {"languages": ["en"], "model": "x", "sampling": {"seed": 0}}
        place.put(journal, lines_bytes(rng, [header, {"batch": [0], "answers": ["a"]}]))
    else:
        new = path.with_name(path.name + ".cells.new.jsonl")
        place.put(new, lines_bytes(rng, place.lines(cells)))


@target
def evaluation(rng: Random, place: Place) -> Read:
    """`evaluate` over files that were changed."""
    from language_neurons_alignment._evaluate import evaluate

    _changed_grid(rng, place, place.layout.evaluation(TOP, LAM))
    settings = EvaluationSettings(**ASKING)
    return lambda: evaluate(place.session(), ("en", "es"), top_rate=TOP, lam=LAM, settings=settings)


@target
def forcing(rng: Random, place: Place) -> Read:
    """`force` over files that were changed."""
    from language_neurons_alignment._force import force_languages

    _changed_grid(rng, place, place.layout.forcing(TOP, LAM))
    settings = ForcingSettings(**ASKING)
    return lambda: force_languages(place.session(), ("en",), ("es", "sw"), top_rate=TOP, lam=LAM, settings=settings)


@target
def journal(rng: Random, place: Place) -> Read:
    """The journal of answers that were not finished."""
    from language_neurons_alignment.store.answers import Journal

    result = place.folder / "answers.json"
    header = {"model": "m", "sampling": {"seed": 0, "stop": ["\n"]}, "languages": ["en"]}
    entries = [header, *({"batch": [k, k + 1], "answers": ["a", "é"], "finish": ["stop", "length"]} for k in range(3))]
    one = Journal(result)
    place.put(one.path, lines_bytes(rng, entries))
    replace = rng.random() < 0.2
    return lambda: one.start(header, replace=replace)


# ── Text that people and other programs write ─────────────────────────────────────────────────────────────────────


def _corpus_bytes(rng: Random) -> bytes:
    items: list[Any] = records()
    if rng.random() < 0.5:
        items = [{**one, "generation": {"engine": "x", "seed": 1}} for one in items]
    return json_bytes(rng, items) if rng.random() < 0.7 else lines_bytes(rng, items)


@target
def corpus(rng: Random, place: Place) -> Read:
    """A corpus: read, digested, sharded, written, with the languages looked up."""
    from language_neurons_alignment.corpus.records import generation_of, read_corpus, records_hash
    from language_neurons_alignment.store.answers import write_corpus

    path = place.put(place.folder / rng.choice(("c.json", "c.jsonl")), _corpus_bytes(rng))

    def read() -> object:
        found = read_corpus(path)
        records_hash(found.records)
        for one in found.records:
            generation_of(one)
        found.shard(1, 2)
        return write_corpus(place.folder / "written.json", [one.as_item() for one in found.records], overwrite=True)

    return read


RUN_FILES = {
    "run.yaml": 'model-path: model\ndata: c.json\nlangs: [en, "no"]\ndo:\n- zero each\nhi: 1e-3 # so\nmoments: true\n',
    "run.toml": 'model-path = "model"\nlangs = ["en", "no"]\nhi = 1e-3\nmoments = true\ncontrols = 5\n',
}


@target
def run_file(rng: Random, place: Place) -> Read:
    """A run file: read, written and read back."""
    from language_neurons_alignment.store.run_file import read_run_file, save_run_file

    name = rng.choice(list(RUN_FILES))
    data = mutate_text(rng, RUN_FILES[name]).encode("utf-8", "surrogatepass")
    path = place.put(place.folder / name, mutate_bytes(rng, data) if rng.random() < 0.2 else data)
    again = place.folder / "again.yaml"

    def read() -> object:
        found = read_run_file(path)
        save_run_file(again, found)
        if read_run_file(again) != found:
            raise AssertionError(f"{found} is stored as something else")
        return found

    return read


@target
def corpus_check(rng: Random, place: Place) -> Read:
    """`dataset check` of a corpus."""
    from language_neurons_alignment._dataset import check_dataset

    path = place.put(place.folder / "c.json", _corpus_bytes(rng))
    identify = rng.random() < 0.05
    return lambda: check_dataset(path, identify=identify)


@target
def corpus_encode(rng: Random, place: Place) -> Read:
    """Texts and prompts of a corpus as tokens."""
    from language_neurons_alignment.corpus.encode import encode_groups
    from language_neurons_alignment.corpus.records import read_corpus

    path = place.put(place.folder / "c.json", _corpus_bytes(rng))
    tokenizer = _tokenizer(place)
    length, overlong = rng.choice((20, 100, 2000)), rng.choice(("error", "truncate", "skip"))

    def read() -> object:
        found = read_corpus(path)
        return encode_groups(found.of_language(found.languages[0]), tokenizer, max_length=length, overlong=overlong)

    return read


_TOKENIZERS: list[Any] = []


def _tokenizer(place: Place) -> Any:
    if not _TOKENIZERS:
        from language_neurons_alignment.engines.checkpoint import load_tokenizer

        _TOKENIZERS.append(load_tokenizer(str(place.folder / "tiny"), None))
    return _TOKENIZERS[0]


TABLE = (
    'lang,id,instruction,target,answers\nen,1,"One, and\ntwo?",3,"[""a"", ""b""]"\n'
    'es,1,Uno,3,a\nsw,2,"Mbili ""m""",4,\n'
)


@target
def table(rng: Random, place: Place) -> Read:
    """A table of questions."""
    from language_neurons_alignment.sources.source import SourceOptions, read_source
    from language_neurons_alignment.sources.tables import ColumnNames

    ending = rng.choice((".csv", ".tsv", ".jsonl", ".json"))
    if ending in (".csv", ".tsv"):
        text = TABLE if ending == ".csv" else TABLE.replace(",", "\t")
        data = mutate_text(rng, text).encode("utf-8", "surrogatepass")
        data = mutate_bytes(rng, data) if rng.random() < 0.2 else data
    else:
        rows = [
            {"lang": "en", "id": 1, "instruction": "One?", "target": 3, "answers": ["a"]},
            {"lang": "es", "id": "2", "instruction": "Uno", "target": "3.5", "answers": "b"},
        ]
        data = json_bytes(rng, rows) if ending == ".json" else lines_bytes(rng, rows)
    path = place.put(place.folder / f"t{ending}", data)
    columns = ColumnNames(
        lang="lang",
        id=rng.choice((None, "id")),
        target=rng.choice((None, "target")),
        answers=rng.choice((None, "answers")),
    )
    options = SourceOptions(columns=columns, header=rng.random() < 0.9, quotes=rng.random() < 0.8)
    languages = rng.choice((None, ("en", "es")))
    return lambda: read_source(str(path), languages, options)


@target
def folder_of_text(rng: Random, place: Place) -> Read:
    """A folder with a file for each language."""
    from language_neurons_alignment.sources.folders import read_folder

    folder = place.folder / "texts"
    place._changed.setdefault(folder, None)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in rng.sample(
        (
            "en",
            "es",
            "swh_Latn",
            "zho_Hans",
            "zh-CN",
            "cmn_Hans",
            "x",
            "english",
            "und",
            "en_US.utf8",
            "a" * 200,
            ".hidden",
            "ja.dev",
        ),
        3,
    ):
        text = mutate_text(rng, "One.\nTwo.\n\nThree.\n")
        (folder / (name + rng.choice((".txt", ".txt", ".tsv", ".json", "")))).write_bytes(
            mutate_bytes(rng, text.encode("utf-8", "surrogatepass"))
            if rng.random() < 0.3
            else text.encode("utf-8", "replace")
        )
    languages, aligned = rng.choice((None, ("en",), ("zh", "sw"))), rng.random() < 0.5
    return lambda: read_folder(folder, languages, aligned=aligned)


@target
def template(rng: Random, place: Place) -> Read:
    """A template file."""
    from language_neurons_alignment.corpus.records import Record
    from language_neurons_alignment.corpus.templates import file_template

    text = mutate_text(rng, "Question: {question}\nStep by step, in {language}:\n")
    data = text.encode("utf-8", "surrogatepass")
    path = place.put(place.folder / "t.txt", mutate_bytes(rng, data) if rng.random() < 0.2 else data)
    return lambda: file_template(path).apply(Record("en", "1 + 1 {question} {", (), question="1 + {0}?"))


@target
def neuron_list(rng: Random, place: Place) -> Read:
    """A list of neurons, and what `--do` makes of it."""
    from language_neurons_alignment.store.masks import load_neurons

    if rng.random() < 0.5:
        path = place.put(place.folder / "n.json", json_bytes(rng, [[0, 1], [1, 5], [2, 23]]))
    else:
        data = mutate_text(rng, "layer,neuron\n0,1\n1, 5\n2,23\n").encode("utf-8", "surrogatepass")
        path = place.put(place.folder / "n.csv", mutate_bytes(rng, data) if rng.random() < 0.2 else data)
    return lambda: load_neurons(path)


# ── Strings of the command line ───────────────────────────────────────────────────────────────────────────────────

DO = (
    "zero each",
    "scale:2 French + German:specific",
    "add:de:1.5 de",
    "mean:fr each - en:related,general",
    "zero @n.json",
    "zero @m.pth#fr",
    "swap:en:de target",
    "diffmean:en:2 source",
    "set:0.5 en",
)


@target
def steps(rng: Random, place: Place) -> Read:
    """`--do`: parsed, written, parsed again."""
    from language_neurons_alignment._operations import Steps

    texts = [mutate_text(rng, rng.choice(DO)) for _ in range(rng.choice((1, 1, 2)))]

    def read() -> object:
        parsed = Steps.parse(texts)
        if Steps.parse(parsed.texts) != parsed:
            raise AssertionError(f"{texts!r} is written as {parsed.texts!r}, which is read as something else")
        parsed.bind(each="en", source="fr", target="de").check_bound()
        return parsed.variant(["zero each"]), parsed.needs_mask, parsed.words

    return read


TAGS = (
    "en",
    "English",
    "zho_Hans",
    "ben_Beng",
    "swh_Latn",
    "cmn",
    "zh-CN",
    "Chinese (Simplified)",
    "pt-BR",
    "sr-Latn-RS",
    "Norwegian Bokmål",
    "de-1996",
    "x-private",
    "i-klingon",
    "sl-rozaj-biske",
    "en,es,fr",
    "Französisch",
    "中文",
)


@target
def language(rng: Random, place: Place) -> Read:
    """Names and tags of languages."""
    from language_neurons_alignment.languages import code_or_name, language_code, language_name, parse_languages

    text = mutate_text(rng, rng.choice(TAGS)) if rng.random() < 0.9 else rng.choice(STRINGS)

    def read() -> object:
        with suppress(LNAError):
            parse_languages(text)
        code_or_name(text)
        code = language_code(text)
        again = language_code(code)
        if again != code:
            raise AssertionError(f"{text!r} is read as {code!r}, which is read as {again!r}")
        return language_name(code)

    return read


ANSWERS = (
    "She has 3 + 4 = 7 eggs. The answer is 7.",
    "#### 1,234",
    r"So \boxed{\frac{3}{4}} of it",
    "Die Antwort ist 1.234,50 €",
    "答案是三百五十万元。",
    "版本1.2.3万元",
    "उत्तर १२ है",
    "৪৫ টাকা",
    "Ответ: 1 234,5 рубля",
    "3/4 of 100, i.e. 75",
    "½ cup + 2½",
    "$1.5 million",
    "-5°C … −5",
    "10^6",
    "twenty-three",
    "50%",
    "1.2.3.4",
    "٣٤٫٥",
    "一億二千万",
    "2 × 3 = 6\n\nQuestion: 5?",
    "(see 3) 4",
    "คำตอบคือ ๑๒",
)


@target
def answer(rng: Random, place: Place) -> Read:
    """The number of an answer; also of long repetitive ones."""
    from language_neurons_alignment.corpus.numbers import final_number, same_number

    text = rng.choice(ANSWERS)
    for _ in range(rng.randrange(3)):
        text = mutate_text(rng, text + rng.choice((" ", "\n", "")) + rng.choice(ANSWERS))
    if rng.random() < 0.02:
        text = (
            rng.choice(
                (
                    "\n",
                    " ",
                    "1",
                    "1,",
                    "1.",
                    "(",
                    "[",
                    "=",
                    "$",
                    "{",
                    "万",
                    "1/",
                    "- ",
                    "**",
                    "\\boxed{",
                    "Q: ",
                    "1 + ",
                    "the answer is ",
                    ". 1",
                    "٣",
                    "½",
                )
            )
            * rng.choice((1000, 20_000))
            + text
        )
    code = rng.choice(
        ("en", "ru", "es", "fr", "de", "zh", "ja", "bn", "th", "sw", "ar", "hi", "pt", "xx", "de-CH", "es-MX")
    )
    return lambda: (final_number(text, code), same_number(text, "7", code))


@target
def settings(rng: Random, place: Place) -> Read:
    """Settings of every kind with values that may be impossible."""
    from language_neurons_alignment import config

    kinds = [
        value
        for name, value in vars(config).items()
        if isinstance(value, type) and hasattr(value, "__dataclass_fields__") and not name.startswith("_")
    ]
    kind = rng.choice(sorted(kinds, key=lambda one: one.__name__))
    given: dict[str, Any] = {"steps": ()} if kind.__name__ == "Steps" else {}
    for name, field in kind.__dataclass_fields__.items():
        sample = field.default
        if rng.random() < 0.3 and isinstance(sample, (int, float)) and not isinstance(sample, bool):
            given[name] = rng.choice([one for one in NUMBERS if isinstance(one, float) or isinstance(sample, int)])
    return lambda: kind(**given)


@target
def names_of_results(rng: Random, place: Place) -> Read:
    """Names of models and datasets, λ and rates in the names of folders."""
    name = mutate_text(rng, rng.choice(("small", "Llama-tiny", "a.b", "0.1-0.0")))
    shard = mutate_text(rng, "1/2")
    folder = mutate_text(rng, rng.choice(("0.1-0.0", "random-0.1-0.0-seed3", "lape-0.1", "equal-n-5")))

    def read() -> object:
        from language_neurons_alignment.config import parse_shard
        from language_neurons_alignment.store.layout import results_name

        with suppress(LNAError):
            parse_shard(shard)
        with suppress(LNAError):
            results_name("tiny", name)
        with suppress(OSError, ValueError):
            made = place.folder / "out" / "activation_masks" / "small" / folder
            os.fsencode(made)
            if made.name == folder and not made.exists():
                made.mkdir()
                place._changed.setdefault(made, None)
        place.layout.lambdas(TOP)
        layout = Layout(place.folder / "out", name, "Llama-tiny")
        return layout.mask(TOP, LAM), layout.lambdas(TOP)

    return read


# ── Model folders ─────────────────────────────────────────────────────────────────────────────────────────────────


@target
def model_config(rng: Random, place: Place) -> Read:
    """A model's config.json: its family, digest and shape; what is valid is loaded."""
    from language_neurons_alignment.engines import EngineSettings, load_engine
    from language_neurons_alignment.engines.checkpoint import layer_widths, load_config, longest_sequence
    from language_neurons_alignment.store.checkpoint import model_family, read_checkpoint

    model = place.folder / "model"
    path = model / "config.json"
    place.put(path, json_bytes(rng, place.json(path)))
    load = rng.random() < 0.1

    def read() -> object:
        read_checkpoint(str(model))
        model_family(str(model))
        layer_widths(str(model))
        longest_sequence(load_config(str(model), None), _tokenizer(place))
        if load and _small(path):
            load_engine(EngineSettings(str(model), "transformers", "float32", {"device": "cpu"})).close()
        return None

    return read


def _small(config: Path) -> bool:
    """Whether no number in the config would make a model larger than memory."""

    def numbers(value: Any) -> Iterator[float]:
        if isinstance(value, (dict, list)):
            for one in value.values() if isinstance(value, dict) else value:
                yield from numbers(one)
        elif isinstance(value, (int, float)):
            yield abs(value)

    return all(one < 20_000 for one in numbers(json.loads(config.read_text(encoding="utf-8", errors="replace"))))


@target
def tokenizer(rng: Random, place: Place) -> Read:
    """A model's tokenizer: its config, its own file, its special tokens; a valid one tokenizes."""
    from language_neurons_alignment.corpus.records import Record
    from language_neurons_alignment.corpus.templates import chat_template
    from language_neurons_alignment.engines.checkpoint import load_tokenizer

    model = place.folder / "model"
    path = model / rng.choice(("tokenizer_config.json", "tokenizer_config.json", "tokenizer.json"))
    content = place.json(path)
    if path.name == "tokenizer_config.json" and rng.random() < 0.5:
        content = {**content, "chat_template": "{{ messages[0].content }}"}
    place.put(path, json_bytes(rng, content))

    def read() -> object:
        loaded = load_tokenizer(str(model), None)
        with suppress(LNAError):
            chat_template(loaded, "model").apply(Record("en", "1 + 1?", (), question="1 + 1?"))
        return None

    return read


CHAT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CODE = (
    "{{ raise_exception('No\\x1b[31m system') }}",
    "{{ 1/0 }}",
    "{{ x.y.z }}",
    "{% for i in range(10**9) %}a{% endfor %}",
    "{{ ''.__class__.__mro__ }}",
    "{% include 'x' %}",
    "{{ messages[9].content }}",
    "{{ 'a' * 10**10 }}",
    "{{ cycler.__init__.__globals__.os.system('touch code-was-run') }}",
    "{{ strftime_now('%Y') }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ messages | tojson }}",
    "{% set x = messages.pop() %}",
)


@target
def chat(rng: Random, place: Place) -> Read:
    """A model's chat template: syntax errors, exceptions, loops, code."""
    from language_neurons_alignment.corpus.records import Record
    from language_neurons_alignment.corpus.templates import chat_template, warn_of_other_recipes

    loaded = _tokenizer(place)
    text = mutate_text(rng, CHAT)
    if rng.random() < 0.3:
        text = (
            mutate_text(rng, rng.choice(CODE))
            if rng.random() < 0.3
            else rng.choice([one for one in CODE if "10**" not in one])
        )

    def read() -> object:
        loaded.chat_template = text
        try:
            made = chat_template(loaded, "model")
            record = Record("en", "1 + 1?", (), question="1 + 1?")
            built = {"built": {"template": {"name": "chat", "model": "model"}}}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return warn_of_other_recipes([replace(made.apply(record), source=built)], loaded)
        finally:
            loaded.chat_template = None

    return read


@target
def hostile(rng: Random, place: Place) -> Read:
    """A file or a model folder that would run code, fill the memory, or lead elsewhere."""
    from language_neurons_alignment.corpus.records import read_corpus
    from language_neurons_alignment.engines.checkpoint import load_config, load_tokenizer
    from language_neurons_alignment.store.counts import load_answer_counts
    from language_neurons_alignment.store.masks import Mask

    counted, corpus = place.layout.activation("en"), place.folder / "c.json"
    readers: dict[Path, Read] = {
        counted: lambda: load_answer_counts(place.layout, LANGUAGES),
        place.layout.mask(TOP, LAM): lambda: Mask.load(place.layout.mask(TOP, LAM)),
        corpus: lambda: read_corpus(corpus),
    }
    path, kind = rng.choice(list(readers)), rng.randrange(5)
    if kind == 0:  # a pickle that runs a command
        place.put(path, pickle.dumps(_RunsCode(str(place.marker)), protocol=rng.randrange(2, 6)))
    elif kind == 1:  # a zip file that is far larger unpacked
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/data.pkl", b"\0" * rng.choice((10**6, 10**8)))
        place.put(path, buffer.getvalue())
    elif kind == 2:  # a link in a circle, to nothing, or to a folder
        place.put(path, b"")
        path.unlink()
        path.symlink_to(rng.choice((path.name, "nowhere", place.folder)))
    elif kind == 3:  # deep JSON
        depth = rng.choice((1000, 10**5, 10**6))
        place.put(corpus, rng.choice((b"[" * depth, b'{"lang":' * depth, b"[" * depth + b"]" * depth)))
        return readers[corpus]
    else:  # a model whose config names code of its own
        model = place.folder / "model"
        place.put(model / "evil.py", f"open({str(place.marker)!r}, 'w')\n".encode())
        name = rng.choice(("config.json", "tokenizer_config.json"))
        maps = {"AutoConfig": "evil.A", "AutoModelForCausalLM": "evil.B", "AutoTokenizer": ["evil.C", None]}
        extra = {"auto_map": maps, "model_type": rng.choice(("llama", "evil")), "tokenizer_class": "Evil"}
        place.put(model / name, json.dumps({**place.json(model / name), **extra}).encode())
        return lambda: (load_config(str(model), None), load_tokenizer(str(model), None))
    return readers[path]


class _RunsCode:
    """Pickled, it makes a file when it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


# ── The command line ──────────────────────────────────────────────────────────────────────────────────────────────


def _options(name: str) -> list[Any]:
    import typer

    from language_neurons_alignment.cli.app import app

    command: Any = typer.main.get_command(app)
    for part in name.split():
        command = command.commands[part]
    return command.params


VALUES = {
    "path": (
        "corpus.json",
        "questions.json",
        "table.csv",
        "public.pth",
        "tiny",
        "nowhere",
        ".",
        "out",
        "/dev/null",
        "model/config.json",
        "",
    ),
    "name": (
        "small",
        "other",
        "..",
        "a/b",
        "",
        "x" * 300,
        "Llama-tiny",
        "en",
        "en,es",
        "en,es,sw",
        "zero each",
        "auto",
        "transformers",
        "cpu",
        "cuda",
        "vllm",
        "float32",
        "float8",
        "full",
        "answer",
        "specific",
        "related,general",
        "lape",
        "random",
        "equal-n",
        "mean-difference",
        "found",
        "1/2",
        "3/2",
    ),
    "number": (
        "0",
        "1",
        "2",
        "-1",
        "0.1",
        "0.8",
        "1.5",
        "nan",
        "inf",
        "1e999",
        "-0",
        "1_0",
        "٣",
        "0x10",
        "99999999999999999999",
        " 1",
        "1e-320",
    ),
}


@target
def command_line(rng: Random, place: Place) -> Read:
    """A command line: a valid one with options changed, or options at random."""
    name = rng.choice((*COMMANDS, "dataset check", "dataset templates"))
    known = COMMANDS.get(name)
    argv = list(known.argv) if known else name.split()
    if rng.random() < 0.2:
        argv = argv[: 2 if argv[0] == "dataset" else 1]
    path = argv[:2] if argv[0] == "dataset" else argv[:1]
    options = list(_options(" ".join(path)))
    for _ in range(rng.choice((1, 1, 2, 3))):
        pool = rng.choice((*VALUES.values(), VALUES["number"], STRINGS))
        value = rng.choice(pool).replace("\x00", "").encode("utf-8", "replace").decode()
        kind = rng.randrange(6)
        if kind <= 2 and options:
            option = rng.choice(options)
            flag = rng.choice(option.opts)
            if flag in ("-o", "--out", "--output", "--root"):
                value = rng.choice(("out", "fuzz-o", "corpus.json", "", "nowhere/x", "x" * 300))
            argv += [flag] if getattr(option, "is_flag", False) else [flag, value]
        elif kind == 3 and len(argv) > len(path):
            at = rng.randrange(len(path), len(argv))
            if argv[max(at - 1, 0)] not in ("-o", "--root", "--out"):
                argv[at] = mutate_text(rng, argv[at]).replace("\x00", "")
        elif kind == 4 and len(argv) > len(path):
            del argv[rng.randrange(len(path), len(argv))]
        else:
            argv.insert(rng.randrange(len(path), len(argv) + 1), value)
    argv = [one.encode("utf-8", "replace").decode()[:400] for one in argv]
    place._changed.setdefault(place.folder / "fuzz-o", None)
    return CommandLine(argv, place)


@dataclass
class CommandLine:
    """A call of the program in this process; a crash of it is an exception of its own kind."""

    argv: list[str]
    place: Place

    def __post_init__(self) -> None:
        self.before = self.place.signature()

    def __call__(self) -> object:
        from language_neurons_alignment import cli

        out, err = StringIO(), StringIO()
        before = sys.argv
        sys.argv = ["lna", *self.argv]
        code: Any = 0
        try:
            with redirect_stdout(out), redirect_stderr(err):
                cli.main()
        except SystemExit as ended:
            code = ended.code or 0
        except LNAError as error:  # --debug shows its traceback
            if "--debug" not in self.argv:
                raise AssertionError(f"{error!r} left the program") from error
            code = 1
        finally:
            sys.argv = before
        if code not in (0, 1, 2, 130):
            raise AssertionError(f"exit code {code}")
        check_line(err.getvalue())
        return code

    def after(self) -> None:
        """Put the results back, whatever the command wrote."""
        out = self.place.folder / "out"
        if out.is_symlink() or out.is_file():
            out.unlink()
        if self.place.signature() != self.before:
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(self.place.pristine, out)


def check_line(text: str) -> None:
    """What reaches the terminal has no control characters beside line breaks and what a progress bar needs."""
    bad = sorted(
        {
            one
            for one in text
            if (ord(one) < 32 and one not in "\n\r\t") or 127 <= ord(one) < 160 or "\ud800" <= one <= "\udfff"
        }
    )
    if bad and "\x1b[A" not in text:
        raise AssertionError(f"control characters {bad!r} reach the terminal: {text[-300:]!r}")


# ── Running them ──────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `Hang` after so many seconds of computing, or six times as many of waiting: the cores may be busy."""

    def ring(*_: object) -> None:
        raise Hang

    timers = {signal.ITIMER_PROF: (signal.SIGPROF, seconds), signal.ITIMER_REAL: (signal.SIGALRM, 6 * seconds)}
    for timer, (number, limit) in timers.items():
        signal.signal(number, ring)
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for timer, (number, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, signal.SIG_DFL)


@dataclass(frozen=True)
class Finding:
    """An input that did harm: the column of the table, where it happened, and what was said."""

    column: str
    where: str
    message: str


def try_input(seed: int, name: str, number: int, place: Place) -> tuple[Finding | None, str]:
    """Make input `number` of a target, read it, and say what is wrong; and whether it was accepted or refused."""
    rng = Random(f"{seed}/{name}/{number}")
    read = TARGETS[name](rng, place)
    before = peak_memory()
    found, ended = None, "accepted"
    try:
        with time_limit(SLOWEST * (4 if name in ("command line", "corpus check") else 1)):
            read()
    except LNAError as error:
        ended = "refused"
        if not str(error).strip():
            found = Finding("tracebacks", _where(error), "an error without a message")
    except Hang as error:
        found = Finding("hangs", _where(error), f"no end after {SLOWEST:g} s")
    except AssertionError as error:
        if "the model was loaded although" in str(error):
            ended = "refused"
        else:
            found = Finding("tracebacks", _where(error), str(error)[:300])
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        found = Finding("tracebacks", _where(error), f"{type(error).__name__}: {str(error)[:200]}")
    if found is None and (grown := peak_memory() - before) > MOST_MEMORY:
        found = Finding("memory", name, f"{grown} MB more")
    if found is None and place.marker.exists():
        found = Finding("tracebacks", name, "code in the input was run")
        place.marker.unlink()
    if isinstance(read, CommandLine):
        read.after()
        if found is not None:
            found = Finding(found.column, found.where, f"{found.message} | lna {' '.join(read.argv)!r}"[:700])
    return found, ended


def _where(error: BaseException) -> str:
    """The last line of the package in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [one for one in frames if "language_neurons_alignment" in one.filename] or frames
    last = ours[-1] if ours else None
    place = "" if last is None else f"{last.filename.rpartition('language_neurons_alignment/')[2]}:{last.lineno}"
    return f"{place} {type(error).__name__}"

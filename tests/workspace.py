"""What tests of files, steps and commands share: a small corpus, made-up counts, sources that must not be asked."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from language_neurons_alignment.core.counts import LanguageCounts, SpanCounts
from language_neurons_alignment.engines import EngineSettings, EngineSource
from language_neurons_alignment.store import files as atomic
from language_neurons_alignment.store.counts import save_counts
from language_neurons_alignment.store.layout import Layout

TEN = ("en", "ru", "es", "fr", "de", "zh", "ja", "bn", "th", "sw")

SAYINGS = {
    "en": ("The house has two doors.", " Two doors, so two keys."),
    "ru": ("В доме две двери.", " Две двери, значит, два ключа."),
    "es": ("La casa tiene dos puertas.", " Dos puertas, dos llaves."),
    "fr": ("La maison a deux portes.", " Deux portes, donc deux clés."),
    "de": ("Das Haus hat zwei Türen.", " Zwei Türen, also zwei Schlüssel."),
    "zh": ("房子有两扇门。", "两扇门,所以两把钥匙。"),
    "ja": ("家にはドアが二つあります。", "ドアが二つなので、鍵も二つです。"),
    "bn": ("বাড়িটির দুটি দরজা আছে।", " দুটি দরজা, তাই দুটি চাবি।"),
    "th": ("บ้านมีสองประตู", " สองประตู จึงมีสองกุญแจ"),
    "sw": ("Nyumba ina milango miwili.", " Milango miwili, funguo mbili."),
}


def small_records(languages: Iterable[str] = TEN, *, questions: int = 3) -> list[dict[str, Any]]:
    """A corpus in the documented schema: a few short questions in each language, two answers to each."""
    return [
        {
            "lang": language,
            "instruction": f"{number}. {SAYINGS[language][0]}",
            "answers": [{"generated": SAYINGS[language][1]}, {"generated": SAYINGS[language][1] + f" {number}!"}],
        }
        for language in languages
        for number in range(1, questions + 1)
    ]


def write_corpus(path: Path, records: Sequence[dict[str, Any]] | None = None) -> Path:
    """A corpus file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(small_records() if records is None else records, ensure_ascii=False), encoding="utf-8")
    return path


def made_up_counts(shape: tuple[int, int] = (3, 40), *, tokens: int = 1000, seed: int = 0) -> LanguageCounts:
    """Counts that could be real: the prefix's share lies inside the full one's."""
    generator = torch.Generator().manual_seed(seed)
    full = torch.randint(0, tokens + 1, shape, generator=generator)
    prefix = torch.minimum(torch.randint(0, tokens // 4 + 1, shape, generator=generator), full)
    prefix = torch.maximum(prefix, full - (tokens - tokens // 4))
    return LanguageCounts(SpanCounts(tokens, full), SpanCounts(tokens // 4, prefix))


META = {"config_hash": "c1", "weights_hash": "w1", "corpus_hash": "0f", "version": "0"}


def store_counts(layout: Layout, languages: Sequence[str] = TEN, shape: tuple[int, int] = (3, 40), **meta: str) -> None:
    """Made-up counts of several languages on disk."""
    for seed, language in enumerate(languages):
        save_counts(layout, language, made_up_counts(shape, seed=seed), {**META, **meta, "language": language})


class ForbiddenSource(EngineSource):
    """A source whose model must not be asked for."""

    def __init__(self) -> None:
        super().__init__(EngineSettings("nowhere"))

    def __call__(self) -> Any:
        raise AssertionError("the model was loaded although nothing is to be computed")


def contents(root: Path) -> dict[str, bytes]:
    """Every file under a folder, byte for byte; lock files aside."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def change_tokenizer(model: Path) -> None:
    """Change what a tokenizer says of a special token, and nothing that a text here meets."""
    path = model / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["added_tokens"][-1]["rstrip"] = not content["added_tokens"][-1]["rstrip"]
    path.write_text(json.dumps(content), encoding="utf-8")


def stored_cells(path: Path) -> list[dict[str, Any]]:
    """The cells in a file of cells, in its order."""
    return [one for one in map(json.loads, path.read_bytes().splitlines()) if "cell" in one]


def change_cells(path: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Change each line of a file of cells, what cells are made from among them; None removes it."""
    lines = [change(json.loads(line)) for line in path.read_bytes().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines if line is not None))


def leftovers(root: Path) -> list[str]:
    """Temporary files that somebody forgot."""
    return [str(path) for path in root.rglob("*.part")]


def killed_at(name: str, *arguments: object) -> int:
    """Call the program in a process of its own, which gets SIGKILL where it would rename a file to this name.

    Returned is its exit code, −9 where it was killed. A fork has everything loaded, so a kill takes milliseconds.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    rename = os.replace

    def replace(source: Any, target: Any, **named: Any) -> None:
        if Path(target).name == name:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target, **named)

    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            sys.stdout = sys.stderr = nowhere
            sys.argv = ["lna", *map(str, arguments)]
            os.replace = replace
            from language_neurons_alignment.cli import main

            main()
    finally:
        os._exit(0)


@contextmanager
def full_disk(function: str) -> Iterator[None]:
    """While the context is open, `os.fsync` or `os.replace` says that the disk is full."""

    def refuse(*_arguments: object, **_named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with patch.object(atomic.os, function, refuse):
        yield


@contextmanager
def silent_hooks() -> Iterator[None]:
    """While the context is open, the transformers engine's hooks are never called, as under a fused kernel."""
    with patch("language_neurons_alignment.engines.transformers.interventions.hooked", lambda _hooks: nullcontext()):
        yield
